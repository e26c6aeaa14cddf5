"""``python -m fuzz.make_corpus [DIRECTORY]``: writes the seeds of every target.

Files that are there and that this does not make, such as inputs that a fuzzer found, stay.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fuzz import format_seeds, text_seeds

MAKERS = {**format_seeds.MAKERS, **text_seeds.MAKERS}


def write(directory: Path) -> int:
    """Writes all seeds below a directory; returns how many."""
    count = 0
    for name, maker in MAKERS.items():
        place = directory / name
        place.mkdir(parents=True, exist_ok=True)
        for case, data in maker().items():
            (place / case).write_bytes(data)
            count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "corpus"
    print(f"{write(target)} seeds in {target}")
