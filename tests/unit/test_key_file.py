"""The file with the sealing keys: who may see it, what is refused, how it is replaced, and when it is read again."""

import base64
import json
import logging
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from holdfast_server.checkpoints import key_file
from holdfast_server.checkpoints.key_file import KeyRingMissing, RingFile
from holdfast_server.checkpoints.key_ring import KeyRing, KeyRingError, KeyState, SealKey
from holdfast_server.errors import SealKeyUnavailable
from tests.support.child_processes import killed_on_failure
from tests.support.faulty_disk import open_files_below

NOBODY, STAFF = 65_534, 50
SECRET = base64.b64encode(b"hunter2-" * 4).decode()
ENTRY = {"id": "0123456789abcdef", "state": "signing", "create_time": "2026-01-02T03:04:05Z", "secret": SECRET}
ANOTHER = {**ENTRY, "id": "0123456789abcde0", "state": "verifying"}
DOCUMENT: dict[str, Any] = {"format": 1, "keys": [ENTRY, ANOTHER], "legacy": ["eA=="]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def put(path: Path, document: object, mode: int = 0o600) -> None:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)


class TestTheDocument:
    def test_what_is_written_is_read(self, path: Path) -> None:
        ring = KeyRing.fresh().with_key(SealKey.fresh(KeyState.RETIRED)).with_legacy(b"\x00x")
        key_file.write(path, ring)
        assert key_file.read(path) == ring

    def test_it_is_as_docs_formats_says(self, path: Path) -> None:
        put(path, DOCUMENT)
        ring = key_file.read(path)
        assert (ring.signing.id.hex(), ring.signing.secret) == ("0123456789abcdef", b"hunter2-" * 4)
        assert ring.signing.create_time.isoformat() == "2026-01-02T03:04:05+00:00"
        assert ring.legacy == (b"x",)
        key_file.write(path, ring)
        assert json.loads(path.read_text()) == DOCUMENT

    def test_legacy_secrets_may_be_left_out(self, path: Path) -> None:
        put(path, {"format": 1, "keys": [ENTRY]})
        assert key_file.read(path).legacy == ()

    @pytest.mark.parametrize(
        ("change", "names"),
        [
            ("", "no JSON document"),
            ("[" * 100_000, "no JSON document"),
            ("[]", "no JSON object"),
            ('{"format": 1, "format": 1, "keys": []}', "a member twice"),
            ({"format": 2, "colour": 1}, "format 2, of a newer Holdfast; this one knows 1"),
            ({"format": True}, "'format'"),
            ({"format": "1"}, "'format'"),
            ({"format": 0}, "'format'"),
            ({"format": None}, "'format'"),
            ({"colour": SECRET}, "it has a member that is none of format, keys, legacy"),
            ({"keys": {}}, "'keys' is no list"),
            ({"keys": None}, "'keys' is no list"),
            ({"legacy": SECRET}, "'legacy' is no list"),
            ({"legacy": ["eA==", "hunter2!"]}, r"legacy\[1\] is no base64"),
            ({"legacy": ["e A=="]}, r"legacy\[0\] is no base64"),
            ({"legacy": [1]}, r"legacy\[0\] is no base64"),
            ({"legacy": [""]}, "a legacy secret is empty"),
            ({"keys": [SECRET]}, r"keys\[0\] is no JSON object"),
            ({"keys": [ENTRY, ENTRY]}, "two sealing keys have the id 0123456789abcdef"),
            ({"keys": [ENTRY, {**ANOTHER, "state": "signing"}]}, "two sealing keys are signing"),
            ({"keys": [ENTRY, {**ANOTHER, SECRET: 1}]}, r"keys\[1\] has a member that is none of create_time, id"),
            ({"keys": [ENTRY, {"id": "0123456789abcde0"}]}, r"keys\[1\] has no member 'create_time'"),
            ({"keys": [{**ENTRY, "secret": 1}]}, r"keys\[0\]: its secret is no string"),
            ({"keys": [{**ENTRY, "id": SECRET}]}, r"keys\[0\]: its id is not 16 hex digits"),
            ({"keys": [{**ENTRY, "id": "0123456789ABCDEF"}]}, "in lower case"),
            ({"keys": [{**ENTRY, "state": SECRET}]}, r"keys\[0\]: its state is none of signing, verifying, retired"),
            ({"keys": [{**ENTRY, "secret": "hunter2-" * 4 + "é"}]}, r"keys\[0\]: its secret is no base64"),
            ({"keys": [{**ENTRY, "secret": SECRET[:40]}]}, r"keys\[0\]: the secret has 30 bytes; .* at least 32"),
            ({"keys": [{**ENTRY, "create_time": SECRET}]}, r"keys\[0\]: its create_time is no time"),
            ({"keys": [{**ENTRY, "create_time": "2026-01-02T03:04:05"}]}, r"keys\[0\]: its create_time is no time"),
            ({"keys": [{**ENTRY, "create_time": "2026-13-02T03:04:05Z"}]}, r"keys\[0\]: its create_time is no time"),
            ({"keys": [{**ENTRY, "create_time": "20260102T030405Z"}]}, r"keys\[0\]: its create_time is no time"),
            ({"keys": [{**ENTRY, "create_time": "0001-01-01T00:00:00+01:00"}]}, r"create_time is no time"),
        ],
    )
    def test_a_wrong_one_is_refused_by_name_and_rule_without_a_secret(
        self, path: Path, change: "dict[str, Any] | str", names: str
    ) -> None:
        put(path, change if isinstance(change, str) else {**DOCUMENT, **change})
        with pytest.raises(KeyRingError, match=names) as refused:
            key_file.read(path)
        assert str(path) in str(refused.value)
        assert "hunter" not in str(refused.value)
        assert SECRET not in str(refused.value)

    def test_bytes_that_are_no_text_and_a_huge_file_are_refused(self, path: Path) -> None:
        path.write_bytes(b'{"format": 1, "keys": [], "x": "\xff"}')
        path.chmod(0o600)
        with pytest.raises(KeyRingError, match="no JSON document"):
            key_file.read(path)
        put(path, json.dumps(DOCUMENT) + " " * (1 << 20))
        with pytest.raises(KeyRingError, match="more than 1048576 bytes"):
            key_file.read(path)

    @pytest.mark.parametrize(
        ("text", "utc"), [("2026-01-02t03:04:05.25z", "03:04:05.25"), ("2026-01-02T05:04:05+02:00", "03:04:05")]
    )
    def test_times_are_those_of_rfc_3339(self, path: Path, text: str, utc: str) -> None:
        put(path, {"format": 1, "keys": [{**ENTRY, "create_time": text}]})
        assert key_file.read(path).signing.create_time.isoformat().startswith(f"2026-01-02T{utc}")


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others and act as another user")


