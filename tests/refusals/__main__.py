"""`python -m tests.refusals`: every kind of bad input and the line it is answered with, as a Markdown table."""

import sys
import tempfile
from pathlib import Path

from tests.refusals.bringing import bring
from tests.refusals.rows import rows


def main() -> int:
    print("| bad input | what is said |\n|---|---|")
    for row in rows():
        with tempfile.TemporaryDirectory(prefix="opd-refusals-") as folder:
            found = bring(row, Path(folder))
        line = found.line.replace("|", "\\|")
        print(f"| {row.name} | `{line}` |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
