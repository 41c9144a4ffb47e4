"""What is tracked: the Dagster asset graph."""
