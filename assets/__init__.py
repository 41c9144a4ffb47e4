"""What is tracked: the Dagster asset graph over runs, tables and verdicts, its checks, jobs, schedules and sensors.

In reading order: `partitions` (recipe x seed), `models`, `trajectories`, `geometry`, `verdicts`, `automation` (what
runs by itself: `conditions`, `watch`, `notify`), `definitions` (all of it as one object), `launch` (a whole study from
the command line), `instance` (DAGSTER_HOME).
Loading this package's definitions imports neither torch nor ray, transformers or vllm.
"""
