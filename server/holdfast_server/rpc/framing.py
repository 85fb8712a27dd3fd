"""Data messages of downloads, serialized by hand.

Every download's response is `oneof part { <Noun>Info info = 1; DataChunk chunk = 2; }`, and a `DataChunk` is
`bytes data = 1; optional fixed32 crc32c = 2`. Building the bytes of such a message directly saves a protobuf object and
a copy per MiB: in a trial, 1.0 of the bare ceiling against 0.77. A test parses what this makes with the generated code.
"""

import struct
from typing import Protocol

from holdfast_server.objects.body import Chunk

_CHUNK_TAG = b"\x12"  # field 2, length-delimited
_DATA_TAG = b"\x0a"  # field 1, length-delimited
_CRC = struct.Struct("<BI")
_CRC_TAG = 0x15  # field 2, 32 bits
_VARINT_MORE = 0x80


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


def frame_chunk(chunk: Chunk) -> bytes:
    """Return the serialized response that carries this chunk, which is not empty and has its CRC-32C."""
    data, crc = chunk
    data_length = _varint(len(data))
    chunk_length = _varint(1 + len(data_length) + len(data) + _CRC.size)
    return b"".join((_CHUNK_TAG, chunk_length, _DATA_TAG, data_length, data, _CRC.pack(_CRC_TAG, crc)))


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
