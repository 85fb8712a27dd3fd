"""What is replaced or deleted in the middle of an operation: never the bytes of one object as those of another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from holdfast_server.errors import ConcurrentModification
from holdfast_server.objects.base import ObjectNotFound
from holdfast_server.objects.body import Body
from holdfast_server.objects.conditions import CreateOnly
from holdfast_server.objects.info import Attributes
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.s3.store import S3Store
from tests.support.fault_proxy import Fault, FaultProxy, ResetAfter, Seen
from tests.support.fault_proxy.exchange import Exchange
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

SOURCE, TARGET = ObjectKey("source"), ObjectKey("target")
SIZES = pytest.mark.parametrize("size", [10, 3 * MIB, 8 * MIB])


@dataclass(frozen=True)
class Meanwhile(Fault):
    """Something happens before the request reaches the store."""

    act: Callable[[], object]

    def before_request(self, exchange: Exchange) -> None:
        self.act()


class Scene:
    """`store` reaches its bucket through `proxy`, and `others` are there too."""

    def __init__(self, store: S3Store, others: S3Store, proxy: FaultProxy) -> None:
        self.store = store
        self.others = others
        self.proxy = proxy

    def before_reading(self, act: Callable[[], object], *, nth: int = 1) -> None:
        """Have others do something before the `nth` request that takes the bytes of the source."""
        self.proxy.fail(Meanwhile(act), when=reads_source, nth=nth)

    def write(self, version: int, size: int) -> None:
        """Write a version of the source."""
        self.others.put(SOURCE, Body.of(sample(size, seed=version)), attributes=Attributes(f"version/{version}"))

    def read(self, key: ObjectKey) -> bytes:
        """Return the whole object."""
        with self.store.get(key) as reader:
            return b"".join(chunk.data for chunk in reader)


@pytest.fixture(scope="module", params=["moto", "minio", "rclone"])
def opened(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Two stores on one bucket of each server."""
    server = request.getfixturevalue(request.param)
    with (
        FaultProxy(server.endpoint) as proxy,
        OpenedStore(server) as others,
        OpenedStore(server, bucket=others.bucket, endpoint=proxy.endpoint) as ours,
    ):
        yield Scene(ours.store, others.store, proxy)
        others.empty()


@pytest.fixture
def scene(opened: Scene) -> Scene:
    """The scene without the objects of the test before."""
    opened.proxy.heal()
    for key in (SOURCE, TARGET):
        opened.others.delete(key)
    return opened


def reads_source(seen: Seen) -> bool:
    """Tell whether a request takes the bytes of the source: by itself, or through us."""
    copies = "x-amz-copy-source" in seen.headers
    return copies or (seen.method == "GET" and seen.path.endswith("/source"))


class TestCopies:
    @SIZES
    def test_a_copy_of_what_is_replaced_is_all_of_one_version(self, scene: Scene, size: int) -> None:
        scene.write(1, size)
        scene.before_reading(lambda: scene.write(2, size))
        info = scene.store.copy(SOURCE, TARGET)
        assert scene.read(TARGET) == sample(size, seed=2)
        assert info.attributes == scene.store.stat(TARGET).attributes == Attributes("version/2")
        assert info.sha256 == scene.store.stat(SOURCE).sha256

    @SIZES
    def test_a_copy_of_what_is_deleted_finds_nothing(self, scene: Scene, size: int) -> None:
        scene.write(1, size)
        scene.before_reading(lambda: scene.others.delete(SOURCE))
        with pytest.raises(ObjectNotFound):
            scene.store.copy(SOURCE, TARGET, condition=CreateOnly())
        with pytest.raises(ObjectNotFound):
            scene.store.stat(TARGET)


class TestReads:
    @pytest.mark.parametrize("size", [3 * MIB, 8 * MIB])
    @pytest.mark.parametrize("happens", ["replaced", "deleted"])
    def test_a_read_that_breaks_off_does_not_go_on_with_another_object(
        self, scene: Scene, size: int, happens: str
    ) -> None:
        scene.write(1, size)
        scene.proxy.fail(ResetAfter(MIB + 1000), when=reads_source)
        scene.before_reading(
            lambda: scene.write(2, size) if happens == "replaced" else scene.others.delete(SOURCE), nth=2
        )
        with scene.store.get(SOURCE) as reader:
            chunks = iter(reader)
            assert next(chunks).data == sample(size, seed=1)[:MIB]
            with pytest.raises(ConcurrentModification, match="replaced or deleted while it was read"):
                list(chunks)

    @SIZES
    def test_a_read_that_breaks_off_goes_on_with_the_same_one(self, scene: Scene, size: int) -> None:
        scene.write(1, size)
        for at in (1, MIB, 2 * MIB + 5):
            scene.proxy.fail(ResetAfter(at), when=reads_source)
            assert scene.read(SOURCE) == sample(size, seed=1)
