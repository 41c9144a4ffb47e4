import sys

import pytest
from reasoning_gym.factory import DATASETS

from opd_ops.tasks import generators
from opd_ops.tasks.mathematics import verify_math

ADMITTED = sorted(DATASETS.keys() - generators.REFUSED.keys())
STATES_NONE = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
MARK = "intruder"
PAYLOADS = (
    f"{MARK}()",
    f"[{MARK}(), {MARK}()]",
    f"1 + {MARK}(2)",
    f"__import__('{MARK}').system('true')",
    f"$__import__('{MARK}').system('true')$",
    f"\\boxed{{{MARK}(1)}}",
)


class Compiled:
    """What Python compiles while it is open. An audit hook stays for ever, so there is one."""

    def __init__(self):
        self.open, self.sources = False, []
        sys.addaudithook(self.hook)

    def hook(self, event, args):
        if self.open and event == "compile":
            self.sources.append(str(args[0]))

    def during(self, call):
        self.sources, self.open = [], True
        try:
            call()
        finally:
            self.open = False
        return self.sources


COMPILED = Compiled()


def score(response, dataset, **address):
    return generators.score_response(response, dataset, {}, address.get("seed", 256), address.get("index", 0), 1.0)


def test_ninety_generators_are_admitted_and_each_refusal_names_one_that_exists():
    assert len(ADMITTED) == 90
    assert generators.REFUSED.keys() <= DATASETS.keys()


@pytest.mark.parametrize("dataset", ADMITTED)
def test_no_admitted_scorer_compiles_an_answer_and_each_gives_its_own_one(dataset):
    entry = generators.make_entry(dataset, {}, 256, 0)
    stated = entry["answer"]
    if stated is not None:
        assert score(stated, dataset) == score(f"I think.\nAnswer: {stated}\n", dataset) == 1.0
    assert (stated is None) == (dataset in STATES_NONE)
    for payload in (*PAYLOADS, f"{stated} {MARK}"):
        seen = COMPILED.during(lambda payload=payload: score(payload, dataset))
        assert not [source for source in seen if MARK in source]


@pytest.mark.parametrize("dataset", ["countdown", "n_queens", "polynomial_multiplication"])
def test_the_refused_scorers_are_seen_to_evaluate(dataset):
    """The audit above would notice."""
    import reasoning_gym

    data = reasoning_gym.create_dataset(dataset, seed=0, size=1)
    assert any(MARK in source for source in COMPILED.during(lambda: data.score_answer(f"[{MARK}(2)]", data[0])))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_math_verify_compiles_no_part_of_a_response(payload):
    assert not [source for source in COMPILED.during(lambda: verify_math(payload, "2")) if MARK in source]


def test_planted_scores_are_cut_at_the_threshold(monkeypatch):
    class Planted:
        def score_answer(self, answer, entry):
            if answer == "raise":
                raise IndexError("not an answer")
            return None if answer == "none" else float(answer)

    monkeypatch.setattr(generators, "_make_generator", lambda *address: Planted())
    monkeypatch.setattr(generators, "_make_entry", lambda *address: {"answer": "1"})
    at = {
        score: generators.score_response(score, "any", {}, 0, 0, 0.5) for score in ("0.01", "0.05", "0.49", "0.5", "1")
    }
    assert at == {"0.01": 0.0, "0.05": 0.0, "0.49": 0.0, "0.5": 1.0, "1": 1.0}
    assert (
        generators.score_response("raise", "any", {}, 0, 0, 0.5)
        == generators.score_response("none", "any", {}, 0, 0, 0.5)
        == 0.0
    )


def test_partial_credit_earns_nothing():
    entry = generators.make_entry("gsm_symbolic", {}, 256, 0)
    assert score(str(int(entry["answer"]) + 1), "gsm_symbolic") == 0.0
    long = generators.make_entry("modulo_grid", {}, 256, 0)["answer"]
    import reasoning_gym

    data = reasoning_gym.create_dataset("modulo_grid", seed=256, size=generators.BLOCK)
    assert data.score_answer(f"{long} x", data[0]) > 0.99 and score(f"{long} x", "modulo_grid") == 0.0


def test_an_entry_depends_on_its_address_alone():
    first = generators.make_entry("gsm_symbolic", {}, 512, 9)
    generators._make_entry.cache_clear()
    generators._make_generator.cache_clear()
    generators.make_entry("gsm_symbolic", {}, 512, 200)
    assert generators.make_entry("gsm_symbolic", {}, 512, 9) == first


@pytest.mark.parametrize(
    "dataset, config, reason",
    [
        ("countdown", {}, "'countdown' is refused: its scorer evaluates the answer as Python"),
        ("n_queens", {}, "verifier never executes model output"),
        ("codeio", {}, "executing code that a language model wrote"),
        ("word_ladder", {}, "hash seed"),
        ("composite", {}, "name one of them"),
        ("basic_arithmetics", {}, "no dataset 'basic_arithmetics'; near it: basic_arithmetic"),
        ("zzzz", {}, "no dataset 'zzzz'; known: ab, acre"),
        ("chain_sum", {"terms": 3}, "'chain_sum' has no option terms; it has .*max_terms"),
        ("chain_sum", {"seed": 3}, "'chain_sum' has no option seed"),
        ("chain_sum", {"min_terms": 9, "max_terms": 2}, "'chain_sum' refuses .*max_terms must be >= min_terms"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_reason(dataset, config, reason):
    with pytest.raises(ValueError, match=reason):
        generators.require_dataset(dataset, config)
