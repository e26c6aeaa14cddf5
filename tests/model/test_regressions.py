"""Histories that once went wrong, as short as can be. `World` checks every promise after each of their syncs."""

from __future__ import annotations

import pytest

from buckia.engine.direct import put_file
from buckia.sync.faulty import Fault
from tests.model.world import World
from tests.support.fleet import ROOT, Fleet, Plan, Restored

STALE = (Fault("list", "stale", newest=1, times=99),)
POLICIES = ("local_wins", "remote_wins", "newest_wins", "ask")


def in_step(*paths: str, devices: int = 2) -> World:
    """Devices that all have these files, written by device 0, and one of their own each."""
    world = World(0, devices)
    for device in range(devices):
        world.write(device, f"keep{device}")
    for path in paths:
        world.write(0, path)
    for device in (*range(devices), *range(devices)):
        world.sync(device)
    return world


def in_conflict(path: str, devices: int = 2) -> World:
    """Every device wrote the path without seeing the others', and shows all versions."""
    world = in_step(devices=devices)
    for device in range(devices):
        world.write(device, path)
    for device in (*range(devices), *range(devices)):
        world.sync(device, "ask")
    return world


def texts(world: World, device: int) -> set[bytes]:
    """The contents of all files but those that keep the roots from being empty."""
    return {
        one.value.data for path, one in world.disk(device).items() if not path.startswith("keep") and one.value.data
    }


@pytest.mark.parametrize("policy", POLICIES)
def test_an_edit_of_one_side_of_a_shown_conflict_leaves_the_other_side(policy: str) -> None:
    world = in_conflict("p")
    world.write(0, "p")
    world.sync(0, policy)
    assert len(world.copies(0)) == 1
    world.quiesce()


@pytest.mark.parametrize("policy", POLICIES)
def test_edits_of_both_sides_of_a_conflict_are_published_at_once(policy: str) -> None:
    world = in_conflict("p")
    world.write(0, "p")
    world.write(0, world.copies(0)[0])
    written = texts(world, 0)
    world.sync(0, policy)
    assert texts(world, 0) == written
    world.quiesce()
    assert texts(world, 1) == written


def test_a_policy_against_an_edit_leaves_the_other_sides_of_a_conflict() -> None:
    world = in_conflict("p", devices=3)
    world.write(2, "p")
    world.sync(2, "ask")
    world.write(0, "p")
    world.sync(0, "remote_wins")
    world.quiesce()
    assert len(texts(world, 0)) == 3


def test_editing_one_of_three_sides_and_deleting_another_keeps_the_third() -> None:
    world = in_conflict("p", devices=3)
    first, second = world.copies(0)
    third = world.disk(0)[second].value.data
    world.write(0, "p")
    world.delete(0, first)
    world.sync(0)
    assert third in texts(world, 0)
    world.quiesce()


def test_deleting_two_of_three_sides_writes_the_third_anew() -> None:
    world = in_conflict("p", devices=3)
    kept = world.disk(0)["p"].value.data
    for copy in world.copies(0):
        world.delete(0, copy)
    for copy in world.copies(1)[1:]:
        world.delete(1, copy)
    world.delete(1, "p")
    world.sync(0)
    world.sync(1, faults=STALE)
    world.quiesce()
    assert kept in texts(world, 0)


def test_a_name_like_that_of_a_copy_gives_it_back() -> None:
    world = in_step()
    world.write(0, "p")
    world.sync(0)
    device = world.fleet.devices[0].id
    assert device is not None
    name = f"p (conflict {device.hex()[:6]} {world.fleet.devices[0].state.own_seq()})"
    world.write(1, name)
    world.wait(10**10)
    world.write(1, "p")
    for number in (1, 0, 1):
        world.sync(number, "ask")
    assert len(world.copies(1)) == 2
    world.delete(1, name)
    world.sync(1)
    assert world.copies(1) == [name]
    world.quiesce()


def test_a_directory_and_a_file_deleted_at_once_are_not_both_lost() -> None:
    world = in_step()
    world.write(0, "p")
    world.mkdir(1, "p")
    for device in (0, 1, 0, 1):
        world.sync(device)
    world.delete(0, "p")
    world.delete(1, world.copies(1)[0])
    world.sync(0)
    world.sync(1, faults=STALE)
    world.quiesce()
    assert any("p" in path.split(" ")[0] and not path.startswith("keep") for path in world.disk(0))


