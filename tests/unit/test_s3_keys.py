"""The keys for S3: where they are looked for, that they are of one source, and that they never show."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from holdfast_server.config import Settings
from tests.support.s3_variables import (
    AWS,
    KEYS,
    MINIO,
    PLACE,
    ROOT,
    WHOLE,
    Load,
    keys,
    loader,
    options,
    refusal,
    without,
)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(monkeypatch)


def test_keys_are_taken_in_order_and_only_as_a_pair_of_one_source(load: Load) -> None:
    given = {**WHOLE, **AWS, **MINIO, **ROOT}
    found = []
    for source in (KEYS, AWS, MINIO, ROOT):
        found.append(keys(load(given)))
        given = without(given, *source)
    assert found == [
        ("own-key", "hunter2-own", ""),
        ("aws-key", "hunter2-aws", "hunter2-token"),
        ("minio-key", "hunter2-minio", ""),
        ("root-key", "hunter2-root", ""),
    ]
    message = refusal(load, given)
    assert "lacks s3.access_key (HOLDFAST_S3__ACCESS_KEY), s3.secret_key (HOLDFAST_S3__SECRET_KEY)" in message


def test_keys_of_minio_come_first_at_the_endpoint_of_minio(load: Load) -> None:
    variables = {"HOLDFAST_S3__BUCKET": "holdfast", "MINIO_ENDPOINT": "http://minio:9000", "AWS_REGION": "eu-west-1"}
    assert keys(load({**variables, **AWS, **MINIO, **ROOT}))[0] == "minio-key"
    assert keys(load({**variables, **AWS, **ROOT}))[0] == "root-key"
    assert keys(load({**variables, **AWS})) == ("aws-key", "hunter2-aws", "hunter2-token")
    assert options(load({**variables, **AWS, **MINIO})).endpoint == "minio:9000"


@pytest.mark.parametrize("missing", ["ACCESS_KEY", "SECRET_KEY"])
def test_half_a_pair_of_ours_is_not_filled_from_elsewhere(load: Load, missing: str) -> None:
    variables = {**without(WHOLE, f"HOLDFAST_S3__{missing}"), **AWS, **MINIO}
    assert f"lacks s3.{missing.lower()} (HOLDFAST_S3__{missing})" in refusal(load, variables)


@pytest.mark.parametrize("source", [AWS, MINIO, ROOT])
@pytest.mark.parametrize("half", [0, 1])
def test_half_a_pair_of_others_is_an_error(load: Load, source: dict[str, str], half: int) -> None:
    pair = list(source)[:2]
    message = refusal(load, {**PLACE, pair[half]: source[pair[half]]})
    assert message.startswith(f"variable {pair[half]} is set without {pair[1 - half]}")


def test_a_token_belongs_to_the_pair_beside_it(load: Load) -> None:
    own = {**WHOLE, "HOLDFAST_S3__SESSION_TOKEN": "hunter2-own-token"}
    assert keys(load({**own, **AWS}))[2] == "hunter2-own-token"
    assert keys(load({**WHOLE, **AWS}))[2] == ""
    assert "setting s3.session_token: " in refusal(load, {**without(own, *KEYS), **AWS})
    assert keys(load({**PLACE, "AWS_SESSION_TOKEN": "hunter2-token", **MINIO}))[2] == ""


@pytest.mark.parametrize("wrong", ["hunter2\n", "hunter2 ", "hun\tter2", "hünter2", "\x7fhunter2", "hunter2\udcff"])
@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("HOLDFAST_S3__ACCESS_KEY", "setting s3.access_key:"),
        ("HOLDFAST_S3__SESSION_TOKEN", "setting s3.session_token:"),
        ("AWS_ACCESS_KEY_ID", "variable AWS_ACCESS_KEY_ID:"),
        ("AWS_SESSION_TOKEN", "variable AWS_SESSION_TOKEN:"),
    ],
)
def test_what_cannot_be_a_header_is_no_key(load: Load, name: str, called: str, wrong: str) -> None:
    variables = {**WHOLE, name: wrong} if "S3" in name else {**PLACE, **AWS, name: wrong}
    assert refusal(load, variables).startswith(called)


@pytest.mark.parametrize("wrong", ["hunter2\n", "hunter2\r", "hun\x00ter2", "hunter2\udcff"])
def test_what_cannot_be_printed_is_no_secret(load: Load, tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(f"[s3]\nsecret_key = {json.dumps(wrong)}\n")
    if "\udcff" in wrong:
        assert refusal(load, {**WHOLE, "HOLDFAST_S3__SECRET_KEY": wrong}).startswith("setting s3.secret_key:")
    else:
        assert refusal(load, without(WHOLE, "HOLDFAST_S3__SECRET_KEY"), file).startswith("setting s3.secret_key:")


def test_a_secret_may_have_spaces_and_any_letters(load: Load) -> None:
    assert keys(load({**WHOLE, "HOLDFAST_S3__SECRET_KEY": "größer als 8"}))[1] == "größer als 8"


# Keys in files


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The variables that name a file for each key; the files end as editors, Docker and Kubernetes leave them."""
    contents = {"ACCESS_KEY": b"file-key\n", "SECRET_KEY": b"hunter2-file", "SESSION_TOKEN": b"hunter2-file-token\r\n"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {f"HOLDFAST_S3__{name}_FILE": str(tmp_path / name) for name in contents}


def test_keys_can_be_in_files(load: Load, files: dict[str, str]) -> None:
    settings = load({**PLACE, **files, **AWS})
    assert keys(settings) == ("file-key", "hunter2-file", "hunter2-file-token")
    assert settings.s3 is not None
    assert settings.s3.keys_from == "setting s3.access_key_file"


def test_an_empty_variable_beside_a_file_is_not_given(load: Load, files: dict[str, str]) -> None:
    assert keys(load({**PLACE, **files, "HOLDFAST_S3__SECRET_KEY": ""}))[1] == "hunter2-file"
    assert keys(load({**WHOLE, "HOLDFAST_S3__SECRET_KEY_FILE": ""}))[1] == "hunter2-own"


def test_a_key_and_a_file_with_it_are_an_error(load: Load, files: dict[str, str]) -> None:
    for name in ("ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"):
        message = refusal(load, {**PLACE, **files, f"HOLDFAST_S3__{name}": "hunter2"})
        setting = f"s3.{name.lower()}"
        where = f"(variable HOLDFAST_S3__{name})"
        assert message == f"setting {setting}: {setting}_file is given, too; give one of them {where}"


def test_only_one_newline_is_taken_off(load: Load, files: dict[str, str]) -> None:
    Path(files["HOLDFAST_S3__SECRET_KEY_FILE"]).write_bytes(b"hunter2-file\n\n")
    assert refusal(load, {**PLACE, **files}).startswith("setting s3.secret_key_file: it has a line break")


@pytest.mark.parametrize("name", ["ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "holds no text"),
        (b"hunter2" * 10_000, "holds more than a key"),
    ],
)
def test_a_file_without_a_key_is_an_error_that_names_setting_and_file(
    load: Load, files: dict[str, str], name: str, content: bytes | None, says: str
) -> None:
    path = Path(files[f"HOLDFAST_S3__{name}_FILE"])
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    where = f"(variable HOLDFAST_S3__{name}_FILE)"
    assert refusal(load, {**PLACE, **files, **AWS}) == f"setting s3.{name.lower()}_file: {path} {says} {where}"


def test_a_directory_is_no_file_with_a_key(load: Load, files: dict[str, str], tmp_path: Path) -> None:
    message = refusal(load, {**PLACE, **files, "HOLDFAST_S3__SECRET_KEY_FILE": str(tmp_path)})
    assert message.startswith(f"setting s3.secret_key_file: {tmp_path} cannot be read: Is a directory (")


# What shows


@pytest.mark.parametrize("source", [{**KEYS, "HOLDFAST_S3__SESSION_TOKEN": "hunter2-token"}, AWS, MINIO, ROOT])
def test_keys_never_show(load: Load, source: dict[str, str]) -> None:
    settings = load({**PLACE, **source})
    shown = settings.model_dump(mode="json", exclude_none=True)
    forms = (repr(settings), str(settings), json.dumps(shown), settings.model_dump_json(), repr(settings.s3_options))
    for secret in source.values():
        assert not any(secret in form for form in forms)
    assert shown["s3"]["access_key"] == shown["s3"]["secret_key"] == "**********"


def test_the_log_can_tell_where_the_keys_are_from(load: Load) -> None:
    expected = [
        (KEYS, "setting s3.access_key"),
        (AWS, "variable AWS_ACCESS_KEY_ID"),
        (ROOT, "variable MINIO_ROOT_USER"),
    ]
    for source, name in expected:
        assert load({**PLACE, **source}).model_dump(mode="json")["s3"]["keys_from"] == name


def test_an_error_of_the_model_itself_shows_no_key() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"s3": {"bucket": "B", "secret_key": "hunter2", "colour": "hunter2"}})
    assert "hunter2" not in str(caught.value)
