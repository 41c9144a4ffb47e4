"""Resources: where objects are kept, and the Ray session that work is spread over."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipelines.runs.cluster import cluster
from pipelines.store.objects import Store, default_uri, normalise


class StoreResource(dg.ConfigurableResource):
    """The object store. An empty uri means OPD_STORE, or .opd/store under the working directory."""

    uri: str = ""

    def open(self) -> Store:
        return Store(normalise(self.uri) if self.uri else default_uri())


class ClusterResource(dg.ConfigurableResource):
    """Ray at RAY_ADDRESS, or a private local cluster for the block. `serial` works in this process, with equal rows."""

    serial: bool = False

    @contextmanager
    def session(self, needed: bool = True) -> Iterator[None]:
        """Ray for the block; none where nothing is left to train or measure."""
        if self.serial or not needed:
            yield
            return
        with cluster():
            yield