def test_what_arrives_below_a_directory_that_was_deleted_here_goes_into_it() -> None:
    world = in_step("d/x", "d/y")
    world.write(1, "d/x")
    world.sync(1)
    world.delete(0, "d")
    world.sync(0)
    assert "x" not in world.disk(0)
    assert "d/x" in world.disk(0)
    world.quiesce()


def test_a_file_turns_into_a_directory_when_something_lies_below_it() -> None:
    world = in_step("a/q")
    world.write(1, "a")
    world.sync(1)
    world.write(0, "a/q")
    world.sync(0)
    world.sync(1)
    assert world.disk(1)["a"].value.kind == "d"
    world.quiesce()


def test_a_directory_that_only_held_what_was_deleted_vanishes() -> None:
    world = in_step("d/x")
    world.delete(0, "d")
    world.write(1, "d/new")
    world.sync(0)
    world.sync(1)
    world.sync(0)
    world.delete(0, "d/new")
    world.sync(0)
    assert "d" not in world.disk(0)
    world.quiesce()


def two_heads() -> World:
    """Two snapshots that do not know each other, merged on device 0 and published by nobody."""
    world = in_step("d/x")
    world.write(0, "d/a")
    world.write(1, "d/b")
    world.sync(0)
    world.sync(1, faults=STALE)
    world.sync(0)
    return world


def test_a_merge_that_nobody_published_can_be_compared_with_later() -> None:
    world = two_heads()
    world.write(1, "top")
    world.sync(1)
    world.sync(0)
    world.quiesce()


def test_a_snapshot_on_top_of_a_merge_holds_all_nodes_of_the_merge() -> None:
    world = two_heads()
    world.write(0, "top")
    world.sync(0)
    world.quiesce()


def test_an_empty_folder_can_be_compared_with_later() -> None:
    world = World(0, 2)
    world.write(0, "a")
    world.sync(0, paths=("b",))
    world.write(1, "keep")
    world.sync(1)
    world.sync(0, paths=("b",))
    world.quiesce()


def test_a_scope_below_a_directory_makes_the_directory() -> None:
    world = in_step()
    world.write(0, "d/e/x")
    world.sync(0)
    world.sync(1, paths=("d/e/x",))
    assert "d/e/x" in world.disk(1)
    world.quiesce()


def test_the_deletion_of_a_directory_that_a_scope_made_is_noticed() -> None:
    world = in_step()
    world.write(0, "d/x")
    world.sync(0)
    world.sync(1, paths=("d/x",))
    world.delete(1, "d")
    world.sync(1, paths=("d/x",))
    assert "d/x" not in world.disk(1)
    world.quiesce()


def test_a_hidden_deletion_outside_the_scope_is_not_published() -> None:
    world = in_step("a", "b")
    world.delete(0, "b")
    world.sync(0, delete_orphaned=False)
    world.sync(0, paths=("a",))
    world.sync(1)
    assert "b" in world.disk(1)


def test_what_another_scope_has_shown_is_removed_when_it_is_gone() -> None:
    world = in_step()
    world.write(1, "a/q")
    world.sync(1)
    world.sync(0, paths=("a",))
    world.delete(1, "a")
    world.write(1, "a")
    world.sync(1)
    world.sync(0)
    assert world.disk(0)["a"].value.kind == "f"
    world.quiesce()


def test_the_mode_of_a_directory_that_nobody_has_published_is_published() -> None:
    world = in_step()
    world.mkdir(0, "d", 0o700)
    world.write(0, "d/x")
    world.sync(0, paths=("d/x",))
    world.sync(1)
    world.sync(0)
    world.sync(1)
    assert world.disk(1)["d"].value.mode == 0o700
    world.quiesce()


def test_an_old_file_without_a_row_gives_way_to_a_link() -> None:
    world = in_step("p")
    world.link(1, "p", "keep0")
    world.sync(1)
    world.lose_state(0)
    world.sync(0)
    assert world.disk(0)["p"].value.kind == "l"
    world.quiesce()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("act", ["before", "applied", "crash", "crash-applied"])
