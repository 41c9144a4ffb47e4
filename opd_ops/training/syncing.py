"""Pushes weights into the rollout engine, and proves that they arrived."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from opd_ops.rollout.parity import compare
from opd_ops.rollout.rollout import Engine
from opd_ops.tasks.task import Tokens

PROBES = 32  # sequences of the probe
Logprobs = Callable[[list[Tokens], list[Tokens]], list[list[float]]]


class Syncing:
    """Pushes weights when the engine serves others, and probes engines that are not the trainer's own model.

    probe: the first prompts and responses of the run, scored by engine and trainer after every push.
    """

    def __init__(self, engine: Engine, *, shared: bool, logprobs: Logprobs) -> None:
        self.engine, self.shared, self.logprobs = engine, shared, logprobs
        self.probe: list[list[Tokens]] | None = None
        self.changed = False  # the weights changed under a version that the engine may hold
        self.rows: list[dict[str, Any]] = []

    def due(self, version: int) -> bool:
        """Whether the engine serves another version."""
        return self.engine.version != version or self.changed

    def push(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Make the engine serve `weights` under the label `version`, unless it does already."""
        if not self.due(version):
            return
        synced = self.engine.sync(weights, version)
        self.changed = False
        if self.shared:
            return  # its weights are the trainer's own: nothing can differ
        facts = {"tensors": synced.tensors, "bytes": synced.bytes, "digest": synced.digest}
        row = {"step": version, "engine": self.engine.name, "engine_release": self.engine.release, **facts}
        self.rows.append(row | self._parity())

    def keep_probe(self, prompts: list[Tokens], responses: list[Tokens]) -> None:
        """Keep the first responses as the probe, and complete the row of the push before them."""
        if self.shared or self.probe is not None:
            return
        self.probe = [prompts[:PROBES], responses[:PROBES]]
        if self.rows:
            self.rows[-1] |= self._parity()

    def _parity(self) -> dict[str, Any]:
        if self.probe is None:
            return {}
        prompts, responses = self.probe
        return vars(compare(self.engine.score(prompts, responses), self.logprobs(prompts, responses)))

    def take_rows(self) -> list[dict[str, Any]]:
        """The rows since the last call."""
        rows, self.rows = self.rows, []
        return rows