@contextmanager
def another_user() -> Iterator[None]:
    """Act as a user who is not root and owns nothing, as a server does."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A path in a directory that every user can enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "keys.json"


ME, ROOT, OTHER = 1000, 0, 1001


class TestWhoMaySeeIt:
    @pytest.mark.parametrize("bit", [6, 7, 8])
    def test_its_owner_may_do_anything(self, bit: int) -> None:
        assert self.fault(ME, 1 << bit) == ""
        assert self.fault(ROOT, 1 << bit) == ""

    @pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
    def test_group_and_others_may_do_nothing(self, bit: int) -> None:
        assert f"its mode is {0o600 | bit:04o}" in self.fault(ME, 0o600 | bit)

    @pytest.mark.parametrize(
        ("bit", "refused"), [(0o040, False), (0o020, True), (0o010, True), (0o004, True), (0o002, True), (0o001, True)]
    )
    def test_but_the_group_may_read_roots(self, bit: int, refused: bool) -> None:
        assert bool(self.fault(ROOT, 0o600 | bit)) is refused

    def test_of_another_user_it_is_refused(self) -> None:
        assert "owned by the user 1001, neither by the one who reads it (1000) nor by root" in self.fault(OTHER, 0o600)

    @pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
    def test_only_a_regular_file_is_one(self, kind: int) -> None:
        assert self.fault(ME, 0o600, kind) == "it is no regular file"

    @staticmethod
    def fault(owner: int, mode: int, kind: int = stat.S_IFREG) -> str:
        status = os.stat_result((kind | mode, 1, 1, 1, owner, 1, 0, 0, 0, 0))
        return key_file._fault(status, ME)

    @pytest.mark.parametrize("mode", [0o604, 0o620, 0o602, 0o666])
    def test_what_others_can_see_or_write_is_not_read(self, path: Path, mode: int) -> None:
        put(path, DOCUMENT, mode)
        with pytest.raises(KeyRingError, match=f"its mode is {mode:04o}; .* chmod 600"):
            key_file.read(path)

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_what_is_for_its_owner_alone_is_read(self, path: Path, mode: int) -> None:
        put(path, DOCUMENT, mode)
        assert len(key_file.read(path).keys) == 2

    @root_only
    def test_a_server_reads_roots_file_through_its_group(self, public_path: Path) -> None:
        put(public_path, DOCUMENT, 0o640)
        with another_user(), pytest.raises(KeyRingError, match="cannot be read: Permission denied"):
            key_file.read(public_path)
        os.chown(public_path, 0, NOBODY)
        with another_user():
            assert len(key_file.read(public_path).keys) == 2

    @root_only
    def test_a_server_does_not_let_its_group_read_its_own(self, public_path: Path) -> None:
        put(public_path, DOCUMENT, 0o640)
        os.chown(public_path, NOBODY, STAFF)
        with another_user():
            with pytest.raises(KeyRingError, match="its group may read it only if it is owned by root"):
                key_file.read(public_path)
            public_path.chmod(0o600)
            assert len(key_file.read(public_path).keys) == 2

    @root_only
    def test_even_root_refuses_what_another_user_owns(self, public_path: Path) -> None:
        put(public_path, DOCUMENT)
        os.chown(public_path, NOBODY, 0)
        with pytest.raises(KeyRingError, match="owned by the user 65534, neither by the one who reads it"):
            key_file.read(public_path)

    def test_a_pipe_is_refused_without_waiting_for_its_writer(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        with pytest.raises(KeyRingError, match="no regular file"):
            key_file.read(path)

    def test_a_directory_is_refused_and_nothing_stays_open(self, path: Path) -> None:
        path.mkdir(0o700)
        for _ in range(3):
            with pytest.raises(KeyRingError, match="no regular file"):
                key_file.read(path)
        assert open_files_below(path.parent) == []

    def test_links_are_followed(self, path: Path) -> None:
        """Kubernetes: `keys.json` is a link into `..data`, itself a link to the directory of this version."""
        version = path.parent / "..2026_01_02"
        version.mkdir()
        put(version / "keys.json", DOCUMENT)
        (path.parent / "..data").symlink_to(version.name)
        path.symlink_to("..data/keys.json")
        assert len(key_file.read(path).keys) == 2
        (version / "keys.json").chmod(0o604)
        with pytest.raises(KeyRingError, match="its mode is 0604"):
            key_file.read(path)

    def test_a_missing_one_is_told_apart(self, path: Path) -> None:
        with pytest.raises(KeyRingMissing, match=r"keys\.json does not exist"):
            key_file.read(path)


class TestWriting:
    def test_it_is_for_its_owner_alone_whatever_the_umask(self, path: Path) -> None:
        before = os.umask(0)
        try:
            assert key_file.create(path, KeyRing.fresh())
            key_file.write(path, KeyRing.fresh())
            key_file.write(path.with_name("another"), KeyRing.fresh())
        finally:
            os.umask(before)
        assert {stat.S_IMODE(found.stat().st_mode) for found in path.parent.iterdir()} == {0o600}

    def test_nothing_is_left_beside_it(self, path: Path) -> None:
        key_file.create(path, KeyRing.fresh())
        key_file.create(path, KeyRing.fresh())
        key_file.write(path, KeyRing.fresh())
        assert list(path.parent.iterdir()) == [path]

    def test_one_that_is_there_is_not_made_again(self, path: Path) -> None:
        ring = KeyRing.fresh()
        assert key_file.create(path, ring)
        assert not key_file.create(path, KeyRing.fresh())
        assert key_file.read(path) == ring

    @pytest.mark.parametrize("step", ["fsync", "replace"])
    def test_a_write_that_fails_leaves_the_old_one_and_nothing_else(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        ring = KeyRing.fresh()
        key_file.create(path, ring)

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        place: object = os if step == "fsync" else Path
        monkeypatch.setattr(place, step, fail)
        with pytest.raises(KeyRingError, match=r"keys\.json cannot be written: No space left on device"):
            key_file.write(path, KeyRing.fresh())
        assert key_file.read(path) == ring
        assert list(path.parent.iterdir()) == [path]

    def test_the_bytes_are_synced_before_they_have_the_name_and_the_name_after(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key_file.create(path, KeyRing.fresh())
        steps = []
        fsync, replace = os.fsync, Path.replace

        def synced(fd: int) -> None:
            steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else f"{os.fstat(fd).st_size > 100}")
            fsync(fd)

        def replaced(source: Path, target: Path) -> Path:
            steps.append("rename")
            return replace(source, target)

        monkeypatch.setattr(os, "fsync", synced)
        monkeypatch.setattr(Path, "replace", replaced)
        key_file.write(path, KeyRing.fresh())
        assert steps == ["True", "rename", "directory"]
        steps.clear()
        key_file.create(path.with_name("another"), KeyRing.fresh())
        assert steps == ["True", "directory"]

    def test_through_a_link_the_file_that_it_names_is_replaced(self, path: Path) -> None:
        (path.parent / "elsewhere").mkdir()
        key_file.create(path.parent / "elsewhere" / "keys", KeyRing.fresh())
        path.symlink_to("elsewhere/keys")
        ring = KeyRing.fresh()
        key_file.write(path, ring)
        assert path.is_symlink()
        assert key_file.read(path.parent / "elsewhere" / "keys") == ring

    def test_links_that_go_round_and_missing_directories_are_told(self, path: Path) -> None:
        path.symlink_to(path.name)
        for use in (key_file.read, lambda path: key_file.write(path, KeyRing.fresh())):
            with pytest.raises(KeyRingError, match="cannot be"):
                use(path)
        for change in (key_file.create, key_file.write):
            with pytest.raises(KeyRingError, match="cannot be written: No such file or directory"):
                change(path.parent / "none" / "keys.json", KeyRing.fresh())
        with pytest.raises(KeyRingMissing, match="x does not exist"):
            key_file.change(path.parent / "none" / "x", lambda ring: ring)

    def test_of_many_changes_at_once_none_is_lost(self, path: Path) -> None:
        key_file.create(path, KeyRing.fresh())
        added = [SealKey.fresh(KeyState.VERIFYING) for _ in range(60)]
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda key: key_file.change(path, lambda ring: ring.with_key(key)), added))
        assert {key.id for key in key_file.read(path).keys} > {key.id for key in added}

    def test_a_change_that_is_refused_or_changes_nothing_writes_nothing(self, path: Path) -> None:
        ring = KeyRing.fresh()
        key_file.create(path, ring)
        inode = path.stat().st_ino
        assert key_file.change(path, lambda ring: ring) == (ring, ring)
        with pytest.raises(KeyRingError, match="rotate first"):
            key_file.change(path, lambda ring: ring.retired(ring.signing.id))
        assert path.stat().st_ino == inode

    @root_only
    def test_root_keeps_the_group_that_may_read_it(self, public_path: Path) -> None:
        put(public_path, DOCUMENT, 0o640)
        os.chown(public_path, 0, NOBODY)
        key_file.write(public_path, KeyRing.fresh())
        with another_user():
            assert len(key_file.read(public_path).keys) == 1
        assert stat.S_IMODE(public_path.stat().st_mode) == 0o640

    def test_of_many_processes_that_make_it_one_wins(self, path: Path) -> None:
        code = (
            "import sys, pathlib; from holdfast_server.checkpoints import key_file, key_ring\n"
            "ring = key_ring.KeyRing.fresh(); print('ready', flush=True); sys.stdin.readline()\n"
            "print(key_file.create(pathlib.Path(sys.argv[1]), ring), ring.signing.id.hex())"
        )
        command = [sys.executable, "-c", code, str(path)]
        with ExitStack() as stack:
            makers = []
            for _ in range(6):
                maker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                makers.append(stack.enter_context(killed_on_failure(maker)))
            for maker in makers:
                assert maker.stdout is not None
                assert maker.stdout.readline() == "ready\n"
            for maker in makers:
                assert maker.stdin is not None
                maker.stdin.write("\n")
                maker.stdin.flush()
            said = [maker.communicate(timeout=60)[0].split() for maker in makers]
        winners = [found for made, found in said if made == "True"]
        assert winners == [key_file.read(path).signing.id.hex()]
        assert list(path.parent.iterdir()) == [path]


class TestMakingItIfItIsMissing:
    def test_a_new_one_is_made_and_the_log_says_so(self, path: Path, caplog: pytest.LogCaptureFixture) -> None:
        key_file.make_if_missing(path)
        ring = key_file.read(path)
        (record,) = caplog.records
        assert (record.levelname, record.message) == ("WARNING", "A new sealing key ring was made")
        assert fields(record)["path"] == str(path)
        assert "back it up" in fields(record)["advice"]
        key_file.make_if_missing(path)
        assert key_file.read(path) == ring
        assert len(caplog.records) == 1

    def test_what_is_there_is_not_touched_be_it_wrong(self, path: Path) -> None:
        path.write_text("no ring")
        key_file.make_if_missing(path)
        assert path.read_text() == "no ring"

    def test_one_that_is_there_needs_no_directory_that_can_be_written(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key_file.create(path, KeyRing.fresh())

        def refuse(*_: object) -> int:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(os, "open", refuse)
        key_file.make_if_missing(path)

    def test_a_directory_that_cannot_be_written_is_told(self, path: Path) -> None:
        with pytest.raises(KeyRingError, match="cannot be written"):
            key_file.make_if_missing(path.parent / "none" / "keys.json")


def fields(record: logging.LogRecord) -> dict[str, str]:
    return dict(getattr(record, "fields", {}))


class Clock:
    """A clock that is set by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class TestReadingItAgain:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def rings(self, path: Path) -> list[KeyRing]:
        """Two rings, the first of which is in the file."""
        rings = [KeyRing.fresh(), KeyRing.fresh()]
        key_file.create(path, rings[0])
        return rings

    @staticmethod
    def errors(caplog: pytest.LogCaptureFixture) -> list[dict[str, str]]:
        found = [record for record in caplog.records if record.levelname == "ERROR"]
        assert {record.message for record in found} <= {"The sealing key ring cannot be used"}
        return [fields(record) for record in found]

    def test_a_change_is_in_force_after_a_second(self, path: Path, clock: Clock, rings: list[KeyRing]) -> None:
        keys = RingFile(path, clock)
        key_file.write(path, rings[1])
        clock.now += 0.99
        assert keys.ring == rings[0]
        clock.now += 0.01
        assert keys.ring == rings[1]
        key_file.write(path, rings[0])
        clock.now += 0.99
        assert keys.ring == rings[1]
        clock.now += 0.01
        assert keys.ring == rings[0]

    def test_a_change_in_place_is_seen_also_of_the_same_length(self, path: Path, clock: Clock) -> None:
        put(path, {"format": 1, "keys": [ENTRY]})
        keys = RingFile(path, clock)
        before = path.stat()
        put(path, {"format": 1, "keys": [{**ENTRY, "id": "0123456789abcdee"}]})
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert path.stat().st_size == before.st_size
        clock.now += 1
        assert keys.ring.signing.id.hex() == "0123456789abcdee"

    def test_it_is_looked_at_and_not_read_while_it_is_the_same(
        self, path: Path, clock: Clock, rings: list[KeyRing], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = RingFile(path, clock)
        looks: list[Path] = []
        reads: list[Path] = []
        stat_of = Path.stat

        def looked(found: Path) -> os.stat_result:
            looks.append(found)
            return stat_of(found)

        monkeypatch.setattr(Path, "stat", looked)
        monkeypatch.setattr(key_file, "_read", reads.append)
        for _ in range(10):
            clock.now += 0.5
            assert keys.ring is keys.ring
        assert len(looks) == 5
        assert reads == []

    @pytest.mark.parametrize("content", ["", "{}", json.dumps({**DOCUMENT, "format": 2})])
    def test_a_broken_change_keeps_the_old_ring_and_is_told_once(
        self, path: Path, clock: Clock, rings: list[KeyRing], caplog: pytest.LogCaptureFixture, content: str
    ) -> None:
        keys = RingFile(path, clock)
        put(path, content)
        for _ in range(5):
            clock.now += 1
            assert keys.ring == rings[0]
            assert keys.problem is None
        (told,) = self.errors(caplog)
        assert (told["path"], told["in_force"]) == (str(path), "the one that was read before")
        key_file.write(path, rings[1])
        clock.now += 1
        assert keys.ring == rings[1]
        put(path, content)
        clock.now += 1
        assert keys.ring == rings[1]
        assert len(self.errors(caplog)) == 2

    def test_one_that_vanished_keeps_the_old_ring_until_it_is_back(
        self, path: Path, clock: Clock, rings: list[KeyRing], caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = RingFile(path, clock)
        path.unlink()
        for _ in range(5):
            clock.now += 1
            assert keys.ring == rings[0]
        (told,) = self.errors(caplog)
        assert told["error"].endswith("keys.json does not exist")
        key_file.create(path, rings[1])
        clock.now += 1
        assert keys.ring == rings[1]
        path.unlink()
        clock.now += 1
        assert keys.ring == rings[1]
        assert len(self.errors(caplog)) == 2

    def test_wrong_permissions_are_a_change_and_so_are_mended_ones(
        self, path: Path, clock: Clock, rings: list[KeyRing], caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = RingFile(path, clock)
        path.chmod(0o644)
        clock.now += 1
        assert keys.ring == rings[0]
        assert "its mode is 0644" in self.errors(caplog)[0]["error"]
        path.chmod(0o600)
        clock.now += 1
        caplog.set_level(logging.INFO)
        assert keys.ring == rings[0]
        assert len(self.errors(caplog)) == 1

    def test_a_failure_that_passes_is_tried_again_though_the_file_is_the_same(
        self, path: Path, clock: Clock, rings: list[KeyRing], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", fail)
            keys = RingFile(path, clock)
            assert keys.problem is not None
        clock.now += 1
        assert keys.ring == rings[0]

    def test_without_a_usable_one_callers_are_told_no_path_and_the_log_why(
        self, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        put(path, DOCUMENT, 0o644)
        keys = RingFile(path, clock)
        with pytest.raises(SealKeyUnavailable) as refused:
            _ = keys.ring
        assert keys.problem is not None
        for error in (refused.value, keys.problem):
            assert error.message == "the server's key ring cannot be used; its log says why"
            assert error.details == {}
        (told,) = self.errors(caplog)
        assert (told["path"], told["in_force"]) == (str(path), "none")
        assert "its mode is 0644" in told["error"]
        path.chmod(0o600)
        clock.now += 1
        assert keys.problem is None
        assert len(keys.ring.keys) == 2

    def test_the_log_names_keys_and_no_secret(self, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        put(path, DOCUMENT)
        RingFile(path, clock)
        (record,) = caplog.records
        assert record.message == "Sealing key ring read"
        assert fields(record) == {
            "path": str(path),
            "signing": "0123456789abcdef",
            "verifying": "0123456789abcde0",
            "retired": "",
        }

    def test_threads_meet_only_whole_rings(self, path: Path, rings: list[KeyRing]) -> None:
        ticks = iter(range(1_000_000))
        keys = RingFile(path, lambda: float(next(ticks)))
        found: set[bytes] = set()
        failures: list[BaseException] = []

        def use() -> None:
            try:
                for _ in range(300):
                    found.add(keys.ring.signing.id)
            except BaseException as error:  # noqa: BLE001 (it is told below)
                failures.append(error)

        threads = [Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(100):
            key_file.write(path, rings[number % 2])
        for thread in threads:
            thread.join()
        assert failures == []
        assert found <= {ring.signing.id for ring in rings}
        assert keys.ring == rings[1]
