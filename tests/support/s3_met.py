"""Which S3 servers a run of the tests meets: said loudly, and all of them in CI."""

import os

import pytest

from tests.support.s3_servers import MinioServer, MotoServer, RcloneServer, S3Server

KINDS: tuple[type[S3Server], ...] = (MotoServer, MinioServer, RcloneServer)


def missing() -> list[type[S3Server]]:
    """Return the servers that are not there."""
    return [kind for kind in KINDS if not kind.built.exists()]


def line() -> str:
    """Return the line that says which servers are there."""
    without = missing()
    told = (f"{kind.name} NO ({kind.how_to_get})" if kind in without else f"{kind.name} yes" for kind in KINDS)
    return f"S3 servers: {', '.join(told)}"


def require(kind: type[S3Server]) -> None:
    """Skip the test if a server is not there; fail it in CI, where none may be missing."""
    if kind not in missing():
        return
    reason = f"no {kind.name}: {kind.how_to_get}"
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(reason)
    pytest.fail(reason, pytrace=False)
