"""Resources of the assets: the object store, and the Ray session that does the work."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipelines.runs.cluster.attach import cluster, describe_cluster
from pipelines.store.objects import Store, default_uri


class StoreResource(dg.ConfigurableResource):
    """The object store at OPD_STORE, or .opd/store under the working directory.

    It has no field, so that a run's config cannot name a place to write: anyone who reaches the webserver can send one.
    """

    def open(self) -> Store:
        return Store(default_uri())


class ClusterResource(dg.ConfigurableResource):
    """Ray at RAY_ADDRESS, or a private local cluster for the block. `serial` works in this process, with equal rows."""

    serial: bool = False

    @contextmanager
    def session(self, needed: bool = True) -> Iterator[str]:
        """A Ray session for the block and its resources; no session if nothing is left to train or measure."""
        if not needed:
            yield "not used: found complete in the store"
        elif self.serial:
            yield "not used: serial, in the step's own process"
        else:
            with cluster():
                yield describe_cluster()
