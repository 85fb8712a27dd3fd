"""File trees: what is started in one ends with what started it, and nothing outside is touched."""

import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support.child_processes import killed_on_failure
from tests.support.file_trees import Entry, FileTree, NoNamespace, namespace_command
from tests.support.waiting import wait_until

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    try:
        namespace_command()
    except NoNamespace as missing:
        pytest.skip(f"no file tree here: {missing}")
    return FileTree(tmp_path / "tree")


def test_a_process_of_another_user_ends_with_what_started_it(tree: FileTree) -> None:
    entry = Entry(user="10001:10001", environment=ENVIRONMENT, tools=True)
    with killed_on_failure(subprocess.Popen(tree.command(["sleep", "1000"], entry))) as process:
        started = psutil.Process(process.pid)
        wait_until(lambda: any("sleep" in one.name() for one in started.children(recursive=True)))
        all_of_it = started.children(recursive=True)
        process.kill()
        _gone, left = psutil.wait_procs(all_of_it, timeout=30)
    assert left == []


def test_the_machine_cannot_be_written_from_within(tree: FileTree) -> None:
    entry = Entry(environment=ENVIRONMENT, tools=True)
    for path in ("/etc", "/usr/lib", "/usr/bin"):
        done = tree.run(["touch", f"{path}/holdfast-test"], entry)
        assert "Read-only file system" in done.stderr
        assert not Path(path, "holdfast-test").exists()


def test_a_process_sees_its_tree_and_its_variables_and_no_others(
    tree: FileTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.at("/opt").mkdir()
    monkeypatch.setenv("HOLDFAST_TEST_OUTSIDE", "1")
    entry = Entry(environment={**ENVIRONMENT, "A": "b"}, tools=True)
    said = set(tree.run(["sh", "-c", "env; ls /"], entry).stdout.split())
    assert {"A=b", "opt"} <= said
    assert not said & {"HOLDFAST_TEST_OUTSIDE=1", "home", "root", "var"}


def test_a_read_only_tree_can_be_written_in_its_volumes_alone(tree: FileTree, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    entry = Entry(environment=ENVIRONMENT, volumes={"/v": tmp_path / "volume"}, tools=True, read_only=True)
    assert "Read-only file system" in tree.run(["touch", "/usr/local/x"], entry).stderr
    assert tree.run(["touch", "/v/x"], entry).returncode == 0
    assert (tmp_path / "volume/x").exists()


def test_the_exit_code_is_the_commands(tree: FileTree) -> None:
    assert tree.run(["sh", "-c", "exit 7"], Entry(environment=ENVIRONMENT, tools=True)).returncode == 7
