"""The key ring as the JSON document that docs/formats.md describes.

Messages name the entry and the rule, and nothing that stands in the document: a secret may have got anywhere in it.
"""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from typing import Any

from holdfast_server.checkpoints.key_ring import KeyRing, KeyRingError, KeyState, SealKey

_FORMAT = 1
_ID = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)")
"""RFC 3339, to the microsecond."""

_MEMBERS = frozenset({"format", "keys", "legacy"})
_KEY_MEMBERS = frozenset({"id", "state", "create_time", "secret"})


def written(ring: KeyRing) -> bytes:
    """Return the document."""
    keys = [
        {
            "id": key.id.hex(),
            "state": key.state.value,
            "create_time": time_text(key.create_time),
            "secret": base64.b64encode(key.secret).decode(),
        }
        for key in ring.keys
    ]
    legacy = [base64.b64encode(secret).decode() for secret in ring.legacy]
    return json.dumps({"format": _FORMAT, "keys": keys, "legacy": legacy}, indent=2).encode() + b"\n"


def time_text(moment: datetime) -> str:
    """Return a time as RFC 3339 has it, in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parsed(document: bytes) -> KeyRing:
    """Return the ring. Raises `KeyRingError`."""
    try:
        found = json.loads(document.decode(), object_pairs_hook=_members_once)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise KeyRingError("it is no JSON document") from None
    if not isinstance(found, dict):
        raise KeyRingError("it is no JSON object")
    number = found.get("format")
    if type(number) is not int or number < 1:
        raise KeyRingError("its member 'format' is missing or no number above 0")
    if number > _FORMAT:
        raise KeyRingError(f"it has format {number}, of a newer Holdfast; this one knows {_FORMAT}")
    _check_members("it", found, _MEMBERS, optional={"legacy"})
    return KeyRing(
        tuple(_key(f"keys[{number}]", entry) for number, entry in enumerate(_list(found, "keys"))),
        tuple(_bytes(f"legacy[{number}]", entry) for number, entry in enumerate(_list(found, "legacy"))),
    )


def _members_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise KeyRingError("an object in it has a member twice")
    return members


def _check_members(where: str, found: dict[str, Any], known: frozenset[str], *, optional: set[str]) -> None:
    if missing := sorted(known - optional - found.keys()):
        raise KeyRingError(f"{where} has no member {missing[0]!r}")
    if found.keys() - known:
        raise KeyRingError(f"{where} has a member that is none of {', '.join(sorted(known))}")


def _list(found: dict[str, Any], name: str) -> list[Any]:
    entries = found.get(name, [])
    if not isinstance(entries, list):
        raise KeyRingError(f"its member {name!r} is no list")
    return entries


def _key(where: str, entry: Any) -> SealKey:
    if not isinstance(entry, dict):
        raise KeyRingError(f"{where} is no JSON object")
    _check_members(where, entry, _KEY_MEMBERS, optional=set())
    for name, value in entry.items():
        if not isinstance(value, str):
            raise KeyRingError(f"{where}: its {name} is no string")
    if not _ID.fullmatch(entry["id"]):
        raise KeyRingError(f"{where}: its id is not 16 hex digits in lower case")
    if entry["state"] not in set(KeyState):
        raise KeyRingError(f"{where}: its state is none of {', '.join(KeyState)}")
    secret = _bytes(f"{where}: its secret", entry["secret"])
    try:
        return SealKey(bytes.fromhex(entry["id"]), secret, KeyState(entry["state"]), _time(entry["create_time"]))
    except KeyRingError as error:
        raise KeyRingError(f"{where}: {error}") from None


def _time(text: str) -> datetime:
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise KeyRingError("its create_time is no time as RFC 3339 has it") from None


def _bytes(what: str, text: Any) -> bytes:
    try:
        if not isinstance(text, str):
            raise ValueError  # noqa: TRY004 (the same rule for all that stands there)
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise KeyRingError(f"{what} is no base64") from None
