"""The format: bytes and values in, bytes and values out. No clock, no randomness, no I/O."""
