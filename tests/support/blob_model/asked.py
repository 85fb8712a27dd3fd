"""What is asked of a store: requests as values that are short to read in a failure, and the messages that they make."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import google_crc32c

from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk, UploadTrailer
from tests.support.samples import sample


@dataclass(frozen=True)
class Sample:
    """Some bytes."""

    size: int
    seed: int = 0

    @property
    def data(self) -> bytes:
        return _data(self.size, self.seed)

    @property
    def sha256(self) -> bytes:
        return _sha256(self.size, self.seed)


@cache
def _data(size: int, seed: int) -> bytes:
    return sample(size, seed)


@cache
def _sha256(size: int, seed: int) -> bytes:
    return hashlib.sha256(_data(size, seed)).digest()


@dataclass(frozen=True)
class Key:
    """A blob by its key."""

    text: str


@dataclass(frozen=True)
class Content:
    """A blob by the digest of a sample; None: the digest is left out. `cut`: its last byte is missing."""

    prefix: str = ""
    suffix: str = ""
    layout: int = 0
    of: Sample | None = None
    cut: bool = False

    @property
    def sha256(self) -> bytes:
        return b"" if self.of is None else self.of.sha256[: -1 if self.cut else None]

    def message(self, *, with_digest: bool = True) -> pb.ContentAddress:
        layout: Any = self.layout
        digest = self.sha256 if with_digest else b""
        return pb.ContentAddress(prefix=self.prefix, suffix=self.suffix, layout=layout, sha256=digest)


@dataclass(frozen=True)
class There:
    """A blob that is there, by number; to be resolved into its key, or its content, before it is asked for."""

    number: int
    by_content: bool = False


Name = Key | Content | None
"""None: the request names no blob."""


def address(name: Name) -> dict[str, Any]:
    """Return the field of `oneof address`."""
    if name is None:
        return {}
    return {"key": name.text} if isinstance(name, Key) else {"content": name.message()}


@dataclass(frozen=True)
class Condition:
    """A precondition of a write, with the etag as it is sent."""

    create_only: bool | None = None
    etag: str | None = None

    @property
    def fields(self) -> dict[str, Any]:
        if self.etag is not None:
            return {"if_match_etag": self.etag}
        return {} if self.create_only is None else {"create_only": self.create_only}


NO_CONDITION = Condition()


@dataclass(frozen=True)
class Attributes:
    """What a writer says of a blob."""

    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        return {"content_type": self.content_type, "metadata": self.metadata}


@dataclass(frozen=True)
class Declared:
    """What is said of the bytes: by how much the size is wrong, and how the digest is. None: nothing is said."""

    size_off_by: int | None = None
    digest: str | None = None

    def fields(self, said_of: Sample) -> dict[str, Any]:
        size = {} if self.size_off_by is None else {"size_bytes": said_of.size + self.size_off_by}
        return {**size, "sha256": digest_of(said_of, self.digest)}


def digest_of(said_of: Sample, how: str | None) -> bytes:
    """Return a digest that is `right`, `wrong` or `short`, or none."""
    right = said_of.sha256
    return {None: b"", "right": right, "wrong": right[::-1], "short": right[:31]}[how]


@dataclass(frozen=True)
class Upload:
    """How the bytes come: in chunks of which size, with which crc32c, and what is declared; None: without a trailer."""

    chunk_bytes: int = 1 << 20
    crc32c: str | None = None
    header: Declared = Declared()
    trailer: Declared | None = Declared()


@dataclass(frozen=True)
class Put:
    """A PutBlob, or an item of a batch, which has neither trailer nor size."""

    name: Name
    of: Sample
    upload: Upload = Upload()
    attributes: Attributes = Attributes()
    condition: Condition = NO_CONDITION

    def messages(self) -> Iterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(
            header=pb.PutBlobHeader(
                **address(self.name),
                **self.upload.header.fields(self.of),
                **self.attributes.fields,
                **self.condition.fields,
            )
        )
        data, step = self.of.data, max(self.upload.chunk_bytes, self.of.size // 64)
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            yield pb.PutBlobRequest(chunk=DataChunk(data=piece, **self._crc32c(piece)))
        if self.upload.trailer is not None:
            yield pb.PutBlobRequest(trailer=UploadTrailer(**self.upload.trailer.fields(self.of)))

    def item(self) -> pb.BatchPutBlobsItem:
        return pb.BatchPutBlobsItem(
            **address(self.name),
            data=self.of.data,
            sha256=digest_of(self.of, self.upload.header.digest),
            **self._crc32c(self.of.data),
            **self.attributes.fields,
            **self.condition.fields,
        )

    def _crc32c(self, data: bytes) -> dict[str, Any]:
        if self.upload.crc32c is None:
            return {}
        return {"crc32c": google_crc32c.value(data) ^ (self.upload.crc32c == "wrong")}


@dataclass(frozen=True)
class Copy:
    """A CopyBlob."""

    source: Name
    target: Name
    attributes: Attributes | None = None
    condition: Condition = NO_CONDITION
    source_etag: str | None = None

    def message(self) -> pb.CopyBlobRequest:
        return pb.CopyBlobRequest(
            source=pb.BlobAddress(**address(self.source)),
            target=pb.BlobAddress(**address(self.target)),
            attributes=None if self.attributes is None else pb.BlobAttributes(**self.attributes.fields),
            source_if_match_etag=self.source_etag,
            **self.condition.fields,
        )


@dataclass(frozen=True)
class Range:
    """Which bytes of a blob are wanted."""

    offset: int = 0
    length: int | None = None
    suffix_length: int | None = None
    exact: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Query:
    """A list."""

    prefix: str = ""
    delimiter: str = ""
    start_after: str = ""

    def message(self, page_size: int, token: str = "") -> pb.ListBlobsRequest:
        return pb.ListBlobsRequest(**vars(self), page_size=page_size, page_token=token)
