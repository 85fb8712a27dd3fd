"""CopyBlob, against a caller that gets the bytes and puts them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from benchmarks.batches.rows import compared
from benchmarks.batches.served import Served
from benchmarks.callers import SMALL_BYTES
from benchmarks.measure import Contender, take_turns
from benchmarks.options import MIB
from benchmarks.table import BYTES, CALLS, Unit
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb

LARGE_CHUNKS = 64

_SMALL, _LARGE, _TARGET = "benchmark/copied/small", "benchmark/copied/large", "benchmark/copied/target"
_COPIED, _RELAYED = "CopyBlob", "GetBlob and PutBlob"


def rows(served: Sequence[Served], small_copies: int, rounds: int) -> list[tuple[str, ...]]:
    """Measure, and return the rows."""
    found = []
    for one in served:
        one.caller.upload(_SMALL, CannedUpload(canned_data(SMALL_BYTES), 1))
        one.caller.upload(_LARGE, CannedUpload(canned_data(), LARGE_CHUNKS))
        small, large = f"{SMALL_BYTES // 1024} KiB, {one.name}", f"{LARGE_CHUNKS} MiB, {one.name}"
        found.append(_row(small, CALLS, _contenders(one, _SMALL, 1, small_copies), rounds))
        found.append(_row(large, BYTES, _contenders(one, _LARGE, LARGE_CHUNKS * MIB, 1), rounds))
    return found


def _row(what: str, unit: Unit, contenders: Mapping[str, Contender], rounds: int) -> tuple[str, ...]:
    series = take_turns(f"copies, {what}", contenders, rounds)
    return compared(unit, f"{_COPIED} of {what}", series[_COPIED], _RELAYED, series[_RELAYED])


def _contenders(one: Served, source: str, amount: int, times: int) -> dict[str, Contender]:
    request = pb.CopyBlobRequest(source=pb.BlobAddress(key=source), target=pb.BlobAddress(key=_TARGET))

    def delete() -> None:
        one.caller.stub.DeleteBlob(pb.DeleteBlobRequest(key=_TARGET))

    # Deleted outside the time: none pays for removing what another made.
    turn = partial(one.timed, amount, times=times, after=delete)
    return {
        _COPIED: partial(turn, partial(one.caller.stub.CopyBlob, request)),
        _RELAYED: partial(turn, partial(_relay, one.caller, source)),
    }


def _relay(caller: Caller, source: str) -> None:
    """Get a blob and put it under another key, as a caller did who had no CopyBlob."""
    responses = caller.stub.GetBlob(pb.GetBlobRequest(key=source))
    info = next(responses).info

    def messages() -> Iterator[pb.PutBlobRequest]:
        yield pb.PutBlobRequest(header=pb.PutBlobHeader(key=_TARGET, size_bytes=info.size_bytes, sha256=info.sha256))
        for response in responses:
            yield pb.PutBlobRequest(chunk=response.chunk)

    if caller.stub.PutBlob(messages()).blob.sha256 != info.sha256:
        raise RuntimeError(f"the copy of {source} is another blob")
