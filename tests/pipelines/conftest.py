"""Stores of every kind: files, memory, and S3 from a server on this host. One BLAS thread, as `make test` asks for."""

import os
import uuid
from collections.abc import Iterator

import pytest

from pipelines.runs.cluster import THREADS
from pipelines.store.objects import Store

os.environ.update(THREADS)


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on a free loopback port, with the bucket `opd`."""
    moto = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="opd")
    yield endpoint
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store on S3, found through the environment as a user's is."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # fsspec keeps file systems by their arguments, of which the environment is none.
    s3fs.S3FileSystem.clear_instance_cache()
    yield Store(f"s3://opd/{uuid.uuid4().hex}")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["file", "memory", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store of every kind in turn."""
    if request.param == "file":
        return Store(f"file://{request.getfixturevalue('tmp_path')}/a store")
    return request.getfixturevalue("s3") if request.param == "s3" else Store(f"memory://{uuid.uuid4().hex}")
