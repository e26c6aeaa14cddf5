"""The vault: records, packs and trees of a folder, on a bucket that knows nothing of them."""
