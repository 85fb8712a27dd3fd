"""When a write is refused: a condition on what stands under the key."""

from dataclasses import dataclass

from holdfast_server.errors import AlreadyExists, InvalidArgument, PreconditionFailed, Reason
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey


class ObjectExists(AlreadyExists):
    """The key is taken: by `existing`."""

    def __init__(self, existing: ObjectInfo) -> None:
        message = f"key {existing.key.text!r} already exists, and create_only was asked for"
        super().__init__(Reason.ALREADY_EXISTS, message, **existing.identity())
        self.existing = existing


@dataclass(frozen=True, slots=True)
class Overwrite:
    """No condition."""

    def check(self, key: ObjectKey, existing: ObjectInfo | None) -> None:
        """Accept anything."""


@dataclass(frozen=True, slots=True)
class CreateOnly:
    """Only if the key is free."""

    def check(self, key: ObjectKey, existing: ObjectInfo | None) -> None:  # noqa: ARG002 (as its siblings)
        """Raise `ObjectExists` if the key is taken."""
        if existing is not None:
            raise ObjectExists(existing)


@dataclass(frozen=True, slots=True)
class IfMatch:
    """Only if the key holds the object with this etag. An empty one raises `InvalidArgument` (INVALID_CONDITION)."""

    etag: str

    def __post_init__(self) -> None:
        """Refuse an etag that no object has."""
        if not self.etag:
            raise InvalidArgument(Reason.INVALID_CONDITION, "if_match_etag", "if_match_etag is empty")

    def check(self, key: ObjectKey, existing: ObjectInfo | None) -> None:
        """Raise `PreconditionFailed`, with the etag and sha256 of what is there if anything is, unless it matches."""
        if existing is None:
            message = f"key {key.text!r} does not exist, and if_match_etag was given"
            raise PreconditionFailed(Reason.PRECONDITION_FAILED, message, key=key.text)
        if existing.etag != self.etag:
            message = f"key {key.text!r} has etag {existing.etag!r}, not {self.etag[:80]!r}"
            raise PreconditionFailed(Reason.PRECONDITION_FAILED, message, **existing.identity())


Condition = Overwrite | CreateOnly | IfMatch
