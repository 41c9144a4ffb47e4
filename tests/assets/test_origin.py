"""Requests of other pages are refused before Dagster and before the reports; those of the UI and of programs pass."""

import http.client
import json
from urllib.parse import quote, urlsplit

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from assets import backfill, origin, webserver
from assets.pages import serve_pages
from tests.assets.conftest import SET_LIMIT

HOST = "127.0.0.1:3000"
MUTATION = f"query={quote(SET_LIMIT % 'another')}"
NAVIGATES = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
JSON = {"content-type": "application/json"}

PASSES = {  # method, query, headers
    "a program": ("GET", "", {}),
    "a program's query by GET": ("GET", "query={version}", {}),
    "a program's mutation": ("POST", "", JSON),
    "the name localhost": ("GET", "", {"host": "localhost:8080"}),
    "another case of it": ("GET", "", {"host": "LocalHost:8080"}),
    "the address ::1": ("GET", "", {"host": "[::1]:3000"}),
    "the address at which it arrived": ("GET", "", {"host": "10.0.0.7"}),
    "a name of OPD_HOSTS": ("POST", "", JSON | {"host": "ui.example", "origin": "https://ui.example"}),
    "a name of OPD_HOSTS before a proxy that changes Host": ("POST", "", JSON | {"origin": "https://ui.example"}),
    "the UI": ("POST", "", JSON | {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}),
    "an address that a person types": ("GET", "", {"sec-fetch-site": "none"} | NAVIGATES),
    "a link that a person follows": ("GET", "", {"sec-fetch-site": "cross-site"} | NAVIGATES),
    "a link in a report on another port": ("GET", "", {"sec-fetch-site": "same-site"} | NAVIGATES),
    "nesting that Dagster's parser refuses": ("GET", f"query={quote('mutation {a' + '{a' * 5000)}", {}),
    "a page whose address has a query that is no GraphQL": ("GET", "query=mutation of a gene", {}),
    "a report of an event without a body": ("POST", "description=x", {}),
}
OTHER = "this server"
INSTEAD = f"may not use this server: open http://{HOST} instead"
REFUSED = {
    "no host": ("GET", "", {"host": None}, "the host '' is not served here"),
    "a name that resolves to this address": ("GET", "", {"host": "evil.example"}, "set OPD_HOSTS=evil.example"),
    "a name that begins like ours": ("GET", "", {"host": "localhost.evil.example"}, "is not served here"),
    "a name with a user before it": ("GET", "", {"host": "localhost@evil.example"}, "set OPD_HOSTS=NAME"),
    "a name with a dot behind it": ("GET", "", {"host": "localhost."}, "is not served here"),
    "two hosts": ("GET", "", {"host": [HOST, "evil.example"]}, "is not served here"),
    "any address": ("GET", "", {"host": "0.0.0.0:3000"}, "is not served here"),
    "another port's page": (
        "POST",
        "",
        JSON | {"origin": "http://127.0.0.1:3001"},
        f"a page of 'http://127.0.0.1:3001' may not use this server: open http://{HOST} instead",
    ),
    "localhost's page at 127.0.0.1": ("POST", "", JSON | {"origin": "http://localhost:3000"}, INSTEAD),
    "the page of ::1 at 127.0.0.1": ("POST", "", JSON | {"origin": "http://[::1]:3000"}, INSTEAD),
    "a sandboxed page": ("POST", "", JSON | {"origin": "null"}, f"a page of 'null' {INSTEAD}"),
    "a sandboxed page, before a proxy": (
        "POST",
        "",
        JSON | {"host": "ui.example", "origin": "null"},
        "a page of 'null' may not use this server: open http://ui.example instead",
    ),
    "two origins": (
        "POST",
        "",
        JSON | {"origin": [f"http://{HOST}", "http://evil.example"]},
        "set OPD_HOSTS=evil.example",
    ),
    "an origin that is no address": ("POST", "", JSON | {"origin": "http://[evil"}, "set OPD_HOSTS=NAME"),
    "an extension's page": ("POST", "", JSON | {"origin": f"chrome-extension://{HOST}"}, OTHER),
    "an image of another page": ("GET", "", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, OTHER),
    "a script of another port's page": ("GET", "", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, OTHER),
    "a frame of another page": (
        ("GET", "", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"}, OTHER)
    ),
    "a form of another page": ("POST", "", {"sec-fetch-site": "cross-site"} | NAVIGATES, OTHER),
    "a mutation by GET": ("GET", MUTATION, {}, "a mutation is taken from the body of a POST only"),
    "a mutation by a link": ("GET", MUTATION, {"sec-fetch-site": "cross-site"} | NAVIGATES, "a mutation"),
    "a mutation by the UI's own GET": ("GET", MUTATION, {"sec-fetch-site": "same-origin"}, "a mutation"),
    "a mutation in the address of a POST": ("POST", MUTATION, JSON, "a mutation"),
    "a mutation behind a query": ("GET", f"query={quote('query a {version} ' + SET_LIMIT % 'b')}", {}, "a mutation"),
    "a mutation in the second of two queries": ("GET", f"query={{version}}&{MUTATION}", {}, "a mutation"),
    "a mutation behind a fragment and a comment": (
        ("GET", "query=" + quote("#a\nfragment f on Mutation {__typename} " + SET_LIMIT % "b"), {}, "a mutation")
    ),
    "a form": ("POST", "", {"content-type": "application/x-www-form-urlencoded"}, "send it as application/json"),
    "text": ("POST", "", {"content-type": "text/plain"}, "a body of type 'text/plain' is not read"),
    "text that calls itself JSON": ("POST", "", {"content-type": "text/plain;application/json"}, "'text/plain'"),
    "a multipart form": ("POST", "", {"content-type": "multipart/form-data; boundary=application/json"}, "'multipart"),
}


def judged(method, query, headers):
    def values(name):
        value = ({"host": HOST} | headers).get(name)
        return value if isinstance(value, list) else [] if value is None else [value]

    return origin.refuse(method, query, values, "10.0.0.7", frozenset({"ui.example"}))


@pytest.mark.parametrize("case", PASSES)
def test_the_ui_its_person_and_programs_pass(case):
    assert judged(*PASSES[case]) is None


@pytest.mark.parametrize("case", REFUSED)
def test_other_pages_are_refused_with_one_line(case):
    *request, words = REFUSED[case]
    reason = judged(*request)
    assert reason is not None and words in reason and reason.isprintable()
    assert "instead" not in reason or "OPD_HOSTS" not in reason


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("", set()),
        ("a.example", {"a.example"}),
        (" A.example:8443, [::2],::3 10.0.0.1", {"a.example", "::2", "::3", "10.0.0.1"}),
    ],
)
def test_hosts_are_named_with_commas(setting, names):
    assert origin.allowed_hosts({"OPD_HOSTS": setting}) == names


