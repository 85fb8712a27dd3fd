"""A `BlobStore` without the wire, behind the methods of the client's `Blobs`: so that one suite runs on both."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import holdfast
from holdfast_server.blobs.address import Address, BlobKey, ContentAddress, Layout
from holdfast_server.blobs.batches import Batches, DeleteItem, GetItem, PutItem, Wanted
from holdfast_server.blobs.lists import BlobQuery
from holdfast_server.blobs.store import BlobStore
from holdfast_server.errors import HoldfastError
from holdfast_server.objects.base import OVERWRITE, ObjectReader
from holdfast_server.objects.body import Chunk, Declared
from holdfast_server.objects.conditions import Condition, CreateOnly, IfMatch
from holdfast_server.objects.info import Attributes, ObjectInfo
from holdfast_server.objects.ranges import ByteRange, Range, Suffix
from holdfast_server.rpc.batches import each
from holdfast_server.workers import Workers


class DirectReader:
    """An `ObjectReader` with the methods of the client's `BlobReader`."""

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self.info = _info(reader.info)
        self.range = holdfast.ByteRange(reader.extent.offset, reader.extent.length)

    def read(self) -> bytes:
        return b"".join(chunk.data for chunk in self._reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()


class DirectBlobs:
    """A store with the methods of the client."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._batches = Batches(store, Workers())

    def put(
        self,
        key_or_content: str | holdfast.Content,
        data: bytes,
        *,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
        create_only: bool = False,
        if_match_etag: str | None = None,
    ) -> holdfast.PutResult:
        condition: Condition = CreateOnly() if create_only else _if_match(if_match_etag)
        put = self._store.put(
            _address(key_or_content),
            [Chunk(data), Declared()] if data else [Declared()],
            condition=condition,
            attributes=Attributes(content_type, metadata or {}),
        )
        return holdfast.PutResult(_info(put.blob), put.created)

    def get(
        self,
        key_or_content: str | holdfast.Content,
        *,
        offset: int = 0,
        length: int | None = None,
        suffix_length: int | None = None,
        exact: bool = False,
        if_match_etag: str | None = None,
    ) -> DirectReader:
        wanted: Range = ByteRange(offset, length, exact) if suffix_length is None else Suffix(suffix_length, exact)
        return DirectReader(self._store.get(_address(key_or_content), wanted, condition=_if_match(if_match_etag)))

    def stat(self, key_or_content: str | holdfast.Content) -> holdfast.BlobInfo:
        return _info(self._store.stat(_address(key_or_content)))

    def delete(self, key_or_content: str | holdfast.Content, *, if_match_etag: str | None = None) -> bool:
        return self._store.delete(_address(key_or_content), condition=_if_match(if_match_etag))

    def copy(
        self,
        source: str | holdfast.Content,
        target: str | holdfast.Content,
        *,
        attributes: holdfast.Attributes | None = None,
        create_only: bool = False,
        if_match_etag: str | None = None,
        source_if_match_etag: str | None = None,
    ) -> holdfast.PutResult:
        copied = self._store.copy(
            _address(source),
            _address(target),
            condition=CreateOnly() if create_only else _if_match(if_match_etag),
            source_condition=_if_match(source_if_match_etag),
            attributes=None if attributes is None else Attributes(attributes.content_type, attributes.metadata),
        )
        return holdfast.PutResult(_info(copied.blob), copied.created)

    def find_missing(
        self, addresses: Iterable[str | holdfast.Content], sha256: Iterable[bytes | None] | None = None
    ) -> Iterator[bool | HoldfastError]:
        items = each(_address, addresses)
        digests = list(sha256) if sha256 is not None else [None] * len(items)
        yield from self._batches.find_missing(
            [
                item if isinstance(item, HoldfastError) else Wanted(item, digest)
                for item, digest in zip(items, digests, strict=True)
            ]
        )

    def get_many(self, addresses: Iterable[str | holdfast.Content]) -> Iterator[holdfast.Blob | HoldfastError]:
        for got in self._batches.get(each(lambda address: GetItem(_address(address)), addresses)):
            yield got if isinstance(got, HoldfastError) else holdfast.Blob(_info(got.blob), got.data)

    def put_many(self, blobs: Iterable[holdfast.NewBlob]) -> Iterator[holdfast.PutResult | HoldfastError]:
        for put in self._batches.put(each(_put_item, blobs)):
            yield put if isinstance(put, HoldfastError) else holdfast.PutResult(_info(put.blob), put.created)

    def delete_many(self, addresses: Iterable[str | holdfast.Content]) -> Iterator[bool | HoldfastError]:
        yield from self._batches.delete(each(lambda address: DeleteItem(_address(address)), addresses))

    def list(
        self, prefix: str = "", delimiter: str = "", start_after: str = "", page_size: int = 0
    ) -> Iterator[holdfast.BlobEntry | holdfast.CommonPrefix]:
        token = ""
        while True:
            page = self._store.list(BlobQuery(prefix, delimiter, start_after, page_size, token))
            items: list[holdfast.BlobEntry | holdfast.CommonPrefix] = [
                holdfast.BlobEntry(entry.name, record.size_bytes, record.etag, record.update_time)
                for entry in page.entries
                if (record := entry.record) is not None
            ]
            items += [holdfast.CommonPrefix(name) for name in page.common_prefixes]
            yield from sorted(items, key=lambda item: item.key if isinstance(item, holdfast.BlobEntry) else item.prefix)
            token = page.next_page_token
            if not token:
                return


@contextmanager
def refused(reason: str) -> Iterator[None]:
    """Expect the block to be refused for this reason, by the bare store or by the client."""
    found = ""
    try:
        yield
    except (HoldfastError, holdfast.HoldfastError) as error:
        found = error.reason
    assert found == reason


def _put_item(blob: holdfast.NewBlob) -> PutItem:
    return PutItem(
        _address(blob.key_or_content),
        Chunk(blob.data),
        condition=CreateOnly() if blob.create_only else _if_match(blob.if_match_etag),
        attributes=Attributes(blob.content_type, blob.metadata),
    )


def _if_match(etag: str | None) -> Condition:
    return OVERWRITE if etag is None else IfMatch(etag)


def _address(key_or_content: str | holdfast.Content) -> Address:
    if isinstance(key_or_content, str):
        return BlobKey(key_or_content)
    content = key_or_content
    return ContentAddress(content.prefix, content.suffix, Layout[content.layout.name], content.sha256)


def _info(info: ObjectInfo) -> holdfast.BlobInfo:
    return holdfast.BlobInfo(
        key=info.key.text,
        size_bytes=info.size_bytes,
        etag=info.etag,
        sha256=info.sha256,
        content_type=info.attributes.content_type,
        metadata=dict(info.attributes.metadata),
        update_time=info.update_time,
    )
