"""What stands under a key, asked of the store: the one place that turns a HEAD into an `ObjectInfo`."""

import re
from collections.abc import Mapping
from typing import Self

from holdfast_server.objects.base import ObjectNotFound
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3 import record
from holdfast_server.objects.s3.messages import Request, S3Refusal
from holdfast_server.objects.s3.requests import MeasuredClient, Requests

_ETAG = re.compile(r"[A-Za-z0-9+/=_.:-]{1,200}\Z")
"""What stores make for etags. Anything else is no object's, and `*` or a quote would mean something in a header."""


class Heads:
    """Asks what stands under a key; `prefix` is that of the bucket, and `adopt_prefix` as in `S3Options`."""

    def __init__(self, requests: Requests | MeasuredClient, prefix: str, adopt_prefix: str = "") -> None:
        self._requests = requests
        self._prefix = prefix
        self._adopt_prefix = adopt_prefix

    def by(self, client: MeasuredClient) -> Self:
        """Return what asks by this client, once: for what is tried again as a whole."""
        return type(self)(client, self._prefix, self._adopt_prefix)

    def path(self, key: ObjectKey) -> str:
        """Return the key in the bucket."""
        return self._prefix + key.text

    def adopts(self, name: str) -> bool:
        """Tell whether what others wrote under this key is read as it is."""
        return bool(self._adopt_prefix) and name.startswith(self._adopt_prefix)

    def read(self, key: ObjectKey, headers: Mapping[str, str], stored_bytes: int) -> record.Stored:
        """Return what the headers of an answer say; raises as `record.read_headers`."""
        return record.read_headers(key, headers, stored_bytes, adopts=self.adopts(key.text))

    def get(self, key: ObjectKey) -> record.Stored:
        """Return what stands under the key. Raises `ObjectNotFound`, and `IntegrityFailed` as `record.read_headers`."""
        try:
            answer = self._requests.send(Request("head", "HEAD", self.path(key)))
        except S3Refusal as refusal:
            if refusal.is_missing:
                raise ObjectNotFound(key) from None
            raise
        return self.read(key, answer.headers, record.length_of(answer.headers))

    def trace(self, key: ObjectKey) -> tuple[str, ...] | None:
        """Return what tells one object under the key from another, be they damaged; None if there is none."""
        try:
            headers = self._requests.send(Request("head", "HEAD", self.path(key))).headers
        except S3Refusal as refusal:
            if refusal.is_missing:
                return None
            raise
        return record.trace_of(headers)

    def find(self, key: ObjectKey) -> record.Stored | None:
        """Return what stands under the key, or None. Raises `IntegrityFailed` as `get` does."""
        try:
            return self.get(key)
        except ObjectNotFound:
            return None

    def is_by(self, key: ObjectKey, write_id: str) -> bool:
        """Tell whether what stands under the key came by this put."""
        found = self.find(key)
        return found is not None and found.write_id == write_id

    def find_info(self, key: ObjectKey) -> ObjectInfo | None:
        """Return what is known of what stands under the key, or None. Raises `IntegrityFailed` as `get` does."""
        found = self.find(key)
        return None if found is None else found.info


def condition_headers(condition: Condition) -> dict[str, str] | None:
    """Return the headers of a condition; None where it cannot hold: no store has such an etag."""
    if isinstance(condition, CreateOnly):
        return {"If-None-Match": "*"}
    if isinstance(condition, IfMatch):
        return {"If-Match": f'"{condition.etag}"'} if _ETAG.match(condition.etag) else None
    return {}
