"""A page that a person visits, in a real browser: nothing that it sends reaches Dagster; the UI itself works.

`make browser` installs what this needs.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, urlsplit

import pytest

from tests.assets.conftest import SET_LIMIT
from tests.browser import chromium

pytestmark = pytest.mark.usefixtures("browser")  # before the webserver, which nothing is asked without one


class Page(BaseHTTPRequestHandler):
    """An empty page, which the tests fill."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def elsewhere():
    """The address of a page on another port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    """In which the attacker's name evil.example resolves to this machine."""
    with chromium("--host-resolver-rules=MAP evil.example 127.0.0.1") as opened:
        yield opened


@pytest.fixture
def visit(browser):
    """visit(address): a page there."""
    pages = []

    def opened(address):
        pages.append(browser.new_page())
        pages[-1].goto(address)
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


ANY = "async ([url, how]) => { try { const answer = await fetch(url, how); return answer.status } catch { return 0 } }"
FRAME = """url => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.onload = () => done();
  frame.src = url;
  document.body.append(frame) })"""
IMAGE = """url => new Promise(done => {
  const image = new Image();
  image.onload = image.onerror = () => done();
  image.src = url })"""
FORM = """([url, kind, text]) => {
  const form = document.createElement("form"), field = document.createElement("input");
  form.method = "POST";
  form.enctype = kind;
  form.action = url;
  [field.name, field.value] = text;
  form.append(field);
  document.body.append(form);
  form.submit() }"""
SOCKET = """url => new Promise(done => {
  const socket = new WebSocket(url, "graphql-ws");
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused") })"""


def posted(key):
    return json.dumps({"query": SET_LIMIT % key})


def test_nothing_that_a_page_on_another_port_sends_reaches_dagster(visit, webserver, elsewhere, limits):
    page, graphql = visit(elsewhere), f"{webserver}/graphql"
    by_get = f"{graphql}?query={quote(SET_LIMIT % 'stolen')}"
    for how in ({"mode": "no-cors"}, {"mode": "no-cors", "credentials": "include"}, {"mode": "cors"}):
        page.evaluate(ANY, [by_get, how])
        page.evaluate(ANY, [by_get, how | {"method": "POST"}])
    for kind in ("text/plain", "text/plain;application/json", "application/json"):
        how = {"method": "POST", "body": posted("stolen"), "headers": {"content-type": kind}}
        page.evaluate(ANY, [graphql, how])
        page.evaluate(ANY, [graphql, how | {"mode": "no-cors"}])
    page.evaluate(IMAGE, by_get)
    page.evaluate(FRAME, by_get)
    assert page.evaluate(SOCKET, graphql.replace("http", "ws", 1)) == "refused"
    for address in (by_get, graphql):
        page.goto(elsewhere)
        with page.expect_navigation():
            page.evaluate(FORM, [address, "text/plain", ['{"query": "', '"}']])
        assert "may not use this server" in page.content()
    page.goto(elsewhere)
    page.evaluate("address => { location = address }", by_get)
    page.get_by_text("a mutation is taken from the body of a POST only").wait_for()
    assert "stolen" not in limits()


def test_a_name_that_resolves_to_this_machine_shows_nothing_and_changes_nothing(visit, webserver, limits):
    port = urlsplit(webserver).port
    page = visit(f"http://evil.example:{port}/server_info")
    assert "set OPD_HOSTS=evil.example" in page.content()
    how = {"method": "POST", "body": posted("rebound"), "headers": {"content-type": "application/json"}}
    assert page.evaluate(ANY, ["/graphql", how]) == 403
    assert page.evaluate(SOCKET, f"ws://evil.example:{port}/graphql") == "refused"
    assert "rebound" not in limits()


def test_no_other_page_frames_the_ui(visit, webserver, elsewhere):
    page = visit(elsewhere)
    page.evaluate(FRAME, webserver)
    assert "Dagster" not in page.frames[1].content()


def test_the_ui_is_opened_by_a_link_and_goes_on_working(visit, webserver, elsewhere, limits):
    page = visit(elsewhere)
    page.evaluate("address => { location = address }", f"{webserver}/config")
    page.wait_for_url(f"{webserver}/**")
    page.get_by_text("Deployment").first.wait_for()
    how = {"method": "POST", "body": posted("own"), "headers": {"content-type": "application/json"}}
    assert page.evaluate(ANY, ["/graphql", how]) == 200
    assert page.evaluate(SOCKET, f"{webserver.replace('http', 'ws', 1)}/graphql") == "open"
    assert limits()["own"] == 7
