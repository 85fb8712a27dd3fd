"""How tests are distributed over workers."""

from xdist.scheduler import LoadGroupScheduling

_OF_THE_IMAGE = ("tests/e2e/test_container.py::", "tests/e2e/test_compose.py::")


class Scheduling(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """xdist's own, which also has one worker run all tests of the image: it is built once then, not once for each.

    A mark cannot say so: xdist 3.8 passes over `xdist_group` with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "image" if nodeid.startswith(_OF_THE_IMAGE) else str(super()._split_scope(nodeid))
