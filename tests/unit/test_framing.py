"""Frames made by hand are the messages that the generated code reads."""

import google_crc32c
import pytest
from google.protobuf.descriptor import Descriptor

from holdfast.v1 import blob_store_pb2, types_pb2
from holdfast_server.objects.body import Chunk
from holdfast_server.rpc.framing import frame_chunk, frame_other_result, frame_result, serialize
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


@pytest.mark.parametrize("size", [0, 1, 127, 128, 4096, 16_384, 1 << 20])
@pytest.mark.parametrize("info", [blob_store_pb2.BlobInfo(), blob_store_pb2.BlobInfo(key="k" * 200, size_bytes=7)])
def test_framed_results_parse_to_what_they_are(size: int, info: blob_store_pb2.BlobInfo) -> None:
    data = sample(size)
    failed = blob_store_pb2.BatchGetBlobsResult(status=types_pb2.ItemStatus(code=5, message="x" * 300))
    parts = (*frame_result(info, data, 5), *frame_other_result(failed), *frame_result(info, b"", 0xFFFFFFFF))
    message = blob_store_pb2.BatchGetBlobsResponse.FromString(b"".join(parts))
    first, second, third = message.results
    assert (first.blob, first.data, first.crc32c) == (info, data, 5)
    assert second == failed
    assert (third.HasField("crc32c"), third.crc32c, third.data) == (True, 0xFFFFFFFF, b"")
    assert all(result.HasField("blob") for result in (first, third))


def test_batches_have_the_field_numbers_that_frames_use() -> None:
    assert _numbers(blob_store_pb2.BatchGetBlobsResponse.DESCRIPTOR) == {"results": 1}
    numbers = _numbers(blob_store_pb2.BatchGetBlobsResult.DESCRIPTOR)
    assert numbers == {"status": 1, "blob": 2, "data": 3, "crc32c": 4}


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
