"""Runs compared, judged, held against others, and told: from the lake, into it and into the report."""
