"""Payloads on their way in: an upload becomes its sealed form while it arrives."""

from collections.abc import Callable, Iterator
from datetime import datetime

from holdfast_server.checkpoints import seal
from holdfast_server.checkpoints.key_ring import Keys, SealKey
from holdfast_server.checkpoints.seal import Footer, Head, Measured, Purpose, Subject
from holdfast_server.checkpoints.segments import encrypted
from holdfast_server.objects.body import NOTHING_DECLARED, Body, Chunk, Declared, Sha256


class Sealing:
    """An upload in its sealed form: `body` is what is to be stored; once it was read to its end `footer` is known.

    It is sealed with the key that signs now. An upload that is broken breaks the body: nothing of it is stored. So does
    a key that is retired while the bytes come. `check` may refuse the payload by its SHA-256.
    """

    def __init__(
        self,
        upload: Body,
        keys: Keys,
        purpose: Purpose,
        subject: Subject,
        now: datetime,
        *,
        encrypt: bool = False,
        check: Callable[[bytes], None] = lambda _sha256: None,
    ) -> None:
        key = keys.ring.signing
        head = Head.fresh(key, purpose, encrypt=encrypt)
        self._said: list[Footer] = []

        def finish(payload: Measured, stored: Measured) -> bytes:
            check(payload.sha256)
            _ = keys.ring.verifying(key.id)  # else something would be stored that cannot be opened
            encoded, footer = seal.seal(key, head, subject, now, payload=payload, stored=stored)
            said.append(footer)
            return encoded

        said = self._said  # the body must not hold what holds it: it ends with that, and its thread at once
        self.body = Body(_parts(upload, key, head, finish))

    @property
    def footer(self) -> Footer:
        """What the seal says."""
        if not self._said:
            raise RuntimeError("the body was not read to its end")
        return self._said[0]


def _parts(
    upload: Body, key: SealKey, head: Head, finish: Callable[[Measured, Measured], bytes]
) -> Iterator[Chunk | Declared]:
    yield Chunk(head.encode())
    stored: Measured | None = None
    if head.is_encrypted:
        size, sha256 = 0, Sha256()
        try:
            for segment in encrypted(upload, key, head):
                size += len(segment)
                sha256.update(segment)
                yield Chunk(segment)
            stored = Measured(size, sha256.digest())
        finally:
            sha256.close()
    else:
        for piece in upload:
            yield Chunk(piece)
    payload = Measured(upload.digests.size_bytes, upload.digests.sha256)
    yield Chunk(finish(payload, stored or payload))
    yield NOTHING_DECLARED  # the trailer: that was all
