"""A page token continues its own query, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_server import page_token
from holdfast_server.errors import InvalidArgument, Reason

QUERY = ("prefix", "/", "after")


@given(st.text(st.characters(codec="utf-8")))
def test_a_token_tells_where_to_go_on(last: str) -> None:
    assert page_token.decode(QUERY, page_token.encode(QUERY, last)) == last


@pytest.mark.parametrize(
    "other", [("prefix", "/", ""), ("prefix", "", "after"), ("", "/", "after"), ("prefix/", "", "after")]
)
def test_a_token_of_another_query_is_refused(other: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidArgument) as refused:
        page_token.decode(other, page_token.encode(QUERY, "last"))
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_PAGE_TOKEN, "page_token")


def test_every_altered_token_is_refused() -> None:
    token = page_token.encode(QUERY, "some/key")
    for at in range(len(token)):
        for character in "AQz09-_!":
            altered = token[:at] + character + token[at + 1 :]
            if altered != token:
                with pytest.raises(InvalidArgument):
                    page_token.decode(QUERY, altered)
        with pytest.raises(InvalidArgument):
            page_token.decode(QUERY, token[:at])


@given(st.text(max_size=60))
def test_garbage_is_refused(garbage: str) -> None:
    with pytest.raises(InvalidArgument):
        page_token.decode(QUERY, garbage)
