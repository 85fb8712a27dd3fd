"""That there is no store in a bucket."""

from holdfast_server.errors import BackendRefused, Reason
from holdfast_server.objects.marker import NAME
from holdfast_server.objects.s3.options import S3Options


class StoreMissing(BackendRefused):
    """No store was ever begun in the bucket under the prefix."""

    def __init__(self, options: S3Options) -> None:
        where = f"the bucket {options.bucket!r}" + (f" under the prefix {options.prefix!r}" if options.prefix else "")
        message = f"there is no store of Holdfast in {where}: no object {options.prefix + NAME!r}"
        super().__init__(Reason.BUCKET_MISSING, message, bucket=options.bucket)
