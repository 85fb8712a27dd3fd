"""The client against servers that fail, lie, or fall silent: a real gRPC server that does what a test tells it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import google_crc32c
import grpc
import pytest

import holdfast
from holdfast import Content, watchdog
from holdfast.retrying import Retrier
from holdfast.v1 import blob_store_pb2 as pb
from holdfast.v1 import blob_store_pb2_grpc
from holdfast.v1.types_pb2 import ByteRange, DataChunk
from holdfast_server import errors as server_errors
from holdfast_server.errors import Reason
from holdfast_server.rpc.status import status_of
from tests.support.samples import sample
from tests.support.waiting import wait_until

_DATA = sample(1000)
_CHUNK_BYTES = 100
_ETAG = "etag-1"

Answer = Callable[[Any, grpc.ServicerContext], Any]


def _unavailable(context: grpc.ServicerContext, message: str = "away") -> NoReturn:
    context.abort(grpc.StatusCode.UNAVAILABLE, message)
    raise AssertionError


def _info(**changes: Any) -> pb.BlobInfo:
    return pb.BlobInfo(**{"key": "a", "size_bytes": len(_DATA), "etag": _ETAG, "sha256": _sha256(_DATA), **changes})


def _sha256(data: bytes) -> bytes:
    return sha256(data).digest()


def _chunk(data: bytes) -> pb.GetBlobResponse:
    return pb.GetBlobResponse(chunk=DataChunk(data=data, crc32c=google_crc32c.value(data)))


def _download(request: pb.GetBlobRequest, data: bytes = _DATA, **changes: Any) -> Iterator[pb.GetBlobResponse]:
    """Yield a right answer, in chunks of 100 bytes."""
    end = request.offset + request.length if request.HasField("length") else len(data)
    range_ = ByteRange(offset=request.offset, length=end - request.offset)
    yield pb.GetBlobResponse(info=_info(**{"range": range_, **changes}))
    for at in range(request.offset, end, _CHUNK_BYTES):
        yield _chunk(data[at : min(at + _CHUNK_BYTES, end)])


class _Fake(blob_store_pb2_grpc.BlobStoreServicer):
    """Answers each call with the next of `answers`, and then with the last one for good; keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[Any] = []
        self.released = threading.Event()
        """Set when the test is over: answers that hang wait for it."""

    def _answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer(request, context)

    def GetBlob(self, request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
        yield from self._answer(request, context)

    def PutBlob(
        self, request_iterator: Iterator[pb.PutBlobRequest], context: grpc.ServicerContext
    ) -> pb.PutBlobResponse:
        return self._answer(request_iterator, context)  # type: ignore[no-any-return]  # what the test gave

    StatBlob = DeleteBlob = ListBlobs = CopyBlob = _answer
    FindMissingBlobs = BatchGetBlobs = BatchPutBlobs = BatchDeleteBlobs = _answer


@pytest.fixture
def fake() -> Iterator[_Fake]:
    """What answers."""
    fake = _Fake()
    yield fake
    fake.released.set()


@pytest.fixture
def address(fake: _Fake) -> Iterator[str]:
    """Where it listens."""
    server = grpc.server(ThreadPoolExecutor(8))
    blob_store_pb2_grpc.add_BlobStoreServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    fake.released.set()
    server.stop(None).wait()


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client would have made."""
    return []


@pytest.fixture
def blobs(address: str, pauses: list[float]) -> Iterator[holdfast.Blobs]:
    """A client that makes up to three more tries, and does not sleep between them."""
    with holdfast.Client(address, Retrier(retries=3, sleep=pauses.append, random=lambda: 0.0)) as client:
        yield client.blobs


@pytest.fixture
def hasty(address: str) -> Iterator[holdfast.Blobs]:
    """A client that is not patient with silence."""
    with holdfast.connect(address, timeout=0.5, retries=3) as client:
        yield client.blobs


class TestDownloads:
    def test_a_connection_that_breaks_is_taken_up_at_the_offset_reached(
        self, fake: _Fake, blobs: holdfast.Blobs
    ) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            for _ in range(4):  # the info and three chunks
                yield next(right)
            _unavailable(context)

        fake.answers = [breaking, breaking, lambda request, _: _download(request)]
        with blobs.get("a") as reader:
            assert reader.read() == _DATA
        resumed = [(request.offset, request.length, request.exact, request.if_match_etag) for request in fake.requests]
        assert resumed == [(0, 0, False, ""), (300, 700, True, _ETAG), (600, 400, True, _ETAG)]

    def test_a_range_is_taken_up_within_the_range(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            yield next(right)
            yield next(right)
            _unavailable(context)

        fake.answers = [breaking, lambda request, _: _download(request)]
        content = Content("p/", sha256=_sha256(_DATA))
        with blobs.get(content, offset=50, length=250) as reader:
            assert reader.read() == _DATA[50:300]
        assert [(request.offset, request.length) for request in fake.requests] == [(50, 250), (150, 150)]
        assert fake.requests[1].content == fake.requests[0].content

    def test_a_connection_that_breaks_after_the_last_byte_is_not_needed(
        self, fake: _Fake, blobs: holdfast.Blobs
    ) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            yield from _download(request)
            _unavailable(context)

        fake.answers = [breaking]
        assert blobs.get("a").read() == _DATA
        assert len(fake.requests) == 1

    def test_tries_without_a_new_byte_are_bounded(
        self, fake: _Fake, blobs: holdfast.Blobs, pauses: list[float]
    ) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            yield next(right)
            if request.offset < 300:
                yield next(right)
            _unavailable(context, "away for good")

        fake.answers = [breaking]
        with blobs.get("a") as reader, pytest.raises(holdfast.Unavailable, match="away for good"):
            reader.read()
        assert [request.offset for request in fake.requests] == [0, 100, 200, 300, 300, 300]
        assert len(pauses) == 5

    def test_a_server_that_drains_is_tried_again_when_it_says(
        self, fake: _Fake, blobs: holdfast.Blobs, pauses: list[float]
    ) -> None:
        def draining(_request: Any, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            error = server_errors.Unavailable(Reason.DRAINING, "shutting down", retry_after_seconds=3.0)
            context.abort_with_status(status_of(error))
            yield from ()

        fake.answers = [draining, lambda request, _: _download(request)]
        assert blobs.get("a").read() == _DATA
        assert pauses == [3.0]

    @pytest.mark.parametrize("changes", [{"etag": "etag-2"}, {"range": ByteRange(offset=99, length=900)}])
    def test_a_server_that_goes_on_with_other_bytes_is_found_out(
        self, fake: _Fake, blobs: holdfast.Blobs, changes: dict[str, Any]
    ) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            yield next(right)
            yield next(right)
            _unavailable(context)

        fake.answers = [breaking, lambda request, _: _download(request, **changes)]
        with blobs.get("a") as reader, pytest.raises(holdfast.IntegrityFailed, match="other bytes than those asked"):
            reader.read()

    @pytest.mark.parametrize(
        ("flaw", "message"),
        [
            (DataChunk(data=b"x", crc32c=1), "does not have its CRC-32C"),
            (DataChunk(data=b"x"), "without its CRC-32C"),
            (DataChunk(crc32c=0), "without data"),
        ],
    )
    def test_a_damaged_chunk_is_not_handed_out(
        self, fake: _Fake, blobs: holdfast.Blobs, flaw: DataChunk, message: str
    ) -> None:
        def damaging(request: pb.GetBlobRequest, _: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            yield next(right)
            yield next(right)
            yield pb.GetBlobResponse(chunk=flaw)

        fake.answers = [damaging]
        with blobs.get("a") as reader:
            assert next(reader) == _DATA[:100]
            with pytest.raises(holdfast.IntegrityFailed, match=message) as caught:
                next(reader)
            assert caught.value.reason == "INTEGRITY_FAILED"
            with pytest.raises(ValueError, match="closed"):
                next(reader)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"range": ByteRange(length=1001), "size_bytes": 1001}, "only 1000 of 1001 bytes came"),
            ({"range": ByteRange(length=950), "size_bytes": 950}, "more than the 950 bytes"),
            ({"sha256": bytes(32)}, "have sha256"),
            ({"range": None}, "did not begin with"),
        ],
    )
    def test_bytes_that_are_not_the_blob_are_no_download(
        self, fake: _Fake, blobs: holdfast.Blobs, tmp_path: Path, changes: dict[str, Any], message: str
    ) -> None:
        fake.answers = [lambda request, _: _download(request, **changes)]
        with pytest.raises(holdfast.IntegrityFailed, match=message):
            blobs.download("a", tmp_path / "target")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("range_", [{}, {"offset": 50, "length": 250}], ids=["whole", "range"])
    def test_other_content_than_that_asked_for_is_found_out_before_its_bytes_come(
        self, fake: _Fake, blobs: holdfast.Blobs, range_: dict[str, int]
    ) -> None:
        ended = threading.Event()

        def other(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            context.add_callback(ended.set)
            yield next(_download(request))  # of the sha256 of its own bytes, which do not come
            fake.released.wait()

        fake.answers = [other]
        with pytest.raises(holdfast.IntegrityFailed, match=f"not {bytes(32).hex()} as asked for") as caught:
            blobs.get(Content("p/", sha256=bytes(32)), **range_)  # type: ignore[arg-type]  # numbers all
        assert caught.value.details == {"key": "a"}
        assert ended.wait(60)  # the call was cancelled
        assert len(fake.requests) == 1

    def test_other_content_that_a_download_is_taken_up_with_is_found_out(
        self, fake: _Fake, blobs: holdfast.Blobs
    ) -> None:
        def breaking(request: pb.GetBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            yield next(right)
            yield next(right)
            _unavailable(context)

        fake.answers = [breaking, lambda request, _: _download(request, sha256=bytes(32))]
        content = Content("p/", sha256=_sha256(_DATA))
        with blobs.get(content) as reader, pytest.raises(holdfast.IntegrityFailed, match="as asked for"):
            reader.read()

    def test_an_answer_without_any_message_is_no_empty_blob(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [lambda _request, _context: iter(())]
        with pytest.raises(holdfast.IntegrityFailed, match="did not begin with"):
            blobs.get("a")

    @pytest.mark.parametrize("messages", [0, 1, 3])
    def test_a_silent_server_is_not_waited_for_longer_than_the_time_out(
        self, fake: _Fake, hasty: holdfast.Blobs, messages: int
    ) -> None:
        def silent(request: pb.GetBlobRequest, _: grpc.ServicerContext) -> Iterator[pb.GetBlobResponse]:
            right = _download(request)
            for _number in range(messages):
                yield next(right)
            fake.released.wait()

        fake.answers = [silent]
        with pytest.raises(holdfast.DeadlineExceeded, match=r"127\.0\.0\.1:\d+ sent nothing for 0\.5 s"):
            hasty.get("a").read()
        assert len(fake.requests) <= 1  # on a busy machine it may be over before it arrives

    def test_a_slow_reader_is_not_a_silent_server(
        self, fake: _Fake, address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = [1000.0]
        clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _seconds: time.sleep(0.01))
        monkeypatch.setattr(watchdog, "time", clock)  # time passes for the reader only, however busy the machine is
        fake.answers = [lambda request, _: _download(request)]
        with holdfast.connect(address, timeout=60, retries=3) as client, client.blobs.get("a") as reader:
            first = next(reader)
            now[0] += 1000  # longer than the time-out
            assert not fake.released.wait(0.2)  # for the watchdog to look
            assert first + reader.read() == _DATA


class TestUploads:
    @staticmethod
    def _storing(requests: Iterator[pb.PutBlobRequest], _: grpc.ServicerContext) -> pb.PutBlobResponse:
        data = b"".join(request.chunk.data for request in requests)
        return pb.PutBlobResponse(blob=_info(size_bytes=len(data), sha256=_sha256(data)), created=True)

    @staticmethod
    def _failing(requests: Iterator[pb.PutBlobRequest], context: grpc.ServicerContext) -> NoReturn:
        for _ in requests:
            pass
        _unavailable(context)

    @pytest.mark.parametrize("declared", [True, False])
    def test_an_upload_declares_what_it_knows(self, fake: _Fake, blobs: holdfast.Blobs, declared: bool) -> None:
        messages: list[pb.PutBlobRequest] = []

        def noting(requests: Iterator[pb.PutBlobRequest], context: grpc.ServicerContext) -> pb.PutBlobResponse:
            messages.extend(requests)
            return self._storing(iter(messages), context)

        fake.answers = [noting]
        data = sample((2 << 20) + 3)
        blobs.put("a", data if declared else iter([data]))
        header, *chunks, trailer = messages
        assert header.header.HasField("size_bytes") == declared
        assert header.header.size_bytes == (len(data) if declared else 0)
        assert [len(message.chunk.data) for message in chunks] == [1 << 20, 1 << 20, 3]
        assert all(message.chunk.crc32c == google_crc32c.value(message.chunk.data) for message in chunks)
        assert (trailer.trailer.size_bytes, trailer.trailer.sha256) == (len(data), _sha256(data))

    def test_an_upload_never_looks_complete_before_its_source_has_ended(
        self, fake: _Fake, blobs: holdfast.Blobs
    ) -> None:
        messages: list[pb.PutBlobRequest] = []
        all_but_one, another, over = threading.Event(), threading.Event(), threading.Event()

        def noting(requests: Iterator[pb.PutBlobRequest], _: grpc.ServicerContext) -> pb.PutBlobResponse:
            try:
                for message in requests:
                    messages.append(message)
                    if len(messages) == 3:
                        all_but_one.set()
                    elif len(messages) > 3:
                        another.set()
            finally:
                over.set()
            return pb.PutBlobResponse()

        def chunks() -> Iterator[bytes]:
            yield sample(3 << 20)
            assert all_but_one.wait(60)
            assert not another.wait(0.5)
            raise RuntimeError("the source's own")

        fake.answers = [noting]
        with pytest.raises(RuntimeError, match="the source's own"):
            blobs.put("a", chunks(), size_bytes=3 << 20)
        assert over.wait(60)
        assert [message.WhichOneof("part") for message in messages] == ["header", "chunk", "chunk"]

    def test_a_server_that_stored_other_bytes_is_found_out(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [lambda _requests, _context: pb.PutBlobResponse(blob=_info(sha256=bytes(32)), created=True)]
        with pytest.raises(holdfast.IntegrityFailed, match="stored other bytes"):
            blobs.put("a", _DATA)

    @pytest.mark.parametrize("kind", ["bytes", "path", "file"])
    @pytest.mark.parametrize("target", ["a", Content("p/")], ids=["key", "content"])
    def test_a_put_that_can_be_repeated_is(
        self, fake: _Fake, blobs: holdfast.Blobs, tmp_path: Path, kind: str, target: str | Content
    ) -> None:
        fake.answers = [self._failing, self._failing, self._storing]
        path = tmp_path / "source"
        path.write_bytes(_DATA)
        with path.open("rb") as file:
            sources: dict[str, Any] = {"bytes": _DATA, "path": path, "file": file}
            result = blobs.put(target, sources[kind])
        assert result.blob.sha256 == _sha256(_DATA)
        assert len(fake.requests) == 3

    @pytest.mark.parametrize(
        ("source", "condition"),
        [
            (iter([_DATA]), {}),
            (_DATA, {"create_only": True}),
            (_DATA, {"if_match_etag": _ETAG}),
        ],
        ids=["an iterable", "create-only", "if-match"],
    )
    def test_a_put_that_cannot_be_repeated_is_not(
        self, fake: _Fake, blobs: holdfast.Blobs, source: bytes | Iterator[bytes], condition: dict[str, Any]
    ) -> None:
        fake.answers = [self._failing]
        with pytest.raises(holdfast.Unavailable):
            blobs.put("a", source, **condition)
        assert len(fake.requests) == 1

    def test_tries_of_a_put_are_bounded(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [self._failing]
        with pytest.raises(holdfast.Unavailable):
            blobs.put("a", _DATA)
        assert len(fake.requests) == 4

    @pytest.mark.parametrize("size", [0, 64 << 20], ids=["no answer", "nothing taken"])
    def test_a_silent_server_is_not_waited_for_longer_than_the_time_out(
        self, fake: _Fake, hasty: holdfast.Blobs, size: int
    ) -> None:
        ended = threading.Event()

        def silent(_: Iterator[pb.PutBlobRequest], context: grpc.ServicerContext) -> pb.PutBlobResponse:
            if not context.add_callback(ended.set):  # it is over before this is asked
                ended.set()
            fake.released.wait()
            return pb.PutBlobResponse()

        fake.answers = [silent]
        with pytest.raises(holdfast.DeadlineExceeded, match=r"127\.0\.0\.1:\d+ took no data, or gave no answer"):
            hasty.put("a", bytes(size))
        wait_until(lambda: not fake.requests or ended.is_set())  # on a busy machine it may be over before it arrives
        assert len(fake.requests) <= 1

    def test_a_slow_source_is_not_a_silent_server(self, fake: _Fake, address: str) -> None:
        def chunks() -> Iterator[bytes]:
            yield _DATA[:500]
            assert not fake.released.wait(5.5)  # longer than the time-out
            yield _DATA[500:]

        fake.answers = [self._storing]
        with holdfast.connect(address, timeout=5) as client:  # which a busy machine must answer within
            assert client.blobs.put("a", chunks()).blob.sha256 == _sha256(_DATA)


class TestOtherCalls:
    @staticmethod
    def _failing(_request: Any, context: grpc.ServicerContext) -> NoReturn:
        _unavailable(context)

    @staticmethod
    def _busy(_request: Any, context: grpc.ServicerContext) -> NoReturn:
        context.abort_with_status(status_of(server_errors.Overloaded("busy", retry_after_seconds=2.0)))
        raise AssertionError

    def test_reads_are_repeated(self, fake: _Fake, blobs: holdfast.Blobs, pauses: list[float]) -> None:
        fake.answers = [self._failing, self._busy, lambda _request, _context: pb.StatBlobResponse(blob=_info())]
        assert blobs.stat("a").etag == _ETAG
        page = pb.ListBlobsResponse(blobs=[pb.BlobEntry(key="a")])
        fake.answers = [self._failing, self._busy, lambda _request, _context: page]
        assert [item.key for item in blobs.list() if isinstance(item, holdfast.BlobEntry)] == ["a"]
        assert pauses == [0.0, 2.0] * 2

    def test_an_unconditional_delete_is_repeated(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [self._failing, lambda _request, _context: pb.DeleteBlobResponse(existed=False)]
        assert not blobs.delete("a")
        assert len(fake.requests) == 2

    def test_a_conditional_delete_is_not_repeated(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [self._failing]
        with pytest.raises(holdfast.Unavailable):
            blobs.delete("a", if_match_etag=_ETAG)
        assert len(fake.requests) == 1

    def test_what_will_not_pass_is_not_repeated(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        full = status_of(server_errors.StorageFull("full"))
        fake.answers = [lambda _request, context: context.abort_with_status(full)]
        with pytest.raises(holdfast.StorageFull):
            blobs.stat("a")
        assert len(fake.requests) == 1

    def test_a_silent_server_is_not_waited_for_longer_than_the_time_out(
        self, fake: _Fake, hasty: holdfast.Blobs
    ) -> None:
        fake.answers = [lambda _request, _context: fake.released.wait()]
        with pytest.raises(holdfast.DeadlineExceeded, match=r"127\.0\.0\.1:\d+ did not answer in time"):
            hasty.stat("a")

    def test_what_is_known_of_other_content_is_not_an_answer(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        fake.answers = [lambda _request, _context: pb.StatBlobResponse(blob=_info())]
        assert blobs.stat(Content("p/", sha256=_sha256(_DATA))).etag == _ETAG
        with pytest.raises(holdfast.IntegrityFailed, match=f"not {bytes(32).hex()} as asked for") as caught:
            blobs.stat(Content("p/", sha256=bytes(32)))
        assert caught.value.details == {"key": "a"}

    @pytest.mark.parametrize("size_of", ["request", "answer"])
    def test_a_message_larger_than_grpc_takes_is_not_sent_again(
        self, fake: _Fake, blobs: holdfast.Blobs, pauses: list[float], size_of: str
    ) -> None:
        large = "x" * (5 << 20)
        fake.answers = [lambda _request, _context: pb.StatBlobResponse(blob=_info(etag=large))]
        with pytest.raises(holdfast.InvalidArgument, match="larger than max") as caught:
            blobs.stat(large if size_of == "request" else "a")
        assert (caught.value.reason, caught.value.field) == ("RESOURCE_EXHAUSTED", "")
        assert pauses == []

    def test_an_empty_page_is_not_the_end_of_a_list(self, fake: _Fake, blobs: holdfast.Blobs) -> None:
        pages = [
            pb.ListBlobsResponse(next_page_token="1"),
            pb.ListBlobsResponse(blobs=[pb.BlobEntry(key="a", damaged=True)], next_page_token="2"),
            pb.ListBlobsResponse(),
        ]
        fake.answers = [lambda _request, _context: pages.pop(0)]
        assert list(blobs.list()) == [holdfast.BlobEntry("a", None, None, None, damaged=True)]
        assert [request.page_token for request in fake.requests] == ["", "1", "2"]
