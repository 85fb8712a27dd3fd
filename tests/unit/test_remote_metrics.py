"""What is counted of remote backends, under the names that dashboards know."""

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server.objects.remote_metrics import BackendMetrics, RemoteMetrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> RemoteMetrics:
    return RemoteMetrics(registry)


@pytest.fixture
def s3(metrics: RemoteMetrics) -> BackendMetrics:
    return metrics.of_backend("s3", ["put"])


def test_requests_are_counted_by_name_and_outcome(registry: CollectorRegistry, s3: BackendMetrics) -> None:
    s3.count("put", 0.3, "ok")
    s3.count("put", 0.2, "conflict")
    s3.count("upload_part", 1.0, "failed")

    def counted(request: str, outcome: str) -> float | None:
        labels = {"backend": "s3", "request": request, "outcome": outcome}
        return registry.get_sample_value("holdfast_remote_requests_total", labels)

    assert [counted("put", outcome) for outcome in ("ok", "missing", "conflict", "refused", "failed")] == [
        1,
        0,
        1,
        0,
        0,
    ]
    assert counted("upload_part", "failed") == 1
    labels = {"backend": "s3", "request": "put"}
    assert registry.get_sample_value("holdfast_remote_request_seconds_count", labels) == 2
    assert registry.get_sample_value("holdfast_remote_request_seconds_sum", labels) == pytest.approx(0.5)


def test_requests_named_beforehand_and_all_else_of_a_backend_are_there_at_0(
    registry: CollectorRegistry, s3: BackendMetrics
) -> None:
    assert isinstance(s3, BackendMetrics)
    shown = {sample.name: sample.value for metric in registry.collect() for sample in metric.samples}
    for name in (
        "holdfast_remote_requests_total",
        "holdfast_remote_request_seconds_count",
        "holdfast_remote_retries_total",
        "holdfast_remote_ready",
        "holdfast_remote_breaker_openings_total",
        "holdfast_spool_used_bytes",
    ):
        assert shown[name] == 0


def test_backends_are_kept_apart(registry: CollectorRegistry, metrics: RemoteMetrics, s3: BackendMetrics) -> None:
    other = metrics.of_backend("other")
    other.count_retry()
    other.count_opening()
    other.set_ready(ready=True)
    for backend, value in (("s3", 0), ("other", 1)):
        for name in ("retries_total", "breaker_openings_total", "ready"):
            assert registry.get_sample_value(f"holdfast_remote_{name}", {"backend": backend}) == value
    s3.set_ready(ready=True)
    s3.set_ready(ready=False)
    assert registry.get_sample_value("holdfast_remote_ready", {"backend": "s3"}) == 0


def test_what_the_probe_found_is_shown_once_it_is_known(registry: CollectorRegistry, s3: BackendMetrics) -> None:
    def shown(finding: str) -> float | None:
        return registry.get_sample_value("holdfast_remote_finding", {"backend": "s3", "finding": finding})

    assert shown("delete_if_match") is None
    s3.set_finding("delete_if_match", holds=False)
    s3.set_finding("put_if_match", holds=True)
    assert (shown("delete_if_match"), shown("put_if_match")) == (0, 1)


def test_the_spool_is_asked_when_somebody_looks(registry: CollectorRegistry, metrics: RemoteMetrics) -> None:
    used = 0
    metrics.watch_spool(lambda: used)
    used = 12
    assert registry.get_sample_value("holdfast_spool_used_bytes") == 12