@pytest.mark.parametrize("name", ["https://a.example", "*", "a/b", "*.example"])
def test_what_is_no_host_is_refused_before_anything_listens(name, monkeypatch, capsys):
    monkeypatch.setenv("OPD_HOSTS", f"b.example,{name}")
    line = f"OPD_HOSTS names {name!r}, which is no host; give names, as in OPD_HOSTS=a.example,b.example"
    with pytest.raises(ValueError) as caught:
        origin.allowed_hosts()
    assert str(caught.value) == line
    with pytest.raises(SystemExit) as ended:
        webserver.main()
    assert ended.value.code == 2 and capsys.readouterr().err == f"error: {line}\n"


def ask(address, method, path, body=None, **headers):
    """Status, headers and text of an answer; the headers are those that are named and no others."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in ({"host": urlsplit(address).netloc} | headers).items():
            for one in value if isinstance(value, list) else [value]:
                connection.putheader(name.replace("_", "-"), one)
        data = (body or "").encode()
        if method == "POST":
            connection.putheader("content-length", str(len(data)))
        connection.endheaders(data)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def posted(key):
    return json.dumps({"query": SET_LIMIT % key})


REAL = {  # method, path, body, headers
    "rebinding": ("POST", "/graphql", posted("a"), {"content_type": "application/json", "host": "evil.example"}),
    "another port": (
        "POST",
        "/graphql",
        posted("a"),
        {"content_type": "application/json", "origin": "http://127.0.0.1:1"},
    ),
    "text": ("POST", "/graphql", posted("a"), {"content_type": "text/plain;application/json"}),
    "text from elsewhere": (
        (
            "POST",
            "/graphql",
            posted("a"),
            {"content_type": "text/plain;application/json", "origin": "https://evil.example"},
        )
    ),
    "GET": ("GET", f"/graphql?{MUTATION}", None, {}),
    "GET with a slash": ("GET", f"/graphql/?{MUTATION}", None, {}),
    "GET of an escaped path": ("GET", f"/%67raphql?{MUTATION}", None, {}),
    "GET of a path with an end of line": ("GET", f"/graphql%0A?{MUTATION}", None, {}),
    "POST with the address": ("POST", f"/graphql?{MUTATION}", None, {}),
    "a site": ("GET", "/server_info", None, {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}),
    "an event of elsewhere": ("POST", "/report_asset_materialization/a", None, {"origin": "http://evil.example"}),
    "the page": ("GET", "/", None, {"host": "evil.example"}),
}


@pytest.mark.parametrize("case", REAL)
def test_dagster_never_sees_what_another_page_sends(case, webserver, limits):
    method, path, body, headers = REAL[case]
    status, answered, text = ask(webserver, method, path, body, **headers)
    assert (status, answered["content-type"]) == (403, "text/plain; charset=utf-8")
    assert text.startswith("error: ") and text.endswith("\n") and text.count("\n") == 1
    assert set(limits()).isdisjoint({"a", "another"})


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([{"query": SET_LIMIT % "a"}]),
        json.dumps({"extensions": {"persistedQuery": {"sha256Hash": "0"}}}),
        "{",
    ],
    ids=["batch", "persisted", "no JSON"],
)
def test_other_forms_of_graphql_run_nothing(body, webserver, limits):
    status, _, _ = ask(webserver, "POST", "/graphql", body, content_type="application/json")
    assert status >= 400 and set(limits()).isdisjoint({"a", "another"})


def test_a_program_that_is_refused_prints_the_line(webserver):
    with pytest.raises(
        ValueError, match=r"^Dagster at .* refuses: a mutation is taken from the body of a POST only, as "
    ):
        backfill.post(f"{webserver}/graphql?{MUTATION}&x=", "{version}", {})


def test_programs_and_the_ui_go_on_working(webserver, limits):
    netloc = urlsplit(webserver).netloc
    assert ask(webserver, "GET", "/graphql?query={version}")[0] == 200
    assert ask(webserver, "GET", "/server_info")[0] == 200
    assert ask(webserver, "GET", "/", sec_fetch_site="none")[0] == 307, "to the graph"
    status, headers, page = ask(webserver, "GET", "/asset-groups", sec_fetch_site="none")
    assert status == 200 and page.startswith("<!DOCTYPE html>") and headers["x-frame-options"] == "SAMEORIGIN"
    backfill.post(webserver, SET_LIMIT % "program", {})
    for key, host, page in (("ui", netloc, f"http://{netloc}"), ("proxied", "ui.example", "https://ui.example")):
        how = {"content_type": "application/json", "host": host, "origin": page, "sec_fetch_site": "same-origin"}
        assert ask(webserver, "POST", "/graphql", posted(key), **how)[0] == 200
    assert {"program", "ui", "proxied"} <= set(limits())


SUBSCRIBE = 'subscription {capturedLogs(logKey: ["a"]) {stdout}}'


def subscribed(address, **headers):
    """The types of the messages that a subscription answers with at first."""
    url = f"ws://{urlsplit(address).netloc}/graphql"
    with connect(url, subprotocols=["graphql-ws"], additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        first = json.loads(socket.recv(timeout=30))["type"]
        socket.send(json.dumps({"type": "start", "id": "1", "payload": {"query": SUBSCRIBE}}))
        return [first, json.loads(socket.recv(timeout=30))["type"]]


def test_subscriptions_are_for_the_ui_and_programs(webserver):
    own = {"Origin": webserver, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "websocket"}
    assert subscribed(webserver) == subscribed(webserver, **own) == ["connection_ack", "data"]
    for other in ({"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-site"}):
        with pytest.raises(InvalidStatus) as refused:
            subscribed(webserver, **other)
        assert refused.value.response.status_code == 403
        assert refused.value.response.body.startswith(b"error: ")


def test_reports_are_for_their_own_host(store):
    store.write("reports/tiny/index.html", b"<p>a report</p>")
    with serve_pages(store, 0) as address:
        assert ask(address, "GET", "/tiny/index.html")[0] == 200
        linked = {"sec_fetch_site": "same-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
        assert ask(address, "GET", "/tiny/index.html", **linked)[0] == 200
        for other in ({"host": "evil.example"}, {"origin": "http://127.0.0.1:1"}, {"sec_fetch_site": "cross-site"}):
            status, headers, text = ask(address, "GET", "/tiny/index.html", **other)
            assert (status, headers["content-type"]) == (403, "text/plain; charset=utf-8")
            assert text.startswith("error: ") and "report</p>" not in text
