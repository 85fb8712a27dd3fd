"""Downloads that break off, and bytes altered on their way: the reader goes on where it was, or says why not."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from holdfast_server.errors import ConcurrentModification, HoldfastError, IntegrityFailed
from holdfast_server.objects.base import ObjectNotFound, ObjectReader
from holdfast_server.objects.body import Body
from holdfast_server.objects.ranges import ByteRange
from tests.support.disk_operations import KEY, read
from tests.support.fault_proxy import FOREVER, Alter, Fault, ResetAfter, Seen, Throttle, Truncate
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_faults import FaultyStore, is_callers
from tests.support.s3_operations import LARGE
from tests.support.s3_servers import MinioServer, S3Server
from tests.support.samples import MIB, sample

PLAIN = sample(4 * MIB + 10, seed=5)
"""Lies in the bucket as it is."""
FRAMED = sample(6 * MIB + 10, seed=6)
"""Each piece has its checksum behind it."""


@pytest.fixture(scope="module")
def on_minio(minio: MinioServer) -> Iterator[FaultyStore]:
    """A store on MinIO."""
    with FaultyStore(minio) as store:
        yield store


@pytest.fixture(scope="module", params=["moto", "minio", "rclone"])
def on_each(request: pytest.FixtureRequest) -> Iterator[FaultyStore]:
    """A store on each server. rclone's keeps no conditions of reads."""
    server: S3Server = request.getfixturevalue(request.param)
    with FaultyStore(server) as store:
        yield store


with_each_layout = pytest.mark.parametrize("data", [PLAIN, FRAMED], ids=["plain", "framed"])


def lay_down(faulty: FaultyStore, data: bytes) -> None:
    """Let KEY hold these bytes."""
    try:
        is_there = faulty.direct.stat(KEY).size_bytes == len(data)
    except ObjectNotFound:
        is_there = False
    if not is_there:
        faulty.direct.put(KEY, Body.of(data))
    faulty.rest()


def gets(request: Seen) -> bool:
    return request.method == "GET" and request.path.endswith(f"/{KEY}")


def fetched(faulty: FaultyStore, since: int) -> tuple[int, int]:
    """Return how many requests of callers there were, and how many bytes came back."""
    requests = [request for request in faulty.requests[since:] if is_callers(request)]
    return len(requests), sum(request.answer_bytes for request in requests)


@pytest.mark.parametrize("break_off", [ResetAfter(2 * MIB + 100), Truncate(MIB + 100)], ids=["reset", "truncated"])
@with_each_layout
def test_a_download_that_breaks_off_goes_on_where_it_was(on_minio: FaultyStore, data: bytes, break_off: Fault) -> None:
    lay_down(on_minio, data)
    before = len(on_minio.requests)
    on_minio.proxy.fail(break_off, when=gets)
    assert read(on_minio.store, KEY) == data
    requests, size_bytes = fetched(on_minio, before)
    assert requests == 2
    assert size_bytes < len(data) + 2 * MIB
    on_minio.check_settled()


@with_each_layout
def test_a_download_that_breaks_off_again_and_again_goes_on(on_minio: FaultyStore, data: bytes) -> None:
    lay_down(on_minio, data)
    on_minio.proxy.fail(ResetAfter(MIB + 100), when=gets, times=FOREVER)
    assert read(on_minio.store, KEY) == data
    on_minio.check_settled()


@with_each_layout
def test_a_range_that_breaks_off_goes_on_within_it(on_minio: FaultyStore, data: bytes) -> None:
    lay_down(on_minio, data)
    before = len(on_minio.requests)
    on_minio.proxy.fail(ResetAfter(MIB + 100), when=gets)
    assert read(on_minio.store, KEY, ByteRange(MIB + 5, 2 * MIB)) == data[MIB + 5 :][: 2 * MIB]
    requests, size_bytes = fetched(on_minio, before)
    assert requests == 2
    assert size_bytes < 4 * MIB + 1000
    on_minio.check_settled()


CHANGES: dict[str, Callable[[FaultyStore, bytes], object]] = {
    "replaced": lambda faulty, data: faulty.direct.put(KEY, Body.of(data[::-1])),
    "replaced by less": lambda faulty, data: faulty.direct.put(KEY, Body.of(data[:5])),
    "replaced by what goes in parts": lambda faulty, _: faulty.direct.put(KEY, Body.of(LARGE)),
    "deleted": lambda faulty, _: faulty.direct.delete(KEY),
}


def arrived_before(kind: type[HoldfastError], reader: ObjectReader, act: Callable[[], object]) -> bytes:
    """Read a first chunk, act, and read on; return what came before this error."""
    chunks = iter(reader)
    arrived = next(chunks).data
    act()
    with pytest.raises(kind) as error:
        arrived += b"".join(chunk.data for chunk in chunks)
    assert error.value.details["key"] == KEY.text
    return arrived


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@with_each_layout
def test_what_was_replaced_meanwhile_is_not_mixed(
    on_each: FaultyStore, data: bytes, change: Callable[[FaultyStore, bytes], object]
) -> None:
    lay_down(on_each, data)
    on_each.proxy.fail(ResetAfter(MIB + 100), when=gets)
    with on_each.store.get(KEY) as reader:
        arrived = arrived_before(ConcurrentModification, reader, lambda: change(on_each, data))
    assert arrived == data[:MIB]
    on_each.check_settled()
    on_each.direct.delete(KEY)


@pytest.mark.parametrize("offset", [0, MIB - 1, MIB + 2, 2 * MIB + 500])
@with_each_layout
def test_a_byte_that_was_altered_on_its_way_is_asked_for_again(on_minio: FaultyStore, data: bytes, offset: int) -> None:
    lay_down(on_minio, data)
    before = len(on_minio.requests)
    on_minio.proxy.fail(Alter(offset), when=gets)
    assert read(on_minio.store, KEY) == data
    assert fetched(on_minio, before)[0] == 2
    on_minio.check_settled()


@with_each_layout
def test_bytes_that_are_altered_each_time_are_not_served(on_minio: FaultyStore, data: bytes) -> None:
    lay_down(on_minio, data)
    on_minio.proxy.fail(Alter(MIB + 500), when=gets)
    with on_minio.store.get(KEY) as reader:
        altered = Alter(500)  # of what is asked for again
        arrived = arrived_before(IntegrityFailed, reader, lambda: on_minio.proxy.fail(altered, when=gets))
    assert arrived == data[:MIB]
    on_minio.check_settled()


@dataclass(frozen=True)
class Trickle(Throttle):
    """The answer's body comes at once as far as this, and then no faster than `bytes_per_second`."""

    at: int

    def answer_body(self, exchange: Exchange, offset: int, data: bytes) -> Iterator[bytes]:
        cut = min(max(self.at - offset, 0), len(data))
        yield data[:cut]
        yield from super().answer_body(exchange, offset + cut, data[cut:])


@with_each_layout
def test_a_reader_that_is_closed_early_lets_go(on_minio: FaultyStore, data: bytes) -> None:
    lay_down(on_minio, data)
    on_minio.proxy.fail(Trickle(50_000, at=2 * MIB), when=gets)  # the rest takes most of a minute
    before = len(on_minio.requests)
    with on_minio.store.get(KEY) as reader:
        assert next(iter(reader)).data == data[:MIB]
    on_minio.check_settled()
    assert fetched(on_minio, before)[1] < len(data)