@pytest.mark.parametrize("nth", range(1, 6))
def test_an_edit_after_a_commit_whose_answer_was_lost_builds_on_it(policy: str, act: str, nth: int) -> None:
    world = in_step("p")
    world.write(0, "p")
    world.sync(0, policy, faults=(Fault("put", act, nth=nth),))  # type: ignore[arg-type]
    world.write(0, "p")
    newest = world.disk(0)["p"].value.data
    world.sync(0, policy)
    world.quiesce()
    assert texts(world, 0) == {newest}


@pytest.mark.parametrize("call", range(1, 70, 3))
def test_a_death_while_a_file_is_moved_out_of_the_way_deletes_nothing(call: int) -> None:
    world = in_step("a/q")
    world.write(0, "a")
    written = world.disk(0)["a"].value.data
    world.sync(0, delete_orphaned=False, dies_at=call)
    world.sync(0)
    world.quiesce()
    assert written in texts(world, 1)


def chosen_while_edited(*, swap: bool = False) -> tuple[World, bytes, bytes]:
    """Device 0 puts the conflict copy into the plain name, which device 1 edits at the same time; both contents."""
    world = in_conflict("p")
    copy = world.copies(0)[0]
    chosen = world.disk(0)[copy].value.data
    world.rename(0, "p", "aside")
    world.rename(0, copy, "p")
    if swap:
        world.rename(0, "aside", copy)
    else:
        world.delete(0, "aside")
    world.wait(10**10)
    world.write(1, "p")
    world.sync(1)
    return world, chosen, world.disk(1)["p"].value.data


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize("policy", POLICIES)
def test_a_copy_put_into_the_plain_name_is_an_edit_that_meets_the_edit_of_others(policy: str, publish: bool) -> None:
    world, chosen, edited = chosen_while_edited()
    world.sync(0, policy, publish)
    both = {chosen, edited}
    wanted = {"local_wins": {chosen}, "remote_wins": {edited}, "newest_wins": {edited}, "ask": both}[policy]
    assert texts(world, 0) >= wanted
    if publish:
        assert texts(world, 0) == wanted
    world.quiesce()
    assert texts(world, 1) >= wanted


def test_both_names_of_a_conflict_exchanged_while_one_was_edited_elsewhere_lose_nothing() -> None:
    world, chosen, edited = chosen_while_edited(swap=True)
    before = texts(world, 0)
    world.sync(0, "ask")
    assert texts(world, 0) == before | {edited}
    assert chosen in before
    world.quiesce()


def test_the_plain_name_put_over_a_copy_that_was_edited_elsewhere_is_a_side_of_the_conflict() -> None:
    world = in_conflict("p")
    copy = world.copies(1)[0]
    chosen = world.disk(0)["p"].value.data
    world.write(1, copy)
    edited = world.disk(1)[copy].value.data
    world.sync(1)
    world.rename(0, "p", copy)
    world.sync(0, "ask")
    assert texts(world, 0) == {chosen, edited}
    world.quiesce()


@pytest.mark.parametrize("policy", POLICIES)
def test_rows_of_a_time_before_a_conflict_do_not_settle_it(policy: str) -> None:
    world = in_step("p")
    world.write(0, "p")
    world.sync(0)
    copied = world.clone(0)
    world.wait(10**10)
    world.write(1, "p")
    for device in (1, 0, 1):
        world.sync(device, "ask")
    both = texts(world, 0)
    assert len(both) == 2
    shown, copy = world.disk(0)["p"].value.data, world.copies(0)[0]
    world.put(copied, "p", shown.decode())
    world.put(copied, copy, (both - {shown}).pop().decode())
    world.sync(copied, policy)
    assert texts(world, copied) == both
    world.quiesce()
    assert texts(world, 0) == both


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize("path", ["p", "p.d"])
def test_a_directory_in_the_place_of_a_conflict_copy_is_another_one(path: str, publish: bool) -> None:
    world = in_step()
    world.write(0, f"{path}/inside")
    world.sync(0)
    world.write(1, path)
    world.sync(1, "ask")
    world.sync(0)
    inside = world.disk(0)[f"{path}/inside"]
    copy = world.copies(0)[0]
    world.delete(0, copy)
    world.write(0, f"{copy}/new")
    for device in (0, 1, 0):
        world.sync(device, "ask", publish)
    for device in (0, 1):
        assert world.disk(device)[f"{path}/inside"].value == inside.value
        assert f"{copy}/new" in world.disk(device)
        assert len(texts(world, device)) == (2 if publish or device == 0 else 3)
    world.quiesce()


