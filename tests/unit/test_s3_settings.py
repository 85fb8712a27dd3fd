"""The settings of S3: what chooses it, what is enough, and where the rest comes from."""

import re
from pathlib import Path

import pytest

from holdfast_server import config
from holdfast_server.objects.s3.options import S3Options
from tests.support.s3_variables import AWS, KEYS, MINIO, ROOT, WHOLE, Load, loader, options, refusal, without

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    return loader(monkeypatch)


# What chooses S3


def test_s3_is_the_common_backend_once_it_is_given_with_a_data_directory_or_without(load: Load, tmp_path: Path) -> None:
    assert load(WHOLE).backend_of(None) == "s3"
    assert load({**WHOLE, "HOLDFAST_DATA_DIR": str(tmp_path)}).backend_of(None) == "s3"


def test_a_service_may_have_another_backend_than_the_common_one(load: Load, tmp_path: Path) -> None:
    settings = load(
        {
            **WHOLE,
            "HOLDFAST_DATA_DIR": str(tmp_path),
            "HOLDFAST_BLOB_STORE__BACKEND": "filesystem",
        }
    )
    assert settings.backend_of(settings.blob_store.backend) == "filesystem"
    settings = load({**WHOLE, "HOLDFAST_BLOB_STORE__BACKEND": "memory"})
    assert settings.backend_of(settings.blob_store.backend) == "memory"
    settings = load({**WHOLE, "HOLDFAST_BLOB_STORE__BACKEND": "s3"})
    assert settings.backend_of(settings.blob_store.backend) == "s3"


def test_a_service_cannot_have_s3_without_the_section(load: Load, tmp_path: Path) -> None:
    variables = {"HOLDFAST_BLOB_STORE__BACKEND": "s3", "HOLDFAST_DATA_DIR": str(tmp_path), **AWS}
    assert "blob_store.backend: 's3' needs the section s3" in refusal(load, variables)


def test_variables_of_other_programs_choose_nothing(load: Load, tmp_path: Path) -> None:
    others = {**AWS, **MINIO, **ROOT, "AWS_REGION": "eu-west-1", "MINIO_ENDPOINT": "http://minio:9000"}
    assert load(others).s3_options is None
    assert load(others).backend_of(None) == "memory"
    assert load({**others, "HOLDFAST_DATA_DIR": str(tmp_path)}).backend_of(None) == "filesystem"


# What is in it


def test_the_least_has_the_defaults(load: Load) -> None:
    assert options(load(WHOLE)) == S3Options(
        endpoint="minio:9000", bucket="holdfast", access_key="own-key", secret_key="hunter2-own", secure=False
    )


def test_every_setting_arrives(load: Load) -> None:
    given = {
        "HOLDFAST_S3__ENDPOINT": "store.example:444",
        "HOLDFAST_S3__BUCKET": "bucket",
        "HOLDFAST_S3__PREFIX": "team/one",
        "HOLDFAST_S3__REGION": "garage",
        "HOLDFAST_S3__ACCESS_KEY": "12",
        "HOLDFAST_S3__SECRET_KEY": '{"a": "b c"}',
        "HOLDFAST_S3__SESSION_TOKEN": "token",
        "HOLDFAST_S3__SECURE": "false",
        "HOLDFAST_S3__CREATE_BUCKET": "true",
        "HOLDFAST_S3__PART_BYTES": "5242880",
        "HOLDFAST_S3__CONNECT_TIMEOUT_SECONDS": "1.5",
        "HOLDFAST_S3__READ_TIMEOUT_SECONDS": "2.5",
        "HOLDFAST_S3__MAX_CONNECTIONS": "7",
    }
    assert options(load(given)) == S3Options(
        endpoint="store.example:444",
        bucket="bucket",
        access_key="12",
        secret_key='{"a": "b c"}',
        session_token="token",
        prefix="team/one/",
        region="garage",
        secure=False,
        create_bucket=True,
        part_bytes=5 << 20,
        connect_timeout_seconds=1.5,
        read_timeout_seconds=2.5,
        max_connections=7,
    )


