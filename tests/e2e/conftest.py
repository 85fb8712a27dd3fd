"""What the tests of the image and of the composition share: the image, built once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.file_trees import NoNamespace, namespace_command
from tests.support.images import Builder, Image, context_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def namespace() -> None:
    """Skip where this machine does not let a process have mounts and users of its own."""
    try:
        namespace_command()
    except NoNamespace as missing:
        pytest.skip(f"no container without a Docker engine here: {missing}")


@pytest.fixture(scope="session")
def image(namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image of `Dockerfile`. One worker runs all the tests that use it: `support/distribution.py` names them."""
    folder = tmp_path_factory.mktemp("image")
    builder = Builder(ROOT / "Dockerfile", context_of(ROOT, folder / "context"), folder / "stages")
    yield builder.image
    builder.remove()