def test_a_directory_in_the_place_of_a_conflict_copy_is_another_one_without_memory_too() -> None:
    world = in_conflict("p")
    copy = world.copies(0)[0]
    world.delete(0, copy)
    world.write(0, f"{copy}/new")
    world.lose_state(0)
    world.sync(0)
    assert world.disk(0)["p"].value.kind == "f"
    world.quiesce()
    assert f"{copy}/new" in world.disk(1)


def hidden_beside_a_directory() -> World:
    """Device 1 has deleted, without publishing it, a file at whose path another device has put a directory."""
    world = in_step("c/a")
    world.write(1, "c")
    world.sync(1)
    world.write(0, "c/n")
    world.sync(0)
    world.delete(1, "c")
    world.sync(1, delete_orphaned=False)
    return world


def test_a_hidden_file_stays_hidden_where_a_directory_takes_its_name() -> None:
    world = hidden_beside_a_directory()
    assert world.copies(1) == []
    assert "c/n" in world.disk(1)
    world.sync(1, delete_orphaned=False)
    assert world.copies(1) == []
    assert len(world.copies(0)) == 1


def test_the_deletion_of_a_file_hidden_beside_a_directory_is_published_later() -> None:
    world = hidden_beside_a_directory()
    world.sync(1)
    world.sync(0)
    assert world.copies(0) == world.copies(1) == []
    world.quiesce()


def test_a_hidden_file_stays_hidden_where_another_version_takes_its_name() -> None:
    world = in_step("p")
    world.write(0, "p")
    world.sync(0)
    world.wait(10**10)
    world.write(1, "p")
    world.sync(1, "ask", faults=STALE)
    world.delete(0, "p")
    world.sync(0, delete_orphaned=False)
    assert len(texts(world, 0)) == 1
    world.sync(0)
    world.quiesce()


def put_over_a_directory(kind: str = "write") -> World:
    """Device 0 has put a file or a link in the place of a directory with two files, publishing no deletions."""
    world = in_step("d/x", "d/e/y")
    world.delete(0, "d")
    if kind == "link":
        world.link(0, "d", "keep0")
    else:
        world.write(0, "d")
    world.sync(0, delete_orphaned=False)
    return world


@pytest.mark.parametrize("kind", ["write", "link"])
def test_a_file_in_the_place_of_a_directory_keeps_its_name_where_the_directory_is_hidden(kind: str) -> None:
    world = put_over_a_directory(kind)
    mine = world.disk(0)["d"].value
    assert mine.kind == kind[0].replace("w", "f")
    assert world.copies(0) == []
    world.sync(1)
    assert world.disk(1)[world.copies(1)[0]].value == mine
    assert {"d/x", "d/e/y"} <= world.disk(1).keys()
    again = world.sync(0, delete_orphaned=False)
    assert [verb for verb, _ in again.log] == ["list"]
    assert world.disk(0)["d"].value == mine
    world.sync(0)
    world.sync(1)
    assert world.disk(1)["d"].value == mine
    assert world.copies(1) == []
    world.quiesce()


def test_what_arrives_below_a_directory_hidden_by_a_file_brings_the_directory_back_and_says_so() -> None:
    world = put_over_a_directory()
    mine = world.disk(0)["d"].value
    world.sync(1)
    world.write(1, "d/e/new")
    world.sync(1)
    outcome = world.sync(0, delete_orphaned=False)
    assert "d/e/new" in world.disk(0)
    assert "d/x" not in world.disk(0)
    assert world.disk(0)[world.copies(0)[0]].value == mine
    assert outcome.result is not None
    assert [warning for warning in outcome.result.warnings if "directory “d”" in warning]
    again = world.sync(0, delete_orphaned=False)
    assert again.result is not None
    assert not again.result.warnings
    world.quiesce()


