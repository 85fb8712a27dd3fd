"""What a build is sent of a directory: all but what its `.dockerignore` names."""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath


class Ignored:
    """The rules of a `.dockerignore`: the last pattern that matches a path or a directory above it decides."""

    def __init__(self, text: str) -> None:
        lines = (line.strip() for line in text.splitlines() if not line.startswith("#"))
        self._rules = [(_pattern(line.removeprefix("!")), line.startswith("!")) for line in lines if line]

    def __contains__(self, path: str) -> bool:
        whole = PurePosixPath(path)
        names = [str(whole), *(str(parent) for parent in whole.parents if parent != PurePosixPath())]
        kept = True
        for pattern, keeps in self._rules:
            if any(pattern.fullmatch(name) for name in names):
                kept = keeps
        return not kept


def _pattern(glob: str) -> re.Pattern[str]:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    found = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", glob.strip("/"))
    return re.compile("".join(pieces.get(piece, piece if piece[0] == "[" else re.escape(piece)) for piece in found))


def files(directory: Path, ignored: Ignored) -> Iterator[str]:
    """Yield the files of the context, by their paths in the directory."""
    for folder, _folders, names in os.walk(directory):
        for name in names:
            path = str((Path(folder) / name).relative_to(directory))
            if path not in ignored:
                yield path


def copy(directory: Path, paths: Iterable[str], to: Path) -> None:
    """Copy files with the directories that they are in."""
    for path in paths:
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(directory / path, to / path, follow_symlinks=False)
