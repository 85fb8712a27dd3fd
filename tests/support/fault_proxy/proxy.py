"""The proxy itself: where it listens, and its connections. Plain HTTP only: what TLS carries cannot be read."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from tests.support.fault_proxy.connection import Connection
from tests.support.fault_proxy.exchange import Fault, Seen
from tests.support.fault_proxy.plan import Injection, Plan, always

_BACKLOG = 128


class FaultProxy:
    """Listens on a free port of the loopback, and passes requests on to `upstream` (`host:port`) but for the faults.

    `upstream` can be set at any time; the next request on each connection goes there. While nothing listens there,
    clients see their connections reset. Everything passes byte by byte and the `Host` header stays what the client
    says, for S3's signatures cover it. A context manager; at the end of the block all is closed.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self._plan = Plan()
        self._lock = threading.Lock()
        self._connections: list[Connection] = []
        self._bytes_to_upstream = 0
        self._bytes_from_upstream = 0
        # Bound all the time and never listening: so the port stays ours while nothing listens on it.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reservation.bind(("127.0.0.1", 0))
        self._address: tuple[str, int] = self._reservation.getsockname()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._awaited: tuple[object, threading.Event] | None = None
        self.come_back()

    @property
    def endpoint(self) -> str:
        """Where clients find it: `host:port`."""
        host, port = self._address
        return f"{host}:{port}"

    @property
    def requests(self) -> list[Seen]:
        """What is known now of all requests so far, in the order in which they came. A copy: it does not change."""
        return self._plan.requests

    @property
    def bytes_to_upstream(self) -> int:
        """What was sent to upstream, heads included."""
        with self._lock:
            return self._bytes_to_upstream

    @property
    def bytes_from_upstream(self) -> int:
        """What was received from upstream, heads included."""
        with self._lock:
            return self._bytes_from_upstream

    @property
    def open_connections(self) -> int:
        """How many connections with clients there are."""
        return sum(connection.is_alive for connection in self._connections)

    def accept_all(self) -> None:
        """Return once all connections are served that were made before: clients can be gone before that."""
        accepted = threading.Event()
        with socket.socket() as own:
            own.bind(("127.0.0.1", 0))
            self._awaited = (own.getsockname(), accepted)
            own.connect(self._address)
            accepted.wait()

    def will_meet(self, request: Seen) -> bool:
        """Tell whether a request would meet a fault if it came now."""
        return self._plan.will_meet(request)

    def fail(self, fault: Fault, *, when: Callable[[Seen], bool] = always, nth: int = 1, times: int = 1) -> Injection:
        """Let `times` requests meet a fault: of those from now on for which `when` holds, the `nth` and the next ones.

        `when` knows of a request what its head says. Every such fault counts all requests; one that would meet two
        faults meets the older one.
        """
        injection = Injection(fault, when, nth, times)
        self._plan.add(injection)
        return injection

    def sweep(
        self, fault: Fault, *, when: Callable[[Seen], bool] = always
    ) -> Iterator[AbstractContextManager[Injection]]:
        """Yield blocks: in the first the 1st request meets the fault, then the 2nd, and so on, until none does.

            for faulted in proxy.sweep(LoseAnswer()):
                prepare()
                with faulted as injection:
                    operate()
                check()

        Only what is done within a block is counted and may fail, and at its end all is healed. The last block is the
        one without a fault.
        """
        for nth in itertools.count(1):
            injection = Injection(fault, when, nth)
            yield self._injected(injection)
            if not injection.met:
                return

    def heal(self) -> None:
        """Forget all faults. What hangs or is slow because of one goes on."""
        self._plan.clear()

    def go_down(self) -> None:
        """End all connections, and refuse new ones, as when a server is killed. Harmless when repeated."""
        if self._listener is None or self._thread is None:
            return
        listener, self._listener = self._listener, None
        listener.shutdown(socket.SHUT_RDWR)  # which ends `accept`
        self._thread.join()
        listener.close()
        for connection in self._connections:
            connection.end()
        for connection in self._connections:
            connection.join()
        self._connections.clear()

    def come_back(self) -> None:
        """Listen again, on the same port. Harmless when repeated."""
        if self._listener is not None:
            return
        self._listener = socket.create_server(self._address, backlog=_BACKLOG, reuse_port=True)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name="fault proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close everything, and wait until it is; harmless when repeated."""
        self.go_down()
        self._reservation.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _injected(self, injection: Injection) -> Iterator[Injection]:
        self._plan.add(injection)
        try:
            yield injection
        finally:
            self.heal()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, address = listener.accept()
            except OSError:
                if self._listener is None:
                    return
                raise
            self._connections = [connection for connection in self._connections if connection.is_alive]
            connection = Connection(
                client,
                upstream=lambda: self.upstream,
                meet=self._plan.meet,
                count_received=self._count_received,
                count_sent=self._count_sent,
            )
            self._connections.append(connection)
            connection.start()
            if self._awaited is not None and self._awaited[0] == address:
                self._awaited[1].set()

    def _count_received(self, size: int) -> None:
        with self._lock:
            self._bytes_from_upstream += size

    def _count_sent(self, size: int) -> None:
        with self._lock:
            self._bytes_to_upstream += size
