"""Whether what is stored ends as something sealed does; whether its seal is good does not matter."""

from holdfast_server.checkpoints.seal import END_MAGIC
from holdfast_server.errors import IntegrityFailed
from holdfast_server.objects.base import ObjectNotFound, ObjectStore
from holdfast_server.objects.key import ObjectKey
from holdfast_server.objects.ranges import Tail


def ends_sealed(objects: ObjectStore, key: ObjectKey) -> bool:
    """Tell whether an object ends as a sealed one. Raises what `ObjectStore.get` raises."""
    with objects.get(key, Tail(len(END_MAGIC))) as reader:
        return b"".join(chunk.data for chunk in reader) == END_MAGIC


def is_there_sealed(objects: ObjectStore, key: ObjectKey) -> bool:
    """Tell whether there is an object that ends as a sealed one, and is whole."""
    try:
        return ends_sealed(objects, key)
    except (ObjectNotFound, IntegrityFailed):
        return False
