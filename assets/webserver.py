"""`python -m assets.webserver`: Dagster's webserver behind the guard of `origin`, with dagster-webserver's options."""

import sys
from typing import Any

GROUPS = ("models", "trajectories", "geometry", "verdicts")
LANDING = "/asset-groups?" + "&".join(
    f"open-nodes%5B{number}%5D=global%40global%3A{group}" for number, group in enumerate(GROUPS)
)  # a --path-prefix leaves Dagster's first page


def load_partitions() -> None:
    """Let a backfill that names the partitions of every asset name dynamic ones.

    Dagster 1.13 reads them outside of a loading context there, and fails: "The instance is not available".
    """
    from dagster._core.definitions.partitions.context import partition_loading_context
    from dagster._core.execution.asset_backfill import AssetBackfillData

    read = AssetBackfillData.from_partitions_by_assets

    def read_in_context(*, dynamic_partitions_store: Any, **more: Any) -> AssetBackfillData:
        with partition_loading_context(dynamic_partitions_store=dynamic_partitions_store):
            return read(dynamic_partitions_store=dynamic_partitions_store, **more)

    AssetBackfillData.from_partitions_by_assets = staticmethod(read_in_context)  # type: ignore[assignment]


def main() -> None:
    """Serve until Ctrl-C. Exit code 2 and one line for an invalid host in OPD_HOSTS."""
    from dagster_webserver import cli
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.middleware import Middleware
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    from assets.origin import SameOrigin, allowed_hosts

    def land(_: object) -> RedirectResponse:
        """Redirect to the graph of assets; Dagster's own first page is a timeline, often empty."""
        return RedirectResponse(LANDING)

    try:
        guard = Middleware(SameOrigin, allowed=allowed_hosts())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    load_partitions()
    build, routes = DagsterWebserver.build_middleware, DagsterWebserver.build_routes
    DagsterWebserver.build_middleware = lambda self: [guard, *build(self)]
    DagsterWebserver.build_routes = lambda self: [Route("/", land), *routes(self)]
    cli.main()


if __name__ == "__main__":
    main()
