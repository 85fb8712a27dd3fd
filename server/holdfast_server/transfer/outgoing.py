"""One object of a store on its way into a foreign tree."""

from dataclasses import dataclass
from functools import partial

from holdfast_server.errors import BrokenUpload, IntegrityFailed
from holdfast_server.objects.base import Entry, ObjectNotFound, ObjectStore
from holdfast_server.objects.body import Body, Declared
from holdfast_server.objects.filesystem.paths import Place
from holdfast_server.objects.info import ObjectInfo
from holdfast_server.objects.key import ObjectKey
from holdfast_server.transfer.copying import watched
from holdfast_server.transfer.outcome import Done, Moved, Note, Outcome, Task, nobody
from holdfast_server.transfer.tree import NoPlace, Tree, Unreadable
from holdfast_server.transfer.work import Patience, attempted, failure

_OTHER_FILE = "a file of other bytes is there; --overwrite replaces it"
_OTHER_BYTES = "its bytes are not those that its name is the sha256 of"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Writes objects of `source` into `tree`. `dry_run`: nothing is written, and no bytes of objects are read.

    A file that is not what its name is the sha256 of is replaced. Where the name says nothing, a file of other bytes is
    replaced with `overwrite` alone.
    """

    tree: Tree
    source: ObjectStore
    patience: Patience
    dry_run: bool = False
    overwrite: bool = False
    moved: Moved = nobody

    def task(self, entry: Entry, place: Place, name: bytes, sha256: bytes | None, *notes: Note) -> Task:
        """Return the task to write an object. `sha256`: what its name says of its bytes; None: nothing."""
        return partial(attempted, entry.name, partial(self._give, entry, place, name, sha256, notes), self.patience)

    def _give(self, entry: Entry, place: Place, name: bytes, sha256: bytes | None, notes: tuple[Note, ...]) -> Done:
        key = ObjectKey(entry.name)
        try:
            outcome = self._compared(entry, place, name, sha256)
            if outcome is Outcome.PRESENT:
                return Done(entry.name, outcome, notes=notes)
            if self.dry_run:
                info = self.source.stat(key)
            else:
                with self.source.get(key) as reader:
                    info = reader.info
                    if _is_right(info, sha256):
                        body = Body(watched(reader, self.moved), Declared(info.size_bytes, info.sha256))
                        self.tree.write(place, name, body)
        except ObjectNotFound:
            return Done(entry.name, Outcome.GONE)
        except BrokenUpload:
            raise IntegrityFailed(entry.name, "its bytes are not those that its sha256 was made of") from None
        except (NoPlace, Unreadable) as error:
            return failure(entry.name, str(error))
        except OSError as error:
            return failure(entry.name, f"its file cannot be written: {error.strerror}")
        if not _is_right(info, sha256):
            return failure(entry.name, _OTHER_BYTES)
        if info.attributes.content_type or info.attributes.metadata:
            notes = (*notes, Note.ATTRIBUTES_LOST)
        return Done(entry.name, outcome, info.size_bytes, notes=notes)

    def _compared(self, entry: Entry, place: Place, name: bytes, sha256: bytes | None) -> Outcome:
        """Tell what has to become of an object by what is in the tree. A file of the right size is read.

        Raises `NoPlace` for a file that is not to be replaced.
        """
        with self.tree.opened(place, name) as file:
            if file is None:
                return Outcome.COPIED
            if entry.record is None or file.size_bytes == entry.record.size_bytes:
                wanted = self.source.stat(ObjectKey(entry.name)).sha256 if sha256 is None else sha256
                if file.sha256() == wanted:
                    return Outcome.PRESENT
        if sha256 is None and not self.overwrite:
            raise NoPlace(_OTHER_FILE)
        return Outcome.REPLACED


def _is_right(info: ObjectInfo, sha256: bytes | None) -> bool:
    return sha256 is None or info.sha256 == sha256
