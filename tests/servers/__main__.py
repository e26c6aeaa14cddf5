"""Starts a server for use by hand: ``python -m tests.servers s3``. It runs until Ctrl-C."""

from __future__ import annotations

import signal
import sys

from tests.servers.seaweed import SeaweedServer


def main(arguments: list[str]) -> int:
    if arguments != ["s3"]:
        print("usage: python -m tests.servers s3", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with SeaweedServer() as server:
        bucket = server.fresh_bucket()
        print(f"export AWS_ACCESS_KEY_ID={bucket.access_key_id}")
        print(f"export AWS_SECRET_ACCESS_KEY={bucket.secret_access_key}")
        print(f"# s3://{bucket.name}/FOLDER?endpoint={bucket.endpoint}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
