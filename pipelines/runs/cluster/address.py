"""RAY_ADDRESS: check within seconds that a Ray of this version answers there and accepts this process's token."""

import os
import time
from typing import Any

from pipelines.runs.cluster import token

LOCAL = "local"  # a private Ray on this machine
CLIENT = "ray://"  # what the address of a Ray Client's server begins with
LOOPBACK = "127.0.0.1"
LIMIT = 10.0  # seconds for an answer; a cluster that is starting has them too
_UNSET = "unset RAY_ADDRESS for a Ray of this machine's own"
REMEDY = f"start that cluster, name another, or {_UNSET}"
PAUSE = 0.5  # seconds between two requests


def read_address() -> str:
    """RAY_ADDRESS, or `local` where it is not set."""
    return os.environ.get("RAY_ADDRESS") or LOCAL


def bind_to_loopback(address: str) -> None:
    """Keep a Ray of this machine on loopback. Call it before Ray is imported, which reads the setting."""
    if address == LOCAL or address.startswith(f"{LOOPBACK}:"):
        # This node's address is then the loopback address, and its servers listen only there.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def require_ray(address: str, limit: float = LIMIT) -> None:
    """Errors: ValueError in one line that names RAY_ADDRESS where no such Ray answers within `limit` seconds."""
    bind_to_loopback(address)
    from ray import __version__

    if address.startswith(("http://", "https://")):
        raise ValueError(
            f"RAY_ADDRESS {address} is of Ray's dashboard and jobs; give HOST:PORT of the cluster's head (ray status "
            "there tells it; 6379 by default)"
        )
    token.read_token(os.environ)
    if address.startswith(CLIENT):
        _require_client_server(address, limit)
        return
    version = _read_version(address, _resolve(address), limit)
    if version != __version__:
        raise ValueError(
            f"RAY_ADDRESS {address} is a Ray {version}, and this environment has Ray {__version__}; install that "
            "version here, or name a cluster of this one"
        )


def _resolve(address: str) -> str:
    """HOST:PORT of an address; for `auto`, of the Ray that runs on this machine."""
    from ray._private.services import canonicalize_bootstrap_address

    host, _, port = address.rpartition(":")
    plain = host.strip("[]") and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16
    if address != "auto" and not plain:
        raise ValueError(f"RAY_ADDRESS {address!r} is no HOST:PORT; write it as 10.0.0.1:6379, or {_UNSET}")
    if host == LOOPBACK:
        return address
    try:
        resolved, reason = canonicalize_bootstrap_address(address), "there is none on this machine"
    except (ConnectionError, ValueError, OSError) as error:
        resolved, reason = None, " ".join(str(error).split())
    if resolved is None:
        raise ValueError(f"RAY_ADDRESS {address} names no Ray ({reason}); {REMEDY}")
    return resolved


def _require_client_server(address: str, limit: float) -> None:
    """Check that the server of Ray Client listens; Ray compares its version when it connects."""
    import grpc

    channel = grpc.insecure_channel(address.removeprefix(CLIENT))
    try:
        grpc.channel_ready_future(channel).result(limit)
    except grpc.FutureTimeoutError:
        raise ValueError(f"RAY_ADDRESS {address} cannot be reached (tried for {limit:g} s); {REMEDY}") from None
    finally:
        channel.close()


def _read_version(address: str, resolved: str, limit: float) -> str:
    """The version of the Ray at `resolved`; the request is repeated while nothing answers yet."""
    import grpc
    from ray._private.gcs_utils import create_gcs_channel
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    end = time.monotonic() + limit
    channel = create_gcs_channel(resolved)
    head: Any = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
    request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
    try:
        while True:
            try:
                return head.CheckAlive(request, timeout=max(end - time.monotonic(), PAUSE)).ray_version
            except grpc.RpcError as error:
                code, details = error.code(), " ".join(error.details().split())  # type: ignore[attr-defined]
            if "Failed parsing HTTP/2" in details:  # it speaks no gRPC
                code = grpc.StatusCode.UNIMPLEMENTED
            if code != grpc.StatusCode.UNAVAILABLE or time.monotonic() + PAUSE > end:
                break
            time.sleep(PAUSE)
    finally:
        channel.close()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        raise ValueError(f"RAY_ADDRESS {address} {_explain_token_refusal()}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        why = f"what listens there has not answered within {limit:g} s"
    elif code == grpc.StatusCode.UNAVAILABLE:
        why = f"tried for {limit:g} s: {_last_error(details)}"
    else:
        why = f"what listens there is no Ray: {_last_error(details)}"
    raise ValueError(f"RAY_ADDRESS {address} cannot be reached ({why}); {REMEDY}")


def _last_error(details: str) -> str:
    """The error of gRPC's last attempt, without the words around it."""
    return details.rpartition("last error: ")[2].removeprefix("UNKNOWN: ").removeprefix("UNAVAILABLE: ")


def _explain_token_refusal() -> str:
    """Why a cluster that asks for a token refused this process."""
    mode, value, file = token.MODE, token.TOKEN, token.FILE
    if not token.requires_token(os.environ):
        return f"asks for a token; set {mode}=token, and {value} to the cluster's token or {file} to its file"
    source = next((name for name in (value, file) if os.environ.get(name)), f"~/{token.DEFAULT}")
    return f"refuses the token of {source}; set {value} to the token that the cluster was started with"
