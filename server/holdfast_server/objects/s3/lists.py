"""Lists of a bucket, a page of at most 1,000 at a time, by position: the next page begins where the last one ended."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

from holdfast_server import calls
from holdfast_server.errors import InvalidArgument, Reason, Unavailable
from holdfast_server.objects.base import CommonPrefix, Entry, EntryRecord, ListQuery
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.listing import Roller, common_prefix, first_position, past
from holdfast_server.objects.s3 import layout
from holdfast_server.objects.s3.messages import Request
from holdfast_server.objects.s3.requests import Requests

PAGE_ITEMS = 1000
"""The most that S3 gives at once."""

_NO_SEGMENTS = ("", ".", "..")
_LAST_CHARACTER = "\U0010ffff"
_LONGEST_KEY_BYTES = 1000
"""Longer than any key of ours, its bucket prefix included or not; S3 itself allows 1,024."""


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    record: EntryRecord | None = None
    """None: a common prefix."""


@dataclass(frozen=True, slots=True)
class _Page:
    items: list[_Item]
    """In byte order."""
    is_last: bool


def listed(requests: Requests, prefix: str, query: ListQuery) -> Iterator[Entry | CommonPrefix]:
    """Yield what the query asks for; `prefix` is that of the bucket."""
    if any(segment in _NO_SEGMENTS for segment in query.prefix.split("/")[:-1]):
        return  # no key begins so, and MinIO refuses to look
    position = first_position(query)
    if common := common_prefix(query, position):
        # Stores differ in whether they roll up what stands behind a position within it: so it is looked at by itself.
        if any(listed(requests, prefix, ListQuery(common, query.after, skip=query.skip))):
            yield CommonPrefix(common)
        position = past(common)
    yield from _from(requests, prefix, query, position)


def _from(requests: Requests, prefix: str, query: ListQuery, position: str) -> Iterator[Entry | CommonPrefix]:
    roller = Roller(query)
    while True:
        calls.check("listing")
        begun_at = position
        page = _page(requests, prefix, query, position)
        for found in page.items:
            if found.name < position:
                continue  # rolled up or skipped with those before it
            item, position = roller.place(found.name)
            if item is None and position == roller.END:
                return
            if isinstance(item, CommonPrefix):
                yield item
            elif item is not None and _is_ours(found.name):
                yield Entry(found.name, found.record)
        if page.is_last:
            return
        if position == begun_at:
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, "the S3 store answers a list with what was listed before")


def _page(requests: Requests, prefix: str, query: ListQuery, position: str) -> _Page:
    wanted = prefix + query.prefix
    # MinIO refuses a prefix that ends in such a segment, which may be the beginning of one: `.` of `.hidden`.
    asked = wanted[: wanted.rfind("/") + 1] if wanted.rpartition("/")[2] in (".", "..") else wanted
    parameters = {
        "list-type": "2",
        "prefix": asked,
        "max-keys": str(PAGE_ITEMS),
        "encoding-type": "url",
        "delimiter": "/" if query.delimiter else "",
    }
    if position > query.prefix:
        parameters["start-after"] = prefix + _just_before(position)
    elif asked != wanted:
        parameters["start-after"] = _filled(wanted[:-1] + "-")  # the character before the dot
    answer = requests.send(Request("list", "GET", query=parameters))
    root = parse(answer.body, "ListBucketResult")
    truncated = text(root, "IsTruncated")
    if truncated not in ("true", "false"):
        raise _none("list")
    decode: Callable[[str], str] = unquote_plus if text(root, "EncodingType") == "url" else str

    def name(element: ET.Element, child: str) -> str:
        return decode(text(element, child)).removeprefix(prefix)

    objects = [_item(name(contents, "Key"), contents) for contents in children(root, "Contents")]
    prefixes = [_Item(name(common, "Prefix")) for common in children(root, "CommonPrefixes")]
    for items in (objects, prefixes):
        if any(one.name >= next_one.name for one, next_one in pairwise(items)):
            # Some stores walk directories. Whoever goes on behind the last name would pass over what is there.
            message = "the S3 store does not list in byte order, so its lists could not be relied on"
            raise Unavailable(Reason.BACKEND_UNAVAILABLE, message)
    return _Page(sorted(objects + prefixes, key=lambda item: item.name), is_last=truncated == "false")


def _just_before(position: str) -> str:
    """Return a text such that what comes after it is what comes at or after `position`: S3 leaves out the start.

    No NUL is left: no key has one, and it is not allowed in the XML of an answer that repeats it.
    """
    if position.endswith("\0"):
        return position.rstrip("\0")
    # `a0`, the first position behind everything that starts with `a/`.
    return _filled(position[:-1] + "/")


def _filled(start: str) -> str:
    """Return the last text that starts so."""
    return start + _LAST_CHARACTER * ((_LONGEST_KEY_BYTES - len(start.encode())) // len(_LAST_CHARACTER.encode()))


def _item(name: str, contents: ET.Element) -> _Item:
    try:
        stored = int(text(contents, "Size"))
    except ValueError:
        raise _none("size") from None
    size = layout.size_of(stored)
    modified = parse_time(text(contents, "LastModified"))
    return _Item(
        name,
        # A size that nothing of ours has: whoever asks for the object is told that it is damaged.
        EntryRecord(stored if size is None else size, text(contents, "ETag").strip('"'), modified),
    )


def _is_ours(name: str) -> bool:
    """Tell whether it can be a key: other tools make such as `a/`, to show folders."""
    try:
        ObjectKey(name)
    except InvalidArgument:
        return False
    return True


def parse(document: bytes, *names: str) -> ET.Element:
    """Return the root of an answer of the store, which has one of these names. Raises `Unavailable` for all else."""
    try:
        root = ET.fromstring(document)  # noqa: S314 (from the store that keeps our bytes; expat bounds what entities expand to)
    except ET.ParseError as error:
        raise _none("XML") from error
    if root.tag.rpartition("}")[2] not in names:
        raise _none(names[0])
    return root


def upload_id(document: bytes) -> str:
    """Return the name that an upload in parts was given; empty: none. Raises `Unavailable`."""
    # The second one is rclone's word.
    return text(parse(document, "InitiateMultipartUploadResult", "InitiateMultipartUpload"), "UploadId")


def children(element: ET.Element, name: str) -> Iterator[ET.Element]:
    """Yield the children of this name, in whichever XML namespace: stores differ in that."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def text(element: ET.Element, name: str) -> str:
    """Return the text of the first child of this name; empty if there is none."""
    return next((child.text or "" for child in children(element, name)), "")


def parse_time(moment: str) -> datetime:
    """Return the moment that a list tells, to the second as the other answers tell it. Raises `Unavailable`."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).replace(microsecond=0)
    except ValueError:
        raise _none("time") from None


def _none(wanted: str) -> Unavailable:
    return Unavailable(Reason.BACKEND_UNAVAILABLE, f"the S3 store answered with what is no {wanted}")
