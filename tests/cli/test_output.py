"""What commands print: JSON of the result's fields on one line, or text that no file name can abuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buckia.cli.output import clean, moment, size, table, width
from buckia.engine.plan import Plan
from buckia.events import Conflict, Damage, Failure, FileInfo, RestoreResult, SyncResult, VerifyResult
from tests.cli.conftest import Outcome, StubClient

Run = Callable[..., Outcome]


def test_sync_json_is_one_flat_object(buckia: Run, client: StubClient) -> None:
    client.results["sync"] = SyncResult(
        uploaded=1, errors=[Failure("a", "gone")], conflict_list=[Conflict("b", ("b (conflict)",))], root="ab"
    )
    shown = buckia("sync", "--json").json
    wanted = (
        "uploaded downloaded deleted unchanged skipped hidden conflicts failed bytes_uploaded bytes_downloaded retries"
    )
    wanted += " requests root root_before snapshot dry_run errors conflict_list warnings success"
    assert set(wanted.split()) <= set(shown)
    assert "traffic" not in shown
    assert shown["retried"] == {"put": 0, "get": 0, "list": 0, "delete": 0, "stat": 0}
    assert shown["requests"] == {"put": 0, "get": 0, "list": 0, "delete": 0, "stat": 0}
    assert shown["errors"] == [{"path": "a", "reason": "gone", "folder": ""}]
    assert shown["conflict_list"] == [{"path": "b", "copies": ["b (conflict)"], "folder": ""}]
    assert shown["success"] is True


def test_dry_run_json_holds_the_actions(buckia: Run, client: StubClient) -> None:
    outcome = buckia("sync", "--dry-run", "--json")
    assert outcome.code == 0
    assert outcome.json["dry_run"] is True
    assert outcome.json["actions"] == [
        {"kind": "upload", "path": "clips/kitchen.mp4", "size": 9_400_000, "reason": "changed here"}
    ]
    assert outcome.json["estimate"] == {
        "requests": {"put": 4, "get": 0, "list": 2, "delete": 1, "stat": 0},
        "bytes_uploaded": 9_400_000,
        "bytes_downloaded": 0,
    }


@pytest.mark.parametrize("command", ["status", "verify --from /b/f", "restore --yes"])
def test_commands_that_end_with_an_object(buckia: Run, client: StubClient, command: str) -> None:
    outcome = buckia(*command.split(), "--json")
    assert outcome.code == 0
    assert isinstance(outcome.json, dict)
    assert outcome.json["requests"]["put"] == 0


@pytest.mark.parametrize("command", ["snapshots", "ls", "diff s1", "log a"])
def test_commands_that_print_an_array(buckia: Run, client: StubClient, command: str) -> None:
    outcome = buckia(*command.split(), "--json")
    assert outcome.code == 0
    assert isinstance(outcome.json, list)
    assert len(outcome.json) == 1
    client.results[command.split()[0]] = []
    assert buckia(*command.split(), "--json").out == "[]\n"


def test_sync_text(buckia: Run, client: StubClient) -> None:
    assert buckia("sync").out == (
        "Synced 412 files up, 3 down   root 9c1e9c1e9c1e  snapshot 7f3a21  (2.31 GB sent in 160 requests)\n"
    )
    client.results["sync"] = SyncResult(unchanged=415, root="9c1e" * 16, snapshot="7f3a21")
    assert buckia("sync").out.startswith("In step: 415 files   root 9c1e9c1e9c1e")
    assert buckia("sync", "-q").out == ""


def test_dry_run_text(buckia: Run, client: StubClient) -> None:
    action, summary, cost = buckia("sync", "--dry-run").out.splitlines()
    assert action.split() == ["upload", "9.40", "MB", "clips/kitchen.mp4", "(changed", "here)"]
    assert summary == "Would be done: 1 file up. Nothing was changed (dry run)."
    assert cost == "It would cost about: 9.40 MB sent in 7 requests."
    client.results["plan"] = Plan()
    assert "nothing, all is in step" in buckia("sync", "-n").out


def test_problems_go_to_stderr_and_into_the_exit_code(buckia: Run, client: StubClient) -> None:
    client.results["sync"] = SyncResult(conflicts=1, conflict_list=[Conflict("n.json", ("n (conflict).json",))])
    outcome = buckia("sync")
    assert outcome.code == 9
    assert outcome.err == "conflict: n.json; other versions: n (conflict).json\n"
    failures = [Failure(f"f{number}", "permission denied") for number in range(25)]
    client.results["sync"] = SyncResult(failed=25, conflicts=1, errors=failures, warnings=["w"])
    outcome = buckia("sync")
    assert outcome.code == 1
    assert outcome.err.startswith("buckia: warning: w\nfailed: f0: permission denied\n")
    assert "... and 5 more failures (all with --json)" in outcome.err
    client.results["restore"] = RestoreResult(failed=1, errors=failures[:1])
    assert buckia("restore", "--yes").code == 1


def test_verify_reports_damage_with_8(buckia: Run, client: StubClient) -> None:
    assert buckia("verify").out.startswith("All is whole: 3 snapshots, 31 files, 2 packs, 99 blobs (structure only")
    damage = Damage("corrupt", "packs/5e/5e91", "the hash differs", ("photos/cat.jpg",), ("s2", "s4"))
    client.results["verify"] = VerifyResult(damaged=[damage], foreign=["junk"], read_data=True)
    outcome = buckia("verify", "--read-data")
    assert outcome.code == 8
    assert outcome.out.splitlines()[:2] == [
        "CORRUPT    packs/5e/5e91: the hash differs",
        "           affects photos/cat.jpg (snapshots s2, s4)",
    ]
    assert outcome.err == "not one of ours: junk\n"
    assert buckia("verify", "--json").code == 8


def test_listings(buckia: Run, client: StubClient) -> None:
    header, row = buckia("snapshots").out.splitlines()
    assert header.split() == ["ID", "TIME", "(UTC)", "DEVICE", "ROOT", "FILES", "SIZE"]
    assert row.split() == ["7f3a21", "*", "2026-11-22T10:06:00Z", "amber-fox", "9c1e9c1e9c1e", "31", "2.31", "MB"]
    assert buckia("ls").out == "-rw-r--r--   1.23 kB  2023-11-14 22:13:20  photos/cat.jpg\n"
    assert buckia("ls", "--checksum").out == "00ff  photos/cat.jpg\n"
    assert buckia("diff", "s1").out.split() == ["A", "-", "5", "B", "a"]
    row = buckia("log", "a").out.splitlines()[1]
    assert row.split() == ["7f3a21", "2026-11-22T10:06:00Z", "amber-fox", "written", "5", "B"]
    link = FileInfo("l", "symlink", 1, 0, 0o777, "", None, target="t", conflict=True)
    client.results["ls"] = [FileInfo("d", "directory", 0, 0, 0o755, "", None), link]
    first, second = buckia("ls").out.splitlines()
    assert (first[:10], first[-4:]) == ("drwxr-xr-x", "  d/")
    assert (second[:10], second.rpartition("  l ")[2]) == ("lrwxrwxrwx", "-> t  (conflict)")


def test_cat_writes_bytes(client: StubClient, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    from buckia.cli import cli
    from buckia.cli.errors import run

    assert run(cli, ["cat", "a"]) == 0
    assert capfdbinary.readouterr().out == b"\x00firstsecond\xff"


def test_names_cannot_steer_the_terminal(buckia: Run, client: StubClient) -> None:
    evil = "a\x1b]0;owned\x07\r\nb\u202egpj.exe\udcff"
    client.results["ls"] = [FileInfo(evil, "file", 1, 0, 0o644, "", None)]
    outcome = buckia("ls")
    assert "a\\x1b]0;owned\\x07\\x0d\\x0ab\\u202egpj.exe\\udcff" in outcome.out
    assert outcome.out.count("\n") == 1
    shown = buckia("ls", "--json")
    assert shown.out.isascii()
    assert shown.json[0]["path"] == evil


@given(st.text())
def test_clean_text_prints_on_one_line_and_good_text_is_untouched(text: str) -> None:
    shown = clean(text)
    assert not set(shown) & set(map(chr, [*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E]))
    shown.encode()
    assert clean(shown) == shown
    if text.isascii() and text.isprintable():
        assert shown == text


def test_clean_keeps_what_people_write() -> None:
    for text in ("Grüße an Jürgen.txt", "写真/猫.jpg", "👩\u200d🚀.png", "a\u3000b"):
        assert clean(text) == text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_995, "10.0 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (2_310_000_000, "2.31 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert size(count) == shown


def test_moments_of_any_integer() -> None:
    assert moment(0) == "1970-01-01 00:00:00"
    assert moment(-1) == "1969-12-31 23:59:59"
    assert moment(2**80) == "?"


def test_tables_align_wide_characters() -> None:
    lines = table(("NAME", "N"), [("猫", "5"), ("abc", "12")], right=(1,))
    assert lines == ["NAME   N", "猫     5", "abc   12"]
    assert {width(line) for line in lines} == {8}


def test_init_show_and_validate(buckia: Run, tmp_path: Path) -> None:
    line = "init --provider s3 --bucket-name b --folder 7f2kq4mzd5x3wnc6b7hvtyao2u"
    line += " --access-key-id K --secret-access-key HUSH"
    outcome = buckia(*line.split())
    assert outcome.code == 0
    assert "Wrote .buckia (bucket entry 'b')" in outcome.out
    assert (tmp_path / ".buckia").stat().st_mode & 0o777 == 0o600
    again = buckia(*line.split())
    assert again.code == 2
    assert "exists already" in again.err
    shown = buckia("config", "show")
    assert "HUSH" not in shown.out
    assert "bucket_name: b" in shown.out
    assert buckia("config", "show", "--json").json["b"]["folders"] == ["7f2kq4mzd5x3wnc6b7hvtyao2u"]
    rows = buckia("config", "show", "--mapping", "--json").json
    folder = "7f2kq4mzd5x3wnc6b7hvtyao2u"
    assert rows == [{"bucket": "b", "local": str(tmp_path / folder), "folder": folder, "receives": True}]
    assert "both ways" in buckia("config", "show", "--mapping").out
    assert buckia("config", "validate").out == f"{tmp_path}/.buckia is valid: 1 bucket entry.\n"


def test_the_documented_example_shows_masked_and_names_what_comes_later(buckia: Run) -> None:
    example = str(Path(__file__).with_name("example.buckia"))
    shown = buckia("config", "show", "--config", example)
    assert shown.code == 0
    assert "YOUR_" not in shown.out + shown.err
    assert "api_key: '********'" in shown.out
    mapping = buckia("config", "show", "--mapping", "-c", example).out.splitlines()
    assert [line.split()[-1] for line in mapping[1:]] == ["ways", "only"]
    validated = buckia("config", "validate", "-c", example, "--json").json
    assert any("not there yet in this version" in text for text in validated["warnings"])


def test_init_refuses_what_no_file_may_hold(buckia: Run, tmp_path: Path) -> None:
    outcome = buckia("init", "--provider", "s3", "--bucket-name", "b", "--folder", "a/b", "--json")
    assert outcome.code == 2
    assert "'folders.0' must be one path component" in json.loads(outcome.out)["error"]["message"]
    assert not (tmp_path / ".buckia").exists()


def test_a_long_listing_is_written_bit_by_bit(buckia: Run, client: StubClient) -> None:
    def entries(*_: Any, **__: Any) -> Any:
        return (FileInfo(f"f{number}", "file", 1, 0, 0o644, "", None) for number in range(3))

    client.results["ls"] = entries
    assert [item["path"] for item in buckia("ls", "--json").json] == ["f0", "f1", "f2"]
