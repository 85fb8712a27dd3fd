"""Where a spool is: in its own directory, or the system's."""

import stat
import tempfile
from pathlib import Path

import pytest

from holdfast_server.objects.spool import Spool
from tests.support.faulty_disk import open_files_below


def test_a_missing_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "new" / "spool")
    for made in (tmp_path / "new", tmp_path / "new" / "spool"):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
    Spool(tmp_path / "new" / "spool")


def test_without_a_directory_the_systems_own_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Spool().open():
        assert len(open_files_below(tmp_path)) == 1


@pytest.mark.parametrize("path", ["file", "file/below", "/proc"])
def test_a_directory_that_cannot_be_used_is_told_at_once(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists|No such file or directory") as refused:
        Spool(tmp_path / path)
    assert (refused.value.strerror or "").startswith(f"the spool directory {tmp_path / path} cannot be used: ")
