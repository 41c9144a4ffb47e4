"""Properties have no deadline: the cores that tests run on are shared, and an example may wait for one."""

from hypothesis import settings

settings.register_profile("shared", deadline=None)
settings.load_profile("shared")
