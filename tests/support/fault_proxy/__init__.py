"""A proxy between an S3 client and an S3 server, which does to single requests what networks and servers do.

`proxy.py` listens, `plan.py` says which requests meet which faults, `faults.py` has one class for each thing that can
go wrong, `exchange.py` passes one request with its answer and is what a fault acts on, `connection.py` serves one
connection, and `wire.py` knows as much of HTTP/1.1 as this takes.
"""

from tests.support.fault_proxy.exchange import Fault, Seen
from tests.support.fault_proxy.faults import (
    Alter,
    AlterUpload,
    Answer,
    AnswerAfter,
    Delay,
    Garbage,
    Hang,
    HangAfter,
    LoseAnswer,
    NotXml,
    ResetAfter,
    ResetBefore,
    ResetUpload,
    Throttle,
    Truncate,
)
from tests.support.fault_proxy.plan import FOREVER, Injection
from tests.support.fault_proxy.proxy import FaultProxy

__all__ = [
    "FOREVER",
    "Alter",
    "AlterUpload",
    "Answer",
    "AnswerAfter",
    "Delay",
    "Fault",
    "FaultProxy",
    "Garbage",
    "Hang",
    "HangAfter",
    "Injection",
    "LoseAnswer",
    "NotXml",
    "ResetAfter",
    "ResetBefore",
    "ResetUpload",
    "Seen",
    "Throttle",
    "Truncate",
]
