"""How much memory the server takes for many large blobs at once."""

from collections.abc import Callable

from benchmarks.options import MIB, Options
from benchmarks.s3.place import PART_BYTES, Place
from benchmarks.streams import Streams
from benchmarks.table import Table, verdict
from benchmarks.traffic import Caller, CannedUpload, canned_data

_PARTS = 2
"""An upload fills one part while it sends another."""

_BESIDE_BYTES = 16 * MIB
"""What a stream may take in gRPC and its hash, as on files."""

_DOWNLOAD_BYTES = 8 * MIB


def run(place: Place, options: Options) -> Table:
    """Measure, each time on a fresh server, and return the table."""
    keys = [f"benchmark/memory/{number}" for number in range(options.memory_streams)]
    foretold, untold = (CannedUpload(canned_data(), options.blob_chunks, foretold=known) for known in (True, False))

    def row(
        name: str,
        upload: CannedUpload,
        stream: Callable[[Streams], Callable[[Caller, str], None]],
        limit_bytes: int,
    ) -> tuple[str, ...]:
        with place.holdfast() as server, Streams(server, keys, upload) as streams:
            base = streams.small_call()
            watched = streams.watched(stream(streams))
        rise = watched.rise_above(base) / len(keys)
        return (
            name,
            f"{watched.rate / 1e9:.2f}",
            f"{rise / MIB:.0f} MiB",
            f"{rise / PART_BYTES:.2f}",
            f"{limit_bytes / MIB:.0f} MiB",
            verdict(rise <= limit_bytes),
            f"{watched.drift / MIB:+.0f} MiB",
        )

    most = _PARTS * PART_BYTES + _BESIDE_BYTES
    rows = [
        row("uploads, sha256 in header", foretold, lambda streams: streams.upload, most),
        row("uploads, through the spool", untold, lambda streams: streams.upload, most),
        row("downloads", foretold, lambda streams: streams.download, _DOWNLOAD_BYTES),
    ]
    for key in keys:
        place.direct.delete(key)
    title = f"Resident memory of the server, {len(keys)} streams of {options.blob_chunks} MiB at once, S3"
    part = f"in parts of {PART_BYTES // MIB} MiB"
    columns = ("measured", "GB/s together", "peak rise a stream", part, "limit", "", "last half above the first")
    return Table(title, columns, rows)
