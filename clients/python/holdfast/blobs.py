"""Blobs: keyed and content-addressed, there whole and verified, or not at all."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import grpc

from holdfast.batches import Batches, Blob, NewBlob
from holdfast.calls import Calls, checked
from holdfast.conditions import condition_fields
from holdfast.content import Address, Content, address_fields, check_content
from holdfast.downloads import BlobReader
from holdfast.errors import HoldfastError, IntegrityFailed
from holdfast.files import check_replaceable, replacing
from holdfast.results import (
    Attributes,
    BlobEntry,
    BlobInfo,
    BlobPage,
    CommonPrefix,
    PutResult,
    blob_info,
    blob_page,
)
from holdfast.sources import Data, source_of
from holdfast.uploads import Progress, upload
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc


class Blobs:
    """The blobs of a server; safe to use from several threads.

    Every method raises `HoldfastError`s: `InvalidArgument` for what breaks a rule, `Unavailable`, `Overloaded` and
    `DeadlineExceeded` for a server that cannot answer, and those that it names. What is safe to repeat is tried again
    first. Where a method takes many blobs, what is wrong with one of them is its result, an error among the others; and
    what concerns the whole call is raised.
    """

    def __init__(self, channel: grpc.Channel, calls: Calls) -> None:
        self._stub = blob_store_pb2_grpc.BlobStoreStub(channel)
        self._calls = calls
        self._batches = Batches(channel, calls)

    def put(
        self,
        key_or_content: Address,
        data: Data,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
        if_match_etag: str | None = None,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> PutResult:
        """Store a blob, durably, or leave all as it was.

        `data`: bytes, a `Path`, a binary file (sent from where it stands) or an iterable of bytes; read in this thread.
        `size_bytes` is for sources that do not know it themselves; what comes must match. Size and sha256 are sent
        along, and the server compares. `progress(sent_bytes, size_bytes or None)` is called along the way.

        An error of the source, or of `progress`, comes back as it is, and nothing is stored. After `Unavailable` and
        `DeadlineExceeded` the outcome is unknown. Unconditional puts and those of a content address are tried again if
        the source can be read again: after that, `created` may be False for what this very call stored.

        Raises `AlreadyExists` (`create_only`; or other bytes under a content address), `PreconditionFailed`
        (`if_match_etag`), `BrokenUpload` (not as declared), `StorageFull`, `ReadOnly`.
        """
        condition = condition_fields(create_only=create_only, if_match_etag=if_match_etag)
        with checked():
            header = pb.PutBlobHeader(
                **address_fields(key_or_content),
                content_type=content_type,
                metadata=metadata,
                size_bytes=size_bytes,
                **condition,
            )
        source = source_of(data)
        may_repeat = isinstance(key_or_content, Content) or not condition
        calls = self._calls if may_repeat and source.can_rewind else self._calls.once()
        sent = upload(calls, self._stub.PutBlob, pb.PutBlobRequest, header, source, progress=progress)
        blob = sent.answer.blob
        if blob.sha256 != sent.sha256:
            what = f"key {blob.key!r}: the server stored other bytes than those sent"
            raise IntegrityFailed("INTEGRITY_FAILED", what, {"key": blob.key})
        return PutResult(blob_info(blob), sent.answer.created)

    def get(
        self,
        key_or_content: Address,
        *,
        offset: int = 0,
        length: int | None = None,
        suffix_length: int | None = None,
        exact: bool = False,
        if_match_etag: str | None = None,
    ) -> BlobReader:
        """Open a blob or a range of it for reading; the caller closes it.

        `length` bytes (> 0) from `offset`, or to the end; or the last `suffix_length` bytes (> 0). What reaches past
        the end is clamped, unless `exact`. Raises `NotFound`, `RangeNotSatisfiable`, `PreconditionFailed`
        (`if_match_etag`), `IntegrityFailed`; see `BlobReader` for reading.
        """
        with checked():
            request = pb.GetBlobRequest(
                **address_fields(key_or_content),
                offset=offset,
                length=length,
                suffix_length=suffix_length,
                exact=exact,
                if_match_etag=if_match_etag,
            )
        return BlobReader(self._calls, self._stub.GetBlob, request)

    def download(
        self,
        key_or_content: Address,
        path: Path | str,
        *,
        offset: int = 0,
        length: int | None = None,
        suffix_length: int | None = None,
        exact: bool = False,
        if_match_etag: str | None = None,
        progress: Progress | None = None,
    ) -> BlobInfo:
        """Write a blob, or a range of it as `get` has it, into the file at `path`, and return the blob's info.

        The file is there whole, verified and synced to the disk, or not at all: what was there before stays until then.
        A symbolic link is followed. `progress(received_bytes, bytes in all)` is called along the way. Raises what `get`
        and reading raise, and `OSError`.
        """
        path = Path(path)
        check_replaceable(path)
        with (
            self.get(
                key_or_content,
                offset=offset,
                length=length,
                suffix_length=suffix_length,
                exact=exact,
                if_match_etag=if_match_etag,
            ) as reader,
            replacing(path) as file,
        ):
            received = 0
            for chunk in reader:
                file.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress(received, reader.range.length)
        return reader.info

    def stat(self, key_or_content: Address) -> BlobInfo:
        """Return what is known of a blob, without its bytes. Raises `NotFound`, `IntegrityFailed`."""
        with checked():
            request = pb.StatBlobRequest(**address_fields(key_or_content))
        blob = self._calls.unary(self._stub.StatBlob, request).blob
        check_content(request, blob)
        return blob_info(blob)

    def delete(self, key_or_content: Address, *, if_match_etag: str | None = None) -> bool:
        """Delete a blob, and tell whether there was one; a missing one is no error.

        Without `if_match_etag` it is tried again after a failure, and the answer is that of the last try: it may say
        that there was none because the try before, whose answer was lost, deleted it. Raises `PreconditionFailed`
        (`if_match_etag`, also where nothing is there), `ReadOnly`.
        """
        with checked():
            request = pb.DeleteBlobRequest(**address_fields(key_or_content), if_match_etag=if_match_etag)
        calls = self._calls if if_match_etag is None else self._calls.once()
        return calls.unary(self._stub.DeleteBlob, request).existed

    def list(
        self, prefix: str = "", delimiter: str = "", start_after: str = "", page_size: int = 0
    ) -> Iterator[BlobEntry | CommonPrefix]:
        """Yield the blobs whose keys start with `prefix`, in byte order of their keys, asking for pages as it goes.

        With `delimiter` `/`, keys with a further `/` behind the prefix are rolled up into a `CommonPrefix`, in the same
        order. Only what comes after `start_after` is listed. `page_size`: 1 to 10,000, or 0 for 1,000. Blobs that come
        or go meanwhile may or may not be listed.
        """
        token = ""
        while True:
            page = self.list_page(prefix, delimiter, start_after, page_size, token)
            yield from page.items
            if not (token := page.next_page_token):
                return

    def list_page(
        self, prefix: str = "", delimiter: str = "", start_after: str = "", page_size: int = 0, page_token: str = ""
    ) -> BlobPage:
        """Return one page of a list; `page_token` is that of the page before, the rest but `page_size` the same."""
        with checked():
            request = pb.ListBlobsRequest(
                prefix=prefix, delimiter=delimiter, start_after=start_after, page_size=page_size, page_token=page_token
            )
        return blob_page(self._calls.unary(self._stub.ListBlobs, request))

    def copy(
        self,
        source: Address,
        target: Address,
        *,
        attributes: Attributes | None = None,
        create_only: bool = False,
        if_match_etag: str | None = None,
        source_if_match_etag: str | None = None,
    ) -> PutResult:
        """Store a blob's bytes under another name too, without fetching them.

        Content type and metadata are those of the source unless `attributes` are given. `create_only` and
        `if_match_etag` are conditions on the target, `source_if_match_etag` on the source. A `Content` as target needs
        no sha256, and never overwrites. Unconditional copies and those to a content address are tried again.

        Raises `NotFound` (the source), `AlreadyExists` (`create_only`; or other bytes under a content address),
        `PreconditionFailed`, `IntegrityFailed`, `StorageFull`, `ReadOnly`.
        """
        condition = condition_fields(create_only=create_only, if_match_etag=if_match_etag)
        with checked():
            request = pb.CopyBlobRequest(
                source=pb.BlobAddress(**address_fields(source)),
                target=pb.BlobAddress(**address_fields(target)),
                attributes=None if attributes is None else _attributes(attributes),
                source_if_match_etag=source_if_match_etag,
                **condition,
            )
        calls = self._calls if isinstance(target, Content) or not condition else self._calls.once()
        response = calls.unary(self._stub.CopyBlob, request)
        return PutResult(blob_info(response.blob), response.created)

    def find_missing(
        self, addresses: Iterable[Address], sha256: Iterable[bytes | None] | None = None
    ) -> Iterator[bool | HoldfastError]:
        """Tell of each blob, in their order, whether it is missing; an error stands for one that cannot be told of.

        With `sha256`, one for each address (32 bytes, or None), a key is missing too if the blob there has other bytes.
        Any number of them, in requests of up to 2,000.
        """
        digests = repeat(None) if sha256 is None else sha256
        return self._batches.find_missing(zip(addresses, digests, strict=sha256 is not None))

    def get_many(self, addresses: Iterable[Address]) -> Iterator[Blob | HoldfastError]:
        """Yield blobs, each whole and verified, in the order of their addresses; an error stands for one that failed.

        Small ones come many at a time, up to 1.75 MiB in one answer; a larger one by itself, in memory too.
        """

        def fetch(address: Address) -> Blob:
            with self.get(address) as reader:
                return Blob(reader.info, reader.read())

        return self._batches.get(addresses, fetch)

    def put_many(self, blobs: Iterable[NewBlob]) -> Iterator[PutResult | HoldfastError]:
        """Store blobs, and yield what became of each in their order: its result, durable by then, or its error.

        Small ones go many at a time, up to 1.75 MiB in one request; a larger one by itself. What is said of `put` and
        of its tries holds for each of them; one does not depend on another. To be iterated to its end: `list(...)` of
        it stores all.
        """

        def store(blob: NewBlob) -> PutResult:
            return self.put(
                blob.key_or_content,
                blob.data,
                content_type=blob.content_type,
                metadata=blob.metadata,
                create_only=blob.create_only,
                if_match_etag=blob.if_match_etag,
            )

        return self._batches.put(blobs, store)

    def delete_many(
        self, addresses: Iterable[Address], if_match_etags: Iterable[str | None] | None = None
    ) -> Iterator[bool | HoldfastError]:
        """Delete blobs, and yield of each whether there was one, or its error. To be iterated to its end.

        With `if_match_etags`, one for each address or None, a blob with another etag by now stays: what is said of
        `delete` with one holds for it. A store that cannot keep such a condition answers `ConditionUnsupported`.
        """
        etags = repeat(None) if if_match_etags is None else if_match_etags
        return self._batches.delete(zip(addresses, etags, strict=if_match_etags is not None))


def _attributes(attributes: Attributes) -> pb.BlobAttributes:
    return pb.BlobAttributes(content_type=attributes.content_type, metadata=attributes.metadata)