def test_an_edit_of_the_copy_elsewhere_of_a_file_put_over_a_directory_arrives_under_its_name() -> None:
    world = put_over_a_directory()
    world.sync(1)
    world.write(1, world.copies(1)[0])
    edited = texts(world, 1)
    world.sync(1)
    world.sync(0, delete_orphaned=False)
    assert world.disk(0)["d"].value.data in edited
    world.delete(1, world.copies(1)[0])
    world.sync(1)
    world.sync(0, delete_orphaned=False)
    assert "d" not in world.disk(0)
    world.quiesce()


def test_a_file_put_over_a_directory_gives_way_once_the_memory_of_the_deletion_is_lost() -> None:
    world = put_over_a_directory()
    mine = world.disk(0)["d"].value
    world.lose_state(0)
    world.sync(0, delete_orphaned=False)
    assert "d/x" in world.disk(0)
    assert world.disk(0)[world.copies(0)[0]].value == mine
    world.quiesce()


def test_a_directory_put_over_a_file_that_hides_another_takes_its_name() -> None:
    world = put_over_a_directory()
    world.write(0, "d")
    world.delete(0, "d")
    world.write(0, "d/z")
    world.sync(0, delete_orphaned=False)
    assert [path for path in world.disk(0) if path.startswith("d")] == ["d", "d/z"]
    world.sync(1)
    assert {"d/x", "d/e/y", "d/z"} <= world.disk(1).keys()
    assert world.copies(1) == []
    world.quiesce()


def test_a_directory_without_a_version_is_not_made_again_where_it_was_deleted() -> None:
    world = put_over_a_directory()
    world.sync(1)
    world.delete(1, "d")
    world.sync(1, delete_orphaned=False)
    assert world.disk(1)["d"].value == world.disk(0)["d"].value
    assert world.copies(1) == []
    world.quiesce()


@pytest.mark.parametrize("scope", [("d",), ("d/x",), ("d/e",)])
def test_a_scope_below_a_file_put_over_a_directory_leaves_the_file(scope: tuple[str, ...]) -> None:
    world = put_over_a_directory()
    mine = world.disk(0)["d"].value
    world.sync(0, delete_orphaned=False, paths=scope)
    world.sync(0, delete_orphaned=False)
    assert world.disk(0)["d"].value == mine
    world.sync(1)
    world.write(1, "d/x")
    world.sync(1)
    world.sync(0, delete_orphaned=False, paths=scope)
    world.sync(0, delete_orphaned=False)
    assert world.disk(0)["d"].value.kind == "d"
    world.quiesce()


@pytest.mark.parametrize("kind", ["write", "link"])
def test_what_takes_the_place_of_a_directory_that_takes_no_changes_has_a_row(kind: str) -> None:
    world = in_step("d/q")
    world.chmod(0, "d", 0o644)
    world.sync(0)
    world.sync(1)
    world.delete(0, "d")
    if kind == "link":
        world.link(0, "d", "keep0")
    else:
        world.write(0, "d")
    world.sync(0)
    world.sync(1)
    world.quiesce()


@pytest.mark.parametrize("what", ["write", "link", "delete", "inside", "hide"])
@pytest.mark.parametrize("call", range(8, 50, 4))
def test_a_death_while_a_directory_is_opened_gives_it_its_mode_back_or_lets_it_go(call: int, what: str) -> None:
    world = in_step("d/q")
    world.chmod(0, "d", 0o644)
    world.sync(0)
    world.sync(1)
    if what != "inside":
        world.delete(0, "d")
    if what in ("write", "inside"):
        world.write(0, "d/q" if what == "inside" else "d")
    if what == "link":
        world.link(0, "d", "keep0")
    world.sync(0)
    world.sync(1, dies_at=call)
    world.sync(1, delete_orphaned=what != "hide")
    world.quiesce()
    assert what != "inside" or world.disk(1)["d"].value.mode == 0o644


