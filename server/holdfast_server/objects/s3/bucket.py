"""The bucket itself: that it is there and ours, the marker in it, and what unfinished uploads have left there."""

from contextlib import suppress
from datetime import timedelta
from functools import partial

from holdfast_server.errors import BackendRefused, Reason
from holdfast_server.objects.marker import NAME, MarkerError, new_marker, store_id_in
from holdfast_server.objects.s3.clock import date_of
from holdfast_server.objects.s3.lists import children, parse, parse_time, text
from holdfast_server.objects.s3.messages import Answer, Request, S3Refusal
from holdfast_server.objects.s3.missing import StoreMissing
from holdfast_server.objects.s3.options import S3Options
from holdfast_server.objects.s3.probe import StoreUnfit
from holdfast_server.objects.s3.requests import MeasuredClient

_CHECK_SECONDS = 2.0
_OPEN_SECONDS = 10.0

_LOCATION = (
    '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<LocationConstraint>{}</LocationConstraint></CreateBucketConfiguration>"
)


class Bucket:
    """What is asked of the bucket without retries: whoever asks will come again."""

    def __init__(self, client: MeasuredClient, options: S3Options) -> None:
        self._client = client
        self._options = options
        self._send = partial(client.ask, timeout_seconds=_OPEN_SECONDS)

    def check(self) -> None:
        """Check that the store answers and the bucket is there. Raises what `S3Client.send` raises."""
        self._client.send(Request("head_bucket", "HEAD", timeout_seconds=_CHECK_SECONDS))

    def make_sure(self, *, create: bool) -> None:
        """Check as `check` does, and create a missing bucket where that is asked for."""
        try:
            self.check()
        except BackendRefused as refused:
            if refused.reason is not Reason.BUCKET_MISSING or not create:
                raise
            self._create()
            self.check()

    def _create(self) -> None:
        # AWS wants to be told the region beyond its oldest, where others know only theirs by another name.
        for document in (b"", _LOCATION.format(self._options.region).encode()):
            # Of two servers that create it at once, the second one's refusal says that it is there.
            with suppress(S3Refusal):
                self._send("create_bucket", "PUT", body=document)
                return

    def check_store(self) -> None:
        """Check that the marker is there, without making it.

        Raises `StoreMissing`, `StoreUnfit` for the marker of a newer format, or one that is none, and `S3Refusal`.
        """
        try:
            self._read_marker(self._send("get", "GET", self._options.prefix + NAME))
        except S3Refusal as refusal:
            if not refusal.is_missing:
                raise
            raise StoreMissing(self._options) from None

    def store_id(self, *, create_only: bool) -> str:
        """Return the random id in the marker, which is made if it is missing; `create_only`: the store keeps that.

        Raises `StoreUnfit` for the marker of a newer format, or one that is none.
        """
        path = self._options.prefix + NAME
        for _ in range(2):
            with suppress(S3Refusal):
                return self._read_marker(self._send("get", "GET", path))
            conditions = {"If-None-Match": "*"} if create_only else {}
            with suppress(S3Refusal):  # another server was faster
                self._send("put", "PUT", path, headers=conditions, body=new_marker())
        return self._read_marker(self._send("get", "GET", path))

    def sweep(self, older_than: timedelta) -> int:
        """Abort uploads that were begun longer ago than this, by the store's own clock; tells how many."""
        swept = 0
        query = {"uploads": "", "prefix": self._options.prefix, "max-uploads": "1000"}
        while True:
            answer = self._send("list_uploads", "GET", query=query)
            root = parse(answer.body, "ListMultipartUploadsResult")
            now = date_of(answer.headers)
            if now is None:
                return swept  # no clock, no age
            for upload in children(root, "Upload"):
                begun = text(upload, "Initiated")
                if begun and now - parse_time(begun) > older_than:  # without an age it may be at work
                    swept += self._abort(text(upload, "Key"), text(upload, "UploadId"))
            markers = {"key-marker": text(root, "NextKeyMarker"), "upload-id-marker": text(root, "NextUploadIdMarker")}
            if text(root, "IsTruncated") != "true" or query | markers == query or not markers["key-marker"]:
                return swept
            query |= markers

    def _abort(self, path: str, upload: str) -> bool:
        try:
            self._send("abort_upload", "DELETE", path, {"uploadId": upload})
        except S3Refusal:
            return False  # somebody else did, or it was completed
        return True

    @staticmethod
    def _read_marker(answer: Answer) -> str:
        try:
            return store_id_in(answer.body)
        except MarkerError as error:
            raise StoreUnfit(f"the marker {NAME!r} in the bucket {error}") from None
