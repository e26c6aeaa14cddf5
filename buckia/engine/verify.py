"""Verify: is everything that any snapshot needs there, and with ``read_data``, is every byte what it was.

Nothing is written to the bucket. What is wrong becomes `Damage`, and the rest is checked all the same; only a bucket
that cannot be read, or that shows an older state or a fork, raises. Paths are looked for where there is damage only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from buckia.core.directory import referenced
from buckia.core.ids import BlobId, BlobType, DeviceId, ObjectId
from buckia.core.index import Location
from buckia.core.manifest import Subtree, decode_directory, summarise
from buckia.core.record import (
    Named,
    PackRef,
    Snapshot,
    check_folder,
    decode_record,
    folder_key,
    pack_key,
    parse_pack_key,
    parse_record_key,
    parse_segment_key,
    parse_tip_key,
    record_key,
    tip_key,
)
from buckia.engine.check import (
    Report,
    check_decoded,
    check_pack,
    check_record,
    check_segment,
    check_tip,
    gone,
)
from buckia.engine.context import Progress
from buckia.engine.history import in_causal_order, short
from buckia.engine.impact import Impact
from buckia.engine.work import Executor, in_order
from buckia.errors import (
    BuckiaError,
    ForkError,
    FormatError,
    IntegrityError,
    ObjectNotFound,
    RangeNotSatisfiable,
    RollbackError,
    UnsupportedFormatError,
)
from buckia.events import Damage, VerifyResult
from buckia.store.journal import Linked
from buckia.store.repository import Repository, snapshot_tree

READ_AHEAD_BYTES = 32 << 20
"""Packs are read whole; the next two are enough to keep the checkers busy."""
_BLOBS_PER_STEP = 512
"""The trees are walked in steps of so many blobs, between which packs that were read are taken in."""

_OBJECTS_AHEAD = 3
"""So many objects are checked at a time; as many again as the transfer's budget allows are being read."""

_MISNAMED = "it names a record of another device or number than it says"

Check = Callable[[bytes], Report]
_Data = bytes | BuckiaError
"""What came, or why nothing did."""


def verify(repository: Repository, executor: Executor, *, read_data: bool, progress: Progress) -> VerifyResult:
    """Check a folder that was opened; records that are new in the bucket are learned here.

    Raises RollbackError, ForkError, UnsupportedFormatError, and what the bucket raises; all else is in the result.
    """
    repository.transfer.budget_bytes = READ_AHEAD_BYTES
    return _Verification(repository, executor, progress, read_data).run()


@dataclass(slots=True)
class _Finding:
    kind: str
    reason: str
    snapshots: set[ObjectId] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Object:
    """An object to read whole, and what it must be."""

    key: str
    size: int
    check: Check
    pack: ObjectId | None = None