def hidden_copy_whose_name_is_taken(*, at_once: bool) -> tuple[World, str]:
    """Device 0 has hidden a conflict copy, and made a directory of the copy's name."""
    world = in_conflict("p")
    copy = world.copies(0)[0]
    world.delete(0, copy)
    if not at_once:
        world.sync(0, delete_orphaned=False)
    world.write(0, f"{copy}/new")
    world.sync(0, delete_orphaned=False)
    return world, copy


@pytest.mark.parametrize("at_once", [True, False])
def test_a_hidden_copy_stays_hidden_where_a_directory_takes_its_name(at_once: bool) -> None:
    world, copy = hidden_copy_whose_name_is_taken(at_once=at_once)
    assert [path for path in world.copies(0) if path != copy] == []
    world.sync(0, delete_orphaned=False)
    assert [path for path in world.copies(0) if path != copy] == []
    world.sync(1)
    assert len(texts(world, 1)) == 3
    world.sync(0)
    world.sync(1)
    assert world.copies(0) == world.copies(1) == [copy]
    world.quiesce()


def test_a_hidden_copy_stays_hidden_when_the_directory_of_its_name_goes_again() -> None:
    world, copy = hidden_copy_whose_name_is_taken(at_once=True)
    world.delete(0, copy)
    world.sync(0, delete_orphaned=False)
    world.sync(0, delete_orphaned=False)
    assert world.copies(0) == []
    world.quiesce()


def test_a_hidden_copy_outside_the_scope_stays_hidden_where_a_directory_takes_its_name() -> None:
    world = in_conflict("p")
    copy = world.copies(0)[0]
    world.delete(0, copy)
    world.sync(0, delete_orphaned=False)
    world.write(0, f"{copy}/new")
    world.sync(0, delete_orphaned=False, exclude="^p$")
    world.sync(0, delete_orphaned=False)
    assert [path for path in world.copies(0) if path != copy] == []
    world.quiesce()


def test_a_file_put_over_a_hidden_directory_keeps_its_name_where_a_run_leaves_the_directory_out() -> None:
    world = World(0, 2)
    world.write(0, "keep0")
    world.write(1, "keep1")
    world.put(0, "d/e/z", "one")
    world.sync(0, exclude="^d/e$")
    world.write(0, "d")
    world.sync(0, delete_orphaned=False)
    world.sync(1)
    world.delete(1, "d")
    world.sync(1, delete_orphaned=False)
    mine = world.disk(1)["d"].value
    world.sync(1, delete_orphaned=False, exclude="^d/")
    assert world.disk(1)["d"].value == mine
    world.quiesce()


def test_a_directory_that_a_run_leaves_out_is_there_for_what_is_in_it() -> None:
    world = in_step("d/x", "d/y")
    world.write(1, "d")
    world.sync(1, delete_orphaned=False)
    world.sync(0)
    world.delete(0, "d/x")
    world.delete(0, "d/y")
    world.sync(0, delete_orphaned=False)
    world.sync(0, delete_orphaned=False, exclude="^d/")
    assert world.disk(0)["d"].value.kind == "d"
    world.quiesce()


@pytest.mark.parametrize("other", ["d-old", "d (1)", "d.x", "d0", "d!"])
def test_a_directory_whose_name_begins_like_that_of_another_is_deleted_with_what_is_in_it(other: str) -> None:
    world = in_step("d/x", f"{other}/y", f"{other}/e/z")
    world.delete(0, other)
    world.sync(0)
    world.sync(1)
    for device in (0, 1):
        assert not [path for path in world.disk(device) if path.startswith(other)]
    world.quiesce()


def test_directories_arrive_in_the_place_of_a_link_to_itself() -> None:
    world = in_step("d/e/x")
    world.write(0, "b/e/x")
    world.sync(0)
    world.link(1, "b", "b")
    world.sync(1, "ask")
    assert "b/e/x" in world.disk(1)
    world.quiesce()


def test_what_is_hidden_where_nothing_can_be_made_stays_hidden_under_its_new_name() -> None:
    world = in_step()
    world.write(1, "d/z")
    world.sync(1)
    world.wait(10**10)
    world.write(0, "d/z")
    world.sync(0, "ask", faults=STALE)
    world.wait(10**10)
    world.write(1, "d/z")
    world.sync(1, "ask")
    world.delete(0, "d")
    world.link(0, "d", "keep0")
    world.sync(0, "ask", delete_orphaned=False, paths=("d/z",))
    world.sync(0, "ask", delete_orphaned=False)
    world.quiesce()


