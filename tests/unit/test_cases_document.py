"""tests/CASES.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(?:\w+::)?(test_\w+)`", (TESTS / "CASES.md").read_text())))


def test_the_document_names_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_names_its_tests_in_full() -> None:
    rows = [row for row in (TESTS / "CASES.md").read_text().splitlines() if row.startswith("| ") and "`" in row]
    assert [row for row in rows if "::test_" not in row] == []
