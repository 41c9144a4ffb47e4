"""Properties have no deadline, since cores are shared, and see the same examples every time, as under Hypothesis' own
profile for CI; `pytest --hypothesis-profile=searching` draws others.
"""

import os

from hypothesis import settings

os.environ.pop("COLUMNS", None)  # 80 in a worker of xdist: output is piped here, and its sentences stay whole

settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("searching", deadline=None, derandomize=False)
settings.load_profile("same")
