"""What every command of the command line is given."""

from dataclasses import dataclass

from holdfast.client import Client, connect
from holdfast.retrying import DEFAULT_RETRIES, DEFAULT_TIMEOUT_SECONDS
from holdfast.terminal import Output

DEFAULT_ADDRESS = "127.0.0.1:4653"


@dataclass
class Session:
    """What the global options say, and where the results go."""

    output: Output
    address: str = DEFAULT_ADDRESS
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    retries: int = DEFAULT_RETRIES

    def connect(self) -> Client:
        """Return a client of the server that was asked for; the caller closes it."""
        return connect(self.address, timeout=self.timeout, retries=self.retries)
