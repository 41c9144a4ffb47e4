"""The arms that the paper compares, in the order and colours used everywhere: Okabe-Ito, its orange darkened.

`REPORTED` is what arXiv 2606.07082 reports for its 8B runs, and `REMARKS` how its numbers differ from ours, by family
of metrics.
"""

from pipelines.studies.story import Arm

ARMS = (
    Arm(
        key="sft",
        label="SFT",
        color="#c88500",
        dash=(1, 0),
        shape="square",
        meaning="supervised fine-tuning: cross-entropy on fixed answers",
    ),
    Arm(
        key="opd",
        label="OPD",
        control="sft-matched",
        color="#0072B2",
        dash=(1, 0),
        shape="circle",
        meaning="on-policy distillation: the teacher scores the student's own rollouts",
    ),
    Arm(
        key="rlvr",
        label="RLVR",
        color="#009E73",
        dash=(2, 2),
        shape="triangle-up",
        meaning="reinforcement learning from verifiable rewards",
    ),
    Arm(
        key="sft-matched",
        label="sft-matched",
        color="#CC79A7",
        dash=(7, 3),
        shape="diamond",
        meaning="matched control: offline cross-entropy with OPD's start, learning rate, steps and batch",
    ),
)
BY_KEY = {arm.key: arm for arm in ARMS}


def label(key: str) -> str:
    """An arm's name in tables and sentences; outside core its key."""
    return BY_KEY[key].label if key in BY_KEY else key


def _trio(sft: str, opd: str, rlvr: str) -> dict[str, str]:
    return {"sft": sft, "opd": opd, "rlvr": rlvr}


SOURCE = "paper, 8B"
REPORTED = {
    "unchanged weights": _trio("8.1 %", "51.6 %", "77.2 %"),
    "rotation, input side": _trio("> 10 deg", "about 1 deg", "< 0.5 deg"),
    "spectral drift (NSS)": _trio("about 3e-3", "1e-4 to 2e-4", "1e-5 to 2e-5"),
    "Frobenius norm of the update": _trio("4.701", "0.452", "0.168"),
    "low-magnitude overlap": _trio("31.88 % (chance 30 %)", "53.59 %", "73.48 %"),
    "principal-mask overlap": _trio("29.66 % (chance 30 %)", "27.31 %", "26.65 %"),
    "stable rank of the update": _trio("rises to about 75", "stays in about 18 to 28", "falls to OPD's level"),
    "Sim_16 to the final step": _trio("starts lower", "high from the first checkpoint (<= 21 %)", "starts lower"),
}
REMARKS = {
    "rotation, input side": "The paper shows one layer at k = 512.",
    "spectral drift (NSS)": "Paper's values: orders of magnitude in the text, ranges from axis ticks.",
    "relative norm of the update": "The paper does not match norms across its runs.",
    "Frobenius norm of the update": "Paper's values stand in its LaTeX source, commented out.",
    "low-magnitude overlap": "Chance is 30 % in the paper's figure.",
    "principal-mask overlap": "Chance is 30 % in the paper's figure.",
}