def test_a_link_to_itself_arrives_in_the_place_of_directories() -> None:
    world = in_step("d/e/x")
    world.delete(0, "d")
    world.link(0, "d", "d")
    world.sync(0)
    world.sync(1)
    assert world.disk(1)["d"].value.kind == "l"
    world.quiesce()


def test_a_file_arrives_in_the_place_of_a_directory_in_which_another_states_run_was_cut_off() -> None:
    world = World(0, 2)
    world.write(0, "keep0")
    world.write(1, "keep1")
    world.clone(0)
    world.clone(0)
    world.sync(0, meanwhile=(1, 1))
    world.put(1, "a/q", "one")
    world.put(3, "a", "one")
    world.put_back(1, "with its disk")
    world.sync(1, delete_orphaned=False)
    world.save_state(0)
    world.sync(3, delete_orphaned=False, paths=("a",))
    world.sync(0, dies_at=24)
    world.lose_state(0)
    world.put_back(0)
    world.sync(2, meanwhile=(1, 1))
    (copy,) = [path for path in world.disk(1) if path.startswith("a (conflict ")]
    world.rename(1, copy, "a")
    for device in (0, 1, 2, 3, 0):
        world.sync(device)
    assert world.disk(0)["a"].value.kind == "f"
    world.quiesce()


NO_TIP = (Fault("put", "crash", where=lambda key: "/tips/" in key),)


WAYS = ("in place", "with its marks", "mirrored")


@pytest.mark.parametrize("how", WAYS)
def test_a_state_put_back_in_place_is_noticed_where_the_listing_omits_what_came_after(how: Restored) -> None:
    world = in_step("x")
    world.save_state(0)
    world.write(0, "x")
    world.sync(0)
    world.put_back(0, how)
    world.write(0, "y")
    world.sync(0, faults=STALE)
    world.sync(1)
    world.quiesce()


@pytest.mark.parametrize("how", WAYS)
def test_a_state_put_back_in_place_is_noticed_where_a_record_has_no_tip(how: Restored) -> None:
    world = in_step("x")
    world.save_state(0)
    world.write(0, "x")
    world.sync(0, faults=NO_TIP)
    world.put_back(0, how)
    world.write(0, "y")
    world.sync(0)
    world.sync(1)
    world.quiesce()


@pytest.mark.parametrize("how", WAYS)
def test_a_state_that_was_saved_before_its_first_number_is_noticed(how: Restored) -> None:
    """It had an identity, as the run that began to write was cut off."""
    world = in_step("x", devices=1)
    world.clone(0)
    world.sync(1, dies_at=1, faults=(Fault("put", "crash", where=lambda key: "/journal/" in key),))
    world.save_state(1)
    world.write(1, "x")
    world.sync(1)
    world.put_back(1, how)
    world.write(1, "y")
    world.sync(1, faults=STALE)
    world.quiesce()


@pytest.mark.parametrize("how", WAYS)
def test_single_files_get_no_number_of_a_state_that_was_put_back(how: Restored) -> None:
    fleet = Fleet(0, 2)
    device, other = fleet.devices

    def put(data: bytes) -> None:
        device.files.put(f"{ROOT}/one", data)
        with fleet.transfer() as transfer:
            work = fleet.workspace(device, Plan(), transfer)
            put_file(work.repository, device.files, f"{ROOT}/one", "one", work.settings)

    put(b"1")
    saved = fleet.saved_state(device)
    put(b"2")
    fleet.put_back(device, saved, how)
    fleet.network.plan(*STALE)
    put(b"3")
    fleet.network.clear()
    assert fleet.sync(other).error is None
    assert fleet.damages(read_data=True) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_a_state_of_which_a_part_is_older_takes_a_new_id(change: int) -> None:
    """A log of the database that was left beside an older database gives pages of two states."""
    fleet = Fleet(0, 1)
    (device,) = fleet.devices
    device.files.put(f"{ROOT}/x", b"1")
    assert fleet.sync(device).error is None
    own = device.id
    device.state._set_trust("own_seq", (device.state.own_seq() + change).to_bytes(8))
    device.files.put(f"{ROOT}/y", b"2")
    assert fleet.sync(device).error is None
    assert device.id != own
    assert fleet.sync(fleet.add_device()).error is None


