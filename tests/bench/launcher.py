"""Run one command and write what it took: ``python -I -S launcher.py REPORT COMMAND...``.

A process of its own, because Linux counts the memory of the process that starts another one into the peak of the
started one: from here that is a bare interpreter. The numbers are of the command and all its children.
"""

import json
import os
import sys
import time


def main() -> int:
    """Start the command, wait for it, write the report; the exit code is the command's."""
    report, command = sys.argv[1], sys.argv[2:]
    start = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    with open(report, "w", encoding="utf-8") as file:
        json.dump({"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024}, file)
    return os.waitstatus_to_exitcode(status) & 255


if __name__ == "__main__":
    sys.exit(main())
