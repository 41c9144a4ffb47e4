"""`python -m tests.adversary`: weights on which linear algebra goes wrong, through the whole engine, against an oracle.

Every number of every table (of `nulls` the shuffled stable rank alone) is compared with float64 LAPACK on rescaled
inputs: it lies within its own error bar, or is null for a reason that is true. Regime and number name a case; a failure
prints the command that repeats it.
"""

import argparse
import sys
import time

import torch

from tests.adversary.checks import check
from tests.adversary.families import REGIMES, case
from tests.adversary.regime import lowered

CASES = 300  # of each regime


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.adversary", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--regime", choices=REGIMES, action="append", help="only this one; may be repeated")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default: 0)")
    parser.add_argument("--cases", type=int, default=CASES, metavar="N", help=f"of each regime (default: {CASES})")
    args = parser.parse_args()
    torch.set_num_threads(1)
    failures = 0
    for regime in args.regime or REGIMES:
        begun, count, violations = time.process_time(), 0, 0
        with lowered(regime):
            for number in range(args.first, args.first + args.cases):
                report = check(case(regime, number))
                count += report.count
                violations += len(report.violations)
                if report.violations:
                    failures += 1
                    print(f"{len(report.violations)} violations, first: {report.violations[0]}", flush=True)
                    print(f"  python -m tests.adversary --regime {regime} --first {number} --cases 1", flush=True)
        seconds = time.process_time() - begun
        print(f"{regime}: {args.cases} cases, {count} checks, {violations} violations, {seconds:.0f} CPU s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
