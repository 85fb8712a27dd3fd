"""How much memory the server takes for many long streams at once: uploads, then downloads."""

import shutil

from benchmarks import processes
from benchmarks.options import MIB, Options
from benchmarks.streams import Streams, Watched
from benchmarks.table import Table, verdict
from benchmarks.traffic import CannedUpload, canned_data

_UPLOADS_MIB = 128
_DOWNLOADS_MIB = 64
_SPARE_BYTES = 1 << 30


def run(options: Options) -> list[Table]:
    """Measure, and return the table. Raises `RuntimeError` if the disk has too little room."""
    streams, chunks = options.memory_streams, options.memory_chunks
    if shutil.disk_usage(options.directory).free < streams * chunks * MIB + _SPARE_BYTES:
        raise RuntimeError(f"memory: the temporary directory needs room for {streams} x {chunks} MiB")
    upload = CannedUpload(canned_data(), chunks)
    keys = [f"benchmark/memory/{number}" for number in range(streams)]
    rows = []
    with processes.filesystem_server(options.directory) as server, Streams(server, keys, upload) as callers:
        base = callers.small_call()
        rows.append(_row("uploads", "the first call", base, callers.watched(callers.upload), _UPLOADS_MIB))
        before_downloads = server.resident_bytes()
        watched = callers.watched(callers.download)
        rows.append(_row("downloads after these", "the first call", base, watched, _DOWNLOADS_MIB))
        rows.append(_row("downloads after these", "their begin", before_downloads, watched, None))
        callers.delete()
    with (
        processes.filesystem_server(options.directory) as server,
        Streams(server, keys, upload, connections=1) as callers,
    ):
        base = callers.small_call()
        watched = callers.watched(callers.upload)
        rows.append(_row("uploads on one connection, fresh server", "the first call", base, watched, _UPLOADS_MIB))
    with processes.filesystem_server(options.directory) as server, Streams(server, keys, upload) as callers:
        base = callers.small_call()
        watched = callers.watched(callers.download)
        rows.append(_row("downloads, fresh server", "the first call", base, watched, _DOWNLOADS_MIB))
        callers.delete()
    title = f"Resident memory of the server, {streams} streams of {chunks} MiB at once, files"
    columns = ("measured", "GB/s together", "against", "peak rise", "limit", "", "last half above the first")
    return [Table(title, columns, rows)]


def _row(name: str, against: str, base: int, watched: Watched, limit_mib: int | None) -> tuple[str, ...]:
    rise = watched.rise_above(base) / MIB
    return (
        name,
        f"{watched.rate / 1e9:.2f}",
        against,
        f"{rise:.0f} MiB",
        "" if limit_mib is None else f"{limit_mib} MiB",
        "" if limit_mib is None else verdict(rise <= limit_mib),
        f"{watched.drift / MIB:+.0f} MiB",
    )
