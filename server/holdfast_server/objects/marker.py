"""The marker of a store, in a data directory and in a bucket: which format it has, and a random id to know it by.

A JSON object with both and a newline. A newer format than ours is refused, never guessed at.
"""

import json
import uuid

NAME = "holdfast/store"
FORMAT = 1


class MarkerError(ValueError):
    """What is there is no marker that this server can read; the message says why."""


def new_marker() -> bytes:
    """Return the marker of a store that is new."""
    return (json.dumps({"format": FORMAT, "store_id": uuid.uuid4().hex}) + "\n").encode()


def store_id_in(marker: bytes) -> str:
    """Return the id in a marker. Raises `MarkerError`."""
    try:
        content = json.loads(marker)
        found, store_id = content["format"], content["store_id"]
        valid = isinstance(found, int) and isinstance(store_id, str)
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise MarkerError("is damaged: it is not the marker that Holdfast writes")
    if found > FORMAT:
        raise MarkerError(
            f"says format {found}, and this server knows up to {FORMAT}: it was written by a newer Holdfast"
        )
    return str(store_id)
