"""`python -m assets.webserver`: Dagster's webserver behind the guard of `origin`, with dagster-webserver's options."""

import sys


def main() -> None:
    """Serve until Ctrl-C. Exit code 2 and one line for an OPD_HOSTS that names no host."""
    from dagster_webserver import cli
    from dagster_webserver.webserver import DagsterWebserver
    from starlette.middleware import Middleware

    from assets.origin import SameOrigin, allowed_hosts

    try:
        guard = Middleware(SameOrigin, allowed=allowed_hosts())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    build = DagsterWebserver.build_middleware
    DagsterWebserver.build_middleware = lambda self: [guard, *build(self)]
    cli.main()


if __name__ == "__main__":
    main()
