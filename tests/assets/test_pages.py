"""The reports over HTTP: pages of the store's reports and nothing else of it."""

import urllib.error
import urllib.request

import pytest

from assets.pages import serve_pages


@pytest.fixture
def get(store):
    """get(path): status and text of the server over a store with one report and a secret."""
    store.write("reports/tiny/index.html", "<p>déjà</p>".encode())
    store.write("reports/tiny/inputs.json", b"{}")
    store.write("runs/tiny.opd/seed-0/run.json", b"{}")

    def ask(path):
        try:
            with urllib.request.urlopen(address + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    with serve_pages(store, 0) as address:
        yield ask


def test_a_report_is_served_as_it_lies_in_the_store_and_listed(get):
    assert get("/tiny/index.html") == get("/tiny/index.html?x=1") == (200, "<p>déjà</p>")
    status, listed = get("/")
    assert status == 200 and 'href="/tiny/index.html"' in listed and "json" not in listed


def test_a_report_that_is_not_made_says_what_makes_it(get):
    status, told = get("/smollm/index.html")
    assert status == 404 and "smollm" in told and "<code>report</code>" in told


@pytest.mark.parametrize(
    "path",
    ["/tiny/inputs.json", "/../runs/tiny.opd/seed-0/run.json", "/tiny/../../runs/x.html", "/%2e%2e/a.html", "/tiny/"],
)
def test_nothing_else_is_there(get, path):
    assert get(path)[0] == 404
