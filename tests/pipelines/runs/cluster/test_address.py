"""A RAY_ADDRESS at which no Ray of this version answers is told in one line, within the limit."""

import os
import socket
import threading
import time
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest

from pipelines.runs.cluster import address, attach, token

LIMIT = 1.0  # seconds
HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def head(version):
    """The head of a cluster of a version."""
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):
        def CheckAlive(self, request, context):
            return vars(gcs_service_pb2)["CheckAliveReply"](ray_version=version)

    return lambda server: gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(Head(), server)


@contextmanager
def serving(add=None):
    """HOST:PORT of a server that speaks gRPC, and knows no method but those added."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    if add:
        add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def listening(answer=None):
    """HOST:PORT at which connections are taken; they are answered with some bytes, or never."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                taken.sendall(answer)
                taken.close()

        if answer is not None:
            threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)


@contextmanager
def nobody():
    """HOST:PORT at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def refused(monkeypatch):
    """refused(address): the line of a refusal, which came within the limit."""
    for name in (token.MODE, token.TOKEN, token.FILE):
        monkeypatch.delenv(name, raising=False)

    def require(where):
        begun = time.monotonic()
        with pytest.raises(ValueError) as caught:
            address.require_ray(where, LIMIT)
        assert time.monotonic() - begun < LIMIT + 5.0  # the machine may be busy
        line = str(caught.value)
        assert line.startswith(f"RAY_ADDRESS {where}") or line.startswith(f"RAY_ADDRESS {where!r}")
        assert "\n" not in line and "; " in line
        return line

    return require


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (nobody, "cannot be reached (tried for 1 s: ipv4:127.0.0.1:"),
        (listening, "cannot be reached (what listens there has not answered within 1 s)"),
        (lambda: listening(HTTP), "cannot be reached (what listens there is no Ray: "),
        (lambda: listening(b""), "cannot be reached (tried for 1 s: "),
        (serving, "cannot be reached (what listens there is no Ray: "),
        (lambda: serving(head("2.40.0")), "is a Ray 2.40.0, and this environment has Ray "),
    ],
    ids=["nobody", "silence", "a web server", "one that hangs up", "gRPC of another kind", "another version"],
)
def test_what_is_no_ray_of_this_version_is_told(place, words, refused):
    with place() as where:
        line = refused(where)
    assert words in line
    assert line.endswith("unset RAY_ADDRESS for a Ray of this machine's own") or "install that version" in line


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("nobody.invalid:6379", "cannot be reached"),
        ("10.0.0.1", "is no HOST:PORT; write it as 10.0.0.1:6379"),
        ("127.0.0.1:99999", "is no HOST:PORT"),
        (":6379", "is no HOST:PORT"),
        ("local ", "is no HOST:PORT"),
        ("http://127.0.0.1:8265", "is of Ray's dashboard and jobs; give HOST:PORT"),
        ("ray://127.0.0.1:1", "cannot be reached (tried for 1 s)"),
    ],
)
def test_an_address_that_leads_nowhere_is_told(where, words, refused):
    assert words in refused(where)


def test_what_is_refused_is_not_joined_and_the_users_setting_stays(monkeypatch):
    import ray

    monkeypatch.delenv(token.TOKEN, raising=False)
    monkeypatch.setenv(token.MODE, "disabled")
    require = address.require_ray
    monkeypatch.setattr(address, "require_ray", lambda where: require(where, LIMIT))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it was joined"))
    with nobody() as where:
        monkeypatch.setenv("RAY_ADDRESS", where)
        with pytest.raises(ValueError, match=f"^RAY_ADDRESS {where} "), attach.cluster():
            pass
    assert os.environ[token.MODE] == "disabled" and token.TOKEN not in os.environ
