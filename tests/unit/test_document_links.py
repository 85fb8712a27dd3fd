"""Links between the documents lead to files and headings that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "tests").glob("*.md"),
    ROOT / "clients" / "python" / "README.md",
]
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")


def anchors(document: Path) -> set[str]:
    """Return what the headings are called in links, as GitHub does it."""
    headings = re.findall(r"^#+ (.+)$", _CODE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_its_links_lead_somewhere(document: Path) -> None:
    for name, anchor in _LINK.findall(_CODE.sub("", document.read_text())):
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), name
        if anchor:
            assert anchor in anchors(target), f"{name}#{anchor}"
