"""The rules for endpoint, bucket, prefix and region; and that what they take, the client takes as it is meant."""

import pytest
from minio import Minio

from holdfast_server.objects.key import MAX_KEY_BYTES
from holdfast_server.objects.s3.address import MAX_PREFIX_BYTES, Endpoint, check_bucket, check_prefix, check_region


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("minio", Endpoint("minio")),
        ("MinIO.example:9000", Endpoint("minio.example", 9000)),
        ("http://minio:9000", Endpoint("minio", 9000, secure=False)),
        ("HTTPS://minio", Endpoint("minio", secure=True)),
        ("https://minio:9000/", Endpoint("minio", 9000, secure=True)),
        ("http://[::1]:9000", Endpoint("[::1]", 9000, secure=False)),
        ("192.0.2.7:65535", Endpoint("192.0.2.7", 65535)),
        ("s3.eu-west-1.amazonaws.com", Endpoint("s3.eu-west-1.amazonaws.com", region="eu-west-1")),
        ("https://s3.amazonaws.com", Endpoint("s3.amazonaws.com", secure=True)),
        (
            "s3.dualstack.us-iso-east-1.amazonaws.com",
            Endpoint("s3.dualstack.us-iso-east-1.amazonaws.com", region="us-iso-east-1"),
        ),
        ("lb-1.eu-west-1.elb.amazonaws.com", Endpoint("lb-1.eu-west-1.elb.amazonaws.com")),
    ],
)
def test_an_endpoint_is_a_host_a_port_and_a_scheme(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ftp://minio", "scheme"),
        ("s3://holdfast", "scheme"),
        ("http://app:secret@minio", "password"),
        ("app@minio:9000", "password"),
        ("http://minio/holdfast", "path"),
        ("minio:9000/holdfast/", "path"),
        ("minio//", "path"),
        ("http://minio?region=x", "query"),
        ("http://minio/#x", "path"),
        ("", "host:port"),
        ("http://", "host:port"),
        (":9000", "host:port"),
        ("minio:", "host:port"),
        ("minio:0", "host:port"),
        ("minio:65536", "host:port"),
        ("minio:port", "host:port"),
        ("minio:٩", "host:port"),
        ("mi nio", "host:port"),
        ("minio:9000\n", "host:port"),
        ("a..b", "host:port"),
        ("::1", "host:port"),
        ("[::g]", "host:port"),
        ("[1:2]", "host:port"),
        ("holdfast.s3.eu-west-1.amazonaws.com", "AWS"),
        ("s3-us-west-2.amazonaws.com", "AWS"),
        ("sqs.eu-west-1.amazonaws.com", "AWS"),
        ("s3.eu-west-1.amazonaws.com:443", "AWS"),
    ],
)
def test_a_wrong_endpoint_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Endpoint.parse(text)


def test_a_wrong_endpoint_is_not_repeated() -> None:
    for text in ("http://app:hunter2@minio", "http://minio/?signature=hunter2", "hunter2:hunter2", "hunter2://minio"):
        with pytest.raises(ValueError, match="must") as caught:
            Endpoint.parse(text)
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("region", "host"),
    [("eu-west-1", "s3.eu-west-1.amazonaws.com"), ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn")],
)
def test_aws_has_an_endpoint_in_each_region(region: str, host: str) -> None:
    assert Endpoint.of_aws(region) == Endpoint(host, region=region) == Endpoint.parse(host)


@pytest.mark.parametrize("region", ["", "garage", "eu-west", "eu-west-1.example"])
def test_a_region_of_somebody_else_has_no_endpoint_of_aws(region: str) -> None:
    with pytest.raises(ValueError, match="not a region of AWS"):
        Endpoint.of_aws(region)


