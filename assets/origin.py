"""The guard of our web servers: it passes requests of their own pages and of programs, and refuses those of other
pages.

A browser lets every page send requests to every address, loopback included, with the passwords stored for that address.
Dagster executes GraphQL mutations from a GET, and checks neither Host nor Origin. These requests are refused with
status 403 and one line:

  Host            is no name of this server. An attacker's name can resolve to this address (DNS rebinding).
  Origin          is another page than the one at Host, WebSockets included.
  Sec-Fetch-Site  is `cross-site` or `same-site` (another port), unless a person follows a link to a page.
  Content-Type    of a POST is one that a form can send, which a browser sends to other origins without a preflight.
  mutation        in the query of an address, whatever the method: GET requests must change nothing.

Names of this server are localhost, 127.0.0.1, [::1], the address at which the request arrived, and the names in
OPD_HOSTS, separated by commas. Programs send neither Origin nor Sec-Fetch-Site, and pass with the right Host.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

HOSTS = "OPD_HOSTS"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
BODIES = ("", "application/json", "application/graphql")  # media types of a POST that Dagster reads; none: no body
HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::\d{1,5})?", re.ASCII)

Values = Callable[[str], list[str]]  # all values of a header, which is named in lower case


def allowed_hosts(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """The names in OPD_HOSTS without ports. Errors: ValueError in one line for an invalid host."""
    words = [word for word in re.split(r"[,\s]+", environment.get(HOSTS, "")) if word]
    names = {word: host_name(word) or host_name(f"[{word}]") for word in words}
    for word, name in names.items():
        if name is None:
            raise ValueError(f"{HOSTS} names {word!r}, which is no host; give names, as in {HOSTS}=a.example,b.example")
    return frozenset(name for name in names.values() if name)


def host_name(authority: str) -> str | None:
    """The host of HOST or HOST:PORT in lower case, without brackets; None for anything else."""
    match = HOST.fullmatch(authority.lower())
    return match and (match[1] or match[2])


def refuse(
    method: str, query: str, values: Values, address: str | None = None, allowed: frozenset[str] = frozenset()
) -> str | None:
    """The reason to refuse a request, in one line; None to pass it.

    query: of the address, without `?`. address: at which the request arrived. allowed: from `allowed_hosts`.
    """
    host = ", ".join(values("host"))
    name = host_name(host)
    if name is None or name not in LOOPBACK | allowed | {address}:
        return f"the host {host!r} is not served here; if it is a name of this server, set {HOSTS}={name or 'NAME'}"
    for origin in values("origin"):
        if not _same(origin, host, allowed):
            page = host_name(origin.rpartition("://")[2])
            if origin == "null" or page in LOOPBACK:  # which no setting lets through
                return f"a page of {origin!r} may not use this server: open http://{host} instead"
            return (
                f"a page of {origin!r} may not use this server; if it is a page of this server, "
                f"set {HOSTS}={page or 'NAME'}"
            )
    if not set(values("sec-fetch-site")) <= {"same-origin", "none"} and not _follows_link(method, values):
        return f"another page may not use this server: open http://{host}, or let a program send the request"
    if _mutates(query):
        return "a mutation is taken from the body of a POST only, as application/json"
    media = [value.partition(";")[0].strip().lower() for value in values("content-type")] or [""]
    if method not in ("GET", "HEAD") and not set(media) <= set(BODIES):
        return f"a body of type {media[0]!r} is not read; send it as application/json"
    return None


def _same(origin: str, host: str, allowed: frozenset[str]) -> bool:
    """Whether an Origin is this server: the same host and port, or a name of OPD_HOSTS before a proxy."""
    scheme, separator, authority = origin.partition("://")
    if not separator or scheme not in ("http", "https"):
        return False  # `null` is what sandboxed frames, files and redirected requests send
    return authority.lower() == host.lower() or host_name(authority) in allowed - LOOPBACK


def _follows_link(method: str, values: Values) -> bool:
    """Whether a person follows a link to a page of this server, which shows it and runs nothing."""
    navigates = values("sec-fetch-mode") == ["navigate"] and values("sec-fetch-dest") == ["document"]
    return method == "GET" and navigates


def _mutates(query: str) -> bool:
    """Whether the query of an address holds a GraphQL mutation, by the parser that Dagster uses."""
    texts = parse_qs(query, keep_blank_values=True).get("query", [])
    if not texts:
        return False
    from graphql import GraphQLError, OperationDefinitionNode, OperationType, parse

    for text in texts:
        try:
            definitions = parse(text, no_location=True).definitions
        except GraphQLError:  # what is nested too deeply, too; Dagster refuses it by the same parser
            continue
        operations = [node.operation for node in definitions if isinstance(node, OperationDefinitionNode)]
        if OperationType.MUTATION in operations:
            return True
    return False


class SameOrigin:
    """An ASGI application behind the guard; other pages cannot frame its responses."""

    def __init__(self, app: Any, allowed: frozenset[str] = frozenset()) -> None:
        self.app, self.allowed = app, allowed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        def values(name: str) -> list[str]:
            return [value.decode("latin-1") for key, value in scope["headers"] if key.decode("latin-1") == name]

        method, query = scope.get("method", "GET"), scope["query_string"].decode("latin-1")
        reason = refuse(method, query, values, (scope.get("server") or (None,))[0], self.allowed)
        if reason is None:
            await self.app(scope, receive, _forbid_framing(send))
            return
        kind = "http.response"
        if scope["type"] == "websocket":
            await receive()  # the request to connect, which is answered like one for a page
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": 1008, "reason": reason[:120]})
                return
            kind = "websocket.http.response"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
        await send({"type": f"{kind}.start", "status": 403, "headers": headers})
        await send({"type": f"{kind}.body", "body": f"error: {reason}\n".encode()})


def _forbid_framing(send: Any) -> Any:
    """`send` with the header that forbids other pages to frame this one."""

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", []), (b"x-frame-options", b"SAMEORIGIN")]}
        await send(message)

    return sending
