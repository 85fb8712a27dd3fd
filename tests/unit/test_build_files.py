"""How Dockerfiles and `.dockerignore` are read for the tests of the image: as Docker reads them."""

from pathlib import Path

import pytest

from tests.support.build_contexts import Ignored
from tests.support.dockerfiles import Stage, read


@pytest.fixture
def stages(tmp_path: Path) -> list[Stage]:
    path = tmp_path / "Dockerfile"
    path.write_text(
        "# A comment\n"
        "FROM base:1 AS build\n"
        "ARG VERSION=v1\n"
        'ENV A=1 B="two words" C=$A:${VERSION}\n'
        "RUN one && \\\n"
        "# between\n"
        "    two\n"
        "FROM base:2\n"
        "COPY --from=build --chown=1:1 /a /b\n"
        'HEALTHCHECK --interval=5s CMD ["probe", "--all"]\n'
        "USER 1\nUSER 2:3\n"
    )
    return read(path)


def test_stages_have_their_instructions(stages: list[Stage]) -> None:
    build, final = stages
    assert (build.base, build.name, final.base, final.name) == ("base:1", "build", "base:2", "")
    assert build.last("RUN").text == "one && two"
    assert final.last("COPY").flags == {"from": "build", "chown": "1:1"}
    assert final.last("COPY").words() == ["/a", "/b"]
    assert final.last("USER").text == "2:3"
    assert final.health_command() == ["probe", "--all"]


def test_variables_are_put_in_their_places(stages: list[Stage]) -> None:
    assigned = stages[0].last("ENV").assignments({"A": "0", "VERSION": "v1"})
    assert assigned == {"A": "1", "B": "two words", "C": "0:v1"}


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        ("a", ("a", "a/b"), ("b", "b/a", "ab")),
        ("*.md", ("x.md",), ("d/x.md",)),
        ("**/*.md", ("x.md", "d/x.md", "d/e/x.md"), ("x.mdx",)),
        ("*\n!a/b", ("c", "a/c", "a/bc"), ("a/b", "a/b/c")),
        ("*\n!a\n**/x", ("a/x", "a/b/x/y", "x"), ("a/b",)),
        ("# a\n\n/b/", ("b", "b/c"), ("a",)),
        ("a/*.py[co]", ("a/x.pyc", "a/x.pyo"), ("a/x.py", "a/b/x.pyc")),
    ],
)
def test_the_last_rule_that_matches_decides(rules: str, ignored: tuple[str, ...], kept: tuple[str, ...]) -> None:
    found = Ignored(rules)
    assert [path for path in ignored if path not in found] == []
    assert [path for path in kept if path in found] == []
