"""A teacher in its own actors: they score micro-batches while the trainer works on others, with the same bits.

Each actor reads the teacher's weights from the store, so the trainer never holds them. Actors return the positions
under the mask; the others are 0.
"""

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from opd_ops.batch import Batch
from opd_ops.recipe import Start, Task
from opd_ops.teacher.scores import Scores, Support
from pipelines.runs.cluster.worker_failures import RETRIES
from pipelines.runs.resources.placement import Spot
from pipelines.runs.trajectories.actor_pool import ActorPool, Call
from pipelines.store.objects import Store

FIELDS = ("sampled", "entropy", "full", "ids", "top")  # of Scores
AHEAD = 4  # micro-batches in work per actor: full-vocabulary scores of a whole step need not fit into memory


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Which model teaches and how it computes; as `Precision` and `Resources` have it.

    task: of the student. vocabulary: tokens that student and teacher share; None is all of the teacher's.
    """

    store: Store
    start: Start
    seed: int
    task: Task
    vocabulary: int | None = None
    compute: Literal["fp32", "autocast", "bf16"] = "fp32"
    threads: int = 1


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What an actor returns when it has loaded the teacher."""

    digest: str
    vocabulary: int
    pid: int


@dataclass(frozen=True)
class Packed:
    """Scores at the positions under the mask, in row-major order. arrays: [N] or [N, k] by field of `Scores`."""

    arrays: dict[str, np.ndarray]


def pack(scores: Scores, mask: Tensor) -> Packed:
    """Scores of a micro-batch as numpy, where its mask [B, R] is not 0."""
    selected = mask != 0
    tensors = {name: getattr(scores, name) for name in FIELDS}
    return Packed({name: x[selected].cpu().numpy() for name, x in tensors.items() if x is not None})


def unpack(packed: Packed, mask: Tensor) -> Scores:
    """The scores [B, R, ...] on the mask's device, 0 where the mask is."""
    selected = (mask != 0).cpu()
    tensors = {}
    for name, array in packed.arrays.items():
        values = torch.from_numpy(array.copy())  # Ray's arrays are read-only
        tensor = torch.zeros(*selected.shape, *values.shape[1:], dtype=values.dtype)
        tensor[selected] = values
        tensors[name] = tensor.to(mask.device)
    return Scores(**tensors)


def question_key(part: Batch, support: Support, candidates: Tensor | None = None) -> str:
    """SHA-256 of all that a teacher's scores of a micro-batch depend on: no rewards, groups or behaviour."""
    fields = (support.kind, support.k, float(support.temperature), part.width)
    digest = hashlib.sha256(repr(fields).encode())
    for tensor in (part.ids, part.attention, part.positions, part.mask != 0, candidates):
        if tensor is not None:
            array = tensor.cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


class TeacherActor:
    """The Ray actor of a teacher."""

    def begin(self, spec: TeacherSpec, device: str) -> Standing:
        """Load the teacher."""
        from opd_ops.models import assemble
        from opd_ops.teacher.local import LocalTeacher
        from opd_ops.training.student import DTYPES, arithmetic
        from pipelines.runs.trajectories import starts

        torch.set_num_threads(spec.threads)
        start = starts.load(spec.store, spec.start, spec.seed, spec.task)
        model: Any = assemble(start.config, start.weights, DTYPES[spec.compute])
        self.model, self.device = model.to(device), device
        digest = start.digest if spec.compute == "fp32" else f"{start.digest}-{spec.compute}"
        self.teacher = LocalTeacher(self.model, digest, spec.vocabulary, lambda: arithmetic(spec.compute, device))
        return Standing(digest=digest, vocabulary=self.teacher.vocabulary, pid=os.getpid())

    def pid(self) -> int:
        return os.getpid()

    def score(self, part: Batch, support: Support, candidates: Tensor | None) -> Packed:
        self.model.to(self.device)
        device = torch.device(self.device)
        candidates = None if candidates is None else candidates.to(device)
        return pack(self.teacher.score(part.to(device), support, candidates), part.mask)

    def sleep(self) -> None:
        """Give the device's memory back until the next score."""
        self.model.to("cpu")
        if self.device != "cpu":
            torch.cuda.empty_cache()


class RemoteTeacher:
    """A `Scorer` that is one actor per spot. An actor that dies is restarted, and its micro-batches are scored again.

    Errors: ValueError of loading the teacher; WorkerFailed, in one line, when an actor dies again and again.
    """

    def __init__(self, spec: TeacherSpec, spots: Sequence[Spot], *, retries: int = RETRIES) -> None:
        self.spec, self.device = spec, "cuda" if spots[0].gpus else "cpu"
        self.digest, self.vocabulary = "", 0
        self.pids: list[int] = []  # of every actor that has started
        self._ahead: dict[str, list[Call]] = {}  # in work, by what was asked
        self._later: deque[tuple[str, Batch, Support]] = deque()
        self.pool = ActorPool("teacher actor", TeacherActor, spots, self._begin, self._begun, retries=retries)
        self.pool.wait()

    def prefetch(self, parts: Sequence[Batch], support: Support) -> None:
        """Start scoring these micro-batches, in order; support `candidates` has no tokens before the call."""
        for calls in self._ahead.values():
            for call in calls:
                self.pool.discard(call)
        self._ahead = {}
        self._later = deque(
            (question_key(part, support), part, support) for part in parts if support.kind != "candidates"
        )
        self._advance()

    def score(self, part: Batch, support: Support, candidates: Tensor | None = None) -> Scores:
        """Scores of a micro-batch, on its device."""
        call = self._pop_ahead(question_key(part, support, candidates))
        if call is None:
            call = self._ask(part, support, candidates)
        self._advance()
        return unpack(self.pool.collect(call), part.mask)

    def sleep(self) -> None:
        """Give the device's memory back until the next score."""
        self.pool.call_each("sleep")

    def close(self) -> None:
        self.pool.close()

    def _pop_ahead(self, name: str) -> Call | None:
        """The prefetched call for this micro-batch, if any."""
        self._later = deque(waiting for waiting in self._later if waiting[0] != name)
        calls = self._ahead.get(name)
        return calls.pop(0) if calls else None

    def _advance(self) -> None:
        limit = AHEAD * len(self.pool.members)
        while self._later and sum(map(len, self._ahead.values())) < limit:
            name, part, support = self._later.popleft()
            self._ahead.setdefault(name, []).append(self._ask(part, support, None))

    def _ask(self, part: Batch, support: Support, candidates: Tensor | None) -> Call:
        question = replace(part, rewards=None, groups=None, behaviour=None).to(torch.device("cpu"))
        return self.pool.submit("score", question, support, None if candidates is None else candidates.cpu())

    def _begin(self, handle: Any) -> Any:
        return handle.begin.remote(self.spec, self.device)

    def _begun(self, standing: Standing) -> None:
        if self.pids and standing.digest != self.digest:
            raise ValueError(
                f"the teacher is not the same in every actor: {self.digest[:12]} and {standing.digest[:12]}"
            )
        self.digest, self.vocabulary = standing.digest, standing.vocabulary
        self.pids.append(standing.pid)
