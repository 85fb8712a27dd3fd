"""A store in a new place survives a loss of power together with its place."""

import os
from pathlib import Path

import pytest

from holdfast_server.data_directory import open_data_directory
from holdfast_server.objects.filesystem import FilesystemStore


def test_every_new_directory_on_the_way_to_a_store_is_synced_in_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    fsync = os.fsync

    def noting(fd: int) -> None:
        fsync(fd)
        synced.add(Path(f"/proc/self/fd/{fd}").readlink())

    monkeypatch.setattr(os, "fsync", noting)
    data = open_data_directory(tmp_path / "new" / "place" / "data")
    FilesystemStore(data.objects).close()
    made = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert [path for path in made if path.parent not in synced] == []