class _Verification:
    """One run. The steps are called in the order in which they stand here."""

    def __init__(self, repository: Repository, executor: Executor, progress: Progress, read_data: bool) -> None:
        self._repo = repository
        self._executor = executor
        self._progress = progress
        self._result = VerifyResult(read_data=read_data)
        self._found: dict[str, _Finding] = {}
        self._listed: dict[str, int] = {}
        self._records: dict[ObjectId, Linked] = {}
        self._snapshots: list[Linked] = []
        self._packs: dict[ObjectId, PackRef] = {}
        self._lost: dict[ObjectId, frozenset[BlobId] | None] = {}
        self._objects: list[_Object] = []
        self._broken: list[tuple[Linked, BuckiaError]] = []
        self._suspect = False

    def run(self) -> VerifyResult:
        """All steps."""
        self._list()
        self._follow_records()
        self._check_presence()
        if self._load_index():
            self._check_contents()
            if self._lost or self._broken or self._suspect:
                self._trace()
        self._summarise()
        self._progress.finish("verifying")
        return self._result

    def _note(self, key: str, kind: str, reason: str) -> _Finding:
        """Note damage of an object; the first that is found wrong with it stands."""
        return self._found.setdefault(key, _Finding(kind, reason))

    def _key(self, relative: str) -> str:
        return self._repo.prefix + relative

    # ---- what is there

    def _list(self) -> None:
        """One listing of everything, and what in it is none of ours."""
        for info in self._repo.transfer.list(self._repo.prefix):
            relative = info.key[len(self._repo.prefix) :]
            parsers = (parse_pack_key, parse_record_key, parse_tip_key, parse_segment_key)
            if relative == folder_key() or any(parse(relative) is not None for parse in parsers):
                self._listed[info.key] = info.size
            else:
                self._result.foreign.append(info.key)
        if not self._is_there(self._key(folder_key())):
            self._note(self._key(folder_key()), "missing", "it says what all the others are")

    def _is_there(self, key: str) -> bool:
        """Whether an object exists. A listing may omit what does."""
        if key not in self._listed:
            try:
                self._listed[key] = self._repo.transfer.stat(key).size
            except ObjectNotFound:
                return False
        return True

    # ---- records

    def _follow_records(self) -> None:
        """Every record that is named: those known here and, where they are incomplete, those in the bucket."""
        failure: BuckiaError | None = None
        try:
            self._repo.refresh()
        except (RollbackError, ForkError, UnsupportedFormatError):
            raise
        except (IntegrityError, FormatError) as error:
            failure = error
        known = {linked.id: linked for linked in self._repo.journal.records()}
        known.update((linked.id, linked) for linked in self._unlinked(known))
        self._follow(known)
        for linked in self._records.values():
            self._check_knowledge(linked)
        for tip in self._tips():
            if self._is_misnamed(tip):
                self._note(self._key(tip_key(*tip)), "malformed", _MISNAMED)
        if failure is not None and not self._found:
            self._note(self._key("journal/"), "malformed", failure.message)
        ordered = in_causal_order(self._records.values())
        self._snapshots = [linked for linked in ordered if isinstance(linked.record.body, Snapshot)]

    def _unlinked(self, known: dict[ObjectId, Linked]) -> Iterator[Linked]:
        """Records in the bucket that are not known here, as far as they are whole: usually none."""
        wanted: list[_Object] = []
        named: dict[str, Named] = {}
        for record in self._listed_records():
            if record[2] not in known:
                relative = record_key(*record)
                key = self._key(relative)
                named[key] = record
                wanted.append(_Object(key, self._listed[key], self._other_check(relative)))
        for item, data, report in map(self._checked, self._read(wanted)):
            if report.kind:
                self._note(item.key, report.kind, report.reason)
            elif not isinstance(data, BuckiaError):
                yield Linked(named[item.key][2], decode_record(data), data)

    def _follow(self, known: dict[ObjectId, Linked]) -> None:
        """All records that are named, from the tips on; one that is whole is looked for where it belongs."""
        wanted: list[Named] = [(device, *tip) for device, tip in self._repo.ledger.tips().items()]
        wanted += [*self._tips(), *self._without_tips()]
        done: set[ObjectId] = set()
        while wanted:
            device, seq, name = wanted.pop()
            if name in done:
                continue
            done.add(name)
            linked = known.get(name)
            if linked is not None:
                device, seq = linked.record.device, linked.record.seq
                self._records[name] = linked
                wanted += linked.record.named
            else:
                wanted += [before for before in self._listed_records() if before[0] == device and before[1] < seq]
            key = self._key(record_key(device, seq, name))
            if not self._is_there(key):
                self._note(key, "missing", "the history names it").snapshots.update(_if_snapshot(linked))
            elif linked is not None and self._listed[key] != len(linked.data):
                reason = f"it has {self._listed[key]} bytes instead of {len(linked.data)}"
                self._note(key, "corrupt", reason).snapshots.update(_if_snapshot(linked))

    def _tips(self) -> Iterator[Named]:
        return filter(None, (parse_tip_key(key[len(self._repo.prefix) :]) for key in [*self._listed]))

    def _listed_records(self) -> Iterator[Named]:
        return filter(None, (parse_record_key(key[len(self._repo.prefix) :]) for key in [*self._listed]))

    def _without_tips(self) -> Iterator[Named]:
        """Newest records of devices whose tips are gone: a run that is cut off leaves the tip of the record before."""
        newest: dict[DeviceId, Named] = {}
        for named in self._listed_records():
            newest[named[0]] = max(named, newest.get(named[0], named))
        pointed = {device: seq for device, seq, _ in sorted(self._tips())}
        for device, seq, name in newest.values():
            if seq > 1 and pointed.get(device, 0) < seq - 1:
                key = self._key(tip_key(device, seq, name))
                self._note(key, "missing", "without it a new reader does not find the record")
                yield device, seq, name

    def _check_knowledge(self, linked: Linked) -> None:
        record, knowledge = linked.record, linked.record.knowledge
        key = self._key(record_key(record.device, record.seq, linked.id))
        if any(map(self._is_misnamed, record.named)):
            self._note(key, "malformed", _MISNAMED)
        named = [self._records[name] for _, _, name in record.named if name in self._records]
        if any(knowledge.get(device, 0) < seq for one in named for device, seq in one.record.knowledge.items()):
            self._note(key, "malformed", "it names a record that knows more than it does itself")

    def _is_misnamed(self, named: Named) -> bool:
        linked = self._records.get(named[2])
        return linked is not None and (linked.record.device, linked.record.seq) != named[:2]

    # ---- packs

    def _check_presence(self) -> None:
        """Packs that records name: there, and of the size that is stated. One that was condemned may be gone."""
        for linked in self._snapshots:
            for ref in linked.snapshot.packs:
                if ref.rows is not None or ref.id not in self._packs:
                    self._packs[ref.id] = ref
        condemned = self._repo.ledger.condemned()
        for pack, ref in self._packs.items():
            key = self._key(pack_key(pack))
            if not self._is_there(key):
                self._lost[pack] = None
                if pack not in condemned:
                    self._note(key, "missing", f"a record names this pack of {ref.size} bytes")
            elif self._listed[key] != ref.size:
                self._note(key, "corrupt", f"it has {self._listed[key]} bytes instead of {ref.size}")
        listed = (parse_pack_key(key[len(self._repo.prefix) :]) for key in self._listed)
        self._result.unreferenced_packs = sum(1 for pack in listed if pack is not None and pack not in self._packs)
        self._result.packs = len(self._packs)

    def _load_index(self) -> bool:
        """Whether it can be known where blobs are: without that no tree can be walked."""
        try:
            for linked in self._snapshots:
                _ = self._repo.catalog.index
                self._repo.catalog.add_record(linked)
        except (IntegrityError, FormatError) as error:
            self._blame_footers()
            self._note(self._key("journal/"), "malformed", f"where blobs lie cannot be known: {error.message}")
            return False
        return True

    def _blame_footers(self) -> None:
        """Note the packs whose rows are in no record, and cannot be read from their ends either."""
        for pack, ref in self._packs.items():
            if ref.rows is None and pack not in self._lost:
                try:
                    self._repo.catalog.read_footer(pack, ref.size)
                except (IntegrityError, FormatError, RangeNotSatisfiable) as error:
                    self._note(self._key(pack_key(pack)), "corrupt", error.message)

    # ---- contents

    def _check_contents(self) -> None:
        """Walk the trees, and read objects meanwhile: all of them, or only packs of another size than stated."""
        self._choose()
        self._progress.total = sum(item.size for item in self._objects)
        walk = self._walk()
        ahead = min(self._executor.width, _OBJECTS_AHEAD)
        for item, report in in_order(self._executor, self._report, self._read(self._objects), ahead):
            self._take(item, report)
            next(walk, None)
        for _ in walk:
            self._progress.advance(0, "verifying", "")

    def _choose(self) -> None:
        """What is to be read whole, and how it is checked."""
        everything = self._result.read_data
        for key, size in self._listed.items():
            relative = key[len(self._repo.prefix) :]
            pack = parse_pack_key(relative)
            if pack is not None:
                if pack in self._packs and (everything or size != self._packs[pack].size):
                    self._objects.append(_Object(key, size, self._pack_check(pack), pack))
            elif everything:
                self._objects.append(_Object(key, size, self._other_check(relative)))

    def _pack_check(self, pack: ObjectId) -> Check:
        ref, locations = self._packs[pack], self._repo.catalog.index.locations
        return lambda data: check_pack(ref, data, lambda row: Location(pack, row) in locations(row.id))

    def _other_check(self, relative: str) -> Check:
        record, tip = parse_record_key(relative), parse_tip_key(relative)
        segment = parse_segment_key(relative)
        if record is not None:
            return lambda data: check_record(record, data)
        if tip is not None:
            return lambda data: check_tip(tip[2], data)
        if segment is not None:
            return lambda data: check_segment(segment, data)
        return lambda data: check_decoded(data, lambda: check_folder(data, self._repo.folder))

    def _read(self, objects: Iterable[_Object]) -> Iterator[tuple[_Object, _Data]]:
        """The bytes of objects, read ahead within the transfer's budget; of one that went away meanwhile, the error."""
        wanted = list(objects)
        read = self._repo.transfer.map_get((item.key, 0, item.size) for item in wanted)
        yield from zip(wanted, read, strict=True)

    def _checked(self, read: tuple[_Object, _Data]) -> tuple[_Object, _Data, Report]:
        """What reading an object shows. One that is not what it should be may have been spoilt on its way, and is read
        once more.
        """
        item, data = read
        report = gone(data) if isinstance(data, BuckiaError) else item.check(data)
        if report.kind and not isinstance(data, BuckiaError):
            try:
                data = self._repo.transfer.get(item.key, 0, item.size)
                report = item.check(data)
            except (ObjectNotFound, RangeNotSatisfiable) as error:
                data, report = error, gone(error)
        return item, data, report

    def _report(self, read: tuple[_Object, _Data]) -> tuple[_Object, Report]:
        """`_checked` without the bytes."""
        item, _, report = self._checked(read)
        return item, report

    def _take(self, item: _Object, report: Report) -> None:
        self._progress.advance(item.size, "verifying", item.key)
        if self._result.read_data:
            self._result.bytes += report.size
        if report.kind:
            self._note(item.key, report.kind, report.reason)
        if item.pack is not None and report.lost != frozenset():
            self._lost[item.pack] = report.lost

    def _walk(self) -> Iterator[None]:
        """Everything that the snapshots refer to, once; what is wrong is only noticed here, and traced later."""
        nodes, kind_of = self._repo.nodes, self._repo.catalog.index.kind
        seen: set[BlobId] = set()
        for linked in self._snapshots:
            tree = snapshot_tree(linked.snapshot)
            try:
                for count, (kind, blob) in enumerate(referenced(nodes, tree.id, seen), 1):
                    if kind_of(blob) != kind:
                        self._suspect = True
                    if not count % _BLOBS_PER_STEP:
                        yield
                root = decode_directory(nodes.get(BlobType.DIRECTORY, tree.id))
                if Subtree(tree.id, *summarise(root.level, root.items)) != tree:
                    raise FormatError("its root, files or bytes are not those of its tree")
            except (IntegrityError, FormatError) as error:
                self._broken.append((linked, error))
        self._result.blobs = len(seen)

    # ---- damage

    def _trace(self) -> None:
        """Find which snapshots and paths need what is damaged."""
        impact = Impact(self._repo.nodes, self._culprit, self._unreadable)
        newest_first = self._snapshots[::-1]
        for linked in newest_first:
            impact.explore(snapshot_tree(linked.snapshot).id)
        for key in impact.objects():
            self._note(key, "missing", "a snapshot needs it, and no pack that a record names holds it whole")
        explained: set[ObjectId] = set()
        for key, finding in self._found.items():
            roots = {linked.id: snapshot_tree(linked.snapshot).id for linked in newest_first}
            affected = {name: root for name, root in roots.items() if impact.reaches(key, root)}
            finding.snapshots.update(affected)
            explained.update(affected)
            finding.paths = impact.paths(key, affected.values())
        for linked, error in self._broken:
            if linked.id not in explained:
                kind = "malformed" if isinstance(error, FormatError) else "unreadable"
                key = self._key(record_key(linked.record.device, linked.record.seq, linked.id))
                self._note(key, kind, error.message).snapshots.add(linked.id)

    def _culprit(self, kind: BlobType, blob: BlobId) -> str | None:
        """The object whose damage or absence makes a blob impossible to get; None if some pack holds it."""
        places = self._repo.catalog.index.locations(blob)
        for pack, row in places:
            lost = self._lost.get(pack, frozenset())
            if row.kind == kind and lost is not None and blob not in lost:
                return None
        return self._key(pack_key(places[0].pack)) if places else f"blob {blob.hex()}"

    def _unreadable(self, kind: BlobType, blob: BlobId, error: BuckiaError) -> str:
        """Note a node that is where it should be and is no node; the object that holds it."""
        location = self._repo.catalog.index.get(blob)
        key = f"blob {blob.hex()}" if location is None else self._key(pack_key(location.pack))
        self._note(key, "malformed" if isinstance(error, FormatError) else "corrupt", error.message)
        return key

    def _summarise(self) -> None:
        result = self._result
        order = {linked.id: number for number, linked in enumerate(self._snapshots)}
        for key, finding in sorted(self._found.items()):
            names = sorted(finding.snapshots, key=lambda name: order.get(name, len(order)))
            snapshots = tuple(short(name) for name in names)
            result.damaged.append(Damage(finding.kind, key, finding.reason, tuple(finding.paths), snapshots))
        result.snapshots = len(self._snapshots)
        heads = self._repo.journal.heads() or self._snapshots[-1:]
        if heads:
            tree = snapshot_tree(heads[-1].snapshot)
            try:
                tree = self._repo.current().tree if len(heads) > 1 else tree
            except (IntegrityError, FormatError) as error:
                if not result.damaged:
                    result.damaged.append(Damage("unreadable", self._key("journal/"), error.message))
            result.files, result.root = tree.files, tree.content_hash.hex()


def _if_snapshot(linked: Linked | None) -> list[ObjectId]:
    return [linked.id] if linked is not None and isinstance(linked.record.body, Snapshot) else []
