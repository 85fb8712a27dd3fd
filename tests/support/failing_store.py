"""An `ObjectStore` of which one operation fails, chosen by its number: before it is done, or after."""

from holdfast_server.errors import Reason, Unavailable
from holdfast_server.objects.base import ObjectStore
from tests.support.meddled_store import MeddledStore, nothing


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class FailingStore(MeddledStore):
    """Passes everything on, but the operation chosen with `fail` raises, once."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._left = 0

    def fail(self, nth: int, *, after: bool, kill: bool = False) -> None:
        """Let the `nth` operation from now on, counted from 1, raise: before it is done, or `after`.

        What is counted is what begins, or, `after`, what succeeded. What it raises is `Unavailable`; with `kill` it is
        `Killed`.
        """
        failure = Unavailable(Reason.BACKEND_UNAVAILABLE, "the backend failed, as the test asked")
        self._left = nth

        def meddle(_operation: str, _name: str) -> None:
            self._left -= 1
            if self._left == 0:
                raise Killed if kill else failure

        self.before, self.after = (nothing, meddle) if after else (meddle, nothing)

    def heal(self) -> bool:
        """Let nothing fail any more, and tell whether what was chosen has failed."""
        self.before = self.after = nothing
        return self._left <= 0
