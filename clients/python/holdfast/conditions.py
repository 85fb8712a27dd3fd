"""The conditions on what is there before a write."""

from typing import TypedDict

from holdfast.errors import InvalidArgument


class ConditionFields(TypedDict, total=False):
    """`oneof precondition` of the requests."""

    create_only: bool
    if_match_etag: str


def condition_fields(*, create_only: bool, if_match_etag: str | None) -> ConditionFields:
    """Return the field of a request that has the condition, if there is one. Raises `InvalidArgument` for both."""
    if create_only and if_match_etag is not None:
        message = "create_only and if_match_etag exclude each other"
        raise InvalidArgument("INVALID_CONDITION", message, field="if_match_etag")
    if create_only:
        return {"create_only": True}
    return {} if if_match_etag is None else {"if_match_etag": if_match_etag}
