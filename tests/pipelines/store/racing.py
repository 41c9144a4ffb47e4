"""Several calls at once."""

import threading
from concurrent.futures import ThreadPoolExecutor


def race(*attempts):
    """Run the callables at once, each in a thread; returns what each returned or raised."""
    barrier = threading.Barrier(len(attempts))

    def run(attempt):
        barrier.wait()
        try:
            return attempt()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(attempts)) as threads:
        return list(threads.map(run, attempts))