def test_a_record_without_a_tip_misleads_nobody_whose_state_went_back_with_its_disk() -> None:
    world = in_step("x")
    fleet, device = world.fleet, world.fleet.devices[0]
    world.save_state(0)
    saved = world.saved[0][0]
    world.write(0, "x")
    world.sync(0, faults=NO_TIP)
    own, number = device.id, device.state.own_seq()
    fleet.put_back(device, saved, "with its disk")
    device.files.put(f"{ROOT}/y", b"another record with the same number")
    fleet.sync(device)
    assert own is not None
    assert (device.id, device.state.tips()[own][0]) == (own, number)
    journal = [key for key in fleet.store.objects if f"/journal/{own.hex()}/{number:010d}-" in key]
    assert len(journal) == 2
    other = fleet.devices[1]
    new = fleet.add_device()
    for one in (other, new):
        assert fleet.sync(one).error is None
        assert fleet.tree(one) == fleet.tree(device)
    assert fleet.damages(read_data=True) == []


@pytest.mark.parametrize("dies_at", range(15, 30))
def test_a_mode_that_was_set_before_a_run_was_cut_off_is_no_edit(dies_at: int) -> None:
    world = World(2, 2)
    world.write(0, "keep0")
    world.put(0, "d/x", "one")
    world.clone(0)
    world.chmod(0, "d/x", 0o600)
    world.sync(0)
    world.sync(2, dies_at=dies_at)
    world.sync(0)
    world.sync(2)
    world.quiesce()


@pytest.mark.parametrize("dies_at", range(15, 40))
def test_a_mode_and_a_time_that_were_set_before_a_run_was_cut_off_are_no_edit(dies_at: int) -> None:
    world = in_step("d/x", "d/y")
    world.touch(0, "d/x")
    world.chmod(0, "d/x", 0o600)
    world.chmod(0, "d/y", 0o640)
    world.sync(0)
    world.sync(1, dies_at=dies_at)
    world.sync(1)
    world.quiesce()


@pytest.mark.parametrize("policy", ["local_wins", "remote_wins", "newest_wins"])
def test_a_new_mode_does_not_win_over_new_content(policy: str) -> None:
    world = in_step("x")
    world.put(0, "x", "edited")
    world.sync(0, policy)
    world.chmod(1, "x", 0o600)
    world.sync(1, policy)
    world.sync(0, policy)
    for device in range(2):
        assert world.disk(device)["x"].value.data == b"edited"
    world.quiesce()


def test_new_modes_are_settled_by_the_policy() -> None:
    world = in_step("x")
    world.chmod(0, "x", 0o640)
    world.sync(0)
    world.chmod(1, "x", 0o600)
    world.sync(1)
    world.sync(0)
    for device in range(2):
        assert world.disk(device)["x"].value.mode == 0o600
    world.quiesce()


def test_a_directory_that_was_announced_and_removed_by_a_run_that_was_cut_off_may_be_left_out_by_the_next() -> None:
    world = in_step("d/x", devices=2)
    world.rename(1, "d", "e")
    world.sync(1)
    for dies_at in range(30, 60):
        world.sync(0, dies_at=dies_at)
        world.sync(0, delete_orphaned=False, paths=("e",))
    world.sync(0)
    world.quiesce()


@pytest.mark.parametrize("dies_at", range(12, 24))
def test_an_old_version_in_the_place_of_a_file_that_was_announced_to_go_is_adopted(dies_at: int) -> None:
    """The run that was to make way for a directory was cut off; what its user put there then is in the history."""
    world = World(0, 3)
    world.link(0, "d.d/x", "a")
    world.put(0, "a", "one")
    world.sync(0, paths=("a",))
    world.link(2, "a/q", "a")
    world.link(0, "a", "b")
    world.sync(2)
    world.sync(0, dies_at=dies_at)
    world.delete(0, "d.d")
    world.put(0, "a", "one")
    world.sync(0)
    world.quiesce()
