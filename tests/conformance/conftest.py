"""What the contract of BlobStore runs on: the store itself and the client, on every backend."""

from collections.abc import Iterator

import pytest

from tests.support.any_blobs import Blobs, blobs_on_s3, keys, local_blobs


@pytest.fixture(
    scope="module",
    params=[f"{how} {backend}" for how in ("direct", "grpc") for backend in ("memory", "filesystem", "moto", "minio")],
)
def all_blobs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Blobs]:
    """A store that the tests of a module share."""
    how, backend = request.param.split()
    if backend in {"moto", "minio"}:
        with blobs_on_s3(how, request.getfixturevalue(backend)) as on_s3:
            yield on_s3
    else:
        with local_blobs(how, backend, tmp_path_factory.mktemp("blobs")) as local:
            yield local


@pytest.fixture
def blobs(all_blobs: Blobs) -> Blobs:
    """A store without any blob, also none that shows only when those above it are gone."""
    while there := keys(all_blobs):
        for key in there:
            all_blobs.delete(key)
    return all_blobs


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> str:
    """The name of what is behind the blobs."""
    name: str = request.node.callspec.params["all_blobs"].split()[1]
    return name
