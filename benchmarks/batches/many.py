"""What a caller does with many small blobs: in one call, and one by one. The requests are built once."""

from collections.abc import Iterable
from itertools import islice

import google_crc32c

from benchmarks.callers import SMALL_BYTES
from benchmarks.traffic import Caller, CannedUpload, canned_data
from holdfast.v1 import blob_store_pb2 as pb

BATCH = 400
"""So many of 4 KiB nearly fill a batch."""

_Results = Iterable[pb.BatchGetBlobsResult | pb.BatchPutBlobsResult | pb.BatchDeleteBlobsResult]


class ManyBlobs:
    """`BATCH` blobs of 4 KiB below a prefix, put with crc32c and sha256. One by one are only `singles` of them."""

    def __init__(self, caller: Caller, prefix: str, singles: int) -> None:
        data = canned_data(SMALL_BYTES)
        keys = [f"{prefix}/{number:03}" for number in range(BATCH)]
        self._caller = caller
        self._upload = CannedUpload(data, 1)
        self._single_keys = keys[:singles]
        crc32c, sha256 = google_crc32c.value(data), self._upload.sha256
        self._puts = pb.BatchPutBlobsRequest(
            items=[pb.BatchPutBlobsItem(key=key, data=data, crc32c=crc32c, sha256=sha256) for key in keys]
        )
        self._gets = pb.BatchGetBlobsRequest(items=[pb.BlobAddress(key=key) for key in keys])
        self._deletes = pb.BatchDeleteBlobsRequest(items=[pb.BatchDeleteBlobsItem(key=key) for key in keys])
        self._single_deletes = [pb.DeleteBlobRequest(key=key) for key in self._single_keys]

    def put(self) -> None:
        """Put all in one call."""
        _check(self._caller.stub.BatchPutBlobs(self._puts).results)

    def put_each(self) -> None:
        """Put one by one."""
        for key in self._single_keys:
            self._caller.upload(key, self._upload)

    def get(self) -> None:
        """Get all in one call."""
        results = self._caller.stub.BatchGetBlobs(self._gets).results
        _check(results)
        if len(results[-1].data) != SMALL_BYTES:
            raise RuntimeError(f"the last blob of a batch came with {len(results[-1].data)} bytes")

    def get_each(self) -> None:
        """Get one by one."""
        for key in self._single_keys:
            self._caller.download(key, 1)

    def delete(self) -> None:
        """Delete all in one call."""
        _check(self._caller.stub.BatchDeleteBlobs(self._deletes).results)

    def delete_each(self) -> None:
        """Delete one by one."""
        for request in self._single_deletes:
            if not self._caller.stub.DeleteBlob(request).existed:
                raise RuntimeError(f"there was no {request.key} to delete")


class SoughtBlobs:
    """`count` keys below a prefix, every second of which is there. One by one are only `singles` of those."""

    def __init__(self, caller: Caller, prefix: str, count: int, singles: int) -> None:
        self._caller = caller
        there = [f"{prefix}/there/{number:05}" for number in range(count // 2)]
        missing = [f"{prefix}/missing/{number:05}" for number in range(count // 2)]
        self._request = pb.FindMissingBlobsRequest(
            keys=[key for pair in zip(there, missing, strict=True) for key in pair]
        )
        self._stats = [pb.StatBlobRequest(key=key) for key in there[:singles]]
        self._expected = list(range(1, 2 * len(there), 2))
        keys = iter(there)
        while items := [pb.BatchPutBlobsItem(key=key, data=b"sought") for key in islice(keys, BATCH)]:
            _check(caller.stub.BatchPutBlobs(pb.BatchPutBlobsRequest(items=items)).results)

    def find(self) -> None:
        """Look for all in one call."""
        answer = self._caller.stub.FindMissingBlobs(self._request)
        if answer.failures or answer.missing != self._expected:
            raise RuntimeError(f"{len(answer.missing)} were found missing, and {len(answer.failures)} failed")

    def stat_each(self) -> None:
        """Ask for one by one: those that are there, since a missing one is an error there."""
        for request in self._stats:
            self._caller.stub.StatBlob(request)


def _check(results: _Results) -> None:
    """Raise `RuntimeError` if one of a batch failed."""
    for result in results:
        if result.HasField("status"):
            raise RuntimeError(f"one of a batch failed: {result.status.message}")
