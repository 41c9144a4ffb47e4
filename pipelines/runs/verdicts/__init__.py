"""Compare runs, judge them against references and report: read from the lake, write to the lake and the report."""
