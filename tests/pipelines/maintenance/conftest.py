"""Furnished stores."""

import uuid

import pytest

from pipelines.store.objects import Store
from tests.pipelines.maintenance.planted import furnish


@pytest.fixture
def memory():
    return Store(f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def files(tmp_path):
    return Store(f"file://{tmp_path}/a store")


@pytest.fixture(params=["files", "memory"])
def near(request):
    """An empty store of either kind that needs no server."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def furnished(memory):
    """In memory: tiny.opd seed 0, complete, tiny.rlvr seed 2, being trained, and what lies beside runs."""
    furnish(memory)
    return memory
