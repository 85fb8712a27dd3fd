"""The section `s3`: a bucket, how to reach it, and who asks.

Once any of it is given, what it leaves out may come from the variables of other programs for S3. `AWS_*` or `MINIO_*`
alone choose no backend: every machine of a cloud has some of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, PrivateAttr, SecretStr, computed_field, field_validator

from holdfast_server.config.keys import Keys, Secret, keys_from_environment, read_secret
from holdfast_server.config.sections import Section, SomeSeconds, none_if_empty
from holdfast_server.objects.s3.address import Endpoint, check_bucket, check_prefix, check_region
from holdfast_server.objects.s3.options import S3Options

_S3 = S3Options(endpoint="", bucket="", access_key="", secret_key="")
_NONE = SecretStr("")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "MINIO_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


T = TypeVar("T")


class S3Settings(Section):
    """The S3 backend. An empty setting is one that is not given."""

    endpoint: str = Field(
        default="",
        description="`host` or `host:port`, with `http://` or `https://` before it if you like. "
        "Without it: AWS in `s3.region`.",
    )
    bucket: str = Field(default="", description="The bucket; it must be there, unless `s3.create_bucket` is set.")
    prefix: str = Field(
        default="", description="What all names in the bucket begin with, at most 100 bytes; a `/` is put at its end."
    )
    region: str = Field(default="", description="The region; without it that of an AWS endpoint, or `us-east-1`.")
    access_key: SecretStr = Field(default=_NONE, description="The access key.")
    access_key_file: Path | None = Field(default=None, description="A file that holds the access key.")
    secret_key: SecretStr = Field(default=_NONE, description="The secret of the access key.")
    secret_key_file: Path | None = Field(default=None, description="A file that holds the secret.")
    session_token: SecretStr = Field(default=_NONE, description="The token that belongs to temporary keys.")
    session_token_file: Path | None = Field(default=None, description="A file that holds the token.")
    secure: bool | None = Field(
        default=None, description="TLS: `true` or `false`; without it as the endpoint's URL says, or else `true`."
    )
    create_bucket: bool = Field(default=_S3.create_bucket, description="Create the bucket if it is missing.")
    single_writer: bool = Field(
        default=False,
        description="Serve CheckpointStore also on a store without conditional puts: only where one server at a time "
        "writes.",
    )
    part_bytes: int = Field(
        default=_S3.part_bytes,
        ge=5 << 20,
        le=5 << 30,
        description="A part of a large upload, of which S3 allows 10,000; each upload holds two in memory.",
    )
    connect_timeout_seconds: SomeSeconds = Field(
        default=_S3.connect_timeout_seconds, description="The longest wait for a connection."
    )
    read_timeout_seconds: SomeSeconds = Field(
        default=_S3.read_timeout_seconds, description="The longest silence of the store in the middle of a request."
    )
    max_connections: int = Field(
        default=_S3.max_connections, ge=1, le=10_000, description="Connections that are kept open to the store."
    )

    _keys_from: str = PrivateAttr(default="")

    _not_given = field_validator("access_key_file", "secret_key_file", "session_token_file", "secure", mode="before")(
        none_if_empty
    )

    @computed_field  # type: ignore[prop-decorator]  # mypy knows of no decorator above a property
    @property
    def keys_from(self) -> str:
        """Where the keys were found, for the log."""
        return self._keys_from

    @field_validator("bucket")
    @classmethod
    def _check_bucket(cls, value: str) -> str:
        return value and check_bucket(value)

    @field_validator("prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        return check_prefix(value)

    def completed(self, environment: Mapping[str, str]) -> Self:
        """Return the section as it is in force: with what it leaves out, from files and from the environment.

        Raises `ValueError` with the names of what is missing, or of what contradicts what.
        """
        region = _first("setting s3.region", self.region, _REGIONS, environment)
        url = _first("setting s3.endpoint", self.endpoint, _ENDPOINTS, environment)
        keys = self._own_keys() or keys_from_environment(environment, minio_first=url.is_minios)
        lacking = [] if self.bucket else ["bucket"]
        # Keys of MinIO are none for AWS: then the endpoint was forgotten.
        if not url.text and (not region.text or (keys and keys.are_minios)):
            lacking.append("endpoint")
        if not keys or not keys.access.value:
            lacking.append("access_key")
        if not keys or not keys.secret.value:
            lacking.append("secret_key")
        if lacking or not keys:
            raise ValueError(_half_filled(lacking))
        keys.check()

        endpoint = url.read(Endpoint.parse) if url.text else region.read(Endpoint.of_aws)
        if self.secure is not None and endpoint.secure not in (None, self.secure):
            raise ValueError(f"setting s3.secure: it contradicts the scheme in {url.name}")
        if self.region and endpoint.region not in ("", self.region):
            raise ValueError(f"setting s3.region: {self.region} is not the region in {url.name}, {endpoint.region}")
        secure = endpoint.secure is not False if self.secure is None else self.secure
        completed = self.model_copy(
            update={
                "endpoint": endpoint.text(secure=secure),
                "secure": secure,
                "region": endpoint.region or (region.read(check_region) if region.text else _S3.region),
                "access_key": SecretStr(keys.access.value),
                "secret_key": SecretStr(keys.secret.value),
                "session_token": SecretStr(keys.token.value),
            }
        )
        completed._keys_from = keys.access.name  # noqa: SLF001 (a copy of ourselves)
        return completed

    def options(self) -> S3Options:
        """Return what the backend is made of. The section is one that `completed` returned."""
        return S3Options(
            endpoint=self.endpoint,
            bucket=self.bucket,
            access_key=self.access_key.get_secret_value(),
            secret_key=self.secret_key.get_secret_value(),
            session_token=self.session_token.get_secret_value(),
            prefix=self.prefix,
            region=self.region,
            secure=self.secure is not False,
            create_bucket=self.create_bucket,
            part_bytes=self.part_bytes,
            connect_timeout_seconds=self.connect_timeout_seconds,
            read_timeout_seconds=self.read_timeout_seconds,
            max_connections=self.max_connections,
        )

    def _own_keys(self) -> Keys | None:
        keys = Keys(
            _own("access_key", self.access_key, self.access_key_file),
            _own("secret_key", self.secret_key, self.secret_key_file),
            _own("session_token", self.session_token, self.session_token_file),
        )
        if keys.access.value or keys.secret.value:
            return keys
        if keys.token.value:
            raise ValueError(f"{keys.token.name}: give s3.access_key and s3.secret_key, too: it belongs to a pair")
        return None


@dataclass(frozen=True, slots=True)
class _Text:
    """A setting or a variable, and its text: empty if it is not given."""

    name: str
    text: str

    @property
    def is_minios(self) -> bool:
        return self.name == "variable MINIO_ENDPOINT"

    def read(self, parse: Callable[[str], T]) -> T:
        try:
            return parse(self.text)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None


def _first(name: str, text: str, variables: Iterable[str], environment: Mapping[str, str]) -> _Text:
    """Return the setting if it is given, or else the first of the variables that is."""
    texts = [_Text(name, text), *(_Text(f"variable {other}", environment.get(other, "")) for other in variables)]
    return next((found for found in texts if found.text), texts[0])


def _own(name: str, value: SecretStr, file: Path | None) -> Secret:
    if file is None:
        return Secret(f"setting s3.{name}", value.get_secret_value())
    if value.get_secret_value():
        raise ValueError(f"setting s3.{name}: s3.{name}_file is given, too; give one of them")
    return read_secret(f"setting s3.{name}_file", file)


def _half_filled(lacking: Sequence[str]) -> str:
    names = ", ".join(f"s3.{name} (HOLDFAST_S3__{name.upper()})" for name in lacking)
    hint = "; for AWS itself s3.region (HOLDFAST_S3__REGION) does for the endpoint" if "endpoint" in lacking else ""
    return f"setting s3: it is given only in part, and lacks {names}{hint}"
