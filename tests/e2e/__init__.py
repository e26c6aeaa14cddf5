"""Runs on real accounts; see `docs/developer/e2e.md`."""
