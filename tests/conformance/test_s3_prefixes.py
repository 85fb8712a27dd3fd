"""Whatever prefix the settings allow, all goes on below it and nothing beside it."""

import pytest

from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.body import Body
from holdfast_server.objects.key import ObjectKey
from tests.support.disk_operations import content
from tests.support.s3_servers import MinioServer, MotoServer
from tests.support.s3_stores import OpenedStore
from tests.support.samples import MIB, sample

PREFIXES = ["plain/", "two/parts/", "with space+plus/", "percent%41/", "ä/", "日本/🎲/"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("server", ["moto", "minio"])
def test_all_goes_on_below_the_prefix(request: pytest.FixtureRequest, server: str, prefix: str) -> None:
    s3: MinioServer | MotoServer = request.getfixturevalue(server)
    with OpenedStore(s3) as usual, OpenedStore(s3, prefix=prefix) as opened:
        assert opened.store.describe().conditions == usual.store.describe().conditions
        key, copy = ObjectKey("a/key ä"), ObjectKey("b")
        for data in (b"small", sample(6 * MIB)):
            opened.store.put(key, Body.of(data))
            opened.store.copy(key, copy)
            assert content(opened.store, copy) == data
        assert [item.name for item in opened.store.list(ListQuery())] == ["a/key ä", "b", "holdfast/store"]
        assert [item.name for item in opened.store.list(ListQuery(delimiter=True))] == ["a/", "b", "holdfast/"]
        listed = s3.client().list_objects(opened.bucket, recursive=True)
        names = [item.object_name for item in listed if item.object_name]
        assert sorted(names) == sorted(prefix + name for name in ("a/key ä", "b", "holdfast/store"))
