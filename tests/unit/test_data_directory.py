"""A data directory is ours, or it is left alone."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from holdfast_server.data_directory import DataDirectoryError, is_new, open_data_directory


def test_a_missing_directory_is_made_and_keeps_its_id(tmp_path: Path) -> None:
    first = open_data_directory(tmp_path / "new" / "data")
    assert open_data_directory(tmp_path / "new" / "data") == first
    assert len(first.store_id) == 32
    assert (tmp_path / "new" / "data").stat().st_mode & 0o077 == 0


def test_two_stores_have_two_ids(tmp_path: Path) -> None:
    assert open_data_directory(tmp_path / "a").store_id != open_data_directory(tmp_path / "b").store_id


def test_many_who_make_one_directory_agree_on_its_id(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: open_data_directory(tmp_path / "data"), range(8)))
    assert len(found) == 1
    assert [path.name for path in (tmp_path / "data" / "holdfast").iterdir()] == ["store"]


def test_a_foreign_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataDirectoryError, match=r"holiday\.jpg"):
        open_data_directory(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_fresh_file_system_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    open_data_directory(tmp_path)


def test_one_with_nothing_but_sealing_keys_is_taken(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("keys")
    (tmp_path / f"keys.json.{'0123456789abcdef' * 2}").touch()
    assert is_new(tmp_path)
    open_data_directory(tmp_path)
    assert (tmp_path / "keys.json").read_text() == "keys"
    assert not is_new(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_data_directory(tmp_path / "data")
    marker = tmp_path / "data" / "holdfast" / "store"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 2}))
    with pytest.raises(DataDirectoryError, match="newer Holdfast"):
        open_data_directory(tmp_path / "data")


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"format": "1", "store_id": "x"}', "\x00" * 60])
def test_a_damaged_marker_is_refused(tmp_path: Path, content: str) -> None:
    open_data_directory(tmp_path / "data")
    marker = tmp_path / "data" / "holdfast" / "store"
    marker.write_text(content)
    with pytest.raises(DataDirectoryError, match="damaged"):
        open_data_directory(tmp_path / "data")
    assert marker.read_text() == content


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        open_data_directory(tmp_path / "data")


@pytest.mark.parametrize("name", ["objects/pack", "holdfast/notes.txt", "holdfast/store.old"])
def test_foreign_files_under_our_names_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).touch()
    with pytest.raises(DataDirectoryError, match=name.partition("/")[0]):
        open_data_directory(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]


def test_a_start_that_was_killed_is_no_obstacle(tmp_path: Path) -> None:
    half_made = tmp_path / "holdfast" / f"store.{'0123456789abcdef' * 2}"
    half_made.parent.mkdir()
    half_made.write_text('{"for')
    assert open_data_directory(tmp_path) == open_data_directory(tmp_path)


def test_the_marker_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_data_directory(tmp_path / "data")
    assert stat.S_IMODE((tmp_path / "data" / "holdfast" / "store").stat().st_mode) == 0o600
