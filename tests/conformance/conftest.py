"""What the contracts of BlobStore and CheckpointStore run on: the store itself and gRPC, on every backend."""

from collections.abc import Iterator

import pytest

from tests.support.any_blobs import Blobs, blobs_on_s3, keys, local_blobs
from tests.support.any_checkpoints import Checkpoints, opened


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
    """The name of what is behind the blobs, or the checkpoints."""
    variants = request.node.callspec.params
    name: str = variants.get("all_blobs", variants.get("all_checkpoints")).split()[1]
    return name


@pytest.fixture(
    scope="module",
    params=[
        *(f"{how} {backend}" for how in ("direct", "grpc") for backend in ("memory", "filesystem", "moto", "minio")),
        "direct memory encrypted",
        "grpc filesystem encrypted",
        "direct moto encrypted",
        "grpc minio encrypted",
    ],
)
def all_checkpoints(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkpoints]:
    """A CheckpointStore that the tests of a module share."""
    backend = request.param.split()[1]
    s3 = request.getfixturevalue(backend) if backend in {"moto", "minio"} else None
    with opened(request.param, tmp_path_factory.mktemp("checkpoints"), s3) as found:
        yield found


@pytest.fixture
def checkpoints(all_checkpoints: Checkpoints) -> Checkpoints:
    """A CheckpointStore with nothing in it, which has seen nothing."""
    all_checkpoints.clear()
    return all_checkpoints