def test_a_single_writer_is_told_of_and_nobody_is_taken_for_one(load: Load) -> None:
    for text, expected in (("true", True), ("false", False), (None, False)):
        settings = load(WHOLE if text is None else {**WHOLE, "HOLDFAST_S3__SINGLE_WRITER": text})
        assert settings.s3 is not None
        assert settings.s3.single_writer is expected


def test_the_file_and_the_variables_make_one_section_and_the_variables_win(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[s3]\nendpoint = "http://minio:9000"\nbucket = "of-the-file"\naccess_key = "own-key"\n')
    found = options(load({"HOLDFAST_S3__SECRET_KEY": "hunter2-own", "HOLDFAST_S3__BUCKET": "of-the-variable"}, file))
    assert (found.endpoint, found.bucket) == ("minio:9000", "of-the-variable")
    assert (found.access_key, found.secret_key) == ("own-key", "hunter2-own")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PART_BYTES", "5242879"),
        ("PART_BYTES", "5368709121"),
        ("CONNECT_TIMEOUT_SECONDS", "0"),
        ("CONNECT_TIMEOUT_SECONDS", "86401"),
        ("READ_TIMEOUT_SECONDS", "0"),
        ("READ_TIMEOUT_SECONDS", "86401"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "10001"),
        ("SECURE", "perhaps"),
        ("CREATE_BUCKET", "perhaps"),
        ("ENDPOINT", "http://minio/holdfast"),
        ("BUCKET", "Holdfast"),
        ("PREFIX", "/a"),
        ("REGION", "eu west"),
    ],
)
def test_a_wrong_setting_is_named_with_its_variable(load: Load, name: str, value: str) -> None:
    message = refusal(load, {**WHOLE, f"HOLDFAST_S3__{name}": value})
    assert message.startswith(f"setting s3.{name.lower()}: ")
    assert message.endswith(f" (variable HOLDFAST_S3__{name})")
    assert "Value error" not in message


@pytest.mark.parametrize(("name", "setting"), [("SECRETKEY", "secretkey"), ("SECRET__KEY", "secret")])
def test_an_unknown_setting_is_called_so_and_its_value_is_not_told(load: Load, name: str, setting: str) -> None:
    message = refusal(load, {**WHOLE, f"HOLDFAST_S3__{name}": "hunter2"})
    assert message == f"unknown setting s3.{setting} (variable HOLDFAST_S3__{name})"


@pytest.mark.parametrize("value", ["", "hunter2", "[1]", '{"secret_key": "hunter2"', '{"secret_key": 2}'])
def test_what_is_no_section_is_refused(load: Load, value: str) -> None:
    assert refusal(load, {"HOLDFAST_S3": value}).endswith(" (variable HOLDFAST_S3)")


@pytest.mark.parametrize("line", ["secret_key = 2", 'colour = "hunter2"', 'bucket = "B"\nsecret_key = "hunter2"'])
def test_a_wrong_section_of_the_file_is_refused(load: Load, tmp_path: Path, line: str) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(f"[s3]\n{line}\n")
    assert "setting s3." in (message := refusal(load, {}, file))
    assert message.endswith(f" (in {file})")


# What is missing


@pytest.mark.parametrize("missing", ["ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY"])
def test_half_of_a_section_is_an_error_that_names_what_is_missing(load: Load, tmp_path: Path, missing: str) -> None:
    for value in ({}, {f"HOLDFAST_S3__{missing}": ""}):
        variables = {**without(WHOLE, f"HOLDFAST_S3__{missing}"), **value, "HOLDFAST_DATA_DIR": str(tmp_path)}
        message = refusal(load, variables)
        assert f"lacks s3.{missing.lower()} (HOLDFAST_S3__{missing})" in message
        assert len(re.findall(r"\(HOLDFAST_S3__\w+\)", message)) == (2 if missing == "ENDPOINT" else 1)


@pytest.mark.parametrize("name", ["BUCKET", "CREATE_BUCKET", "ACCESS_KEY_FILE"])
def test_a_section_that_was_only_begun_is_an_error_that_names_all_that_is_missing(load: Load, name: str) -> None:
    message = refusal(load, {f"HOLDFAST_S3__{name}": "false" if name == "CREATE_BUCKET" else ""})
    for missing in ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY"):
        assert f"s3.{missing.lower()} (HOLDFAST_S3__{missing})" in message


