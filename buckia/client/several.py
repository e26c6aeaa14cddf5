"""Several folders in one run: each by itself, so that what is wrong with one holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from buckia.config.bucket import MappedRoot
from buckia.engine.context import Confirm
from buckia.engine.plan import Plan
from buckia.errors import (
    AuthenticationError,
    BucketError,
    BuckiaError,
    CancelledError,
    ConfigError,
    MissingExtraError,
)
from buckia.events import Failure, FolderError, StatusResult, SyncResult

_FOR_ALL = (AuthenticationError, BucketError, CancelledError, ConfigError, MissingExtraError)
"""What is wrong with the bucket, the key or the configuration is so for every folder: trying the next is of no use."""
_COUNTS = (
    *("uploaded", "downloaded", "deleted", "directories", "unchanged"),
    *("skipped", "hidden", "conflicts", "resolved", "failed"),
)
_STATUS_COUNTS = ("to_upload", "to_download", "to_delete", "hidden", "conflicts", "pending", "files", "bytes")
_NOWHERE = "it is neither on this disk nor in the bucket"

T = TypeVar("T")
Outcome = tuple[str, T | BuckiaError]
"""A folder's name, empty where it is the only one, and what came of it."""


def each(roots: Sequence[MappedRoot], act: Callable[[MappedRoot], T]) -> list[Outcome[T]]:
    """Do something with each root. A single one's error is raised; of several it is an outcome, whose message names the
    folder, and the others are tried all the same unless it concerns them too.
    """
    if len(roots) == 1:
        return [("", act(roots[0]))]
    outcomes: list[Outcome[T]] = []
    for root in roots:
        try:
            outcomes.append((root.folder, act(root)))
        except BuckiaError as error:
            error.message = f"{root.folder}: {error.message}"
            error.args = (error.message,)
            outcomes.append((root.folder, error))
            if isinstance(error, _FOR_ALL):
                break
    return outcomes


def combined_status(outcomes: list[Outcome[StatusResult]]) -> StatusResult:
    """How several folders stand, together and each by itself. Raises the first error."""
    total = StatusResult(in_sync=True)
    for folder, outcome in outcomes:
        if isinstance(outcome, BuckiaError):
            raise outcome
        if not folder:
            return outcome
        outcome.folder = folder
        total.location = outcome.location
        total.in_sync &= outcome.in_sync
        for name in _STATUS_COUNTS:
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
        total.traffic.add(outcome.traffic)
        total.folders.append(outcome)
    return total


def asking(confirm: Confirm | None, folder: str) -> Confirm | None:
    """Questions that say which folder they are about."""
    if confirm is None or not folder:
        return confirm
    return lambda question: confirm(f"{folder}: {question}")


def combined_results(outcomes: list[Outcome[SyncResult]]) -> SyncResult:
    """The results of several folders as one. Raises the first error, with all of them as its ``result``."""
    folder, only = outcomes[0]
    if not folder and isinstance(only, SyncResult):
        _report_missing(only.missing, only.errors)
        only.failed = len(only.errors)
        return only
    total = SyncResult()
    for folder, outcome in outcomes:
        result = outcome if isinstance(outcome, SyncResult) else SyncResult(error=_told(outcome))
        result.folder = folder
        result.errors = [replace(item, folder=folder) for item in result.errors]
        result.conflict_list = [replace(item, folder=folder) for item in result.conflict_list]
        result.resolved_list = [replace(item, folder=folder) for item in result.resolved_list]
        result.skipped_list = [replace(item, folder=folder) for item in result.skipped_list]
        result.warnings = [f"{folder}: {warning}" for warning in result.warnings]
        for name in _COUNTS:
            setattr(total, name, getattr(total, name) + getattr(result, name))
        for name in ("errors", "conflict_list", "resolved_list", "skipped_list", "warnings"):
            setattr(total, name, getattr(total, name) + getattr(result, name))
        total.dry_run |= result.dry_run
        total.error = total.error or result.error
        total.traffic.add(result.traffic)
        total.folders.append(result)
    total.missing = _nowhere([result.missing for result in total.folders], total.error is not None)
    _report_missing(total.missing, total.errors)
    total.failed = len(total.errors)
    _raise_first(outcomes, total)
    return total


def combined_plans(outcomes: list[Outcome[Plan]]) -> Plan:
    """The plans of several folders as one. Raises the first error, with the rest as its ``result``."""
    total = Plan()
    several = len(outcomes) > 1
    plans = [outcome for _, outcome in outcomes if isinstance(outcome, Plan)]
    first = next((outcome for _, outcome in outcomes if isinstance(outcome, BuckiaError)), None)
    for folder, outcome in outcomes:
        if isinstance(outcome, BuckiaError):
            total.failures += [Failure(".", outcome.message, folder)] if outcome is not first else []
            continue
        if several:
            outcome.actions = [replace(item, directory=f"{folder}/{item.directory}") for item in outcome.actions]
        total.actions += outcome.actions
        total.resolved += [replace(item, folder=folder) for item in outcome.resolved]
        total.failures += [replace(item, folder=folder) for item in outcome.failures]
        total.skipped += [replace(item, folder=folder) for item in outcome.skipped]
        total.warnings += [f"{folder}: {warning}" if several else warning for warning in outcome.warnings]
        total.directories += outcome.directories
        total.unchanged += outcome.unchanged
        total.hidden += outcome.hidden
        total.joins |= outcome.joins
        total.root = "" if several else outcome.root
        total.traffic.add(outcome.traffic)
    total.error = _told(first) if first is not None else None
    total.missing = _nowhere([plan.missing for plan in plans], first is not None)
    _report_missing(total.missing, total.failures)
    _raise_first(outcomes, total)
    return total


def _nowhere(missing: list[list[str]], incomplete: bool) -> list[str]:
    """Paths that no folder has; unknown where not all could be asked."""
    if incomplete or not missing:
        return []
    return [path for path in missing[0] if all(path in others for others in missing)]


def _report_missing(missing: list[str], failures: list[Failure]) -> None:
    failures += [Failure(path, _NOWHERE) for path in missing]


def _told(error: BuckiaError) -> FolderError:
    return FolderError(type(error).__name__, error.message, error.hint, error.exit_code)


def _raise_first(outcomes: Sequence[Outcome[T]], result: object) -> None:
    for _, outcome in outcomes:
        if isinstance(outcome, BuckiaError):
            outcome.result = result
            raise outcome
