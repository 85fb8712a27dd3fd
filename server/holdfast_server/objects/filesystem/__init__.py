"""Objects as files: one file per object, written aside, synced, and renamed into place.

`store.py` is the backend, `record.py` the form of a file (docs/formats.md), `tree.py` how it gets into place and away,
`paths.py` where that is, `walk.py` lists, `names.py` what is in a directory, `locks.py` what keeps processes apart,
`scratch.py` where unfinished files are, and `disk.py` every system call.
"""

from holdfast_server.objects.filesystem.store import FilesystemStore

__all__ = ["FilesystemStore"]
