"""Whether CheckpointStore can keep its promise here: it takes a key that signs, and conditional puts."""

from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.errors import ConditionUnsupported, HoldfastError, SealKeyUnavailable
from holdfast_server.objects.base import ConditionMode, ObjectStore


class Fitness:
    """Tells what is lacking. `single_writer`: an operator vouches that one server at a time writes."""

    def __init__(self, objects: ObjectStore, keys: Keys, *, single_writer: bool) -> None:
        self._objects = objects
        self._keys = keys
        self._single_writer = single_writer

    @property
    def problem(self) -> HoldfastError | None:
        """What keeps the service from being used, the state of its backend aside; None: nothing."""
        if (no_ring := self._keys.problem) is not None:
            return no_ring
        try:
            _ = self._keys.ring.signing
        except SealKeyUnavailable as error:
            return error
        return self._unkept

    def check(self) -> None:
        """Refuse a write where the pointer could be lost. Raises `ConditionUnsupported`."""
        if (unkept := self._unkept) is not None:
            raise unkept

    @property
    def _unkept(self) -> ConditionUnsupported | None:
        modes = self._objects.describe().conditions
        kept = min(modes.put, modes.large_put)
        if kept in (ConditionMode.UNKNOWN, ConditionMode.ATOMIC) or self._single_writer:
            return None
        what = "this S3 store does not keep the conditions of puts among several writers, so a pointer could be lost"
        return ConditionUnsupported(f"{what}; s3.single_writer says that there is one")
