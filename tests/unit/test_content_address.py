"""Content addresses against the vectors of the systems that they come from."""

import hashlib

import pytest

from holdfast_server.blobs.address import RESERVED_PREFIXES, BlobKey, ContentAddress, Layout
from holdfast_server.errors import InvalidArgument, Reason

DIGEST = hashlib.sha256(b"hello world").digest()
BASE32 = "ciqlstjhxgju2pqiuuxffv62pwv7vree57rxuu4a52iir55m4lx432i"


@pytest.mark.parametrize(
    ("address", "key"),
    [
        (ContentAddress("artifacts/", ".wasm", Layout.HEX, DIGEST), f"artifacts/{DIGEST.hex()}.wasm"),
        (ContentAddress(sha256=DIGEST), DIGEST.hex()),
        (ContentAddress("", "", Layout.BASE32_MULTIHASH, DIGEST), BASE32),
        (ContentAddress("", "", Layout.FLATFS, DIGEST), f"32/{BASE32}.data"),
        (ContentAddress("piri/", "", Layout.FLATFS, DIGEST), f"piri/32/{BASE32}.data"),
    ],
)
def test_an_address_makes_the_key_of_its_layout(address: ContentAddress, key: str) -> None:
    assert address.key.text == key


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        ContentAddress(sha256=b"short")
    assert (refused.value.reason, refused.value.field) == (Reason.INVALID_DIGEST, "content.sha256")


def test_a_key_is_refused_while_the_digest_is_missing() -> None:
    with pytest.raises(InvalidArgument) as refused:
        _ = ContentAddress("a/").key
    assert refused.value.reason is Reason.INVALID_DIGEST


@pytest.mark.parametrize("prefix", ["../", "/", "a//", "chunks/", "snapshots/room/"])
def test_a_prefix_that_makes_no_valid_key_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        ContentAddress(prefix)
    assert refused.value.reason is Reason.INVALID_KEY


def test_flatfs_takes_no_suffix() -> None:
    with pytest.raises(InvalidArgument) as refused:
        ContentAddress("", ".wasm", Layout.FLATFS)
    assert refused.value.field == "content.suffix"


@pytest.mark.parametrize("prefix", sorted(RESERVED_PREFIXES))
def test_reserved_prefixes_and_their_bare_names_are_refused(prefix: str) -> None:
    for text in (prefix + "x", prefix + "x/y", prefix[:-1]):
        with pytest.raises(InvalidArgument, match="reserved"):
            BlobKey(text)
    assert BlobKey(prefix[:-1] + "-not").object_key.text == prefix[:-1] + "-not"
