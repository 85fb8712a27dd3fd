"""What shellcade writes, made here by docs/formats.md alone; and what reads it, and migrates it."""

import hashlib
import hmac
import io
from collections.abc import Mapping
from typing import Any

from holdfast_server.checkpoints.key_ring import Keys
from holdfast_server.checkpoints.legacy import LegacyTags, read_pointer
from holdfast_server.checkpoints.migration import Migration, Plan
from holdfast_server.checkpoints.opening import WaitingRoom
from holdfast_server.checkpoints.store import LegacyForms
from holdfast_server.objects.base import ObjectStore
from holdfast_server.objects.spool import Spool
from holdfast_server.transfer.outcome import Done, nobody
from holdfast_server.transfer.work import work_off
from tests.support.any_checkpoints import LOAD_MEMORY_BYTES, ChangingKeys, Checkpoints, epoch_name, pointer_name
from tests.support.s3_servers import S3Server

SECRET = b"server-side-key"


def tagged(payload: bytes, secret: bytes = SECRET) -> bytes:
    """Return a payload and its tag."""
    return payload + hmac.new(secret, payload, hashlib.sha256).digest()


def room_of(room: str, epochs: Mapping[int, bytes], latest: int | None = None) -> dict[str, bytes]:
    """Return the objects of a room; the pointer names the highest epoch if no other is given."""
    objects = {epoch_name(room, epoch): tagged(payload) for epoch, payload in epochs.items()}
    named = max(epochs) if latest is None else latest
    return objects | {pointer_name(room): epoch_name(room, named).encode()}


def flat(room: str, payload: bytes) -> dict[str, bytes]:
    """Return the snapshot of a room that sleeps."""
    return {f"snapshots/{room}": tagged(payload)}


def lay(server: S3Server, bucket: str, objects: Mapping[str, bytes]) -> None:
    """Put objects into a bucket as shellcade does."""
    client = server.client()
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    for name, data in objects.items():
        client.put_object(bucket, name, io.BytesIO(data), len(data))


def legacy_keys(*secrets: bytes) -> ChangingKeys:
    """Return a key ring with these legacy secrets."""
    keys = ChangingKeys()
    for secret in secrets or (SECRET,):
        keys.ring = keys.ring.with_legacy(secret)
    return keys


def forms(keys: Keys) -> LegacyForms:
    """Return what reads the older forms."""
    return LegacyForms(read_pointer, LegacyTags(keys))


def reading_legacy(objects: ObjectStore, keys: ChangingKeys | None = None, **options: Any) -> Checkpoints:
    """A CheckpointStore that reads the older forms, too."""
    keys = keys or legacy_keys()
    return Checkpoints(objects, keys, legacy=forms(keys), **options)


class Impatient:
    """Waits for no store."""

    def wait(self) -> bool:
        return False


def migrate(objects: ObjectStore, keys: Keys, plan: Plan | None = None, jobs: int = 1) -> list[Done]:
    """Migrate a store, and return what became of each object."""
    waiting_room = WaitingRoom(Spool(), LOAD_MEMORY_BYTES)
    migration = Migration(objects, keys, waiting_room, Impatient(), plan=plan or Plan(), moved=nobody)
    done: list[Done] = []
    for tasks in migration.phases():
        work_off(tasks, jobs, done.append, lambda: False)
    return done
