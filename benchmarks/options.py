"""How large a run is."""

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What the sections are run with.

    `rounds`: how often each contender has its turn. `directory`: an empty directory on the disk to be measured.
    """

    rounds: int
    directory: Path
    blob_chunks: int = 256
    """MiB that a download or an upload moves."""
    call_seconds: float = 0.5
    """How long one turn of small calls takes."""
    list_prefixes: int = 1000
    """Prefixes of the crowded store; each has 100 keys."""
    batches: int = 10
    """Batches that one turn sends."""
    single_calls: int = 400
    """Calls for one blob each that one turn sends beside them."""
    sought_keys: int = 10_000
    """Keys that are looked for in one call, every second of them missing."""
    crowd_prefixes: int = 10_000
    """Prefixes of the store with a million blobs; each has 100."""
    memory_streams: int = 8
    memory_chunks: int = 1024
    """MiB that each of the streams moves while memory is watched."""


def quick(rounds: int, directory: Path) -> Options:
    """Return a small run: it shows that everything works, and its numbers little."""
    return Options(
        rounds,
        directory,
        blob_chunks=64,
        call_seconds=0.1,
        list_prefixes=100,
        batches=2,
        single_calls=50,
        crowd_prefixes=100,
        memory_chunks=128,
    )
