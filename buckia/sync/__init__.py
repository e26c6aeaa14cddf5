"""The bucket adapters. Everything above sees `base` only; `factory` makes the one that a configuration names."""
