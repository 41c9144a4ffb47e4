"""Serve a store's reports over HTTP on loopback, read only, so that links in the UI open them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from assets import origin
from pipelines.store.objects import Store

PAGE = re.compile(r"/([A-Za-z0-9_-][A-Za-z0-9._-]*)/([A-Za-z0-9_-]+\.html)")  # /STUDY/index.html


class Pages(BaseHTTPRequestHandler):
    """GET /STUDY/NAME.html returns `reports/STUDY/NAME.html` of the store, / returns a list; everything else is 404.

    Requests from other pages are refused, as by the webserver.
    """

    store: Store
    allowed: frozenset[str]

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        address = self.connection.getsockname()[0]
        if reason := origin.refuse("GET", query, self._values, address, self.allowed):
            return self._send(403, f"error: {reason}\n", "text/plain")
        if path == "/":
            return self._send(200, listing(self.store))
        if not (asked := PAGE.fullmatch(path)):
            return self._send(404, "<p>Reports are at /STUDY/index.html.</p>")
        try:
            self._send(200, self.store.read(f"reports/{asked[1]}/{asked[2]}").decode())
        except FileNotFoundError:
            self._send(404, f"<p>No report of {asked[1]} yet: materialise the asset <code>report</code>.</p>")

    def _values(self, header: str) -> list[str]:
        return self.headers.get_all(header, [])

    def _send(self, status: int, text: str, kind: str = "text/html") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing: the terminal belongs to the UI."""


def listing(store: Store) -> str:
    """The existing pages, as links."""
    found = [
        key.removeprefix("reports") for key in store.find("reports") if PAGE.fullmatch(key.removeprefix("reports"))
    ]
    items = "".join(f'<li><a href="{escape(path)}">{escape(path[1:])}</a></li>' for path in sorted(found))
    return f"<title>Reports</title><h1>Reports</h1><ul>{items}</ul>" if items else "<p>No reports yet.</p>"


@contextmanager
def serve_pages(store: Store, port: int) -> Iterator[str]:
    """Serve the reports on loopback for the block; yields the address of the server.

    Errors: ValueError in one line for an invalid host in OPD_HOSTS.
    """
    facts = {"store": store, "allowed": origin.allowed_hosts()}
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Served", (Pages,), facts))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
