"""The command `holdfast` against a real server: what it does, and what it prints."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

import holdfast
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

_DATA = sample(MIB + 5)
_DIGEST = sha256(_DATA).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """A server."""
    with ServerProcess() as server:
        yield server


@pytest.fixture
def blobs(server: ServerProcess) -> Iterator[holdfast.Blobs]:
    """Its blobs: at first none."""
    with holdfast.connect(server.address) as client:
        for entry in client.blobs.list():
            assert isinstance(entry, holdfast.BlobEntry)
            client.blobs.delete(entry.key)
        yield client.blobs


class _Command:
    """The command, run in a directory of its own."""

    def __init__(self, directory: Path, address: str) -> None:
        self.directory = directory
        self.environment = {**os.environ, "HOLDFAST_ADDRESS": address}

    def __call__(self, *arguments: str, data: bytes = b"") -> bytes:
        """Run it, see it succeed without a word on stderr, and return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "holdfast", *arguments],
            cwd=self.directory,
            env=self.environment,
            input=data,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    def json(self, *arguments: str, data: bytes = b"") -> Any:
        """The same with `--json`."""
        return json.loads(self("--json", *arguments, data=data))


@pytest.fixture
def run(server: ServerProcess, tmp_path: Path) -> _Command:
    """The command, in a directory with the file `source`."""
    (tmp_path / "source").write_bytes(_DATA)
    return _Command(tmp_path, server.address)


def test_a_file_is_put_and_got_back(run: _Command, blobs: holdfast.Blobs) -> None:
    printed = run("blob", "put", "source", "maps/a", "--content-type", "a/b", "--metadata", "x=1=2", "--metadata", "y=")
    info = blobs.stat("maps/a")
    assert printed.decode() == f"stored maps/a ({len(_DATA)} bytes, etag {info.etag})\n"
    assert (info.content_type, info.metadata) == ("a/b", {"x": "1=2", "y": ""})
    printed = run("blob", "get", "maps/a", "target")
    assert printed.decode() == f"wrote target (from maps/a, {len(_DATA)} bytes, etag {info.etag})\n"
    assert (run.directory / "target").read_bytes() == _DATA
    assert sorted(path.name for path in run.directory.iterdir()) == ["source", "target"]


def test_stdin_is_put_and_stdout_got(run: _Command, blobs: holdfast.Blobs) -> None:
    described = run.json("blob", "put", "-", "a", data=_DATA)
    info = blobs.stat("a")
    assert described["created"]
    assert described["blob"] == {
        "key": "a",
        "size_bytes": len(_DATA),
        "etag": info.etag,
        "sha256": _DIGEST,
        "content_type": "",
        "metadata": {},
        "update_time": info.update_time.isoformat(),
    }
    assert run("--json", "blob", "get", "a") == _DATA
    assert run("blob", "get", "a", "-", "--offset", "3", "--length", "4") == _DATA[3:7]
    assert run("blob", "get", "a", "--suffix-length", "5", "--if-match", info.etag) == _DATA[-5:]


def test_a_blob_is_written_into_a_directory_under_its_last_name(run: _Command, blobs: holdfast.Blobs) -> None:
    blobs.put("maps/arena.bin", b"arena")
    (run.directory / "maps").mkdir()
    assert run.json("blob", "get", "maps/arena.bin", "maps")["target"] == "maps/arena.bin"
    assert (run.directory / "maps" / "arena.bin").read_bytes() == b"arena"


def test_a_device_is_written_to_and_not_replaced(run: _Command, blobs: holdfast.Blobs) -> None:
    blobs.put("a", _DATA)
    (run.directory / "null").symlink_to("/dev/null")
    run("blob", "get", "a", "null")
    assert Path("/dev/null").is_char_device()
    assert run("blob", "get", "a", "/dev/stdout").startswith(_DATA)


def test_content_makes_the_key(run: _Command, blobs: holdfast.Blobs) -> None:
    first = run.json("blob", "put", "source", "--content", "artifacts/", "--suffix", ".wasm")
    assert (first["created"], first["blob"]["key"]) == (True, f"artifacts/{_DIGEST}.wasm")
    again = run("blob", "put", "-", "--content", "artifacts/", "--suffix", ".wasm", data=_DATA)
    assert again.decode().startswith(f"was there already: artifacts/{_DIGEST}.wasm (")
    flat = run.json("blob", "put", "source", "--content", "", "--layout", "flatfs")
    assert flat["blob"]["key"].endswith(".data")


