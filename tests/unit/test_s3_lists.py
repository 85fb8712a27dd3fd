"""Lists of stores that are not quite S3: what could leave something out is refused, and never passed on as a list."""

from collections.abc import Sequence
from typing import cast
from urllib.parse import quote

import pytest

from holdfast_server.errors import Unavailable
from holdfast_server.objects.base import ListQuery
from holdfast_server.objects.s3.lists import listed
from holdfast_server.objects.s3.messages import Answer, Request
from holdfast_server.objects.s3.requests import Requests


class Pages:
    """Answers each request with the next page."""

    def __init__(self, *pages: str) -> None:
        self._pages = list(pages)
        self.asked: list[Request] = []

    def send(self, request: Request) -> Answer:
        self.asked.append(request)
        return Answer(200, {}, self._pages.pop(0).encode())


def page(
    keys: Sequence[str] = (), prefixes: Sequence[str] = (), *, truncated: str = "false", encoding: str = "url"
) -> str:
    encode = quote if encoding == "url" else str
    objects = "".join(
        f"<Contents><Key>{encode(key)}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
        "<LastModified>2026-11-20T10:00:00.000Z</LastModified></Contents>"
        for key in keys
    )
    common = "".join(f"<CommonPrefixes><Prefix>{encode(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes)
    kind = f"<EncodingType>{encoding}</EncodingType>" if encoding else ""
    return f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{kind}{objects}{common}</ListBucketResult>"


def names(pages: Pages, query: ListQuery | None = None, prefix: str = "") -> list[str]:
    return [item.name for item in listed(cast("Requests", pages), prefix, query or ListQuery())]


def test_objects_and_common_prefixes_are_merged() -> None:
    pages = Pages(page(["a", "c", "é"], ["b/", "d/"]))
    assert names(pages, ListQuery(delimiter=True)) == ["a", "b/", "c", "d/", "é"]


def test_a_page_goes_on_behind_the_one_before() -> None:
    pages = Pages(page(["p/a", "p/b"], truncated="true"), page(["p/c"]))
    assert names(pages, prefix="p/") == ["a", "b", "c"]
    assert pages.asked[1].query["start-after"] == "p/b"


@pytest.mark.parametrize("keys", [["a/b", "a-b"], ["b", "a"], ["a", "a"]])
def test_another_order_than_that_of_bytes_is_refused(keys: list[str]) -> None:
    with pytest.raises(Unavailable, match="byte order"):
        names(Pages(page(keys)))


def test_common_prefixes_in_another_order_are_refused() -> None:
    with pytest.raises(Unavailable, match="byte order"):
        names(Pages(page([], ["b/", "a/"])), ListQuery(delimiter=True))


def test_a_page_of_nothing_is_not_the_end_while_there_is_more() -> None:
    with pytest.raises(Unavailable, match="listed before"):
        names(Pages(page([], truncated="true")))


def test_a_store_that_begins_again_is_refused() -> None:
    pages = Pages(page(["a", "b"], truncated="true"), page(["a", "b"], truncated="true"))
    with pytest.raises(Unavailable, match="listed before"):
        names(pages)


def test_names_are_decoded_only_where_they_are_encoded() -> None:
    assert names(Pages(page(["a%41b", "a+b"], encoding=""))) == ["a%41b", "a+b"]
    assert names(Pages(page(["a b%41", "a+b"]))) == ["a b%41", "a+b"]


@pytest.mark.parametrize("truncated", ["", "maybe"])
def test_an_answer_that_does_not_say_whether_there_is_more_is_refused(truncated: str) -> None:
    with pytest.raises(Unavailable):
        names(Pages(page(["a"], truncated=truncated)))
