"""The keys for S3, whole and of one source: the key of one and the secret of another would open nothing.

Messages name the setting, the variable or the file, and never what is in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_MAX_FILE_BYTES = 64 << 10
"""Far above the longest session token: what is longer is some other file."""

# Access key, secret, token.
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_MINIO = (("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY", ""), ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", ""))
"""The first is what its clients read, the second what its server does."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, and what it is called where it was found. It is empty if it was not given."""

    name: str
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key, its secret, and the token of temporary ones."""

    access: Secret
    secret: Secret
    token: Secret

    @property
    def are_minios(self) -> bool:
        """Whether they were found in MinIO's variables."""
        return self.access.name.startswith("variable MINIO_")

    def check(self) -> None:
        """Check the characters: the key and the token go out as HTTP headers. Raises `ValueError`."""
        for key in (self.access, self.token):
            if not key.value.isascii() or not key.value.isprintable() or " " in key.value:
                raise ValueError(f"{key.name}: it has a space, a line break or some other character that no key has")
        if not self.secret.value.isprintable():
            raise ValueError(f"{self.secret.name}: it has a line break or some other character that cannot be printed")


def keys_from_environment(environment: Mapping[str, str], *, minio_first: bool) -> Keys | None:
    """Return the keys that stand in the variables of AWS or MinIO. Raises `ValueError` for half a pair."""
    for names in (*_MINIO, _AWS) if minio_first else (_AWS, *_MINIO):
        access, secret, token = (Secret(f"variable {name}", environment.get(name, "")) for name in names)
        if access.value and secret.value:
            return Keys(access, secret, token)
        if access.value or secret.value:
            there, missing = names[:2] if access.value else names[1::-1]
            raise ValueError(f"variable {there} is set without {missing}; keys are used in pairs")
    return None


def read_secret(name: str, path: Path) -> Secret:
    """Return what a file holds, as Docker and Kubernetes mount secrets: without the newline that editors add.

    Raises `ValueError`.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1).decode()
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} holds no text") from None
    if len(text) > _MAX_FILE_BYTES:
        raise ValueError(f"{name}: {path} holds more than a key")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError(f"{name}: {path} is empty")
    return Secret(name, text)
