"""``python -m fuzz.run TARGET [libFuzzer arguments]``: coverage-guided fuzzing of one target with atheris.

New inputs go to a directory of their own unless another corpus is named; ``fuzz/corpus/TARGET`` is read as seeds.
"""

from __future__ import annotations

import random
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

_INSTRUMENTED = ["buckia", "msgpack", "tomllib", "yaml"]
_NEEDS_ATHERIS = "Coverage-guided fuzzing needs atheris: pip install atheris. Without it: python -m fuzz.smoke"


def main(arguments: list[str]) -> int:
    """Does not return when the fuzzer starts: libFuzzer ends the process."""
    try:
        atheris: Any = import_module("atheris")
    except ImportError:
        print(_NEEDS_ATHERIS, file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from fuzz.mutate import mutate
        from fuzz.targets import TARGETS
    name = arguments[0] if arguments else ""
    if name not in TARGETS:
        print(f"usage: python -m fuzz.run TARGET [libFuzzer arguments]\ntargets: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    target = TARGETS[name]

    def one_input(data: bytes) -> None:
        target.accepts(data)

    def change(data: bytes, size_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(data, size_max))
        return mutate(chance, target, data, data)[:size_max]

    options = arguments[1:]
    if all(option.startswith("-") for option in options):
        grown = Path(tempfile.gettempdir()) / "buckia-fuzz" / f"corpus-{name}"
        grown.mkdir(parents=True, exist_ok=True)
        options += [str(grown), str(Path(__file__).parent / "corpus" / name)]
    command = [sys.argv[0], f"-max_len={target.size_max}", "-timeout=10", "-rss_limit_mb=2048", *options]
    atheris.Setup(command, one_input, custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
