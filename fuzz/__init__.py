"""Fuzzing of everything that reads bytes or text from elsewhere. See ``README.md``."""