def test_conditions_are_kept(run: _Command, blobs: holdfast.Blobs) -> None:
    etag = run.json("blob", "put", "source", "a", "--create-only")["blob"]["etag"]
    run("blob", "put", "-", "a", "--if-match", etag, data=b"new")
    assert blobs.get("a").read() == b"new"


def test_stat_tells_what_is_known(run: _Command, blobs: holdfast.Blobs) -> None:
    info = blobs.put("a", _DATA, content_type="a/b", metadata={"name": "ü"}).blob
    assert run.json("blob", "stat", "a") == {
        "key": "a",
        "size_bytes": len(_DATA),
        "etag": info.etag,
        "sha256": _DIGEST,
        "content_type": "a/b",
        "metadata": {"name": "ü"},
        "update_time": info.update_time.isoformat(),
    }
    lines = [line.split(maxsplit=1) for line in run("blob", "stat", "a").decode().splitlines()]
    assert ["sha256", _DIGEST] in lines
    assert ["metadata", "name  ü"] in lines


def test_what_is_not_printable_is_escaped_for_people_only(run: _Command, blobs: holdfast.Blobs) -> None:
    key, value = "a\u202eb", "\x1b[31mred\nsha256  forged\x9b\\"
    blobs.put(key, b"", metadata={"name": value})
    lines = run("blob", "stat", key).decode().splitlines()
    assert "metadata name  \\x1b[31mred\\nsha256  forged\\x9b\\" in lines
    assert lines[0].split() == ["key", r"a\u202eb"]
    assert run("blob", "ls").decode().split()[-1] == r"a\u202eb"
    described = run.json("blob", "stat", key)
    assert (described["key"], described["metadata"]) == (key, {"name": value})
    assert run("blob", "rm", key).decode() == "removed a\\u202eb\n"


def test_a_list_shows_one_level(run: _Command, blobs: holdfast.Blobs) -> None:
    for key in ("a", "maps/x", "maps/y/z", "maps.txt", "ü"):
        blobs.put(key, key.encode())
    assert [line.split()[-2:] for line in run("blob", "ls").decode().splitlines()] == [
        ["1", "a"],
        ["8", "maps.txt"],
        ["PRE", "maps/"],
        ["2", "ü"],
    ]
    entry = blobs.stat("maps/x")
    assert [json.loads(line) for line in run("--json", "blob", "ls", "maps/").splitlines()] == [
        {
            "key": "maps/x",
            "size_bytes": 6,
            "etag": entry.etag,
            "update_time": entry.update_time.isoformat(),
            "damaged": False,
        },
        {"prefix": "maps/y/"},
    ]


def test_a_recursive_list_shows_all(run: _Command, blobs: holdfast.Blobs) -> None:
    for number in range(5):
        blobs.put(f"deep/er/{number}", b"")
    lines = run("blob", "ls", "-r", "deep").decode().splitlines()
    time = f"{blobs.stat('deep/er/0').update_time:%Y-%m-%dT%H:%M:%SZ}"
    assert lines[0].split() == [time, "0", "deep/er/0"]
    assert len(lines) == 5
    some = run("--json", "blob", "ls", "--recursive", "--limit", "2", "--start-after", "deep/er/1").splitlines()
    assert [json.loads(line)["key"] for line in some] == ["deep/er/2", "deep/er/3"]


def test_blobs_are_removed_and_missing_ones_are_no_error(run: _Command, blobs: holdfast.Blobs) -> None:
    for key in ("a", "b", "c"):
        blobs.put(key, b"")
    assert run("blob", "rm", "a", "missing").decode() == "removed a\nwas not there: missing\n"
    assert run.json("blob", "rm", "b", "b") == {
        "removed": [{"key": "b", "existed": True}, {"key": "b", "existed": False}]
    }
    assert [item.key for item in blobs.list() if isinstance(item, holdfast.BlobEntry)] == ["c"]


