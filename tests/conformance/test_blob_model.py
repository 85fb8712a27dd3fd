"""BlobStore against a dictionary: any calls in any order, with restarts in between, on every backend.

The dictionary (`tests/support/blob_model`) has the rules written once more, without the code under test. A failure
shows the calls as a program. With `BLOB_MODEL_EXAMPLES=500` it looks for longer than a run of all tests can.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from holdfast.v1 import blob_store_pb2 as pb
from tests.support.blob_model import drawn, rules
from tests.support.blob_model.asked import (
    Attributes,
    Condition,
    Content,
    Copy,
    Key,
    Name,
    Put,
    Query,
    Range,
    Sample,
    There,
    address,
)
from tests.support.blob_model.dictionary import Backend, Dictionary, Refused
from tests.support.restartable_blobs import RestartableBlobs, restartable
from tests.support.s3_servers import S3Server
from tests.support.state_machines import run_machine

STEPS = 30
EXAMPLES = {"opened memory": 200, "opened filesystem": 60, "opened moto": 12, "opened minio": 8}
SERVED_EXAMPLES = 3
MOST_RESTARTS = 2
FEWEST_BLOBS = 2
MOST_OPEN_LISTS = 3
MOST_REQUEST_BYTES = 3 << 20

BACKENDS = {
    "memory": Backend(survives=False),
    "filesystem": Backend(),
    "moto": Backend(etags_are_new=False, times_are_exact=False, deletes_at_once=False),
    "minio": Backend(
        etags_are_new=False, times_are_exact=False, deletes_at_once=False, deletes_if_match=False, nested_keys=False
    ),
}


class BlobModel(RuleBasedStateMachine):
    """Asks a store and the dictionary the same."""

    def __init__(self, blobs: RestartableBlobs, backend: Backend) -> None:
        super().__init__()
        self._blobs = blobs
        self._model = Dictionary(backend)
        self._restarts = 0
        self._lists: list[tuple[Query, str, str]] = []
        """Lists that go on: what is asked, the last item, and the token."""
        while page := blobs.call("ListBlobs", pb.ListBlobsRequest()).blobs:
            blobs.call(
                "BatchDeleteBlobs",
                pb.BatchDeleteBlobsRequest(items=[pb.BatchDeleteBlobsItem(key=entry.key) for entry in page]),
            )

    # What is drawn without knowing the store.

    def _name(self, name: Name | There) -> Name:
        """Return what is meant; where the backend does not list both, a name under which nothing else stands."""
        if isinstance(name, There):
            there: list[Name] = [Key(key) for key in sorted(self._model.blobs)]
            if name.by_content:
                there = [content for content in drawn.CONTENTS if rules.key_of(content) in self._model.blobs]
            name = there[name.number % len(there)] if there else Key("a")
        if isinstance(name, Key) and name.text in {"a", "a/b", "b"} and not self._model.backend.nested_keys:
            return Key(name.text + "~")
        return name

    def _etag(self, name: Name, which: str | None) -> str | None:
        if which in {None, "empty", "wrong"} or rules.of_name(name):
            return {None: None, "empty": ""}.get(which, "no-such-etag")
        key = rules.key_of(name)
        there = self._model.blobs.get(key)
        if which == "right" and there is not None:
            return there.etag
        return self._model.former.get(key, "never-seen")

    def _condition(self, name: Name, which: str | None) -> Condition:
        if which in {"create", "no create"}:
            return Condition(create_only=which == "create")
        return Condition(etag=self._etag(name, which))

    def _put(self, named: tuple[Name | There, Put], which: str | None) -> Put:
        name = self._name(named[0])
        return replace(named[1], name=name, condition=self._condition(name, which))

    # The calls.

    @initialize(puts=drawn.first_puts)
    def begin(self, puts: list[tuple[Key | Content, Sample]]) -> None:
        for name, of in puts:
            self._ask_to_put(Put(self._name(name), of))

    @rule(put=drawn.puts, condition=drawn.conditions)
    def put_one(self, put: tuple[Name | There, Put], condition: str | None) -> None:
        self._ask_to_put(self._put(put, condition))

    def _ask_to_put(self, put: Put) -> None:
        self._model.put(put, self._blobs.call("PutBlob", put.messages()))

    @precondition(lambda self: self._model.blobs)
    @rule(name=drawn.names, wanted=drawn.ranges, etag=drawn.etags)
    def get(self, name: Name | There, wanted: Range, etag: str | None) -> None:
        meant = self._name(name)
        expected = self._etag(meant, etag)
        request = pb.GetBlobRequest(**address(meant), **wanted.fields, if_match_etag=expected)
        self._model.get(meant, wanted, expected, self._blobs.get(request))

    @rule(name=drawn.names)
    def stat(self, name: Name | There) -> None:
        meant = self._name(name)
        self._model.stat(meant, self._blobs.call("StatBlob", pb.StatBlobRequest(**address(meant))))

    @precondition(lambda self: len(self._model.blobs) > FEWEST_BLOBS)
    @rule(name=drawn.names, etag=drawn.etags)
    def delete(self, name: Name | There, etag: str | None) -> None:
        meant = self._name(name)
        expected = self._etag(meant, etag)
        request = pb.DeleteBlobRequest(**address(meant), if_match_etag=expected)
        self._model.delete(meant, expected, self._blobs.call("DeleteBlob", request))

    @precondition(lambda self: self._model.blobs)
    @rule(
        source=drawn.names,
        to=drawn.targets,
        attributes=st.none() | drawn.attributes,
        condition=drawn.conditions,
        source_etag=drawn.etags,
    )
    def copy(
        self,
        source: Name | There,
        to: Name | There,
        attributes: Attributes | None,
        condition: str | None,
        source_etag: str | None,
    ) -> None:
        name, target = self._name(source), self._name(to)
        asked = Copy(name, target, attributes, self._condition(target, condition), self._etag(name, source_etag))
        self._model.copy(asked, self._blobs.call("CopyBlob", asked.message()))

    @rule(
        prefix=drawn.prefixes,
        delimiter=drawn.delimiters,
        start_after=drawn.positions,
        page_size=drawn.page_sizes,
    )
    def list_blobs(self, prefix: str, delimiter: str, start_after: str, page_size: int) -> None:
        self._page(Query(prefix, delimiter, start_after), page_size, None, "")

    @precondition(lambda self: self._lists)
    @rule(page_size=drawn.page_sizes)
    def list_on(self, page_size: int) -> None:
        query, last, token = self._lists.pop(0)
        self._page(query, page_size, last, token)

    @precondition(lambda self: self._lists)
    @rule(prefix=drawn.prefixes, delimiter=drawn.delimiters, start_after=drawn.positions)
    def list_on_with_another_query(self, prefix: str, delimiter: str, start_after: str) -> None:
        query, _, token = self._lists[0]
        other = Query(prefix, delimiter, start_after)
        if other != query:
            answer = self._blobs.call("ListBlobs", other.message(1, token))
            assert isinstance(answer, Refused)
            assert answer.reason in {"INVALID_PAGE_TOKEN", *rules.of_query(other, 1)}

    def _page(self, query: Query, page_size: int, last: str | None, token: str) -> None:
        answer = self._blobs.call("ListBlobs", query.message(page_size, token))
        reached = self._model.page(query, page_size, last, answer)
        if isinstance(answer, pb.ListBlobsResponse) and answer.next_page_token:
            self._lists = [*self._lists, (query, reached, answer.next_page_token)][-MOST_OPEN_LISTS:]

    @rule(asked=drawn.few(drawn.wanted), with_digests=st.booleans(), left_out=st.sampled_from([0, 0, 0, 0, 1]))
    def find_missing_keys(self, asked: list[tuple[Key, bytes]], with_digests: bool, left_out: int) -> None:
        wanted = [(self._name(key), digest if with_digests else b"") for key, digest in asked]
        digests = [digest for _, digest in wanted[left_out:]] if with_digests else []
        if not digests:
            wanted = [(key, b"") for key, _ in wanted]
        request = pb.FindMissingBlobsRequest(keys=[rules.key_of(key) for key, _ in wanted], sha256=digests)
        of_call = {"INVALID_DIGEST"} if digests and left_out else set[str]()
        self._model.missing(wanted, of_call, self._blobs.call("FindMissingBlobs", request))

    @rule(
        family=drawn.families, digests=drawn.few(drawn.content_digests), with_key=st.sampled_from([False] * 9 + [True])
    )
    def find_missing_contents(self, family: Content, digests: list[Content], with_key: bool) -> None:
        wanted = [replace(family, of=digest.of, cut=digest.cut) for digest in digests]
        request = pb.FindMissingBlobsRequest(
            keys=["a"] if with_key else [],
            sha256=[content.sha256 for content in wanted],
            content=family.message(),
        )
        of_call = rules.of_name(family, may_be_open=True) | ({"INVALID_ADDRESS"} if with_key else set())
        if family.sha256:
            of_call |= {"INVALID_DIGEST"}
        self._model.missing(
            [(content, b"") for content in wanted], of_call, self._blobs.call("FindMissingBlobs", request)
        )

    @rule(names=drawn.few(drawn.names))
    def get_a_batch(self, names: list[Name | There]) -> None:
        self._get_many([self._name(name) for name in names])

    @rule(bad=drawn.names)
    def get_all_in_a_batch(self, bad: Name | There) -> None:
        self._get_many([*map(Key, self._model.blobs), self._name(bad)])

    def _get_many(self, names: list[Name]) -> None:
        request = pb.BatchGetBlobsRequest(items=[pb.BlobAddress(**address(name)) for name in names])
        self._model.got(names, self._blobs.call("BatchGetBlobs", request))

    @rule(puts=drawn.few(st.tuples(drawn.items, drawn.conditions)))
    def put_a_batch(self, puts: list[tuple[tuple[Name | There, Put], str | None]]) -> None:
        items = [self._put(put, condition) for put, condition in puts]
        request = pb.BatchPutBlobsRequest(items=[put.item() for put in items])
        while (message_bytes := request.ByteSize()) > MOST_REQUEST_BYTES:
            items.pop()
            request.items.pop()
        self._model.put_many(items, self._blobs.call("BatchPutBlobs", request), message_bytes)

    @precondition(lambda self: len(self._model.blobs) > FEWEST_BLOBS)
    @rule(asked=drawn.few(st.tuples(drawn.names, drawn.etags)))
    def delete_a_batch(self, asked: list[tuple[Name | There, str | None]]) -> None:
        names = [(self._name(name), etag) for name, etag in asked]
        items = [(name, self._etag(name, etag)) for name, etag in names]
        request = pb.BatchDeleteBlobsRequest(
            items=[pb.BatchDeleteBlobsItem(**address(name), if_match_etag=etag) for name, etag in items]
        )
        self._model.deleted(items, self._blobs.call("BatchDeleteBlobs", request))

    @precondition(lambda self: self._restarts < MOST_RESTARTS)
    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self._restarts += 1
        self._blobs.restart(kill=kill)
        self._model.restart()

    # What holds at all times.

    @invariant()
    def the_list_is_that_of_the_dictionary(self) -> None:
        self._model.page(Query(), 0, None, self._blobs.call("ListBlobs", Query().message(0)))

    def teardown(self) -> None:
        """Read all that should be there, unless something was wrong before: that is then what is told."""
        if sys.exc_info()[0] is not None:
            return
        for key in self._model.blobs:
            self.stat(Key(key))
            self.get(Key(key), Range(), None)


@pytest.fixture(params=[f"{how} {backend}" for how in ("opened", "served") for backend in BACKENDS])
def variant(request: pytest.FixtureRequest) -> str:
    """How the store is reached, and what it is."""
    variant: str = request.param
    return variant


@pytest.fixture
def blobs(variant: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RestartableBlobs]:
    """An empty store that can be restarted."""
    backend = variant.split()[1]
    s3: S3Server | None = request.getfixturevalue(backend) if backend in {"moto", "minio"} else None
    with restartable(variant, tmp_path, s3) as found:
        yield found


@pytest.mark.timeout(0 if "BLOB_MODEL_EXAMPLES" in os.environ else 600)
def test_a_store_is_a_dictionary(variant: str, blobs: RestartableBlobs) -> None:
    examples = int(os.environ.get("BLOB_MODEL_EXAMPLES", EXAMPLES.get(variant, SERVED_EXAMPLES)))
    run_machine(partial(BlobModel, blobs, BACKENDS[variant.split()[1]]), variant, examples=examples, steps=STEPS)
