"""Seeds of the targets in ``text_targets``, but for the rows of the local state."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import pairwise

Cases = dict[str, bytes]

_YAML = """\
# every kind of setting
namespace: home
default: &main
  provider: s3
  bucket: backup
  endpoint: https://s3.example.com:9000/x
  region: 'eu-1'
  access_key_id: AKIA
  secret_key: "a\\tb \\u00e9"
  max_workers: 8
  delete_orphaned: true
  folders: [photos, documents]
  paths:
    - .
    - {local: ~/pictures, remote: pictures}
  include_pattern: \\.jpg$
  checksum_algorithm: sha256
  conflict_resolution: local_wins
  provider_settings: {number: 12, ratio: 0.5, no: no, list: [1, two], big: 123456789012345678901234567890}
second:
  <<: *main
  bucket: other
"""

_TOML = """\
namespace = "home"
[default]
provider = "s3"
bucket_name = 'backup'
max_workers = 0x08
folders = ["photos", "documents"]
[default.provider_settings]
ratio = 2.5
"quoted key" = '''x
y'''
[[default.paths]]
local = "."
remote = "a"
"""

_SETTINGS = {"x": [1, 1.5, None, True]}
_ENTRY = {"provider": "local", "bucket_name": "/tmp/b", "folders": ["a"], "provider_settings": _SETTINGS}


def _yaml() -> Cases:
    laughs = "a: &a [x, x, x, x]\n"
    laughs += "".join(f"{two}: &{two} [*{one}, *{one}, *{one}, *{one}]\n" for one, two in pairwise("abcdefghi"))
    return {
        "full": _YAML.encode(),
        "single": b"provider: memory\nbucket_name: x\n",
        "laughs": laughs.encode(),
        "itself": b"a: &a\n  b: *a\n",
        "deep": b"[" * 200,
        "tag": b"a: !!python/object/apply:os.system [true]\n",
        "binary": b"a: !!binary x\n",
        "twice": b"a: 1\na: 2\n",
        "numbers": b"a: 0o17\nb: 1:30:00\nc: .inf\nd: 2020-99-99\ne: 0x_\nf: =\n",
        "directive": b"%YAML 1.1\n%TAG ! tag:x,2000:\n---\n? [a]\n: b\n...\n--- c\n",
        "blocks": b"a: |+2\n    x\n\nb: >-\n  y\n  z\n",
        "bom": b"\xef\xbb\xbfa: {provider: local, bucket_name: b}\r\n",
        "control": b"a: \x00\x07\x7f\n",
        "escapes": b'a: "\\U0010FFFF \\x41 \\ud83d"\n',
    }


def _toml() -> Cases:
    return {
        "full": _TOML.encode(),
        "single": b'provider = "memory"\nbucket_name = "x"\n',
        "deep": b"a = " + b"[" * 300,
        "twice": b"a = 1\na = 2\n",
        "dates": b"a = 2020-02-30\nb = 07:32:00\nc = 1979-05-27 00:32:00.999999-07:00\n",
        "numbers": b"a = 0b1\nb = 1_000\nc = nan\nd = -inf\ne = 6.02e+23\n",
        "tables": b"[a.b]\nc.d = 1\n[[a.e]]\n[a.e.f]\n",
        "escapes": b'a = "\\U0010FFFF \\uD800"\n',
    }


def _json() -> Cases:
    return {
        "full": json.dumps({"namespace": "home", "default": _ENTRY, "s\u00e9cond": _ENTRY}, indent=1).encode(),
        "single": json.dumps(_ENTRY, ensure_ascii=False).encode(),
        "tabs": b'{\n\t"a":\t{"provider": "local", "bucket_name": "b"}\n}\n',
        "twice": b'{"a": {}, "a": {}}',
        "deep": b'{"a":' * 100,
        "long-number": b'{"a": ' + b"9" * 5000 + b"}",
        "constants": b'{"a": NaN, "b": -Infinity, "c": 1e999}',
        "array": b"[1]",
        "surrogate": b'{"a": "\\ud800"}',
        "key": b'{"a": {"provider": "memory", "bucket_name": "\\u0041\\n/\\/"}}',
    }


def _locations() -> Cases:
    lines = {
        "directory": "../backup/photos",
        "absolute": "/srv//backup/./photos/",
        "home": "~/backup/photos",
        "nobody": "~nobody-at-all/x",
        "top": "/",
        "dots": "..",
        "s3": "s3://bucket/a/b/photos?endpoint=s3.example.com:9000&region=eu-1&path_style=yes",
        "s3-port": "s3://bucket/x?endpoint=http://[::1]:99999/",
        "s3-escapes": "s3://bucket/a%20b/%C3%A9%2F..",
        "s3-credentials": "s3://key:secret@bucket/photos",
        "memory": "memory://store/photos",
        "fragment": "s3://bucket/a#b",
        "unknown": "gs://bucket/photos",
        "twice": "s3://bucket/x?region=a&region=b",
        "typo": "s3://bucket/x?regoin=a",
        "reserved": "s3://bucket/_Buckia",
        "nul": "s3://bucket/a\0",
        "brackets": "s3://[bucket/photos",
    }
    return {name: line.encode() for name, line in lines.items()} | {"not-utf-8": b"/srv/\xff/photos"}


def _ignores() -> Cases:
    return {
        "usual": b"# comment\n*.txt\n!keep.txt\n/node_modules/\n**/x\na/**/b\n\\#x\n\\!y\n[a-c]?\n  \n",
        "bom": b"\xef\xbb\xbfa\r\n*.pyc\r\n",
        "malformed": b"[\n[a\n[]\n[]-a]\n[z-a]\n\\\n!\n/\n//\n***\n**/**\n[[:alpha:]]\n[!]\n[^]\n",
        "negated": b"*\n!*/\n!a/b.txt\n",
        "not-utf-8": b"\xff\xfe\n*\xc3\n",
        "slashes": b"a\\/b\n\\\\z\nx\\ y\nx y/\n\\  \n",
        "empty": b"",
    }


def _numbered(texts: Iterable[str]) -> Cases:
    return {f"{number:02}": text.encode() for number, text in enumerate(texts)} | {"not-utf-8": b"a/\xff/.."}


def _chosen_paths() -> Cases:
    return _numbered(["a/b", "./a//b/", "a/../b", "/a", "cafe\u0301", "", "a\0"])


def _names() -> Cases:
    ours = [".BUCKIA", "_buckia", ".buckiaignore", ".bu\u200cckia", ".buc\u212aia"]
    windows = ["CON", "com\u00b9.txt", "a:b", "trailing.", "LONGNA~1.TXT"]
    folded = ["e\u0301", "\u00df", "\u0130", "\u1e9e", "\U0001f600"]
    return _numbered(["a.txt", "..", ".", "", "n" * 255, "n" * 256, "a\0", "a/b", *ours, *windows, *folded])


def _links() -> Cases:
    inside = ["a", "../a", "../../a", "./..//../a"]
    outside = ["../../../../a", "a/../b", "/etc/passwd", "//x"]
    windows = ["C:\\x", "..\\..\\a", "a\\..\\.."]
    return _numbered([*inside, *outside, *windows, "", "\0"])


def _paths() -> Cases:
    long = ["/".join("x" * 128), "/".join("x" * 129), "/".join(["n" * 250] * 17)]
    return _numbered(["a", "a/b/c", "a//b", "a/../b", "/a", "", *long, "_buckia/a", "a/_buckia", "nul/x"])


MAKERS: dict[str, Callable[[], Cases]] = {
    "config-yaml": _yaml,
    "config-toml": _toml,
    "config-json": _json,
    "location": _locations,
    "ignore": _ignores,
    "chosen-path": _chosen_paths,
    "name": _names,
    "link": _links,
    "path": _paths,
}
"""What makes the seeds of each target, by name."""
