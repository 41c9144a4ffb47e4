"""`python -m assets.webserver`: Dagster's webserver behind the guard of `origin`, with dagster-webserver's options."""

import sys

GROUPS = ("models", "trajectories", "geometry", "verdicts")
LANDING = "/asset-groups?" + "&".join(
    f"open-nodes%5B{number}%5D=global%40global%3A{group}" for number, group in enumerate(GROUPS)
)  # a --path-prefix leaves Dagster's first page


def main() -> None:
    """Serve until Ctrl-C. Exit code 2 and one line for an OPD_HOSTS that names no host."""
    from dagster_webserver import cli
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.middleware import Middleware
    from starlette.responses import RedirectResponse
    from starlette.routing import Route

    from assets.origin import SameOrigin, allowed_hosts

    def land(_: object) -> RedirectResponse:
        """The graph of assets; Dagster's own first page is a timeline of the last hours, often an empty one."""
        return RedirectResponse(LANDING)

    try:
        guard = Middleware(SameOrigin, allowed=allowed_hosts())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    build, routes = DagsterWebserver.build_middleware, DagsterWebserver.build_routes
    DagsterWebserver.build_middleware = lambda self: [guard, *build(self)]
    DagsterWebserver.build_routes = lambda self: [Route("/", land), *routes(self)]
    cli.main()


if __name__ == "__main__":
    main()
