"""One server has one spool, opened when it is first needed: its cap counts for all that wait there."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from holdfast_server import app
from holdfast_server.config.settings import Settings
from holdfast_server.errors import Unavailable
from holdfast_server.objects.spool import Spool
from tests.support.turnstile import Turnstile

SECONDS = 30
SPOOL_BYTES = 100


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[app._Stores]:
    settings = Settings(spool_dir=tmp_path / "spool", spool_max_bytes=SPOOL_BYTES)
    with ExitStack() as stack:
        yield app._Stores(settings, None, CollectorRegistry(), stack)


def test_calls_that_are_the_first_to_need_the_spool_at_once_share_one(
    stores: app._Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is held up within, until the second is there: waiting, or opening another one."""
    turnstile = Turnstile()
    monkeypatch.setattr(stores, "_spool_lock", turnstile)
    is_in = threading.Event()
    opened: list[Spool] = []

    class SlowSpool(Spool):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            opened.append(self)
            if is_in.is_set():
                turnstile.waited.set()
            is_in.set()
            assert turnstile.waited.wait(SECONDS)

    monkeypatch.setattr(app, "Spool", SlowSpool)
    late = [app._LateSpool(stores.spool) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(late[0].open)
        assert is_in.wait(SECONDS)
        second = pool.submit(late[1].open)
        files = [each.result(SECONDS) for each in (first, second)]
    for file in files:
        file.write(b"x" * 10)
    assert len(opened) == 1
    assert opened[0].used_bytes == 20
    assert stores.spool() is opened[0]
    for file in files:
        file.close()


def test_the_spool_is_opened_when_it_is_needed(stores: app._Stores, tmp_path: Path) -> None:
    late = app._LateSpool(stores.spool)
    assert list(tmp_path.iterdir()) == []
    late.open().close()
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


def test_a_spool_that_cannot_be_opened_is_tried_again(stores: app._Stores, tmp_path: Path) -> None:
    late = app._LateSpool(stores.spool)
    (tmp_path / "spool").write_bytes(b"in the way")
    for _ in range(2):
        with pytest.raises(Unavailable, match="the server's spool cannot be used"):
            late.open()
    (tmp_path / "spool").unlink()
    late.open().close()
