"""The deletion of a room by the Python client: its tries are one request, and each deletion is another one."""

import holdfast
from holdfast.retrying import Retrier
from holdfast.v1 import checkpoint_store_pb2 as pb
from tests.support.fake_checkpoints import FakeCheckpoints, serving, unavailable


def test_the_tries_of_a_deletion_have_one_id_and_each_deletion_has_its_own() -> None:
    done = pb.DeleteRoomResponse(existed=True, next_epoch=9, done=True)
    fake = FakeCheckpoints()
    fake.answers = [lambda _, context: unavailable(context), lambda *_: iter([done])]
    with serving(fake) as address, holdfast.Client(address, Retrier(retries=2, sleep=lambda _: None)) as client:
        client.checkpoints.delete_room("a")
        client.checkpoints.delete_room("a")
    first, repeated, second = (request.request_id for request in fake.requests)
    assert first == repeated
    assert first
    assert second not in ("", first)