def address(endpoint: Endpoint, region: str, *, secure: bool) -> str:
    """Where the client looks for the object `key` in the bucket `holdfast`."""
    client = Minio(endpoint.text(secure=secure), "app", "secret", secure=secure, region=region)
    return client.presigned_get_object("holdfast", "key").partition("?")[0]


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("port", ["", ":80", ":443", ":9000"])
@pytest.mark.parametrize(
    "host",
    [
        "minio.internal.",
        "my_minio",
        "192.0.2.7",
        "[2001:db8::1]",
        "ec2-203-0-113-25.eu-west-1.compute.amazonaws.com",
        "stores-42.eu-west-1.elb.amazonaws.com",
    ],
)
def test_the_client_takes_an_endpoint_as_it_is_meant(host: str, port: str, secure: bool) -> None:
    expected = "" if port == (":443" if secure else ":80") else port
    found = address(Endpoint.parse(host + port), "us-east-1", secure=secure)
    assert found == f"{'https' if secure else 'http'}://{host}{expected}/holdfast/key"


@pytest.mark.parametrize(
    "host",
    [
        "s3.eu-west-1.amazonaws.com",
        "s3.dualstack.ap-southeast-2.amazonaws.com",
        "s3-fips.us-gov-west-1.amazonaws.com",
        "s3.cn-north-1.amazonaws.com.cn",
        "bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com",
    ],
)
def test_the_client_takes_an_endpoint_of_aws_with_the_region_in_it(host: str) -> None:
    endpoint = Endpoint.parse(host)
    assert address(endpoint, endpoint.region, secure=True) == f"https://holdfast.{host}/key"


def test_the_client_finds_a_region_from_the_common_endpoint_of_aws() -> None:
    found = address(Endpoint.parse("s3.amazonaws.com"), "eu-west-1", secure=True)
    assert found == "https://holdfast.s3.eu-west-1.amazonaws.com/key"


@pytest.mark.parametrize("name", ["abc", "a" * 63, "holdfast-2.example.org", "1-2"])
def test_a_bucket_has_a_name_that_the_client_takes(name: str) -> None:
    client = Minio("minio", "app", "secret", region="us-east-1")
    assert check_bucket(name) == name
    assert name in client.presigned_get_object(name, "key")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "3 to 63"),
        ("ab", "3 to 63"),
        ("a" * 64, "3 to 63"),
        ("Holdfast", "lower-case"),
        ("hold_fast", "lower-case"),
        ("holdfast/one", "lower-case"),
        ("bücket", "lower-case"),
        ("-holdfast", "first and last"),
        ("holdfast.", "first and last"),
        ("holdfast\n", "first and last"),
        ("hold..fast", "dot"),
        ("hold.-fast", "dot"),
        ("hold-.fast", "dot"),
        ("192.0.2.7", "IP address"),
        ("xn--holdfast", "reserved"),
        ("holdfast-s3alias", "reserved"),
        ("holdfast--ol-s3", "reserved"),
    ],
)
def test_a_wrong_bucket_is_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_bucket(name)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("", ""), ("a", "a/"), ("a/", "a/"), ("a/b.c", "a/b.c/"), ("ä" * 49, "ä" * 49 + "/"), ("a" * 99, "a" * 99 + "/")],
)
def test_a_prefix_ends_in_a_slash(text: str, prefix: str) -> None:
    assert check_prefix(text) == prefix


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("/", "empty segment"),
        ("/a", "empty segment"),
        ("a//", "empty segment"),
        ("a//b", "empty segment"),
        ("a/../b", "'..' segment"),
        ("a\nb", "control character"),
        ("a\udcff", "surrogate"),
        ("a" * 100, "101 bytes"),
        ("ä" * 50, "101 bytes"),
    ],
)
def test_a_wrong_prefix_is_refused_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        check_prefix(text)


def test_the_longest_key_behind_the_longest_prefix_is_one_of_s3() -> None:
    assert MAX_PREFIX_BYTES + MAX_KEY_BYTES <= 1024


@pytest.mark.parametrize("name", ["us-east-1", "garage", "r", "a" * 63])
def test_a_region_is_a_word(name: str) -> None:
    assert check_region(name) == name


@pytest.mark.parametrize("name", ["", "eu west", "-eu", "eu-", "a" * 64, "eu-west-1\n", "é"])
def test_a_wrong_region_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a region"):
        check_region(name)
