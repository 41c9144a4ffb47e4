"""The Dagster asset graph over runs, tables and verdicts, with its checks, jobs, schedules and sensors.

Read in this order: `partitions` (recipe x seed), `models`, `trajectories`, `geometry`, `verdicts`, `automation` (what
runs unattended: `conditions`, `watch`, `notify`), `definitions` (everything as one object), `launch` (a whole study
from the command line), `instance` (DAGSTER_HOME). Loading the definitions imports neither torch nor ray, transformers
or vllm.
"""
