"""Which prefixes are watched: watched/<name>.json of the store, one a training run elsewhere.

prefix    the folder or URI prefix under which its checkpoints appear
base      the weights it began with; its step 0 where null
against   recipes whose complete, measured runs are the band it is held against
"""

import json
from dataclasses import asdict, dataclass

from pipelines.store.objects import Store, normalise

ROOT = "watched"


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A training run elsewhere, to be measured as external.<name>."""

    name: str
    prefix: str
    base: str | None = None
    against: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{ROOT}/{self.name}.json"


def add_watch(store: Store, name: str, prefix: str, against: tuple[str, ...], base: str | None = None) -> Watch:
    """Watch a prefix from now on, in place of what was watched under the name; relative paths are kept whole.

    Errors: ValueError for a name that is no import's, no prefix, no reference, or a base that cannot be read.
    """
    from pipelines.runs.external.imports import require_name
    from pipelines.store.checkpoints import open_checkpoint

    require_name(name)
    if not prefix.strip():
        raise ValueError(f"no prefix to watch for {name}; name the folder or URI prefix its checkpoints appear under")
    if not against:
        raise ValueError(f"nothing to hold {name} against; name recipes whose complete runs are the reference")
    start = None if base is None else open_checkpoint("base", base).ref
    watch = Watch(name=name, prefix=normalise(prefix), base=start, against=against)
    facts = {field: value for field, value in asdict(watch).items() if field != "name"}
    store.write(watch.key, (json.dumps(facts, indent=1) + "\n").encode())
    return watch


def read(store: Store, name: str) -> Watch:
    """Errors: ValueError for a name that is not watched, or a file that says something else."""
    key = f"{ROOT}/{name}.json"
    try:
        facts = json.loads(store.read(key))
        return Watch(name=name, prefix=facts["prefix"], base=facts["base"], against=tuple(facts["against"]))
    except FileNotFoundError:
        raise ValueError(f"nothing is watched as {name}; watch it with `opd watch {name} --trajectory`") from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{key} does not say what is watched; watch {name} again with `opd watch`") from None


def list_watches(store: Store) -> list[str]:
    """All that is watched."""
    return sorted(name.removesuffix(".json") for name in store.list(ROOT) if name.endswith(".json"))


def remove_watch(store: Store, name: str) -> None:
    """Watch it no more; what was measured stays. Errors: ValueError for a name that is not watched."""
    read(store, name)
    store.remove(f"{ROOT}/{name}.json")
