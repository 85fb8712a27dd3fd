"""Times on the wire."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

_NANOSECONDS = 1000
"""Of a microsecond."""


def timestamp(moment: datetime) -> Timestamp:
    """Return a time as a message."""
    return Timestamp(seconds=int(moment.timestamp()), nanos=moment.microsecond * _NANOSECONDS)
