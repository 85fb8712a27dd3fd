"""The client's checkpoints against servers that fail, lie, or fall silent."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import grpc
import pytest

import holdfast
from holdfast import Checkpoints, SaveOutcome
from holdfast.retrying import Retrier
from holdfast.v1 import checkpoint_store_pb2 as pb
from holdfast.v1.types_pb2 import DataChunk, ItemStatus
from holdfast_server import errors as server_errors
from holdfast_server.errors import Reason
from tests.support.fake_checkpoints import (
    FakeCheckpoints,
    checkpoint_download,
    chunk_of,
    digest,
    received,
    refuse,
    serving,
    snapshot_download,
    unavailable,
)
from tests.support.samples import sample

_DATA = sample(1000)


@pytest.fixture
def fake() -> FakeCheckpoints:
    """What answers."""
    return FakeCheckpoints()


@pytest.fixture
def address(fake: FakeCheckpoints) -> Iterator[str]:
    """Where it listens."""
    with serving(fake) as address:
        yield address


@pytest.fixture
def pauses() -> list[float]:
    """The pauses that the client would have made."""
    return []


@pytest.fixture
def checkpoints(address: str, pauses: list[float]) -> Iterator[Checkpoints]:
    """A client that makes up to three more tries, and does not sleep between them."""
    with holdfast.Client(address, Retrier(retries=3, sleep=pauses.append, random=lambda: 0.0)) as client:
        yield client.checkpoints


def _break_off(_: Any, context: grpc.ServicerContext) -> Any:
    unavailable(context)


def _broken_off(answers: Iterator[Any], after: int) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        for _ in range(after):
            yield next(answers)
        unavailable(context)

    return answer


def _saved(requests: Any, *, sha256: bytes | None = None, **fields: Any) -> pb.SaveCheckpointResponse:
    header, data, ended = received(requests)
    assert ended
    outcome = fields.pop("outcome", pb.SAVE_OUTCOME_STORED)
    info = pb.CheckpointInfo(room_id=header.room_id, epoch=header.epoch, sha256=sha256 or digest(data))
    return pb.SaveCheckpointResponse(outcome=outcome, checkpoint=info, next_epoch=header.epoch + 1, **fields)


class TestSaving:
    def test_a_header_declares_what_is_known_and_a_trailer_ends_it(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        headers: list[pb.SaveCheckpointHeader] = []

        def answer(requests: Any, _: grpc.ServicerContext) -> pb.SaveCheckpointResponse:
            header, data, ended = received(requests)
            assert (data, ended) == (_DATA, True)
            headers.append(header)
            info = pb.CheckpointInfo(sha256=digest(data))
            return pb.SaveCheckpointResponse(outcome=pb.SAVE_OUTCOME_STORED, checkpoint=info)

        fake.answers = [answer]
        checkpoints.save("a", 0, _DATA, metadata={"x": "ü"}, writer_id="node", replace_damaged_pointer=True)
        checkpoints.save("a", 1, iter([_DATA]), if_latest_epoch=-1, require_new=True)
        first = pb.SaveCheckpointHeader(
            room_id="a", size_bytes=1000, metadata={"x": "ü"}, writer_id="node", replace_damaged_pointer=True
        )
        first.epoch = 0
        assert headers == [
            first,
            pb.SaveCheckpointHeader(room_id="a", epoch=1, if_latest_epoch=-1, require_new=True),
        ]

    def test_a_save_whose_answer_is_lost_is_repeated(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        def lost(requests: Any, context: grpc.ServicerContext) -> Any:
            _saved(requests)
            unavailable(context)

        fake.answers = [lost, lambda requests, _: _saved(requests, outcome=pb.SAVE_OUTCOME_EXISTS_SAME)]
        assert checkpoints.save("a", 3, _DATA).outcome is SaveOutcome.EXISTS_SAME

    @pytest.mark.parametrize(
        ("source", "condition"),
        [(_DATA, {"require_new": True}), (iter([_DATA]), {})],
        ids=["require_new", "iterator"],
    )
    def test_a_save_that_would_turn_down_itself_or_cannot_be_read_again_is_not_repeated(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float], source: Any, condition: Any
    ) -> None:
        fake.answers = [_break_off, lambda requests, _: _saved(requests)]
        with pytest.raises(holdfast.Unavailable):
            checkpoints.save("a", 3, source, **condition)
        assert pauses == []

    @pytest.mark.parametrize("outcome", [pb.SAVE_OUTCOME_STORED, pb.SAVE_OUTCOME_EXISTS_SAME])
    def test_a_server_that_stored_other_bytes_is_found_out(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, outcome: Any
    ) -> None:
        fake.answers = [lambda requests, _: _saved(requests, outcome=outcome, sha256=bytes(32))]
        with pytest.raises(holdfast.IntegrityFailed, match="other bytes at epoch 3"):
            checkpoints.save("a", 3, _DATA)

    def test_other_bytes_are_no_failure_where_the_outcome_says_so(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        outcome = pb.SAVE_OUTCOME_EXISTS_DIFFERENT
        fake.answers = [lambda requests, _: _saved(requests, outcome=outcome, sha256=bytes(32), latest_epoch=5)]
        saved = checkpoints.save("a", 3, _DATA)
        assert (saved.outcome, saved.is_there, saved.next_epoch) == (SaveOutcome.EXISTS_DIFFERENT, False, 4)

    def test_a_damaged_epoch_has_no_checkpoint(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        def damaged(requests: Any, _: grpc.ServicerContext) -> pb.SaveCheckpointResponse:
            received(requests)
            return pb.SaveCheckpointResponse(outcome=pb.SAVE_OUTCOME_EXISTS_DAMAGED, next_epoch=4)

        fake.answers = [damaged]
        saved = checkpoints.save("a", 3, _DATA)
        assert (saved.outcome, saved.checkpoint, saved.is_there) == (SaveOutcome.EXISTS_DAMAGED, None, False)

    def test_an_outcome_that_is_none_is_no_success(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        fake.answers = [lambda requests, _: _saved(requests, outcome=0)]
        with pytest.raises(holdfast.InternalError):
            checkpoints.save("a", 3, _DATA)

    def test_a_time_out_bounds_a_save_with_its_tries(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, address: str
    ) -> None:
        def hang(requests: Any, _: grpc.ServicerContext) -> Any:
            fake.released.wait(30)
            return _saved(requests)

        fake.answers = [hang]
        with pytest.raises(holdfast.DeadlineExceeded):
            checkpoints.save("a", 3, _DATA, timeout=0.2)
        left: list[float | None] = []

        def note(requests: Any, context: grpc.ServicerContext) -> Any:
            remaining = context.time_remaining()
            answer = _saved(requests)
            if answer.checkpoint.epoch == 4:  # and not the one before, which may come late
                left.append(remaining)
            return answer

        fake.answers = [note]
        checkpoints.save("a", 4, _DATA, timeout=500)
        assert left[0] is not None
        assert 400 < left[0] < 510  # gRPC rounds it
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        retrier = Retrier(retries=1000, clock=lambda: now[0], sleep=sleep, random=lambda: 1.0)
        fake.answers = [_break_off]
        with holdfast.Client(address, retrier) as client, pytest.raises(holdfast.Unavailable):
            client.checkpoints.save("a", 3, _DATA, timeout=100)
        assert 90 <= now[0] <= 100


Open = Callable[[Checkpoints], Any]
Download = Callable[..., Iterator[Any]]


@pytest.fixture(params=["load", "restore"])
def open_(request: pytest.FixtureRequest) -> Open:
    """What opens a checkpoint, and a snapshot."""
    return lambda checkpoints: getattr(checkpoints, request.param)("a")


@pytest.fixture
def download(open_: Open, request: pytest.FixtureRequest) -> Download:
    """Right answers to it."""
    return checkpoint_download if request.node.callspec.params["open_"] == "load" else snapshot_download


class TestReading:
    def test_a_connection_that_breaks_is_taken_up_and_the_whole_is_verified(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        fake.answers = [_broken_off(download(_DATA), after) for after in (0, 4, 7)]
        fake.answers += [lambda *_: download(_DATA)]
        with open_(checkpoints) as reader:
            assert reader.read() == _DATA
            assert reader.is_complete
        assert len(fake.requests) == 4

    def test_a_checkpoint_is_taken_up_at_its_own_epoch(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        for look in (next, lambda reader: reader.info):
            fake.requests.clear()
            fake.answers = [_broken_off(checkpoint_download(_DATA), 3), lambda *_: checkpoint_download(_DATA)]
            with checkpoints.load("a", min_epoch=2, fallback=True) as reader:
                known = look(reader)
                assert (known if isinstance(known, bytes) else b"") + reader.read() == _DATA
            assert fake.requests == [
                pb.LoadCheckpointRequest(room_id="a", min_epoch=2, fallback=True),
                pb.LoadCheckpointRequest(room_id="a", epoch=7),
            ]

    @pytest.mark.parametrize("after", [1, 2, 3, 10])
    def test_as_long_as_the_caller_knows_nothing_of_it_the_latest_is_loaded_anew(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, after: int
    ) -> None:
        newer = sample(350, seed=8)
        fake.answers = [
            _broken_off(checkpoint_download(_DATA), after),
            lambda *_: checkpoint_download(newer, epoch=8, etag="etag-2"),
        ]
        with checkpoints.load("a", min_epoch=2, fallback=True) as reader:
            assert reader.read() == newer
            assert reader.is_complete
        assert (reader.info.epoch, reader.info.etag) == (8, "etag-2")
        assert fake.requests == [pb.LoadCheckpointRequest(room_id="a", min_epoch=2, fallback=True)] * 2

    def test_a_newer_one_may_be_empty(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        empty = {"epoch": 8, "etag": "etag-2"}
        fake.answers = [_broken_off(checkpoint_download(_DATA), 4), lambda *_: checkpoint_download(b"", **empty)]
        with checkpoints.load("a") as reader:
            assert reader.read() == b""
            assert reader.is_complete

    def test_to_begin_anew_again_and_again_is_no_progress(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float]
    ) -> None:
        fake.answers = [_broken_off(checkpoint_download(_DATA), 5 if number % 2 else 3) for number in range(20)]
        with checkpoints.load("a") as reader, pytest.raises(holdfast.Unavailable):
            reader.read()
        assert len(pauses) == 4  # three, after the furthest that it came

    @pytest.mark.parametrize("look", [next, lambda reader: reader.info], ids=["bytes", "info"])
    def test_what_is_gone_meanwhile_is_not_taken_for_a_new_room(
        self,
        *,
        fake: FakeCheckpoints,
        checkpoints: Checkpoints,
        open_: Open,
        download: Download,
        look: Callable[[Any], object],
    ) -> None:
        gone = server_errors.NotFound(Reason.CHECKPOINT_NOT_FOUND, "pruned", room_id="a")
        fake.answers = [_broken_off(download(_DATA), 3), lambda _, context: refuse(context, gone)]
        with open_(checkpoints) as reader:
            look(reader)
            with pytest.raises(holdfast.ConcurrentModification, match="load again") as caught:
                reader.read()
        assert caught.value.details["room_id"] == "a"
        assert not reader.is_complete

    def test_a_room_that_is_gone_before_the_caller_knows_of_it_is_not_found(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        gone = server_errors.NotFound(Reason.ROOM_NOT_FOUND, "deleted", room_id="a", next_epoch="9")
        fake.answers = [_broken_off(download(_DATA), 3), lambda _, context: refuse(context, gone)]
        with open_(checkpoints) as reader, pytest.raises(holdfast.NotFound) as caught:
            reader.read()
        assert caught.value.next_epoch == 9

    def test_another_one_is_not_taken_for_the_rest(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        fake.answers = [_broken_off(download(_DATA), 3), lambda *_: download(_DATA, etag="etag-2")]
        with open_(checkpoints) as reader:
            next(reader)
            with pytest.raises(holdfast.ConcurrentModification, match="replaced"):
                reader.read()
        assert not reader.is_complete

    def test_it_is_given_up_after_so_many_tries_without_a_byte(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download, pauses: list[float]
    ) -> None:
        fake.answers = [_broken_off(download(_DATA), 3), _break_off]
        with open_(checkpoints) as reader, pytest.raises(holdfast.Unavailable):
            reader.read()
        assert len(pauses) == 3

    def test_it_is_given_up_where_only_what_is_known_of_it_comes(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download, pauses: list[float]
    ) -> None:
        fake.answers = [_broken_off(download(_DATA), 1) for _ in range(10)]
        with open_(checkpoints) as reader, pytest.raises(holdfast.Unavailable):
            reader.read()
        assert len(pauses) == 3

    def test_a_connection_that_breaks_after_the_last_byte_is_no_loss(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        fake.answers = [_broken_off(download(_DATA), 11)]
        with open_(checkpoints) as reader:
            assert reader.read() == _DATA
        assert len(fake.requests) == 1

    @pytest.mark.parametrize(
        ("changes", "chunks", "message"),
        [
            ({"size_bytes": 1001}, 9, "only 1000 of 1001 bytes came"),
            ({"size_bytes": 950}, 8, "more than its 950 bytes"),
            ({"sha256": bytes(32)}, 9, "have sha256"),
            ({"sha256": b""}, 9, "not one that was told"),
        ],
    )
    def test_of_what_is_wrong_the_last_bytes_are_not_handed_out(
        self,
        *,
        fake: FakeCheckpoints,
        checkpoints: Checkpoints,
        open_: Open,
        download: Download,
        changes: dict[str, Any],
        chunks: int,
        message: str,
    ) -> None:
        fake.answers = [lambda *_: download(_DATA, **changes)]
        with open_(checkpoints) as reader:
            assert b"".join(islice(reader, chunks)) == _DATA[: 100 * chunks]
            with pytest.raises(holdfast.IntegrityFailed, match=message):
                next(reader)
            assert not reader.is_complete
            with pytest.raises(ValueError, match="closed"):
                next(reader)

    def test_of_what_fits_in_one_message_nothing_is_handed_out_if_it_is_wrong(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        fake.answers = [lambda *_: download(_DATA[:50], sha256=bytes(32))]
        with open_(checkpoints) as reader, pytest.raises(holdfast.IntegrityFailed):
            next(reader)

    @pytest.mark.parametrize(
        ("flaw", "message"),
        [
            (DataChunk(data=b"x", crc32c=1), "does not have its CRC-32C"),
            (DataChunk(data=b"x"), "without its CRC-32C"),
            (DataChunk(crc32c=0), "without data"),
        ],
    )
    def test_a_damaged_chunk_is_not_handed_out(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, flaw: DataChunk, message: str
    ) -> None:
        def damaging(*_: Any) -> Iterator[pb.LoadCheckpointResponse]:
            right = checkpoint_download(_DATA)
            yield next(right)
            yield pb.LoadCheckpointResponse(chunk=flaw)

        fake.answers = [damaging]
        with checkpoints.load("a") as reader, pytest.raises(holdfast.IntegrityFailed, match=message):
            next(reader)

    def test_damage_to_what_came_before_a_break_is_found_after_it(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        def lying(*_: Any) -> Iterator[pb.LoadCheckpointResponse]:
            right = checkpoint_download(_DATA)
            yield next(right)
            yield pb.LoadCheckpointResponse(chunk=chunk_of(bytes(100)))

        fake.answers = [_broken_off(lying(), 2), lambda *_: checkpoint_download(_DATA)]
        with checkpoints.load("a") as reader:
            assert reader.info.epoch == 7
            with pytest.raises(holdfast.IntegrityFailed, match="have sha256"):
                reader.read()

    def test_a_download_that_does_not_begin_with_its_info_is_none(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        for answers in ([], [pb.LoadCheckpointResponse(chunk=chunk_of(b"x"))]):
            fake.answers = [lambda *_, answers=answers: iter(answers)]
            with pytest.raises(holdfast.IntegrityFailed, match="room 'a': a download did not begin"):
                checkpoints.load("a")

    def test_an_empty_payload_is_complete_when_its_end_is_seen(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, open_: Open, download: Download
    ) -> None:
        fake.answers = [lambda *_: download(b"")]
        with open_(checkpoints) as reader:
            assert not reader.is_complete
            assert reader.read() == b""
            assert reader.is_complete

    def test_a_server_that_falls_silent_is_given_up(
        self, fake: FakeCheckpoints, address: str, open_: Open, download: Download
    ) -> None:
        def silent(*_: Any) -> Iterator[Any]:
            right = download(_DATA)
            yield next(right)
            yield next(right)
            fake.released.wait(30)

        fake.answers = [silent]
        with (
            pytest.raises(holdfast.DeadlineExceeded, match="sent nothing"),  # on a busy machine, opening it too
            holdfast.connect(address, timeout=2.0, retries=0) as client,
            open_(client.checkpoints) as reader,
        ):
            reader.read()


class TestNextEpoch:
    @pytest.mark.parametrize(
        ("error", "epoch"),
        [
            (server_errors.NotFound(Reason.ROOM_NOT_FOUND, "none", room_id="a"), 0),
            (server_errors.NotFound(Reason.ROOM_NOT_FOUND, "deleted", room_id="a", next_epoch="9"), 9),
            (server_errors.SealInvalid("room 'a', epoch 4", "is damaged", room_id="a", epoch="4"), 5),
        ],
    )
    def test_it_is_told_of_rooms_that_have_no_good_checkpoint(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, error: server_errors.HoldfastError, epoch: int
    ) -> None:
        fake.answers = [lambda _, context: refuse(context, error)]
        assert checkpoints.next_epoch("a") == epoch

    @pytest.mark.parametrize(
        ("listed", "is_lost"),
        [([], False), ([pb.CheckpointEntry(epoch=9)], False), ([pb.CheckpointEntry(epoch=0)], True)],
        ids=["deleted", "deleted, and begun since", "lost"],
    )
    def test_a_pointer_can_be_needed(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, listed: list[pb.CheckpointEntry], *, is_lost: bool
    ) -> None:
        error = server_errors.NotFound(Reason.ROOM_NOT_FOUND, "none", room_id="a", next_epoch="9")
        fake.answers = [
            lambda _, context: refuse(context, error),
            lambda *_: pb.ListCheckpointsResponse(next_page_token="more"),
            lambda *_: pb.ListCheckpointsResponse(checkpoints=listed),
        ]
        if not is_lost:
            assert checkpoints.next_epoch("a", need_pointer=True) == 9
            return
        with pytest.raises(holdfast.NotFound) as caught:
            checkpoints.next_epoch("a", need_pointer=True)
        assert caught.value.next_epoch == 9

    def test_a_new_room_needs_no_pointer(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        error = server_errors.NotFound(Reason.ROOM_NOT_FOUND, "none", room_id="a")
        fake.answers = [lambda _, context: refuse(context, error)]
        assert checkpoints.next_epoch("a", need_pointer=True) == 0
        assert len(fake.requests) == 1

    def test_it_is_not_made_up_where_nobody_can_tell(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        error = server_errors.PointerInvalid("a", "names nothing", epoch="4")
        fake.answers = [lambda _, context: refuse(context, error)]
        with pytest.raises(holdfast.PointerInvalid):
            checkpoints.next_epoch("a")

    def test_it_is_what_the_server_says(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        info = pb.CheckpointInfo(room_id="a", epoch=4, latest_epoch=4, next_epoch=8)
        fake.answers = [lambda *_: pb.StatCheckpointResponse(checkpoint=info)]
        assert checkpoints.next_epoch("a") == 8


def _event(epoch: int | None, room_id: str = "a", **fields: Any) -> pb.WatchCheckpointsResponse:
    return pb.WatchCheckpointsResponse(room_id=room_id, epoch=epoch, **fields)


class TestWatching:
    def test_it_is_taken_up_and_never_goes_back(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float]
    ) -> None:
        damage = ItemStatus(code=grpc.StatusCode.DATA_LOSS.value[0], message="damaged")
        first = [_event(5), _event(None, "b"), _event(6), _event(2, "c")]
        second = [_event(6), _event(None, "b"), _event(1, "c"), _event(None, "c", status=damage)]
        third = [_event(7), _event(0, "b"), _event(None, "c", status=damage), _event(2, "c"), _event(3, "c")]
        fake.answers = [_break_off]
        fake.answers += [_broken_off(iter(some), len(some)) for some in (first, second, third)]
        events = checkpoints.watch(["a", "b", "c"])
        seen = [(event.room_id, event.epoch, event.error is not None) for event in islice(events, 9)]
        assert seen == [
            ("a", 5, False),
            ("b", None, False),
            ("a", 6, False),
            ("c", 2, False),
            ("c", None, True),
            ("a", 7, False),
            ("b", 0, False),
            ("c", 2, False),  # it is good again
            ("c", 3, False),
        ]
        assert len(pauses) == 3

    def test_news_are_worth_further_tries(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        fake.answers = [_broken_off(iter([_event(epoch)]), 1) for epoch in range(10)]
        assert [event.epoch for event in islice(checkpoints.watch(["a"]), 10)] == list(range(10))

    def test_it_is_given_up_after_so_many_tries_without_news(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float]
    ) -> None:
        def telling_the_same(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield _event(5)
            unavailable(context)

        fake.answers = [telling_the_same]
        events = checkpoints.watch(["a"])
        assert next(events).epoch == 5
        with pytest.raises(holdfast.Unavailable):
            next(events)
        assert len(pauses) == 3

    def test_one_that_the_server_gave_up_is_taken_up_again(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float]
    ) -> None:
        def stalled(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield _event(5)
            context.abort(grpc.StatusCode.CANCELLED, "stalled")

        fake.answers = [stalled, _broken_off(iter([_event(5), _event(6)]), 2)]
        assert [event.epoch for event in islice(checkpoints.watch(["a"]), 2)] == [5, 6]
        assert len(pauses) == 1
        fake.answers = [stalled]
        with pytest.raises(holdfast.Cancelled):
            list(checkpoints.watch(["a"]))
        assert len(pauses) == 1 + 3

    def test_closing_the_client_ends_it(self, fake: FakeCheckpoints, address: str, pauses: list[float]) -> None:
        def endless(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            yield _event(5)
            fake.released.wait(30)

        fake.answers = [endless]
        client = holdfast.Client(address, Retrier(retries=3, sleep=pauses.append))
        events = client.checkpoints.watch(["a"])
        next(events)
        client.close()
        with pytest.raises(holdfast.Cancelled):
            next(events)
        assert (len(fake.requests), len(pauses)) == (1, 1)

    @pytest.mark.parametrize("epoch", [6, 0], ids=["above", "anew"])
    def test_a_room_that_was_deleted_is_told_and_then_wherever_it_is_begun(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, epoch: int
    ) -> None:
        first, second = [_event(5), _event(None)], [_event(None), _event(epoch), _event(epoch)]
        fake.answers = [_broken_off(iter(some), len(some)) for some in (first, second, [_event(9)])]
        events = checkpoints.watch(["a"])
        assert [next(events).epoch for _ in range(4)] == [5, None, epoch, 9]

    def test_a_watch_does_not_end(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        fake.answers = [lambda *_: iter([])]
        with pytest.raises(holdfast.InternalError, match="ended a watch"):
            next(checkpoints.watch(["a"]))

    def test_closing_it_ends_the_call(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        def endless(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            context.add_callback(fake.released.set)
            yield _event(5)
            fake.released.wait(30)

        fake.answers = [endless]
        events = checkpoints.watch(["a"])
        next(events)
        events.close()  # type: ignore[attr-defined]  # a generator
        assert fake.released.wait(60)

    def test_one_room_id_is_not_taken_for_many(self, checkpoints: Checkpoints) -> None:
        with pytest.raises(TypeError, match="several"):
            checkpoints.watch("duel")


class TestDeleting:
    def test_progress_is_told_and_the_rooms_that_failed_are_summed(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        damage = ItemStatus(code=grpc.StatusCode.DATA_LOSS.value[0], message="damaged")
        failed = [pb.RoomEntry(room_id=name, status=damage) for name in ("x", "y")]
        fake.answers = [
            lambda *_: iter(
                [
                    pb.PruneCheckpointsResponse(rooms=1, failed=failed[:1]),
                    pb.PruneCheckpointsResponse(
                        rooms=3, deleted=4, kept=5, deleted_bytes=6, failed=failed[1:], done=True
                    ),
                ]
            )
        ]
        told: list[int] = []
        pruned = checkpoints.prune(
            None, keep_last=2, older_than=timedelta(days=7), dry_run=True, progress=lambda sums: told.append(sums.rooms)
        )
        assert (pruned.rooms, pruned.deleted, pruned.kept, pruned.deleted_bytes, told) == (3, 4, 5, 6, [1])
        assert [(room.room_id, type(room.error)) for room in pruned.failed] == [
            ("x", holdfast.IntegrityFailed),
            ("y", holdfast.IntegrityFailed),
        ]
        (request,) = fake.requests
        assert (request.room_id, request.keep_last, request.older_than.seconds, request.dry_run) == (
            "",
            2,
            7 * 86400,
            True,
        )

    def test_an_empty_room_id_is_not_taken_for_all_rooms(self, checkpoints: Checkpoints) -> None:
        with pytest.raises(holdfast.InvalidArgument) as caught:
            checkpoints.prune("", keep_last=1)
        assert caught.value.field == "room_id"

    def test_what_ends_without_a_summary_is_no_success(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        fake.answers = [lambda *_: iter([pb.PruneCheckpointsResponse(rooms=1)])]
        with pytest.raises(holdfast.InternalError, match="without a summary"):
            checkpoints.prune("a", keep_last=1)
        fake.answers = [lambda *_: iter([pb.DeleteRoomResponse(deleted=1)])]
        with pytest.raises(holdfast.InternalError, match="without a summary"):
            checkpoints.delete_room("a")

    def test_it_is_tried_again_only_while_nothing_was_told(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        done = pb.DeleteRoomResponse(deleted=2, existed=True, next_epoch=9, done=True)
        fake.answers = [_break_off, lambda *_: iter([done])]
        assert checkpoints.delete_room("a") == holdfast.DeletedRoom(2, existed=True, next_epoch=9)
        fake.answers = [_broken_off(iter([pb.DeleteRoomResponse(deleted=1)]), 1), lambda *_: iter([done])]
        with pytest.raises(holdfast.Unavailable):
            checkpoints.delete_room("a")


class TestHibernating:
    def test_tries_of_one_call_have_one_name_so_that_none_brings_back_what_was_given_away(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        writers: list[str] = []

        def stored(requests: Any, context: grpc.ServicerContext) -> pb.HibernateRoomResponse:
            header, *_ = [request.header for request in requests]
            writers.append(header.writer_id)
            if len(writers) == 1:
                unavailable(context)
            return pb.HibernateRoomResponse(snapshot=pb.SnapshotInfo(sha256=digest(_DATA)))

        fake.answers = [stored]
        checkpoints.hibernate("a", _DATA)
        checkpoints.hibernate("a", _DATA)
        checkpoints.hibernate("a", _DATA, writer_id="node-3")
        lost, again, other, given = writers
        assert lost == again != other
        assert lost.startswith("hibernate-")
        assert given == "node-3"

    def test_other_bytes_are_found_out(self, fake: FakeCheckpoints, checkpoints: Checkpoints) -> None:
        def answer(requests: Any, _: grpc.ServicerContext) -> pb.HibernateRoomResponse:
            list(requests)
            return pb.HibernateRoomResponse(snapshot=pb.SnapshotInfo(sha256=bytes(32)))

        fake.answers = [answer]
        with pytest.raises(holdfast.IntegrityFailed, match="other bytes"):
            checkpoints.hibernate("a", _DATA)


class TestConfirming:
    def test_only_a_confirmation_with_a_name_is_repeated(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints, pauses: list[float]
    ) -> None:
        fake.answers = [_break_off, lambda *_: pb.ConfirmRestoreResponse()]
        with pytest.raises(holdfast.Unavailable):
            checkpoints.confirm_restore("a", "etag-1", digest(_DATA))
        assert pauses == []
        fake.answers = [_break_off, lambda *_: pb.ConfirmRestoreResponse()]
        checkpoints.confirm_restore("a", "etag-1", digest(_DATA), writer_id="node")

    def test_restoring_confirms_what_was_read_under_one_name(
        self, fake: FakeCheckpoints, checkpoints: Checkpoints
    ) -> None:
        fake.answers = [
            lambda *_: snapshot_download(_DATA),
            _break_off,
            lambda *_: pb.ConfirmRestoreResponse(),
        ]
        with checkpoints.restoring("a") as snapshot:
            assert snapshot.read() == _DATA
        assert snapshot.is_confirmed
        first, second = fake.requests[1:]
        assert first == second
        assert (first.room_id, first.etag, first.sha256) == ("a", "etag-1", digest(_DATA))
        assert first.writer_id.startswith("restore-")
