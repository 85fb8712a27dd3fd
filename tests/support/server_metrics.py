"""The metrics of a server process, as Prometheus sees them."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server_process import ServerProcess


def metric(server: ServerProcess, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
