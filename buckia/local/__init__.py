"""The local side: the user's tree, what is remembered of it, and safe writes to it."""