def test_a_blob_is_copied_with_its_attributes(run: _Command, blobs: holdfast.Blobs) -> None:
    blobs.put("a", _DATA, content_type="a/b", metadata={"x": "y"})
    printed = run("blob", "cp", "a", "copies/a")
    info = blobs.stat("copies/a")
    assert printed.decode() == f"copied a to copies/a ({len(_DATA)} bytes, etag {info.etag})\n"
    assert (info.sha256.hex(), info.content_type, info.metadata) == (_DIGEST, "a/b", {"x": "y"})


@pytest.mark.parametrize(
    ("options", "content_type", "metadata"),
    [
        (["--content-type", "c/d"], "c/d", {}),
        (["--metadata", "z=1"], "", {"z": "1"}),
        (["--content-type", "c/d", "--metadata", "z=1", "--metadata", "q="], "c/d", {"z": "1", "q": ""}),
        (["--content-type", ""], "", {}),
    ],
)
def test_a_copy_has_just_the_attributes_that_are_given(
    run: _Command, blobs: holdfast.Blobs, options: list[str], content_type: str, metadata: dict[str, str]
) -> None:
    blobs.put("a", b"1", content_type="a/b", metadata={"x": "y"})
    described = run.json("blob", "cp", "a", "b", *options)
    assert described["created"] is True
    assert (described["blob"]["content_type"], described["blob"]["metadata"]) == (content_type, metadata)
    assert blobs.stat("a").content_type == "a/b"


def test_conditions_of_a_copy_are_kept(run: _Command, blobs: holdfast.Blobs) -> None:
    source = blobs.put("a", b"1").blob.etag
    target = run.json("blob", "cp", "a", "b", "--create-only", "--if-source-match", source)["blob"]["etag"]
    blobs.put("a", b"2")
    run("blob", "cp", "a", "b", "--if-match", target)
    assert blobs.get("b").read() == b"2"


def test_content_makes_the_key_of_a_copy(run: _Command, blobs: holdfast.Blobs) -> None:
    blobs.put("a", _DATA)
    first = run.json("blob", "cp", "a", "--content", "artifacts/", "--suffix", ".wasm")
    assert (first["created"], first["blob"]["key"]) == (True, f"artifacts/{_DIGEST}.wasm")
    again = run("blob", "cp", "a", "--content", "artifacts/", "--suffix", ".wasm")
    assert again.decode().startswith(f"was there already: artifacts/{_DIGEST}.wasm (")
    assert run.json("blob", "cp", "a", "--content", "", "--layout", "flatfs")["blob"]["key"].endswith(".data")


def test_missing_keys_are_printed_in_their_order(run: _Command, blobs: holdfast.Blobs) -> None:
    for key in ("b", "d"):
        blobs.put(key, b"")
    assert run("blob", "missing", "e", "b", "a", "d").decode() == "e\na\n"
    assert run("blob", "missing", "b", "d") == b""
    printed = run("--json", "blob", "missing", "e", "b", "a\u202e")
    assert [json.loads(line) for line in printed.splitlines()] == [{"key": "e"}, {"key": "a\u202e"}]


def test_missing_keys_are_looked_for_by_the_lines_of_stdin(run: _Command, blobs: holdfast.Blobs) -> None:
    blobs.put("ü b", b"")
    lines = "ü b\n\nü c\n" + "".join(f"{number}\n" for number in range(12_000)) + "the last"
    printed = run("blob", "missing", "-", data=lines.encode()).decode().splitlines()
    assert printed == ["ü c", *map(str, range(12_000)), "the last"]


def test_server_info_tells_what_the_server_is(run: _Command, server: ServerProcess) -> None:
    info = run.json("server", "info")
    assert info["services"][0]["backend"]["name"] == "memory"
    text = run("--address", server.address, "server", "info").decode()
    rows = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert rows["version"] == info["version"]
    for service in ("holdfast.v1.BlobStore", "holdfast.v1.CheckpointStore"):
        assert rows[service].startswith("memory, durability process")


def test_the_option_counts_more_than_the_variable(run: _Command, server: ServerProcess) -> None:
    run.environment["HOLDFAST_ADDRESS"] = "127.0.0.1:1"
    run("--address", server.address, "server", "info")


def test_the_version_is_that_of_the_package(run: _Command) -> None:
    assert run("--version").decode().startswith("holdfast 0.")


def test_the_help_tells_the_exit_codes(run: _Command) -> None:
    text = " ".join(run("--help").decode().split())
    assert "Exit codes" in text
    assert "3: there is no such blob" in text
