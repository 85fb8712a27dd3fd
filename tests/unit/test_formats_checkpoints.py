"""docs/formats.md on sealed objects: its example is what is sealed, and its reader reads what a server sealed."""

import base64
import hmac
import re
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

import holdfast
from holdfast_server.checkpoints import key_document, seal
from holdfast_server.checkpoints.key_ring import SealKey
from holdfast_server.checkpoints.names import RoomId
from holdfast_server.checkpoints.seal import Algorithm, Head, Measured, Purpose, Subject
from holdfast_server.checkpoints.segments import encrypted
from tests.support.documents import blocks
from tests.support.server_process import ServerProcess
from tests.support.tombstones import GAP, anew_after, tombstone_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
(RING,) = blocks(DOCUMENT, "json")
(READER,) = [code for code in blocks(DOCUMENT, "python") if "HOLDSEND" in code]
(DUMP,) = blocks(DOCUMENT, "hex")
EXAMPLE = b"".join(bytes.fromhex(line.split("  ")[1]) for line in DUMP.splitlines())
PAYLOAD = b"hello world"
SALT = bytes(range(32, 64))
LARGE = bytes(range(256)) * 10_000
"""Three segments, where it is encrypted."""


def key() -> SealKey:
    return key_document.parsed(RING.encode()).signing


