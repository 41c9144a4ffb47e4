"""What is done with runs, over Ray or one after the other. Read downwards; each room uses those below it alone.

verdicts                 compare, judge, hold against others, report
trajectories  external   train a run; take up checkpoints trained elsewhere
geometry                 measure a trajectory, one task a matrix
resources                what a run needs, and where its processes stand
cluster                  Ray, and what becomes of work whose process dies

proof (files are what was committed), provenance and clock belong to all of them.
"""
