"""The watched prefixes: watched/<name>.json of the store, one per training run elsewhere.

prefix the folder or URI prefix under which its checkpoints appear base the weights it began with; null for its step 0
against recipes whose complete, measured runs form its reference band
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
    """Watch a prefix from now on, in place of an earlier one of that name; relative paths become absolute.

    Errors: ValueError for an invalid name, prefix or reference, or a base that cannot be read.
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
    """One watch. Errors: ValueError for an unknown name, or a damaged file."""
    key = f"{ROOT}/{name}.json"
    try:
        facts = json.loads(store.read(key))
        return Watch(name=name, prefix=facts["prefix"], base=facts["base"], against=tuple(facts["against"]))
    except FileNotFoundError:
        remedy = f"`opd watch {name} --trajectory PREFIX --against RECIPE`"
        raise ValueError(f"nothing is watched as {name}; watch it with {remedy}") from None
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{key} does not say what is watched; watch {name} again with `opd watch`") from None


def list_watches(store: Store) -> list[str]:
    """All watches."""
    return sorted(name.removesuffix(".json") for name in store.list(ROOT) if name.endswith(".json"))


def remove_watch(store: Store, name: str) -> None:
    """Stop watching; measured tables stay. Errors: ValueError for an unknown name."""
    read(store, name)
    store.remove(f"{ROOT}/{name}.json")
