"""tests/CASES.md and tests/REGRESSIONS.md name tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
DOCUMENTS = ["CASES.md", "REGRESSIONS.md"]
NAMED = sorted(
    {
        named
        for document in DOCUMENTS
        for named in re.findall(r"`([\w/]+\.py)::([\w:]+)`", (TESTS / document).read_text())
    }
)


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the tests of a file, those of a class as `TestClass::test_name`."""
    tree = ast.parse((TESTS / file).read_text())
    classes = {f"{node.name}::": node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    return frozenset(
        prefix + node.name
        for prefix, body in {"": tree.body, **classes}.items()
        for node in body
        if isinstance(node, ast.FunctionDef)
    )


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_its_names_in_full(document: str) -> None:
    rows = [row for row in (TESTS / document).read_text().splitlines() if row.startswith("| ") and "`" in row]
    assert len(rows) > 30
    assert [row for row in rows if "::test_" not in row] == []


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_a_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in names_in(file)
