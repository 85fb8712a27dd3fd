"""What is told of an object at different times."""

from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import holdfast
from holdfast_server.objects.info import ObjectInfo

Info = TypeVar("Info", ObjectInfo, holdfast.BlobInfo)

_CLOSE = timedelta(minutes=10)
"""Whoever stores may stand still for a while; a wrong time zone is further off."""


def alike(one: Info, other: Info) -> bool:
    """Tell whether two infos are the same, but for the update time, which is to be close.

    S3 does not say with a put when the object was stored, so the time of its answer stands for that.
    """
    return replace(one, update_time=other.update_time) == other and abs(one.update_time - other.update_time) < _CLOSE
