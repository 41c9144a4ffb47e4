"""A proxy between an S3 client and its server on loopback, which does to chosen requests what networks and servers do.

Every request goes to the server as it came, unless a fault takes it; each fault takes its first `times` matches. The
host that the client signed stays as it is, so signatures hold.
"""

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal
from urllib.parse import unquote

Kind = Literal["status", "reset request", "reset answer", "truncate", "slow", "stall", "lose"]
PAUSE = 0.02  # seconds between the pieces of a slow body


@dataclass
class Fault:
    """What to do to requests of `method` (all: "") whose path and query contain `names`.

    status: answer `status` without asking the server; code: S3's name of the error; text: the body, where not that.
    reset request: send the server half of the body, then reset both connections.
    reset answer: send half of the answer's body, then reset. truncate: the same, but close in order.
    slow: send the answer's body in 16 pieces with PAUSE between. stall: hold the answer back for `seconds`.
    lose: let the server act and answer, then reset in place of its answer.
    """

    kind: Kind
    method: str = ""
    names: str = ""
    times: int = 1_000_000
    status: int = 500
    code: str = "InternalError"
    text: str = ""
    seconds: float = 0.0
    taken: int = 0

    def takes(self, method: str, path: str) -> bool:
        return self.taken < self.times and self.method in ("", method) and self.names in unquote(path)


@dataclass
class Proxy:
    """faults: looked at in order, the first that takes a request does so; requests: (method, path) of all that came."""

    endpoint: str
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def add(self, kind: Kind, method: str = "", names: str = "", **how) -> Fault:
        self.faults.append(Fault(kind, method, names, **how))
        return self.faults[-1]

    def count(self, method: str = "", names: str = "") -> int:
        return sum(method in ("", m) and names in unquote(path) for m, path in self.requests)

    def clear(self) -> None:
        self.faults.clear()
        self.requests.clear()


@contextlib.contextmanager
def between(upstream: str) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`, on a free port."""
    lock, (host, port) = threading.Lock(), upstream.removeprefix("http://").split(":")

    class Handler(_Handler):
        server_address: ClassVar = (host, int(port))

        def fault(self) -> Fault | None:
            with lock:
                proxy.requests.append((self.command, self.path))
                found = next((fault for fault in proxy.faults if fault.takes(self.command, self.path)), None)
                if found:
                    found.taken += 1
                return found

    server = _Server(("127.0.0.1", 0), Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are no news here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_address: ClassVar[tuple[str, int]]

    def fault(self) -> Fault | None:
        raise NotImplementedError

    def _relay(self) -> None:
        fault, body = self.fault(), self._body()
        kind = fault.kind if fault else None
        if fault and kind == "status":
            self._refuse(fault)
            return
        upstream = http.client.HTTPConnection(*self.server_address, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection", "transfer-encoding"):
                    upstream.putheader(name, value)
            if self.headers.get("Transfer-Encoding"):
                upstream.putheader("Transfer-Encoding", "chunked")
                body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            upstream.endheaders(body[: len(body) // 2] if kind == "reset request" else body)
            if kind == "reset request":
                _reset(upstream.sock)
                self._hang_up()
                return
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        if fault and kind == "stall":
            time.sleep(fault.seconds)
        if kind == "lose":
            self._hang_up()
            return
        names = ("transfer-encoding", "connection", "content-length")
        head = [(name, value) for name, value in answer.getheaders() if name.lower() not in names]
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self._send(answer.status, answer.reason, [*head, *([("Content-Length", length)] if length else [])])
        if kind in ("reset answer", "truncate"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if kind == "truncate":
                self.close_connection = True
            else:
                time.sleep(PAUSE)  # a reset would overtake what is still on its way
                self._hang_up()
        elif kind == "slow":
            piece = max(1, -(-len(data) // 16))
            for begin in range(0, len(data), piece):
                self.wfile.write(data[begin : begin + piece])
                self.wfile.flush()
                time.sleep(PAUSE)
        else:
            self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _relay

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(parts)

    def _refuse(self, fault: Fault) -> None:
        text = fault.text or f"<Error><Code>{fault.code}</Code><Message>injected {fault.code}</Message></Error>"
        data = b"" if self.command == "HEAD" else text.encode()
        self._send(fault.status, fault.code, [("Content-Type", "application/xml"), ("Content-Length", str(len(data)))])
        self.wfile.write(data)

    def _send(self, status: int, reason: str, headers: list[tuple[str, str]]) -> None:
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers), "", ""]
        self.wfile.write("\r\n".join(lines).encode("latin-1"))

    def _hang_up(self) -> None:
        """Reset the client's connection."""
        self.rfile.close()  # it holds the connection open
        _reset(self.connection)
        self.close_connection = True

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


def _reset(connection: socket.socket) -> None:
    """Closed with RST, as when a machine is gone: no time to linger."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
