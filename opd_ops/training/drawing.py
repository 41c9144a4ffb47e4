"""The responses of a step: drawn from today's student, an older one, the teacher, or read from a stored run.

A student `lag` steps old needs no old weights: the responses of step t + lag are drawn with the weights after step t -
1, and `lag` batches of tokens wait. A resume state keeps them.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from opd_ops.batch import Batch
from opd_ops.objectives.loss import Phase
from opd_ops.recipe import Recipe, Replay, Student, Teacher
from opd_ops.rollout.rollout import Engine, Request, Sampling
from opd_ops.tasks.fit import require_fit
from opd_ops.tasks.task import Problem, TaskLike, Tokens, extra_stops
from opd_ops.training.batches import PROMPTS, collate

Rewards = Callable[[Sequence[tuple[Problem, Tokens]]], list[float]]


@dataclass(frozen=True, kw_only=True)
class Response:
    """One response that is trained on.

    logprob: at the sampling temperature. version: optimizer steps of the weights that drew it.
    """

    step: int
    prompt_id: int
    sample_id: int
    prompt: Tokens
    privileged: Tokens | None
    answer: str
    tokens: Tokens
    logprob: list[float]
    truncated: bool
    version: int
    reward: float


class Drawing:
    """Draws the responses of every step. `stored` reads another run's, for a replay.

    window: positions of the model. privileged: the teacher reads each problem's privileged prompt.
    """

    def __init__(
        self,
        recipe: Recipe,
        seed: int,
        task: TaskLike,
        rewards: Rewards | None,
        phase: Phase,
        window: int,
        stored: Callable[[int], list[dict[str, Any]]] | None = None,
    ) -> None:
        self.recipe, self.seed, self.task, self.stored = recipe, seed, task, stored
        self.rewards = rewards or (lambda answered: [task.verify(problem, tokens) for problem, tokens in answered])
        self.phase, self.window = phase, window
        self.privileged = recipe.objective.reads_privileged
        spec = recipe.rollout
        self.sampling = Sampling(
            max_new_tokens=spec.max_new_tokens,
            temperature=spec.temperature,
            eos=task.eos,
            stops=extra_stops(task),
            pad=task.pad,
            batch=spec.batch,
        )
        self.pending: deque[list[Response]] = deque()
        self.exceeded: deque[int] = deque()  # verifications of each pending batch that exceeded their limit
        if isinstance(spec.source, Replay) and stored is None:
            raise ValueError(f"{recipe.name} replays {spec.source.recipe}, whose rollouts were not given")

    def responses(self, step: int, engine: Engine) -> list[Response]:
        """The responses of `step`, the same until `finish_step`. engine: on the weights before it, or the teacher's."""
        source = self.recipe.rollout.source
        if isinstance(source, Replay):
            assert self.stored is not None
            names = {f.name for f in fields(Response)}
            return [Response(**{k: v for k, v in row.items() if k in names}) for row in self.stored(step)]
        ahead = source.lag if isinstance(source, Student) else 0
        last = min(step + ahead, self.recipe.horizon.steps)
        while len(self.pending) < last - step + 1:
            responses, exceeded = self._draw(step + len(self.pending), engine)
            self.pending.append(responses)
            self.exceeded.append(exceeded)
        return self.pending[0]

    def overtimes(self) -> int | None:
        """Responses of the current step whose verification exceeded its limit; None of a replay."""
        return self.exceeded[0] if self.exceeded else None

    def finish_step(self) -> None:
        """Drop the responses of the step that was just trained."""
        if self.pending:
            self.pending.popleft()
            self.exceeded.popleft()

    def batches(self, responses: list[Response]) -> tuple[Batch, Batch]:
        """The student's batch, and the same responses behind the prompts that the teacher reads."""
        tokens = [r.tokens for r in responses]
        kept = [not (r.truncated and self.recipe.rollout.mask_truncated) for r in responses]
        batch = collate(
            [r.prompt for r in responses],
            tokens,
            self.task.pad,
            kept=kept,
            behaviour=[r.logprob for r in responses],
            rewards=[r.reward for r in responses],
            groups=[r.prompt_id for r in responses],
        )
        if not self.privileged:
            return batch, batch
        return batch, collate([r.privileged or r.prompt for r in responses], tokens, self.task.pad, kept=kept)

    def state(self) -> list[list[dict[str, Any]]]:
        """What waits, as JSON types."""
        return [[asdict(response) for response in batch] for batch in self.pending]

    def restore(self, state: list[list[dict[str, Any]]], exceeded: Sequence[int] | None = None) -> None:
        """exceeded: of each batch; none where it is None."""
        self.pending = deque([Response(**row) for row in batch] for batch in state)
        self.exceeded = deque(exceeded or [0] * len(self.pending))

    def require_fit(self, problems: Sequence[Problem]) -> None:
        """Errors: ValueError for no problems, or one that leaves no room for a response."""
        spec = self.recipe.rollout
        require_fit(self.task, problems, self.window, spec.max_new_tokens, privileged=self.privileged)

    def _draw(self, step: int, engine: Engine) -> tuple[list[Response], int]:
        """The responses of a step, and how many verifications exceeded their limit."""
        spec = self.recipe.rollout
        rng = np.random.default_rng((self.seed, PROMPTS, step))
        problems = self.task.problems("train", spec.prompts, rng)
        self.require_fit(problems)
        asked = [(p, s) for p in range(len(problems)) for s in range(spec.samples)]
        privileged = self.privileged and isinstance(spec.source, Teacher)
        requests = [
            Request(
                prompt=(problems[p].privileged if privileged else None) or problems[p].prompt,
                address=(self.seed, step, p, s),
            )
            for p, s in asked
        ]
        with self.phase("sample"):
            drawn = engine.generate(requests, self.sampling, version=engine.version)
        with self.phase("verify"):
            answered = [(problems[p], x.tokens, x.truncated) for (p, _), x in zip(asked, drawn, strict=True)]
            before = self.exceeded_so_far()
            rewards = self.scores(answered)
        responses = [
            Response(
                step=step,
                prompt_id=p,
                sample_id=s,
                prompt=problems[p].prompt,
                privileged=problems[p].privileged,
                answer=problems[p].answer,
                tokens=sampled.tokens,
                logprob=sampled.logprobs,
                truncated=sampled.truncated,
                version=sampled.version,
                reward=reward,
            )
            for (p, s), sampled, reward in zip(asked, drawn, rewards, strict=True)
        ]
        return responses, self.exceeded_so_far() - before

    def exceeded_so_far(self) -> int:
        """Verifications of this process that exceeded their limit and counted as wrong."""
        return getattr(self.task, "overtimes", 0)

    def scores(self, answered: Sequence[tuple[Problem, Tokens, bool]]) -> list[float]:
        """Rewards of (problem, tokens, truncated); a truncated response earns none."""
        rewards = iter(self.rewards([(problem, tokens[:-1]) for problem, tokens, cut in answered if not cut]))
        return [0.0 if cut else next(rewards) for _, _, cut in answered]
