"""What a probe finds of each test server, and what it takes to have it look."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from minio import Minio
from minio.error import MinioException
from prometheus_client import CollectorRegistry

from holdfast_server.errors import HoldfastError, Reason
from holdfast_server.objects.base import ConditionMode, ConditionModes
from holdfast_server.objects.remote_metrics import RemoteMetrics
from holdfast_server.objects.s3.client import S3Client
from holdfast_server.objects.s3.probe import Findings, probe
from holdfast_server.objects.s3.requests import MeasuredClient
from holdfast_server.objects.s3.store import S3Store
from holdfast_server.objects.spool import Spool
from tests.support.fault_proxy import FaultProxy
from tests.support.s3_servers import S3Server
from tests.support.s3_stores import options_for
from tests.support.waiting import wait_until

FINDINGS = {
    "moto": Findings(
        nested_keys=True,
        put_create_only=True,
        put_if_match=True,
        large_put_create_only=True,
        delete_if_match=True,
    ),
    "minio": Findings(
        put_create_only=True,
        put_if_match=True,
        large_put_create_only=True,
        large_put_if_match=True,
        copy_if_source_matches=True,
    ),
    "rclone": Findings(),
}
ATOMIC, CHECKED, UNSUPPORTED = ConditionMode.ATOMIC, ConditionMode.CHECKED, ConditionMode.UNSUPPORTED
MODES = {
    "moto": ConditionModes(ATOMIC, CHECKED, ATOMIC, CHECKED),
    "minio": ConditionModes(ATOMIC, ATOMIC, UNSUPPORTED, ATOMIC),
    "rclone": ConditionModes(CHECKED, CHECKED, UNSUPPORTED, CHECKED),
}

Bench = Callable[..., "Workbench"]
"""Makes workbenches on a server, behind a proxy and on a bucket if they are given."""


class Workbench:
    """An empty bucket, and what a server has for it before it knows anything: a client that is measured."""

    def __init__(self, server: S3Server, bucket: str, endpoint: str) -> None:
        self.registry = CollectorRegistry()
        self.bucket = bucket
        self.options = options_for(server, bucket, endpoint=endpoint)
        self._s3 = S3Client(self.options)
        self.client = MeasuredClient(self._s3, RemoteMetrics(self.registry).of_backend("s3"))
        self.direct: Minio = server.client()

    def probe(self) -> Findings:
        """Have the store looked at."""
        return probe(self.client, self.bucket, "")

    @property
    def requests(self) -> float:
        """How many requests were counted."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == "holdfast_remote_requests_total")

    def left(self) -> list[str]:
        """Return the names of what is in the bucket, and of the uploads that were begun."""
        names = [item.object_name or "" for item in self.direct.list_objects(self.bucket, recursive=True)]
        with suppress(MinioException):  # rclone's answer where there are none
            names += [upload.object_name for upload in self.direct._list_multipart_uploads(self.bucket).uploads]
        return names

    def close(self) -> None:
        """Close its connections."""
        self._s3.close()


@contextmanager
def workbenches(fresh_bucket: Callable[[S3Server], str]) -> Iterator[Bench]:
    """Yield what makes workbenches, which are closed at the end of the block."""
    with ExitStack() as stack:

        def make(server: S3Server, proxy: FaultProxy | None = None, bucket: str = "") -> Workbench:
            endpoint = server.endpoint if proxy is None else proxy.endpoint
            made = Workbench(server, bucket or fresh_bucket(server), endpoint)
            stack.callback(made.close)
            return made

        yield make


def why_not_ready(server: S3Server, bucket: str, **changes: object) -> HoldfastError:
    """Return why a store on a bucket does not become ready."""
    told: list[HoldfastError | None] = []
    metrics = RemoteMetrics(CollectorRegistry()).of_backend("s3")
    store = S3Store(options_for(server, bucket, **changes), Spool(), metrics)
    try:
        store.start(told.append)
        wait_until(lambda: len(told) > 1)  # at first it is that nothing is known yet
        assert store.describe().not_ready is Reason.BACKEND_UNAVAILABLE
    finally:
        store.close()
    assert told[1] is not None
    return told[1]
