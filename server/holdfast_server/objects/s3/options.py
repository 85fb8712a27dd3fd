"""What the S3 backend has to know."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket, how to reach it, and who asks. `endpoint` is `host[:port]`; `prefix` is empty or ends in `/`.

    `must_exist`: a store must be there already; without its marker nothing is written. `part_bytes` is at least 5 MiB.
    A time-out is for one connection, and for one wait for bytes. `adopt_prefix`: objects whose keys start with it, and
    that others wrote, are read as they are, instead of told to be damaged; empty: none.
    """

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    prefix: str = ""
    region: str = "us-east-1"
    secure: bool = True
    create_bucket: bool = False
    must_exist: bool = False
    adopt_prefix: str = ""
    part_bytes: int = 16 << 20
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 30.0
    max_connections: int = 256
