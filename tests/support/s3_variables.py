"""Settings of S3 for tests: enough variables for it, keys of every source, and a look at what comes of them."""

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from holdfast_server import config
from holdfast_server.config import ConfigError, Settings
from holdfast_server.objects.s3.options import S3Options

KEYS = {"HOLDFAST_S3__ACCESS_KEY": "own-key", "HOLDFAST_S3__SECRET_KEY": "hunter2-own"}
PLACE = {"HOLDFAST_S3__ENDPOINT": "http://minio:9000", "HOLDFAST_S3__BUCKET": "holdfast"}
WHOLE = {**PLACE, **KEYS}
AWS = {"AWS_ACCESS_KEY_ID": "aws-key", "AWS_SECRET_ACCESS_KEY": "hunter2-aws", "AWS_SESSION_TOKEN": "hunter2-token"}
MINIO = {"MINIO_ACCESS_KEY": "minio-key", "MINIO_SECRET_KEY": "hunter2-minio"}
ROOT = {"MINIO_ROOT_USER": "root-key", "MINIO_ROOT_PASSWORD": "hunter2-root"}

Load = Callable[..., Settings]


def loader(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Return what loads the settings with the variables it is given, and with no others that could matter."""

    def load(variables: Mapping[str, str], file: Path | None = None) -> Settings:
        for name in [name for name in os.environ if name.startswith(("HOLDFAST_", "AWS_", "MINIO_"))]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return config.load({}, file)

    return load


def options(settings: Settings) -> S3Options:
    """Return the options of the S3 backend, which must be there."""
    assert settings.s3_options is not None
    return settings.s3_options


def keys(settings: Settings) -> tuple[str, str, str]:
    """Return access key, secret and token."""
    found = options(settings)
    return found.access_key, found.secret_key, found.session_token


def refusal(load: Load, variables: Mapping[str, str], file: Path | None = None) -> str:
    """Return the message of the refusal, in which, as in its traceback, nothing is that was to be kept secret."""
    with pytest.raises(ConfigError) as caught:
        load(variables, file)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


def without(variables: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the variables but for these."""
    return {name: value for name, value in variables.items() if name not in names}
