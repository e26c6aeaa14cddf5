"""The Edge Storage API: one port for all zones, ``/ZONE/PATH``, the zone's password in the header ``AccessKey``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote_to_bytes

from tests.servers.bunny.options import BunnyOptions
from tests.servers.bunny.zone import Content, Directory, Path, StoredFile, digest
from tests.servers.http import Answer, HeaderList, HttpServer, Request, part_of

_PATH_CHARACTERS_MAX = 6000
_BUSY = "Unable to process request"
_NOT_FOUND = "Object Not Found"
_UNSAFE = re.compile(r'[\\"<>#%?\x00-\x1f\x7f]|^[ ~.\r\n\t\v]|[ .\r\n\t\v]$')
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


class Zone(Protocol):
    """What the storage host knows of a zone."""

    @property
    def zone(self) -> str: ...
    @property
    def zone_id(self) -> int: ...
    @property
    def user_id(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def readonly_password(self) -> str: ...
    @property
    def content(self) -> Content: ...


class _Refused(Exception):
    """Ends a request with a status and a message."""

    def __init__(self, status: int, message: str, headers: HeaderList = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


class StorageHost(HttpServer):
    """One regional storage host. A GET of a directory is counted as ``LIST``."""

    def __init__(self, zones: Mapping[str, Zone], options: Callable[[], BunnyOptions]) -> None:
        self._zones = zones
        self._options = options
        self._busy: Counter[str] = Counter()
        super().__init__()

    def kind(self, request: Request) -> str:
        """LIST, or the method."""
        return "LIST" if request.method == "GET" and request.path.endswith("/") else request.method

    @contextmanager
    def admitted(self, request: Request) -> Iterator[Answer | None]:
        """Applies the limits on requests at a time."""
        limits = self._options().limits
        kind = self.kind(request)
        zone = "/" + request.path.strip("/").partition("/")[0]
        most = {"LIST": limits.list, "DELETE": limits.delete}.get(kind)
        held = ("*", zone, kind)
        with self._lock:
            self._busy.update(held)
            crowded = self._busy["*"] > limits.connections or self._busy[zone] > limits.zone
            busy = most is not None and self._busy[kind] > most
        try:
            if crowded:
                after = self._options().retry_after
                headers = [] if after is None else [("Retry-After", str(after))]
                yield self._error(_Refused(429, "Too Many Requests", headers))
            elif busy:
                yield self._error(_Refused(400, _BUSY))
            else:
                yield None
        finally:
            with self._lock:
                self._busy.subtract(held)

    def answer(self, request: Request) -> Answer:
        """Does what the request asks, if its key permits."""
        try:
            return self._checked(request)
        except _Refused as refused:
            return self._error(refused)

    def _checked(self, request: Request) -> Answer:
        name, _, rest = request.path.lstrip("/").partition("/")
        zone = self._zones.get(name)
        key = request.header("AccessKey")
        writes = request.method not in ("GET", "HEAD", "DESCRIBE")
        if zone is None or key not in ((zone.password,) if writes else (zone.password, zone.readonly_password)):
            raise _Refused(401, "Unauthorized")
        work = {
            "GET": self._get,
            "HEAD": self._head,
            "PUT": self._put,
            "DELETE": self._delete,
            "DESCRIBE": self._describe,
        }.get(request.method)
        if work is None:
            raise _Refused(405, "Method Not Allowed")
        # "GET /zone" is no directory: what follows the zone decides.
        is_directory = request.path.endswith("/")
        path = _decoded(rest)
        if not path and not is_directory:
            raise _Refused(404, _NOT_FOUND)
        return work(zone, path, is_directory, request)

    def _get(self, zone: Zone, path: Path, is_directory: bool, request: Request) -> Answer:
        if is_directory:
            return self._list(zone, path)
        file = _existing(zone, path)
        answer = part_of(file.data, request.header("Range"), [("Content-Type", file.content_type)])
        if answer.status == 416:
            raise _Refused(416, "Requested Range Not Satisfiable", answer.headers)
        return answer

    def _head(self, zone: Zone, path: Path, is_directory: bool, _: Request) -> Answer:
        if not self._options().head or is_directory:
            raise _Refused(405, "Method Not Allowed")
        file = _existing(zone, path)
        return Answer(200, headers=[("Content-Type", file.content_type)], length=len(file.data))

    def _list(self, zone: Zone, path: Path) -> Answer:
        found = zone.content.directory(path)
        if found is None:
            if self._options().missing_directory == 404:
                raise _Refused(404, _NOT_FOUND)
            return _json([])
        entries = [self._entry(zone, (*path, name), below) for name, below in found.directories.items()]
        entries += [self._entry(zone, (*path, name), file) for name, file in found.files.items()]
        # The order is not promised; nobody is to get used to one.
        return _json(entries[::-1])

    def _describe(self, zone: Zone, path: Path, is_directory: bool, _: Request) -> Answer:
        options = self._options()
        if options.describe != 200:
            raise _Refused(options.describe, "Method Not Allowed")
        found: StoredFile | Directory | None = None
        if not is_directory:
            found = zone.content.get(path)
        if found is None and (is_directory or options.describe_directories):
            found = zone.content.directory(path)
        if found is None:
            raise _Refused(404, _NOT_FOUND)
        return _json(self._entry(zone, path, found))

    def _put(self, zone: Zone, path: Path, is_directory: bool, request: Request) -> Answer:
        options = self._options()
        if request.chunked and not options.chunked:
            raise _Refused(411, "Length Required")
        _check_names(path, options)
        if is_directory:
            if not path or not zone.content.make_directory(path):
                raise _Refused(400, "Directory already exists.")
            return _said(201, "Directory created.")
        sent_type = request.header("Content-Type") or ""
        if sent_type.partition(";")[0].strip().lower() in _FORMS:
            raise _Refused(401, "Unauthorized")
        real = digest(request.body)
        stated = request.header("Checksum")
        if stated and options.checksum_any_case:
            stated = stated.upper()
        if stated and stated != real:
            if options.mismatch == "reject":
                raise _Refused(400, "Checksum and file contents mismatched.")
        else:
            kept_type = request.header("Override-Content-Type") or (sent_type if options.content_type else "")
            zone.content.put(path, request.body, real, kept_type)
        return _said(201, "File uploaded.")

    def _delete(self, zone: Zone, path: Path, is_directory: bool, request: Request) -> Answer:
        if not path:
            query = parse_qs(request.query)
            allowed = (request.header("allowRootDelete") or query.get("allowRootDelete", [""])[0]).lower()
            if allowed != "true":
                raise _Refused(400, "Deleting the root directory is not allowed.")
            zone.content.delete_directory(())
            return _said(200, "Directory deleted successfuly.")
        if not is_directory and zone.content.delete_file(path):
            return _said(200, "File deleted successfuly.")
        if (is_directory or self._options().delete_directories) and zone.content.delete_directory(path):
            return _said(200, "Directory deleted successfuly.")
        raise _Refused(404, _NOT_FOUND)

    def _entry(self, zone: Zone, path: Path, found: StoredFile | Directory) -> dict[str, Any]:
        """One object of a listing, or what DESCRIBE answers."""
        is_directory = isinstance(found, Directory)
        changed = found.created if isinstance(found, Directory) else found.changed
        return {
            "Guid": found.guid,
            "StorageZoneName": zone.zone,
            "Path": "/" + "".join(f"{name}/" for name in (zone.zone, *path[:-1])),
            "ObjectName": path[-1] if path else "",
            "Length": 0 if isinstance(found, Directory) else len(found.data),
            "LastChanged": self._time(changed),
            "ServerId": 0 if is_directory else 24,
            "ArrayNumber": 0,
            "IsDirectory": is_directory,
            "UserId": zone.user_id,
            "ContentType": "",
            "DateCreated": self._time(found.created),
            "StorageZoneId": zone.zone_id,
            "Checksum": None if isinstance(found, Directory) else found.checksum,
            "ReplicatedZones": self._options().replicated_zones,
        }

    def _time(self, seconds: float) -> str:
        form = self._options().times
        moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
        if form == "milliseconds":
            return moment.isoformat(timespec="milliseconds").rstrip("0").rstrip(".")
        return moment.isoformat(timespec="seconds") + ("Z" if form == "zoned" else "")

    def _error(self, refused: _Refused) -> Answer:
        form = self._options().errors
        if form == "json":
            return _said(refused.status, refused.message, refused.headers)
        body = refused.message.encode() if form == "text" else b""
        return Answer(refused.status, body, [*refused.headers, ("Content-Type", "text/plain")])


def _existing(zone: Zone, path: Path) -> StoredFile:
    file = zone.content.get(path)
    if file is None:
        raise _Refused(404, _NOT_FOUND)
    return file


def _decoded(text: str) -> Path:
    """Components of a path as it is in a URL; doubled slashes count as one."""
    path = []
    for part in text.split("/"):
        if part:
            try:
                path.append(unquote_to_bytes(part).decode())
            except UnicodeDecodeError:
                raise _Refused(400, "Invalid path.") from None
    return tuple(path)


def _check_names(path: Path, options: BunnyOptions) -> None:
    bad = any(name != name.strip(" ") or name in (".", "..") or "/" in name or "\0" in name for name in path)
    if options.unsafe_names == "refuse":
        bad = bad or any(_UNSAFE.search(name) for name in path)
    if bad or len("/".join(path)) > _PATH_CHARACTERS_MAX:
        raise _Refused(400, "Invalid path.")


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value, ensure_ascii=False).encode(), [("Content-Type", "application/json")])


def _said(status: int, message: str, headers: HeaderList = ()) -> Answer:
    body = json.dumps({"HttpCode": status, "Message": message}).encode()
    return Answer(status, body, [*headers, ("Content-Type", "application/json")])
