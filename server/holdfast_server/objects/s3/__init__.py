"""The S3 backend: `store.S3Store`, what it has to know (`S3Options`), and that there is none (`StoreMissing`).

`store` is not loaded with the rest: with it comes `minio`, a quarter of what a server loads at its start, and only who
opens a bucket needs that.

An operation goes through `store` (what is meant), `puts`, `copies`, `reader`, `lists` and `heads` (how), and its
requests through `requests` (measured, gated, tried again) and `client` (signed and sent; `messages` is what it is told
and tells; `clock` is the store's time). `layout` is how an object's bytes lie in the bucket, and `record` what is known
of it; `bucket` and `probe` find out about the bucket.
"""

from holdfast_server.objects.s3.missing import StoreMissing
from holdfast_server.objects.s3.options import S3Options

__all__ = ["S3Options", "StoreMissing"]