def test_an_empty_section_of_the_file_is_one_that_was_begun(load: Load, tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("[s3]\n")
    assert "s3.bucket (HOLDFAST_S3__BUCKET)" in refusal(load, {}, file)


# Endpoint and region


@pytest.mark.parametrize(
    ("endpoint", "secure", "found"),
    [
        ("minio:9000", "", ("minio:9000", True)),
        ("minio:9000", "true", ("minio:9000", True)),
        ("minio:9000", "false", ("minio:9000", False)),
        ("http://minio:9000", "", ("minio:9000", False)),
        ("http://minio:9000", "false", ("minio:9000", False)),
        ("https://minio", "", ("minio", True)),
        ("https://minio/", "true", ("minio", True)),
        ("http://[::1]:80", "", ("[::1]", False)),
    ],
)
def test_the_scheme_decides_about_tls(load: Load, endpoint: str, secure: str, found: tuple[str, bool]) -> None:
    settings = load({**WHOLE, "HOLDFAST_S3__ENDPOINT": endpoint, "HOLDFAST_S3__SECURE": secure})
    assert (options(settings).endpoint, options(settings).secure) == found
    assert settings.s3 is not None
    assert (settings.s3.endpoint, settings.s3.secure) == found  # as the log will have it


@pytest.mark.parametrize(("scheme", "secure"), [("http", "true"), ("https", "false")])
def test_a_scheme_that_contradicts_the_setting_is_an_error(load: Load, scheme: str, secure: str) -> None:
    variables = {**WHOLE, "HOLDFAST_S3__ENDPOINT": f"{scheme}://minio", "HOLDFAST_S3__SECURE": secure}
    message = refusal(load, variables)
    assert (
        message == "setting s3.secure: it contradicts the scheme in setting s3.endpoint (variable HOLDFAST_S3__SECURE)"
    )
    variables = {**without(variables, "HOLDFAST_S3__ENDPOINT"), "MINIO_ENDPOINT": f"{scheme}://minio"}
    assert "setting s3.secure" in (message := refusal(load, variables))
    assert "MINIO_ENDPOINT" in message


def test_an_endpoint_with_a_password_is_refused_and_the_password_not_told(load: Load) -> None:
    wrong = "http://app:hunter2@minio:9000"
    assert "setting s3.endpoint" in refusal(load, {**WHOLE, "HOLDFAST_S3__ENDPOINT": wrong})
    message = refusal(load, {**without(WHOLE, "HOLDFAST_S3__ENDPOINT"), "AWS_ENDPOINT_URL": wrong})
    assert "variable AWS_ENDPOINT_URL:" in message


def test_endpoints_of_other_programs_are_taken_in_order(load: Load) -> None:
    given = {
        "HOLDFAST_S3__ENDPOINT": "http://own",
        "AWS_ENDPOINT_URL_S3": "http://aws-s3",
        "AWS_ENDPOINT_URL": "http://aws",
        "MINIO_ENDPOINT": "http://minio",
        "AWS_REGION": "eu-west-1",
    }
    found = []
    for name in given:
        found.append(options(load({**WHOLE, **given})).endpoint)
        given = {**given, name: ""}
    assert found == ["own", "aws-s3", "aws", "minio", "s3.eu-west-1.amazonaws.com"]


def test_on_aws_a_bucket_and_a_region_are_enough(load: Load) -> None:
    found = options(load({"HOLDFAST_S3__BUCKET": "holdfast", "HOLDFAST_S3__REGION": "eu-west-1", **AWS}))
    assert (found.endpoint, found.region, found.secure) == ("s3.eu-west-1.amazonaws.com", "eu-west-1", True)
    found = options(load({"HOLDFAST_S3__BUCKET": "holdfast", "HOLDFAST_S3__REGION": "cn-north-1", **AWS}))
    assert found.endpoint == "s3.cn-north-1.amazonaws.com.cn"


def test_on_aws_nothing_but_a_bucket_is_enough_where_the_tools_of_aws_know_the_rest(load: Load) -> None:
    regions = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}
    assert options(load({"HOLDFAST_S3__BUCKET": "holdfast", **AWS, **regions})).region == "eu-west-1"
    del regions["AWS_REGION"]
    found = options(load({"HOLDFAST_S3__BUCKET": "holdfast", **AWS, **regions}))
    assert (found.endpoint, found.region) == ("s3.eu-west-2.amazonaws.com", "eu-west-2")


