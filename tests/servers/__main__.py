"""Starts a server for use by hand, until Ctrl-C::

python -m tests.servers s3
python -m tests.servers bunny
python -m tests.servers b2
python -m tests.servers proxy http://127.0.0.1:8333 --every 3 --fault reset --fault 503
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.servers.b2 import B2Server
from tests.servers.bunny import BunnyServer
from tests.servers.proxy import FLIPPED, LOST, RESET, TRUNCATED, Fault, FaultProxy, When, drip, error, latency
from tests.servers.seaweed import SeaweedServer

_FAULTS = {
    "reset": RESET,
    "lost": LOST,
    "truncated": TRUNCATED,
    "flipped": FLIPPED,
    "drip": drip(seconds=0.05),
    "latency": latency(0.05),
}


@contextmanager
def _s3(_: argparse.Namespace) -> Iterator[str]:
    with SeaweedServer() as server:
        bucket = server.fresh_bucket()
        yield _exports(bucket.environment) + f"# s3://{bucket.name}/FOLDER?endpoint={bucket.endpoint}"


@contextmanager
def _bunny(_: argparse.Namespace) -> Iterator[str]:
    with BunnyServer("notes") as server:
        zone = server.first
        yield _exports(zone.environment) + (
            f"export BUNNY_STORAGE_READONLY={zone.readonly_password}  # a password for reading only\n"
            f"export BUNNY_SECURITY_KEY={zone.security_key}  # of signed URLs\n"
            "cat > .buckia <<'END'\n"
            "notes:\n"
            "  provider: bunny\n"
            f"  bucket_name: {zone.zone}\n"
            f"  domain: {zone.storage_url}\n"
            f"  storage_api_key: {zone.password}\n"
            f"  api_key: {zone.account_key}\n"
            f"  pull_zone: {zone.pull_zone_name}\n"
            f"  cdn_url: {zone.cdn_url}\n"
            f"  provider_settings: {{api_url: '{zone.core_url}'}}\n"
            "END"
        )


@contextmanager
def _b2(_: argparse.Namespace) -> Iterator[str]:
    with B2Server() as server:
        bucket = server.fresh_bucket("notes")
        yield _exports(bucket.environment) + (
            f"cat > .buckia <<'END'\nnotes: {{provider: b2, bucket_name: {bucket.name}, endpoint: '{server.url}'}}\nEND"
        )


@contextmanager
def _proxy(options: argparse.Namespace) -> Iterator[str]:
    with FaultProxy(options.url) as proxy:
        if options.fault:
            proxy.inject(When(every=options.every, burst=options.burst), *options.fault)
        yield f"# {proxy.url} stands for {options.url}"
        print(f"{proxy.counts.total} requests, faults: {dict(proxy.made)}", file=sys.stderr)


def _fault(text: str) -> Fault:
    if text.isdecimal() and 400 <= int(text) <= 599:
        return error(int(text))
    if text not in _FAULTS:
        raise argparse.ArgumentTypeError(f"a fault is a status such as 503, or {', '.join(_FAULTS)}")
    return _FAULTS[text]


def _proxy_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="the server behind it: http://HOST:PORT")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="each N-th request fails (3)")
    parser.add_argument("--burst", type=int, default=1, metavar="N", help="so many in a row (1)")
    parser.add_argument("--fault", type=_fault, action="append", help=f"a status, or {', '.join(_FAULTS)}; in turn")


@dataclass(frozen=True, slots=True)
class _Command:
    start: Callable[[argparse.Namespace], AbstractContextManager[str]]
    """Runs the server, and yields what to print."""
    help: str
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None


_COMMANDS = {
    "s3": _Command(_s3, "a real S3 server, SeaweedFS"),
    "b2": _Command(_b2, "B2's native protocol, in front of Backblaze's simulator"),
    "bunny": _Command(_bunny, "Bunny: storage, Core API, CDN"),
    "proxy": _Command(_proxy, "a proxy that makes faults, in front of any other", _proxy_arguments),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers", description="Runs a server until Ctrl-C.")
    names = parser.add_subparsers(required=True, metavar="SERVER")
    for name, command in _COMMANDS.items():
        own = names.add_parser(name, help=command.help)
        own.set_defaults(command=command)
        command.arguments(own)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with options.command.start(options) as text:
        print(text, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
    return 0


def _exports(environment: dict[str, str]) -> str:
    return "".join(f"export {name}={value}\n" for name, value in environment.items())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
