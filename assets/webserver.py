"""`python -m assets.webserver`: Dagster's webserver behind the guard of `origin`, with dagster-webserver's options."""

import sys


def main() -> None:
    from dagster_webserver import app, cli
    from starlette.middleware import Middleware

    from assets.origin import SameOrigin, allowed_hosts

    try:
        allowed = allowed_hosts()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    class Guarded(app.DagsterWebserver):
        def build_middleware(self) -> list[Middleware]:
            return [Middleware(SameOrigin, allowed=allowed), *super().build_middleware()]

    app.DagsterWebserver = Guarded  # the class that the command line below serves
    cli.main()


if __name__ == "__main__":
    main()