def read(ring: Path, sealed: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run the document's reader."""
    return subprocess.run([sys.executable, "-c", READER, str(ring)], input=sealed, capture_output=True, check=False)


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """The document's key ring as a file."""
    path = tmp_path / "ring.json"
    path.write_text(RING)
    return path


def test_the_example_is_what_is_sealed() -> None:
    head = Head(Algorithm.HMAC_SHA256, Purpose.CHECKPOINT, key().id, SALT)
    subject = Subject("duel-7", 7, "node-3", {"map": "dust"})
    now = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    measured = Measured(len(PAYLOAD), sha256(PAYLOAD).digest())
    footer, _ = seal.seal(key(), head, subject, now, payload=measured, stored=measured)
    assert head.encode() + PAYLOAD + footer == EXAMPLE
    assert f"All {len(EXAMPLE)} bytes" in " ".join(DOCUMENT.split())


def test_the_encrypted_example_is_what_is_stored() -> None:
    head = Head(Algorithm.HMAC_SHA256_AES_256_GCM, Purpose.CHECKPOINT, key().id, SALT)
    assert f"`{b''.join(encrypted([PAYLOAD], key(), head)).hex()}`" in DOCUMENT


def test_the_reader_reads_the_example(ring: Path) -> None:
    done = read(ring, EXAMPLE)
    assert (done.returncode, done.stdout) == (0, PAYLOAD), done.stderr
    said = done.stderr.decode().strip()
    assert said == "checkpoint of room duel-7 epoch 7 by node-3"
    assert f"`{said}`" in DOCUMENT


@pytest.mark.parametrize("position", [12, 40, 60, 67, 75, 125, 160, 192, 200, 205, 217, 230, 262, 280, 290])
def test_the_reader_refuses_a_flipped_bit(ring: Path, position: int) -> None:
    damaged = bytearray(EXAMPLE)
    damaged[position] ^= 4
    done = read(ring, bytes(damaged))
    assert (done.returncode != 0, done.stdout) == (True, b"")


def test_the_reader_refuses_another_seal_in_a_footer_that_is_right(ring: Path) -> None:
    footer, end = EXAMPLE[-224:-44], EXAMPLE[-12:]
    assert footer.startswith(b"HOLDSEAL")
    other = footer[:-32] + bytes(32)
    tag = hmac.digest(key().derive("checkpoint/footer"), other + end, "sha256")
    done = read(ring, EXAMPLE[:-224] + other + tag + end)
    assert (done.returncode != 0, done.stdout) == (True, b"")
    assert b"the seal is wrong" in done.stderr


@pytest.fixture(params=["false", "true"], ids=["plain", "encrypted"])
def data_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The data directory of a server that has sealed one of each kind."""
    with (
        ServerProcess(tmp_path / "data", env={"HOLDFAST_CHECKPOINT_STORE__ENCRYPT": request.param}) as server,
        holdfast.connect(server.address) as client,
    ):
        client.checkpoints.save("ada/maze", 3, b"")
        client.checkpoints.save("ada/maze", 7, LARGE, writer_id="node-3", metadata={"map": "dust", "mode": ""})
        client.checkpoints.save("gone", 5, PAYLOAD)
        client.checkpoints.delete_room("gone")
        client.checkpoints.save("anew", 5, PAYLOAD)
        client.checkpoints.save("anew", client.checkpoints.delete_room("anew").next_epoch, PAYLOAD)
        client.checkpoints.hibernate("ada/nap", PAYLOAD, writer_id="node-3")
        client.checkpoints.hibernate("woken", PAYLOAD, writer_id="node-3/1")
        client.checkpoints.hibernate("again", PAYLOAD, writer_id="node-3/1")
        for room in ("woken", "again"):
            with client.checkpoints.restoring(room, writer_id="node-4") as reader:
                reader.read()
        client.checkpoints.hibernate("again", PAYLOAD, writer_id="node-4/1")
    return tmp_path / "data"


def test_the_reader_reads_all_that_a_server_seals(data_dir: Path) -> None:
    def payload_of(path: str, said: str) -> bytes:
        done = read(data_dir / "keys.json", (data_dir / "objects" / "tree" / path).read_bytes())
        assert (done.returncode, done.stderr.decode().strip()) == (0, said)
        return done.stdout

    maze = "snapshots.d/ada.d/maze.d/"
    assert payload_of(maze + "00000000000000000003.f", "checkpoint of room ada/maze epoch 3 by") == b""
    assert payload_of(maze + "00000000000000000007.f", "checkpoint of room ada/maze epoch 7 by node-3") == LARGE
    pointer = payload_of(maze + "latest.f", "pointer of room ada/maze epoch 7 by")
    file = (data_dir / "objects" / "tree" / (maze + "00000000000000000007.f")).read_bytes()
    sealed = file[: int.from_bytes(file[-16:-8], "little")]
    assert pointer == b"\1" + sealed[-76:-44]
    assert payload_of("snapshots.d/gone.d/latest.f", f"pointer of room gone epoch {tombstone_of(5)} by") == (
        b"\2" + bytes(32)
    )
    anew = payload_of("snapshots.d/anew.d/latest.f", f"pointer of room anew epoch {anew_after(5)} by")
    assert anew[:1] == b"\1"
    assert payload_of("hibernated.d/ada%2Fnap.f", "snapshot of room ada/nap epoch -1 by node-3") == PAYLOAD
    assert payload_of("hibernated.d/woken.f", "restored of room woken epoch -1 by node-4") == b""


def test_the_pointer_of_a_room_that_was_begun_anew_says_what_was_deleted_as_described(data_dir: Path) -> None:
    tree = data_dir / "objects" / "tree" / "snapshots.d"
    assert "`deleted-to`" in DOCUMENT
    assert "`deleted-by`" in DOCUMENT
    assert b"\x0a\x07\0deleted-to%d" % tombstone_of(5) in (tree / "anew.d" / "latest.f").read_bytes()
    for room in ("anew", "gone"):
        assert b"\x0a\x20\0deleted-by" in (tree / f"{room}.d" / "latest.f").read_bytes()
    assert f"{GAP:,}" in DOCUMENT


def test_what_stands_for_a_snapshot_that_was_given_up_names_it_as_described(data_dir: Path) -> None:
    stored = (data_dir / "objects" / "tree" / "hibernated.d" / "woken.f").read_bytes()
    signing = key_document.parsed((data_dir / "keys.json").read_bytes()).signing
    mark = hmac.digest(signing.derive("restored/mark"), b"woken" + sha256(PAYLOAD).digest(), "sha256").hex().encode()
    names = [name for name in (b"etag", b"hibernated-by", b"payload") if f"| `{name.decode()}` |" in DOCUMENT]
    assert len(names) == 3
    # Each entry: the lengths of name and value, then both; by rising name.
    pattern = rb"\x04(..)etag(.*?)\x0d\x08\0hibernated-bynode-3/1\x07\x40\0payload" + mark
    found = re.search(pattern, stored, re.DOTALL)
    assert found is not None
    assert int.from_bytes(found[1], "little") == len(found[2])


def test_a_snapshot_names_those_before_it_as_described(data_dir: Path) -> None:
    stored = (data_dir / "objects" / "tree" / "hibernated.d" / "again.f").read_bytes()
    signing = key_document.parsed((data_dir / "keys.json").read_bytes()).signing
    mark = hmac.digest(signing.derive("restored/mark"), b"again" + sha256(PAYLOAD).digest(), "sha256").hex()
    entry = signing.id.hex() + sha256(f"{mark}node-3/1".encode()).hexdigest()[:32]
    assert "| `.given-away` |" in DOCUMENT
    assert b"node-4/1\x0b" + (48).to_bytes(2, "little") + b".given-away" + entry.encode() in stored


def test_a_name_that_is_too_long_for_a_key_is_packed_as_described() -> None:
    room = RoomId("/".join(["%" * 200, "%" * 200, "ä" * 50]))
    *parts, last = room.snapshot_key.text.removeprefix("hibernated/").split("/")
    assert all(part.endswith("%") and len(part.encode()) <= 200 for part in parts)
    head, _, packed = ("".join(part[:-1] for part in parts) + last).partition("%~")
    plain = head.replace("%2F", "/").replace("%25", "%")
    assert (len(plain), plain + base64.urlsafe_b64decode(packed).decode()) == (64, room.text)


def test_a_long_name_of_a_snapshot_goes_on_as_described() -> None:
    room = RoomId("/".join(["ä" * 90, "%" * 60, "b" * 100]))
    flat = room.text.replace("%", "%25").replace("/", "%2F")
    *parts, last = room.snapshot_key.text.removeprefix("hibernated/").split("/")
    assert len(parts) >= 2
    for part in parts:
        assert part.endswith("%")
        assert 197 <= len(part.encode()) <= 200
    assert "".join(part[:-1] for part in parts) + last == flat
