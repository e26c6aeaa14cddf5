"""``python -m tests.e2e [--delete]``: what runs on real accounts have left there, and how to remove it."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from tests.e2e.accounts import from_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """List, or delete, the objects of earlier runs at all accounts that the environment names; 1 if some are left."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--delete", action="store_true", help="delete them; no run may be under way")
    asked = parser.parse_args(arguments)
    accounts = from_environment()
    if not accounts:
        print("The environment names no account; see docs/developer/e2e.md.")
    remaining = 0
    for account in accounts:
        keys = account.left()
        for folder, number in Counter("/".join(key.split("/")[:2]) for key in keys).items():
            print(f"{account.provider}: {folder}: {number} objects")
        if asked.delete and keys:
            account.delete(keys)
            print(f"{account.provider}: deleted {len(keys)} objects")
            keys = account.left()
        remaining += len(keys)
    return 1 if remaining else 0


if __name__ == "__main__":
    sys.exit(main())
