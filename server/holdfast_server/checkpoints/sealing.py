"""Payloads on their way in: an upload becomes its sealed form while it arrives."""

from collections.abc import Callable, Iterator
from datetime import datetime

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import SealKey
from holdfast_server.checkpoints.seal import Footer, Head, Measured, Purpose, Subject
from holdfast_server.checkpoints.segments import encrypted
from holdfast_server.objects.body import NOTHING_DECLARED, Body, Chunk, Declared, Sha256


class Sealing:
    """An upload in its sealed form: `body` is what is to be stored; once it was read to its end `footer` is known.

    An upload that is broken breaks the body: nothing of it is stored. `check` may refuse the payload by its SHA-256.
    """

    def __init__(
        self,
        upload: Body,
        key: SealKey,
        purpose: Purpose,
        subject: Subject,
        now: datetime,
        *,
        encrypt: bool = False,
        check: Callable[[bytes], None] = lambda _sha256: None,
    ) -> None:
        self._upload = upload
        self._key = key
        self._head = Head.fresh(key, purpose, encrypt=encrypt)
        self._subject = subject
        self._now = now
        self._check = check
        self._footer: Footer | None = None
        self.body = Body(self._parts())

    @property
    def footer(self) -> Footer:
        """What the seal says."""
        if self._footer is None:
            raise RuntimeError("the body was not read to its end")
        return self._footer

    def _parts(self) -> Iterator[Chunk | Declared]:
        yield Chunk(self._head.encode())
        if self._head.is_encrypted:
            size, sha256 = 0, Sha256()
            try:
                for segment in encrypted(self._upload, self._key, self._head):
                    size += len(segment)
                    sha256.update(segment)
                    yield Chunk(segment)
                stored: Measured | None = Measured(size, sha256.digest())
            finally:
                sha256.close()
        else:
            for piece in self._upload:
                yield Chunk(piece)
            stored = None
        payload = Measured(self._upload.digests.size_bytes, self._upload.digests.sha256)
        self._check(payload.sha256)
        encoded, self._footer = seal.seal(
            self._key, self._head, self._subject, self._now, payload=payload, stored=stored or payload
        )
        yield Chunk(encoded)
        yield NOTHING_DECLARED  # the trailer: that was all
