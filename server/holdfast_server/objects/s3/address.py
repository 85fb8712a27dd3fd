"""Where a bucket is: the rules for endpoint, bucket, prefix and region, those of S3 and those of its client.

Wrong ones are a `ValueError`, whose message says which rule. It does not repeat an endpoint: there may be a password in
front of the host, or a signature behind it.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from holdfast_server.errors import InvalidArgument
from holdfast_server.objects.key import MAX_KEY_BYTES, ObjectKey

MAX_PREFIX_BYTES = 100
"""The longest prefix in bytes of UTF-8, its `/` included: with a key of 900 it is below the 1,024 that S3 allows."""

_MAX_PORT = 0xFFFF

_HOST_AND_PORT = re.compile(
    r"(?P<host>\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)(?::(?P<port>[0-9]{1,5}))?"
)
_AWS = re.compile(
    r"(?:(?:bucket|accesspoint)\.vpce(?:-[a-z0-9]+)+\.)?"
    r"s3(?:-fips|-accelerate)?\.(?:dualstack\.)?"
    r"(?:(?P<region>[a-z]{2,}(?:-[a-z]+)+-[0-9]+)\.)?(?:vpce\.)?amazonaws\.com(?:\.cn)?"
)
_SELF_HOSTED_ON_AWS = re.compile(r"ec2-.*|.*\.elb\.amazonaws\.com(?:\.cn)?")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_IPV4 = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_RESERVED_BUCKET = re.compile(r"xn--.*|.*(?:-s3alias|--ol-s3)")
_REGION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and perhaps a port, and what else was said with them: `secure` by a scheme, `region` by a host of AWS."""

    host: str
    port: int | None = None
    secure: bool | None = None
    region: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host`, `host:port`, or either behind `http://` or `https://`. Raises `ValueError`."""
        scheme, is_url, rest = text.rpartition("://")
        if is_url and scheme.lower() not in ("http", "https"):
            raise ValueError("its scheme must be http or https")
        rest = rest.removesuffix("/")
        if "@" in rest:
            raise ValueError("it must have no user and no password: the keys are settings of their own")
        if any(mark in rest for mark in "/?#"):
            raise ValueError("it must have no path and no query: the bucket and the prefix are settings of their own")
        parts = _HOST_AND_PORT.fullmatch(rest)
        port = int(parts["port"]) if parts and parts["port"] else None
        if not parts or (parts["ipv6"] and not _is_ipv6(parts["ipv6"])) or port == 0 or (port or 0) > _MAX_PORT:
            raise ValueError("it must be host, host:port, http://host:port or https://host:port")
        host = parts["host"].lower()
        return cls(host, port, scheme.lower() == "https" if is_url else None, _region_of(host, port))

    @classmethod
    def of_aws(cls, region: str) -> Self:
        """Return the endpoint of AWS in a region. Raises `ValueError`."""
        host = f"s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
        if not _AWS.fullmatch(host):
            raise ValueError(f"{region!r} is not a region of AWS, and there is no endpoint")
        return cls(host, region=region)

    def text(self, *, secure: bool) -> str:
        """Return `host[:port]`, without the port that the scheme has by itself.

        The client takes that one off too, and an IPv6 address's brackets with it.
        """
        return self.host if self.port in (None, 443 if secure else 80) else f"{self.host}:{self.port}"


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _region_of(host: str, port: int | None) -> str:
    """Return the region that a host of AWS names, if it is one. Raises `ValueError` for one that is not S3's.

    The client builds the address of AWS anew out of the region that it is told: port and region in the host are lost,
    and out of a host that it does not know it builds one that does not exist.
    """
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")) or _SELF_HOSTED_ON_AWS.fullmatch(host):
        return ""
    aws = _AWS.fullmatch(host)
    if not aws or port is not None:
        raise ValueError("an endpoint of AWS is s3.<region>.amazonaws.com, without a bucket and without a port")
    return aws["region"] or ""


def check_bucket(name: str) -> str:
    """Return the name of a bucket. Raises `ValueError`."""
    if not _BUCKET.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a bucket's name: 3 to 63 lower-case letters, digits, dots and hyphens, "
            "a letter or digit first and last"
        )
    if any(pair in name for pair in ("..", ".-", "-.")):
        raise ValueError(f"{name!r} is not a bucket's name: a dot stands between letters or digits")
    if _IPV4.fullmatch(name):
        raise ValueError(f"{name!r} is not a bucket's name: it has the form of an IP address")
    if _RESERVED_BUCKET.fullmatch(name):
        raise ValueError(f"{name!r} is not a bucket's name: xn--, -s3alias and --ol-s3 are reserved")
    return name


def check_prefix(text: str) -> str:
    """Return the prefix, empty or with a `/` at its end: it has the form of a key. Raises `ValueError`."""
    if not text:
        return ""
    try:
        key = ObjectKey(text.removesuffix("/") or text)
    except InvalidArgument as error:
        raise ValueError(f"it must have the form of a key: {error.message}") from None
    prefix = f"{key}/"
    if (size := len(prefix.encode())) > MAX_PREFIX_BYTES:
        raise ValueError(
            f"it has {size} bytes with the / at its end, and may have {MAX_PREFIX_BYTES}: "
            f"keys have up to {MAX_KEY_BYTES} of the 1024 that S3 allows"
        )
    return prefix


def check_region(text: str) -> str:
    """Return the region. Raises `ValueError`."""
    if not _REGION.fullmatch(text):
        raise ValueError(f"{text!r} is not a region: 1 to 63 letters, digits and hyphens, as in eu-west-1")
    return text
