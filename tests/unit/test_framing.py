"""Frames made by hand are the messages that the generated code reads."""

import google_crc32c
import pytest
from google.protobuf.descriptor import Descriptor

from holdfast.v1 import blob_store_pb2, types_pb2
from holdfast_server.objects.body import Chunk
from holdfast_server.rpc.framing import frame_chunk, serialize
from tests.support.samples import sample


@pytest.mark.parametrize("size", [1, 2, 119, 120, 127, 128, 16_383, 16_384, 1 << 20, 2 << 20])
def test_a_framed_chunk_parses_to_its_bytes_and_checksum(size: int) -> None:
    data = sample(size)
    crc32c = google_crc32c.value(data)
    message = blob_store_pb2.GetBlobResponse.FromString(frame_chunk(Chunk(data, crc32c)))
    assert message.chunk.data == data
    assert message.chunk.crc32c == crc32c
    assert message.WhichOneof("part") == "chunk"
    assert message.SerializeToString(deterministic=True) == frame_chunk(Chunk(data, crc32c))


@pytest.mark.parametrize("crc32c", [0, 1, 0xFFFFFFFF])
def test_every_checksum_fits(crc32c: int) -> None:
    message = blob_store_pb2.GetBlobResponse.FromString(frame_chunk(Chunk(b"x", crc32c)))
    assert message.chunk.HasField("crc32c")
    assert message.chunk.crc32c == crc32c


def test_messages_are_serialized_and_frames_pass_as_they_are() -> None:
    message = blob_store_pb2.StatBlobRequest(key="k")
    assert serialize(message) == message.SerializeToString()
    assert serialize(b"framed") == b"framed"


def test_every_download_has_the_field_numbers_that_frames_use() -> None:
    downloads = [
        method.output_type
        for service in blob_store_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.server_streaming
    ]
    assert downloads
    for message in downloads:
        assert _numbers(message) == {"info": 1, "chunk": 2}
    assert _numbers(types_pb2.DataChunk.DESCRIPTOR) == {"data": 1, "crc32c": 2}


def _numbers(message: Descriptor) -> dict[str, int]:
    return {field.name: field.number for field in message.fields}
