"""Stores of every kind: files, memory, and S3 from a server on this host. One BLAS thread, as `make test` asks for."""

import os
import uuid
from collections.abc import Iterator

import pytest

from pipelines.runs.cluster.attach import THREADS
from pipelines.store.objects import Store
from tests.pipelines import seaweed

os.environ.update(THREADS)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[seaweed.Server]:
    """An S3 server on free loopback ports, with the bucket `opd`: one for every process of tests."""
    with seaweed.running() as server:
        yield server


@pytest.fixture
def s3(s3_server: seaweed.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store on S3, found through the environment as a user's is."""
    import s3fs

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    # fsspec keeps file systems by their arguments, of which the environment is none.
    s3fs.S3FileSystem.clear_instance_cache()
    yield Store(f"s3://{seaweed.BUCKET}/{uuid.uuid4().hex}")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(params=["file", "memory", "s3"])
def any_store(request: pytest.FixtureRequest) -> Store:
    """An empty store of every kind in turn."""
    if request.param == "file":
        return Store(f"file://{request.getfixturevalue('tmp_path')}/a store")
    return request.getfixturevalue("s3") if request.param == "s3" else Store(f"memory://{uuid.uuid4().hex}")
