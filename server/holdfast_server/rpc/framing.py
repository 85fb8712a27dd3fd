"""Messages that carry the bytes of blobs, serialized by hand: a protobuf object costs copies of them.

Every download's response is `oneof part { <Noun>Info info = 1; DataChunk chunk = 2; }`, and a `DataChunk` is
`bytes data = 1; optional fixed32 crc32c = 2`. Building the bytes of such a message directly saves a protobuf object and
a copy per MiB: in a trial, 1.0 of the bare ceiling against 0.77. Batches have `repeated <Rpc>Result results = 1`, where
a result is `ItemStatus status = 1; <Noun>Info <noun> = 2; bytes data = 3; optional fixed32 crc32c = 4`: with 4 KiB of
data in each, 4.2 us by hand and 9.4 by protobuf. Tests parse what this makes with the generated code.
"""

import struct
from typing import Protocol

from holdfast_server.objects.body import Chunk

# Field number and wire type: 2 is length-delimited, 5 is 32 bits.
_CHUNK_TAG = bytes([2 << 3 | 2])
_DATA_TAG = bytes([1 << 3 | 2])
_CRC_TAG = 2 << 3 | 5
_RESULT_TAG = bytes([1 << 3 | 2])
_RESULT_INFO_TAG = bytes([2 << 3 | 2])
_RESULT_DATA_TAG = bytes([3 << 3 | 2])
_RESULT_CRC_TAG = 4 << 3 | 5
_CRC = struct.Struct("<BI")
_VARINT_MORE = 0x80


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


def frame_chunk(chunk: Chunk) -> bytes:
    """Return the serialized response that carries this chunk, which is not empty and has its CRC-32C."""
    data, crc = chunk
    data_length = _varint(len(data))
    chunk_length = _varint(1 + len(data_length) + len(data) + _CRC.size)
    return b"".join((_CHUNK_TAG, chunk_length, _DATA_TAG, data_length, data, _CRC.pack(_CRC_TAG, crc)))


def frame_result(info: "_Message", data: bytes, crc32c: int) -> tuple[bytes, ...]:
    """Return the parts of a batch's response that are one result: what is known of a blob, and all of its bytes."""
    said = info.SerializeToString()
    said_length, data_length = _varint(len(said)), _varint(len(data))
    length = 2 + len(said_length) + len(said) + len(data_length) + len(data) + _CRC.size
    crc = _CRC.pack(_RESULT_CRC_TAG, crc32c)
    return (_RESULT_TAG, _varint(length), _RESULT_INFO_TAG, said_length, said, _RESULT_DATA_TAG, data_length, data, crc)


def frame_other_result(result: "_Message") -> tuple[bytes, ...]:
    """Return the parts of a batch's response that are a result without data."""
    serialized = result.SerializeToString()
    return (_RESULT_TAG, _varint(len(serialized)), serialized)


def serialize(response: "_Message | bytes") -> bytes:
    """Serialize a response: what is framed already passes as it is."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number >= _VARINT_MORE:
        encoded.append(number & 0x7F | _VARINT_MORE)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