@pytest.mark.parametrize("source", [MINIO, ROOT])
def test_keys_of_minio_never_go_to_aws(load: Load, source: dict[str, str]) -> None:
    message = refusal(load, {"HOLDFAST_S3__BUCKET": "holdfast", "AWS_REGION": "eu-west-1", **source})
    assert "lacks s3.endpoint (HOLDFAST_S3__ENDPOINT);" in message


def test_a_region_that_aws_does_not_have_does_not_do_for_an_endpoint(load: Load) -> None:
    variables = {"HOLDFAST_S3__BUCKET": "holdfast", **KEYS}
    message = refusal(load, {**variables, "HOLDFAST_S3__REGION": "garage"})
    assert (
        message
        == "setting s3.region: 'garage' is not a region of AWS, and there is no endpoint (variable HOLDFAST_S3__REGION)"
    )
    assert refusal(load, {**variables, "AWS_REGION": "garage"}).startswith("variable AWS_REGION: 'garage'")


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"HOLDFAST_S3__ENDPOINT": "minio"}, "us-east-1"),
        ({"HOLDFAST_S3__ENDPOINT": "s3.amazonaws.com"}, "us-east-1"),
        ({"HOLDFAST_S3__ENDPOINT": "minio", "AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"HOLDFAST_S3__ENDPOINT": "minio", "AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION": "x"}, "x"),
        ({"HOLDFAST_S3__ENDPOINT": "minio", "HOLDFAST_S3__REGION": "garage", "AWS_REGION": "x"}, "garage"),
        ({"HOLDFAST_S3__ENDPOINT": "s3.eu-west-1.amazonaws.com", "AWS_REGION": "x y"}, "eu-west-1"),
        (
            {"HOLDFAST_S3__ENDPOINT": "s3.eu-west-1.amazonaws.com", "HOLDFAST_S3__REGION": "eu-west-1"},
            "eu-west-1",
        ),
    ],
)
def test_the_region_is_the_nearest_that_is_known(load: Load, variables: dict[str, str], region: str) -> None:
    assert options(load({**WHOLE, **variables})).region == region


def test_a_region_other_than_the_one_in_the_endpoint_is_an_error(load: Load) -> None:
    variables = {"HOLDFAST_S3__ENDPOINT": "s3.eu-west-1.amazonaws.com", "HOLDFAST_S3__REGION": "eu-west-2"}
    message = refusal(load, {**WHOLE, **variables})
    assert message.startswith("setting s3.region: eu-west-2 is not the region in setting s3.endpoint, eu-west-1 (")


def test_a_wrong_region_of_another_program_is_refused_by_its_name(load: Load) -> None:
    assert refusal(load, {**WHOLE, "AWS_REGION": "eu west"}).startswith("variable AWS_REGION: 'eu west'")


def test_every_setting_of_s3_is_described_and_known(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    described = {setting.name: setting for setting in config.describe()}
    fields = config.S3Settings.model_fields
    assert [name for name in described if name.startswith("s3")] == [f"s3.{name}" for name in fields]
    assert described["s3.part_bytes"].default == "16777216"
    assert described["s3.secret_key"].default == ""
    load(WHOLE)
    assert config.unknown_variables() == []


# The documentation


def test_the_examples_of_the_documentation_are_whole(load: Load) -> None:
    examples = re.findall(r"^```sh\n(export .*?)^```$", OPERATIONS, re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        assert len(example.splitlines()) == 3
        assert load(dict(re.findall(r"(\w+)=(\S+)", example))).backend_of(None) == "s3"


def test_the_documentation_has_only_variables_that_there_are() -> None:
    known = {"HOLDFAST_CONFIG", *(setting.variable for setting in config.describe())}
    assert set(re.findall(r"HOLDFAST_\w+", OPERATIONS)) <= known
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "MINIO_ENDPOINT"):
        assert f"`{name}`" in OPERATIONS
    for name in (*AWS, *MINIO, *ROOT):
        assert f"`{name}`" in OPERATIONS
