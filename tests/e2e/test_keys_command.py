"""`holdfast-server keys ...` as operators meet it: a process, a file, what it says, and never a secret in it."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from holdfast_server.checkpoints import key_document, key_file
from holdfast_server.checkpoints.key_ring import KeyRing, KeyState
from tests.support import documents
from tests.support.server_process import ServerProcess
from tests.support.transfers import Ran, command, environment, run

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
FORMATS = (ROOT / "docs/formats.md").read_text()
ID = r"\b([0-9a-f]{16})\b"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ring" / "keys.json"


def keys(path: Path, *arguments: object, code: int = 0) -> Ran:
    """Run a `keys` command on this file, and see that it shows no secret of it."""
    ran = run("keys", *arguments, "--key-ring", path)
    assert ran.code == code, ran
    check_silence(path, ran.out + ran.err)
    return ran


def check_silence(path: Path, text: str) -> None:
    document = json.loads(path.read_text()) if path.exists() else {"keys": [], "legacy": []}
    ring = key_file.read(path) if path.exists() else KeyRing(())
    secrets = [entry["secret"] for entry in document["keys"]] + document["legacy"]
    secrets += [secret.hex() for secret in (*(key.secret for key in ring.keys), *ring.legacy)]
    assert [secret for secret in secrets if secret in text] == []


def states(path: Path) -> list[str]:
    return [key.state.value for key in key_file.read(path).keys]


def ids(path: Path) -> list[str]:
    return [key.id.hex() for key in key_file.read(path).keys]


def test_generate_makes_a_ring_and_then_adds_keys_that_wait(path: Path) -> None:
    made = keys(path, "generate")
    assert re.search(f"was made: key {ids(path)[0]} signs\nback it up", made.out)
    assert states(path) == ["signing"]
    first = key_file.read(path).signing
    added = keys(path, "generate")
    assert re.search(
        f"key {ids(path)[1]} was added, and verifies\n.*every server.*`holdfast-server keys rotate`", added.out
    )
    assert states(path) == ["signing", "verifying"]
    assert key_file.read(path).signing == first
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_list_shows_ids_states_and_times(path: Path) -> None:
    keys(path, "generate")
    keys(path, "generate")
    lines = keys(path, "list").out.splitlines()
    assert [line.split()[:2] for line in lines] == [[ids(path)[0], "signing"], [ids(path)[1], "verifying"]]
    assert all(re.search(r"  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", line) for line in lines)
    (path.parent / "secret").write_text("x" * 32)
    keys(path, "add-legacy", path.parent / "secret")
    assert keys(path, "list").out.splitlines() == [*lines, "legacy secrets: 1"]
    document: dict[str, Any] = keys(path, "list", "--json").summary
    assert document["key_ring"] == str(path)
    assert document["legacy_secrets"] == 1
    assert [(key["id"], key["state"]) for key in document["keys"]] == list(zip(ids(path), states(path), strict=True))
    assert {frozenset(key) for key in document["keys"]} == {frozenset({"id", "state", "create_time"})}


def test_rotate_makes_the_waiting_key_sign(path: Path) -> None:
    for _ in range(3):
        keys(path, "generate")
    first, second, third = ids(path)
    rotated = keys(path, "rotate")
    assert f"key {third} signs\nkey {first} verifies what it sealed\n" in rotated.out
    assert states(path) == ["verifying", "verifying", "signing"]
    assert ids(path) == [first, second, third]


def test_rotate_makes_a_new_key_where_none_waits(path: Path) -> None:
    keys(path, "generate")
    (first,) = ids(path)
    rotated = keys(path, "rotate")
    new = ids(path)[1]
    assert f"key {new} signs; it is new\nkey {first} verifies what it sealed\n" in rotated.out
    assert states(path) == ["verifying", "signing"]


def test_rotate_takes_the_key_that_is_named(path: Path) -> None:
    keys(path, "generate")
    keys(path, "generate")
    first, second = ids(path)
    keys(path, "rotate", second.upper())
    assert states(path) == ["verifying", "signing"]
    assert f"key {first} signs\n" in keys(path, "rotate", first).out
    assert states(path) == ["signing", "verifying"]
    before = path.stat()
    assert keys(path, "rotate", first).out == f"key {first} was signing already\n"
    assert path.stat().st_ino == before.st_ino
    keys(path, "retire", second, "--yes")
    assert "is retired: readmit it first" in keys(path, "rotate", second, code=1).err
    assert "is not in the key ring" in keys(path, "rotate", "0" * 16, code=1).err


def test_a_key_is_retired_and_readmitted_with_its_secret(path: Path) -> None:
    keys(path, "generate")
    keys(path, "rotate")
    before = key_file.read(path)
    old = ids(path)[0]
    retired = keys(path, "retire", old, "--yes")
    assert f"key {old} is retired; `holdfast-server keys readmit {old}` takes that back" in retired.out
    assert f"`holdfast-server keys usage {old}` tells what it sealed" in retired.err
    assert states(path) == ["retired", "signing"]
    assert keys(path, "readmit", old).out == f"key {old} verifies\n"
    assert key_file.read(path) == before
    assert "is not retired" in keys(path, "readmit", old, code=1).err


def test_the_signing_key_and_unknown_keys_are_not_retired(path: Path) -> None:
    keys(path, "generate")
    for options in ((), ("--yes",)):
        assert "is signing: rotate first" in keys(path, "retire", ids(path)[0], *options, code=1).err
    assert "is not in the key ring" in keys(path, "retire", "0" * 16, "--yes", code=1).err
    assert states(path) == ["signing"]


def test_retiring_is_asked_for_at_a_terminal_and_refused_without_one(path: Path) -> None:
    keys(path, "generate")
    keys(path, "rotate")
    old = ids(path)[0]
    refused = keys(path, "retire", old, code=1)
    assert "can be read any more. Retire it? There is no terminal to ask at: give --yes" in refused.err
    for answer, code, state in (("n", 1, "verifying"), ("y", 0, "retired")):
        leader, follower = pty.openpty()
        with os.fdopen(leader, "wb", buffering=0) as terminal:
            terminal.write(f"{answer}\n".encode())
            asked = subprocess.run(
                command("keys", "retire", old, "--key-ring", path),
                stdin=follower,
                capture_output=True,
                env=environment(),
                timeout=60,
                check=False,
            )
            os.close(follower)
        assert asked.returncode == code, asked
        assert b"Nothing that key %s sealed can be read any more. Retire it? [y/N]" % old.encode() in asked.stdout
        assert states(path)[0] == state


@pytest.mark.parametrize(
    ("content", "secret"), [(b"s" * 32 + b"\n", b"s" * 32), (b"s" * 32 + b"\r\n", b"s" * 32), (b"\xff\n\n", b"\xff\n")]
)
def test_a_legacy_secret_is_taken_without_its_newline(path: Path, content: bytes, secret: bytes) -> None:
    keys(path, "generate")
    file = path.parent / "secret"
    file.write_bytes(content)
    added = keys(path, "add-legacy", file)
    assert added.out == "the legacy secret is in the key ring\n"
    assert ("warning: it has 2 bytes only, fewer than 32" in added.err) is (len(secret) < 32)
    assert key_file.read(path).legacy == (secret,)
    assert keys(path, "add-legacy", file).out == "the legacy secret was there already\n"
    assert key_file.read(path).legacy == (secret,)
    assert states(path) == ["signing"]


def test_the_keys_of_a_ring_that_turned_up_again_verify(path: Path) -> None:
    found = path.with_name("found.json")
    keys(found, "generate")
    keys(found, "rotate")
    keys(found, "retire", ids(found)[0], "--yes")
    retired, signed = ids(found)
    keys(path, "generate")
    (own,) = ids(path)
    added = keys(path, "add", found)
    assert added.out == (
        f"key {retired} was added, and is retired\nkey {signed} was added, and verifies\n"
        "give the key ring to every server\n"
    )
    assert (ids(path), states(path)) == ([retired, signed, own], ["retired", "verifying", "signing"])
    assert keys(path, "add", found).out == f"key {retired} was there already\nkey {signed} was there already\n"
    assert "it is new" in keys(path, "rotate").out  # none of those that were added waits to sign


def test_what_is_no_ring_or_another_one_is_not_added(path: Path) -> None:
    keys(path, "generate")
    before = path.read_bytes()
    found = path.with_name("found.json")
    assert f"key ring {found} does not exist\n" in keys(path, "add", found, code=1).err
    document = json.loads(before)
    document["keys"][0]["secret"] = json.loads(key_document.written(KeyRing.fresh()))["keys"][0]["secret"]
    found.write_text(json.dumps(document))
    found.chmod(0o644)
    assert "its mode is 0644" in keys(path, "add", found, code=1).err
    found.chmod(0o600)
    assert (
        f"sealing key {ids(path)[0]} is in both key rings, and not the same one" in keys(path, "add", found, code=1).err
    )
    assert path.read_bytes() == before


def test_a_legacy_secret_comes_from_standard_input(path: Path) -> None:
    keys(path, "generate")
    for given, code, said in ((b"hunter2\n", 0, b"7 bytes only"), (b"\n", 1, b"- is empty"), (b"", 1, b"- is empty")):
        done = subprocess.run(
            command("keys", "add-legacy", "-", "--key-ring", path),
            input=given,
            capture_output=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        assert (done.returncode, said in done.stderr) == (code, True), done
        assert b"hunter" not in done.stdout + done.stderr
    assert key_file.read(path).legacy == (b"hunter2",)
    (path.parent / "huge").write_bytes(b"x" * 70_000)
    assert "holds more than a secret" in keys(path, "add-legacy", path.parent / "huge", code=1).err
    assert "missing: No such file" in keys(path, "add-legacy", path.parent / "missing", code=1).err


@pytest.mark.parametrize("arguments", [("list",), ("rotate",), ("retire", "0" * 16)])
def test_without_a_ring_they_name_the_command_that_makes_one(path: Path, arguments: tuple[str, ...]) -> None:
    refused = keys(path, *arguments, code=1)
    assert (
        refused.err == f"holdfast-server: key ring {path} does not exist: `holdfast-server keys generate` makes one\n"
    )
    assert not path.exists()


def test_a_ring_that_others_can_read_is_not_used_nor_mended(path: Path) -> None:
    keys(path, "generate")
    path.chmod(0o644)
    before = path.read_bytes()
    for arguments in (("list",), ("rotate",), ("generate",)):
        refused = run("keys", *arguments, "--key-ring", path)
        assert (refused.code, refused.out) == (1, "")
        assert "its mode is 0644" in refused.err
    assert path.read_bytes() == before


@pytest.mark.parametrize("wrong", ["", "0123", "g" * 16, "0123456789abcdef0"])
def test_what_is_no_id_is_a_wrong_option(path: Path, wrong: str) -> None:
    keys(path, "generate")
    for name in ("rotate", "retire", "readmit"):
        assert "16 hex digits" in keys(path, name, wrong, code=2).err


class TestWhichRing:
    """The one that `serve` would use."""

    @staticmethod
    def made(env: Mapping[str, str], *arguments: object) -> Ran:
        return run("keys", "generate", *arguments, env=env)

    def test_flags_variables_and_the_file_are_those_of_serve(self, tmp_path: Path) -> None:
        file = tmp_path / "holdfast.toml"
        file.write_text(
            f'data_dir = "{tmp_path}/of-the-file"\n[checkpoint_store]\nkey_ring = "{tmp_path}/named.json"\n'
        )
        data = {"HOLDFAST_DATA_DIR": str(tmp_path / "of-the-variable")}
        ring = {"HOLDFAST_CHECKPOINT_STORE__KEY_RING": str(tmp_path / "of-the-variable.json")}
        for env, arguments, expected in (
            ({}, ("--data-dir", tmp_path / "of-the-flag"), "of-the-flag/keys.json"),
            (data, (), "of-the-variable/keys.json"),
            ({**data, **ring}, (), "of-the-variable.json"),
            ({"HOLDFAST_CONFIG": str(file)}, (), "named.json"),
            ({**data, **ring}, ("--key-ring", tmp_path / "of-the-flag.json"), "of-the-flag.json"),
        ):
            ran = self.made(env, *arguments)
            assert (ran.code, ran.err) == (0, "")
            assert KeyState.SIGNING in states(tmp_path / expected)
        assert "was added" in self.made({}, "--config", file).out

    def test_wrong_settings_and_no_place_for_it_are_78(self, tmp_path: Path) -> None:
        nowhere = self.made({})
        assert nowhere.code == 78
        assert nowhere.err.startswith("holdfast-server: setting checkpoint_store.key_ring: ")
        wrong = self.made({"HOLDFAST_HTTP": "nonsense"}, "--data-dir", tmp_path / "data")
        assert (wrong.code, wrong.err.startswith("holdfast-server: setting http")) == (78, True)

    def test_a_data_directory_may_have_its_keys_before_its_first_start(self, tmp_path: Path) -> None:
        self.made({}, "--data-dir", tmp_path / "data")
        before = (tmp_path / "data" / "keys.json").read_bytes()
        with ServerProcess(tmp_path / "data") as server:
            assert server.stop() == 0
        assert (tmp_path / "data" / "keys.json").read_bytes() == before
        check_silence(tmp_path / "data" / "keys.json", "".join(server.log))


def test_of_many_commands_at_once_no_change_is_lost(path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        for ran in pool.map(lambda _: run("keys", "generate", "--key-ring", path), range(12)):
            assert (ran.code, ran.err) == (0, "")
    assert sorted(states(path)) == ["signing", *["verifying"] * 11]
    assert list(path.parent.iterdir()) == [path]


def test_docs_operations_shows_what_they_say(tmp_path: Path) -> None:
    section = OPERATIONS[OPERATIONS.index("## Sealing keys") : OPERATIONS.index("## What the log says")]
    block, _ = documents.blocks(section, "console")  # the other one is in test_keys_usage.py
    env = environment()
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    said, shown = "", ""
    for step in documents.steps(block):
        said += documents.run(step.command, tmp_path, env)
        shown += step.output
    assert numbered(documents.form(said)) == numbered(documents.form(shown))


def numbered(text: str) -> str:
    """Return a text with each id replaced by its number, from the first on."""
    found = list(dict.fromkeys(re.findall(ID, text)))
    return re.sub(ID, lambda match: f"<{found.index(match[1])}>", text)


def test_docs_formats_describes_the_file_that_is_read(path: Path) -> None:
    section = FORMATS[FORMATS.index("## The key ring") : FORMATS.index("## Page tokens")]
    (example,) = documents.blocks(section, "json")
    path.parent.mkdir()
    path.write_text(example)
    path.chmod(0o600)
    ring = key_file.read(path)
    assert ring.legacy == (b"legacy",)
    assert f"`{ring.signing.derive('example').hex()}`" in section
    key_file.write(path, ring)
    assert json.loads(path.read_text()) == json.loads(example)
