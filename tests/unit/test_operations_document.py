"""docs/operations.md has each line of the log that an operator should read, and each metric."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text()
CODE = [file.read_text() for file in sorted((ROOT / "server").rglob("*.py"))]
LINES = sorted(
    {line for code in CODE for line in re.findall(r"_log\.(?:warning|error|exception)\(\s*\"([^\"]+)\"", code)}
)
METRICS = sorted({name for code in CODE for name in re.findall(r"\"(holdfast_[a-z_]+)\",\n", code)})


def test_there_are_some() -> None:
    assert len(LINES) >= 15
    assert len(METRICS) >= 10


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_log_is_in_the_table(line: str) -> None:
    assert f"`{line}`" in DOCUMENT


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_in_the_table(name: str) -> None:
    assert re.search(rf"`{name}(_total)?[{{`]", DOCUMENT)
