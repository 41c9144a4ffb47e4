"""Train, import, measure and compare runs, over Ray or serially. Each room uses only the rooms below it.

verdicts compare, judge against references, report trajectories external train a run; import checkpoints trained
elsewhere geometry measure a trajectory, one task per matrix resources what a run needs, and where its processes are
placed cluster Ray, and workers that fail

clock, identity, provenance and set_aside belong to all of them.
"""
