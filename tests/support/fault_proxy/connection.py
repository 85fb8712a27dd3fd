"""A client's connection, and the one to upstream that belongs to it."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from threading import Event

from tests.support.fault_proxy.exchange import Exchange, Fault, Seen
from tests.support.fault_proxy.wire import Head, HungUp, Wire, wait_for_any

_CONNECT_SECONDS = 60
_JOIN_SECONDS = 60


class Connection:
    """Serves one client in a thread of its own: request by request, with one connection to upstream.

    `upstream` is asked for the address before each request, `meet` for the fault and the event that ends its waits.
    The counts are told the bytes from and to upstream.
    """

    def __init__(
        self,
        client: socket.socket,
        *,
        upstream: Callable[[], str],
        meet: Callable[[Seen], tuple[Fault, Event]],
        count_received: Callable[[int], None],
        count_sent: Callable[[int], None],
    ) -> None:
        self._client = Wire(client)
        self._upstream: Wire | None = None
        self._upstream_address = ""
        self._address_now = upstream
        self._meet = meet
        self._counts = (count_received, count_sent)
        self._lock = threading.Lock()
        self._is_ended = False
        self._thread = threading.Thread(target=self._run, name="fault proxy connection", daemon=True)

    def start(self) -> None:
        """Serve it."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it is served."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Let it end as the end of a process does it, whatever is going on."""
        with self._lock:
            self._is_ended = True
            for wire in self._wires():
                with suppress(OSError):  # closed already, by the other side or by the thread
                    wire.shut_down()

    def join(self) -> None:
        """Wait until it has ended."""
        self._thread.join(_JOIN_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("a connection of the fault proxy does not end")

    def _run(self) -> None:
        reset = False
        try:
            while (head := self._next_request()) is not None:
                self._exchange(head)
        except HungUp:
            pass
        except OSError:
            reset = True
        finally:
            with self._lock:
                for wire in self._wires():
                    wire.close(reset=reset)

    def _next_request(self) -> Head | None:
        """Return the head of the next request; None if the connection is over, on either side."""
        if self._upstream is not None and self._client not in wait_for_any(self._client, self._upstream):
            return None
        return self._client.head()

    def _exchange(self, head: Head) -> None:
        seen = Seen.of(head)
        fault, released = self._meet(seen)
        exchange = Exchange(self._client, head, seen, fault=fault, released=released, connect=self._connect)
        if not exchange.run():
            self._disconnect()  # upstream may have said that it closes: the client does not know

    def _connect(self) -> Wire:
        """Return the connection to the upstream of now. Raises `OSError`."""
        address = self._address_now()
        if self._upstream is not None and address != self._upstream_address:
            self._disconnect()
        if self._upstream is None:
            host, _, port = address.rpartition(":")
            connection = socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS)
            connection.settimeout(None)
            with self._lock:
                self._upstream = Wire(connection, *self._counts)
                self._upstream_address = address
                if self._is_ended:
                    raise HungUp
        return self._upstream

    def _disconnect(self) -> None:
        with self._lock:
            if self._upstream is not None:
                self._upstream.close()
            self._upstream = None

    def _wires(self) -> list[Wire]:
        return [wire for wire in (self._client, self._upstream) if wire is not None]
