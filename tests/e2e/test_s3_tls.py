"""A store behind TLS: its certificate is verified, by an authority of one's own too, and all works through it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import holdfast
from tests.support import s3_met
from tests.support.s3_servers import MinioServer
from tests.support.s3_stores import s3_environment
from tests.support.samples import MIB, sample
from tests.support.server_process import ServerProcess

WAITING = r"Server waiting for its backend .*grpc=(\S+) http=(\S+)"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MinioServer, Path]]:
    """A MinIO behind TLS, and the certificate of the authority that vouches for it."""
    s3_met.require(MinioServer)
    certificates = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(certificates / "private.key")
    for part in issued.cert_chain_pems:
        part.write_to_path(certificates / "public.crt", append=True)
    ca.cert_pem.write_to_path(certificates / "authority.pem")
    with MinioServer(certificates=certificates) as server:
        yield server, certificates / "authority.pem"


def test_blobs_go_through_tls(authority: tuple[MinioServer, Path]) -> None:
    minio, ca = authority
    env = {**s3_environment(minio, endpoint=f"https://{minio.endpoint}"), "SSL_CERT_FILE": str(ca)}
    with ServerProcess(env=env) as server, holdfast.connect(server.address) as client:
        for size in (5, 3 * MIB, 12 * MIB):
            data = sample(size)
            put = client.blobs.put(f"blob-{size}", data, create_only=True)
            assert put.blob.sha256 == hashlib.sha256(data).digest()
            with pytest.raises(holdfast.AlreadyExists):
                client.blobs.put(f"blob-{size}", data, create_only=True)
            with client.blobs.get(f"blob-{size}") as reader:
                assert reader.read() == data


def test_a_store_that_nobody_vouches_for_is_not_used(authority: tuple[MinioServer, Path]) -> None:
    minio, _ = authority
    env = s3_environment(minio, endpoint=f"https://{minio.endpoint}")
    with ServerProcess(env=env, ready=WAITING) as server:
        assert server.wait_for_log("Backend is refused .*certificate") is not None
        with holdfast.connect(server.address, retries=0) as client, pytest.raises(holdfast.Unavailable):
            client.blobs.stat("k")
