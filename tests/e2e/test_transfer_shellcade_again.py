"""`holdfast-server import shellcade` a second time: what Holdfast has sealed since stays, unless that is said."""

from pathlib import Path

import pytest

import holdfast
from holdfast_server.objects.memory import MemoryStore
from holdfast_server.transfer.incoming import Incoming
from holdfast_server.transfer.outcome import Outcome
from holdfast_server.transfer.shellcade import ShellcadeImport, opened_shellcade
from tests.support.any_checkpoints import epoch_name, pointer_name
from tests.support.legacy_forms import SECRET, Impatient, flat, legacy_keys, migrate, reading_legacy, room_of, tagged
from tests.support.meddled_store import MeddledStore, meanwhile
from tests.support.server_process import ServerProcess
from tests.support.transfers import damage, objects_in, put_all, run, write_tree

ROOM = "duel"
TREE = room_of(ROOM, {0: b"old 0", 1: b"old 1"}) | flat("sleepy", b"slept long ago") | {"catalog/x": b"1"}
LEGACY = {"HOLDFAST_CHECKPOINT_STORE__LEGACY": "true"}
KEPT = "left alone, since Holdfast has sealed what is there: --replace-sealed replaces it"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that was imported and migrated, and the tree that it came from, with other bytes by now."""
    data = tmp_path / "data"
    (tmp_path / "secret").write_bytes(SECRET)
    write_tree(tmp_path / "blobs", TREE)
    assert run("import", "shellcade", tmp_path / "blobs", "--to", data).code == 0
    assert run("keys", "generate", "--data-dir", data).code == 0
    assert run("keys", "add-legacy", tmp_path / "secret", "--data-dir", data).code == 0
    assert run("checkpoints", "migrate", "--data-dir", data).code == 0
    return data


def test_rooms_that_live_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "blobs", {"catalog/x": b"2", epoch_name(ROOM, 5): tagged(b"what nobody names")})
    with ServerProcess(data, env=LEGACY) as server, holdfast.connect(server.address) as client:
        client.checkpoints.save(ROOM, 2, b"new")
        with client.checkpoints.restoring("sleepy", writer_id="node") as reader:
            assert reader.read() == b"slept long ago"
        before = objects_in(data)
        for flags, verb in ((["--dry-run", "--json"], None), ([], "copied")):
            ran = run("import", "shellcade", tmp_path / "blobs", "--to", data, *flags)
            assert (ran.code, ran.err) == (0, "")
            if verb is None:
                assert ran.count("copied", "replaced", "kept") == {"copied": 2, "replaced": 1, "kept": 4}
                assert objects_in(data) == before
            else:
                assert ran.out.splitlines()[-1] == f"4 {KEPT}"
        assert client.checkpoints.load(ROOM).read() == b"new"
    after = objects_in(data)
    assert {name for name in after if after[name] != before.get(name)} == {"catalog/x", epoch_name(ROOM, 5)}
    with ServerProcess(data, env=LEGACY) as server, holdfast.connect(server.address) as client:
        assert client.checkpoints.load(ROOM).read() == b"new"
        assert list(client.checkpoints.hibernated()) == []


def test_where_it_is_said_the_old_state_comes_back(data: Path, tmp_path: Path) -> None:
    before = run("import", "shellcade", tmp_path / "blobs", "--to", data, "--replace-sealed", "--json")
    assert (before.code, before.count("copied", "replaced", "kept")) == (0, {"copied": 4, "replaced": 3, "kept": 0})
    assert {name: objects_in(data)[name].data for name in TREE} == TREE


def test_a_room_with_sealed_epochs_that_the_tree_lacks_stays_and_is_named(data: Path, tmp_path: Path) -> None:
    with ServerProcess(data, env=LEGACY) as server, holdfast.connect(server.address) as client:
        client.checkpoints.save(ROOM, 2, b"new")
    before = objects_in(data)
    for flags in (["--dry-run"], []):
        ran = run("import", "shellcade", tmp_path / "blobs", "--to", data, "--replace-sealed", *flags)
        assert ran.code == 1
        lines = [line.split(": ") for line in ran.err.splitlines()]
        assert sorted(line[1] for line in lines) == sorted(name for name in TREE if name.startswith("snapshots/duel/"))
        assert {f"Holdfast has sealed {epoch_name(ROOM, 2)!r}" in line[2] for line in lines} == {True}
    after = objects_in(data)
    assert {name: after[name] for name in after if ROOM in name} == {
        name: before[name] for name in before if ROOM in name
    }
    assert after["snapshots/sleepy"].data == TREE["snapshots/sleepy"]
    with ServerProcess(data, env=LEGACY) as server, holdfast.connect(server.address) as client:
        assert client.checkpoints.load(ROOM).read() == b"new"


@pytest.mark.parametrize("pointer", [TREE[pointer_name(ROOM)], b"garbage"])
def test_no_plain_pointer_is_put_beside_sealed_epochs(data: Path, tmp_path: Path, pointer: bytes) -> None:
    (data / "objects/tree/snapshots.d" / f"{ROOM}.d" / "latest.f").unlink()
    write_tree(tmp_path / "blobs", {pointer_name(ROOM): pointer})
    ran = run("import", "shellcade", tmp_path / "blobs", "--to", data)
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert ran.err.startswith(f"failed: {pointer_name(ROOM)}: Holdfast has sealed checkpoints of the room")
    assert pointer_name(ROOM) not in objects_in(data)
    with ServerProcess(data, env=LEGACY) as server, holdfast.connect(server.address) as client:
        good = client.checkpoints.load(ROOM, epoch=1).read()
        assert client.checkpoints.save(ROOM, 2, good, replace_damaged_pointer=True).pointer_moved


def test_a_pointer_that_came_later_is_migrated_with_its_room(tmp_path: Path) -> None:
    objects = MemoryStore()
    keys = legacy_keys()
    late = room_of(ROOM, {0: b"old 0", 1: b"old 1"})
    tree = tmp_path / "blobs"
    write_tree(tree, {name: late[name] for name in late if name != pointer_name(ROOM)})
    for failures in (2, 0):
        with opened_shellcade(tree) as opened:
            done = [task() for task in ShellcadeImport(Incoming(opened, objects, Impatient())).tasks()]
        assert [each for each in done if each.outcome is Outcome.FAILED] == []
        assert len([each for each in migrate(objects, keys) if each.outcome is Outcome.FAILED]) == failures
        write_tree(tree, late)
    rooms = reading_legacy(objects, keys)
    assert rooms.load(ROOM).data == b"old 1"
    rooms.close()


def test_what_is_damaged_may_have_been_sealed(data: Path, tmp_path: Path) -> None:
    directory = data / "objects/tree/snapshots.d" / f"{ROOM}.d"
    (directory / "latest.f").write_bytes(b"not even a record")
    ran = run("import", "shellcade", tmp_path / "blobs", "--to", data)
    assert ran.code == 1
    assert ran.err.startswith(f"failed: {pointer_name(ROOM)}: what is there is damaged, and Holdfast may have sealed")
    assert (directory / "latest.f").read_bytes() == b"not even a record"
    assert run("import", "shellcade", tmp_path / "blobs", "--to", data, "--replace-sealed").code == 0


def test_what_shellcade_wrote_is_mended_and_replaced_as_ever(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "blobs", TREE)
    assert run("import", "shellcade", tree, "--to", tmp_path / "data").code == 0
    damage(tmp_path / "data", epoch_name(ROOM, 1))
    write_tree(tmp_path / "blobs", {pointer_name(ROOM): epoch_name(ROOM, 0).encode()})
    ran = run("import", "shellcade", tree, "--to", tmp_path / "data", "--verify", "--json")
    assert (ran.code, ran.count("copied", "replaced", "kept")) == (0, {"copied": 2, "replaced": 2, "kept": 0})
    assert objects_in(tmp_path / "data")[pointer_name(ROOM)].data == epoch_name(ROOM, 0).encode()


@pytest.mark.parametrize("name", [pointer_name("new"), pointer_name(ROOM)])
def test_what_a_server_saves_meanwhile_stays(tmp_path: Path, name: str) -> None:
    objects = MeddledStore(MemoryStore())
    rooms = reading_legacy(objects.inner)
    put_all(objects.inner, room_of(ROOM, {0: b"old 0"}))
    room = name.split("/")[1]
    objects.before = meanwhile("put", name, lambda: rooms.save(room, 7, b"saved"))
    tree = write_tree(tmp_path / "blobs", room_of(ROOM, {1: b"old 1"}) | room_of("new", {1: b"old"}))
    with opened_shellcade(tree) as opened:
        done = [task() for task in ShellcadeImport(Incoming(opened, objects, Impatient())).tasks()]
    assert [each.name for each in done if each.outcome is Outcome.KEPT] == [name]
    assert [each for each in done if each.outcome is Outcome.FAILED] == []
    rooms.restart()
    assert rooms.load(room).data == b"saved"
    rooms.close()
