"""An upload to S3 whose bytes the spool lost: it is not acknowledged, and nothing of it is there."""

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from tests.support.disk_operations import KEY, content
from tests.support.s3_operations import LARGE, OLD
from tests.support.s3_servers import MotoServer
from tests.support.s3_stores import OpenedStore
from tests.support.spoiled_spool import SPOILS, Spoil, SpoilingSpool


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_an_upload_that_the_spool_spoiled_is_refused_and_changes_nothing(moto: MotoServer, spoil: Spoil) -> None:
    spool = SpoilingSpool(spoil)
    with OpenedStore(moto, spool=spool) as opened:
        opened.empty()
        opened.store.put(KEY, Body.of(OLD))
        with pytest.raises(Unavailable, match="the server's spool did not give back what was put there"):
            opened.store.put(KEY, Body.of(LARGE))
        assert spool.files == 1
        assert spool.used_bytes == 0
        assert content(opened.store, KEY) == OLD
        assert [item.name for item in opened.store.list(ListQuery())] == [KEY.text]
