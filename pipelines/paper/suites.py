"""The suites other than core: arms, reference arms of core, and their differences as text."""

from pipelines.studies.story import Group, Suite

OBJECTIVES = Suite(
    name="objectives",
    title="Objectives",
    references=("opd", "rlvr"),
    meaning="Arms with OPD's start, learning rate and steps that differ from it in their objective or in whose "
    "responses they read.",
    groups=(
        Group(
            name="Estimator",
            arms=("opd-pg",),
            differs="the policy gradient of the sampled token, which the paper trains, in place of OPD's exact "
            "full-vocabulary reverse KL.",
        ),
        Group(
            name="Token selection",
            arms=("opd-top50", "opd-random50", "opd-top25", "opd-random25"),
            differs="half or a quarter of each response's tokens, those with the largest log s(y) - log T(y) of the "
            "sampled token (top) or as many drawn at random, in place of all.",
        ),
        Group(
            name="Self-teacher",
            arms=("opd-self",),
            differs="the start itself, reading the privileged prompt, in place of a teacher that was trained for it.",
        ),
        Group(
            name="Rollout source",
            arms=("opd-teacher-rollouts", "opd-stale16"),
            differs="the teacher's responses, or those of the student of 16 steps ago, in place of the student's own.",
        ),
        Group(
            name="Mixing",
            arms=("opd-mix-75", "opd-mix-50", "opd-mix-25", "opd-mix-05", "opd-mix-01"),
            differs="alpha OPD + (1 - alpha) RLVR, alpha in percent, in place of OPD alone. Mixes share RLVR's batch "
            "of 8 prompts x 8 samples, and take OPD's term as a policy gradient meaned over each sequence: RLVR is "
            "their alpha = 0, while beside opd-pg the batch (64 x 1) and the normaliser differ too.",
        ),
    ),
)
BEGIN = 20  # step at which the continued arms begin, of 100 or fewer
SOON = 4  # of 15, in the study smollm
PARENTS = {"opd": "sft", "sft": "opd", "sft-matched": "opd", "rlvr": "opd"}  # and whose basis they borrow
SWEPT = ("opd", "sft")  # parents of which one factor at a time is varied
MODES = ("update", "compressed", "matched")  # what is confined, in place of the gradient


def continued_key(parent: str, *words: str, begin: int = BEGIN) -> str:
    """The key of a continued arm: continued_key("opd", "own16") is opd-at20-own16."""
    return "-".join((f"{parent}-at{begin}", *words))


def _both(*words: str) -> tuple[str, ...]:
    """The continued arms of both studies."""
    return (
        *(continued_key(parent, *words) for parent in PARENTS),
        *(continued_key(parent, *words, begin=SOON) for parent in SWEPT),
    )


INTERVENTIONS = Suite(
    name="interventions",
    title="Confined to an early subspace",
    parents=tuple(PARENTS),
    continued=True,
    meaning="Arms taken up again at an early step, the number in their names, from its fp32 weights with a fresh "
    "optimizer, free or with the gradient of every projection matrix confined to 16 input directions. Their updates "
    "and accuracies count from there on.",
    groups=(
        Group(name="Free", arms=_both(), differs="what the confined arms are compared with."),
        Group(
            name="Own basis",
            arms=_both("own16"),
            differs="the leading 16 right singular vectors of the arm's own update at that step: the paper's arm.",
        ),
        Group(
            name="Random basis",
            arms=_both("random16"),
            differs="16 directions drawn at random.",
        ),
        Group(
            name="Basis of the start",
            arms=tuple(continued_key(parent, "start16") for parent in PARENTS),
            differs="the leading 16 right singular vectors of the weights that the arm began with.",
        ),
        Group(
            name="Another arm's basis",
            arms=tuple(continued_key(parent, f"{other}16") for parent, other in PARENTS.items()),
            differs="the leading 16 right singular vectors of another arm's update at that step.",
        ),
        Group(
            name="Rank",
            arms=tuple(continued_key(parent, f"own{rank}") for parent in SWEPT for rank in (4, 64)),
            differs="4 or 64 directions in place of 16.",
        ),
        Group(
            name="Begin",
            arms=tuple(continued_key(parent, "own16", begin=begin) for parent in SWEPT for begin in (5, 50)),
            differs=f"taken up, and confined, from step 5 or 50 on in place of {BEGIN}.",
        ),
        Group(
            name="Both sides",
            arms=tuple(continued_key(parent, "own16", "both") for parent in SWEPT),
            differs="the leading 16 output directions as well.",
        ),
        Group(
            name="What is confined",
            arms=tuple(continued_key(parent, "own16", mode) for parent in SWEPT for mode in MODES),
            differs="the optimizer's step too (update), or an optimizer of the 16 coefficients alone (compressed; "
            "matched: with steps as long as those of whole matrices), in place of the gradient, which Adam's scaling "
            "lets leak.",
        ),
    ),
)
CONTROLS = Suite(
    name="controls",
    title="Controls",
    references=("sft", "opd", "rlvr"),
    meaning="Twins of the arms above them that differ in one setting, where the paper's runs differ in many at once.",
    groups=(
        Group(
            name="Batch",
            arms=("rlvr-32x8", "opd-8x8"),
            differs="RLVR on four times its batch, 32 prompts x 8 samples, and OPD on RLVR's batch, 8 prompts x 8.",
        ),
        Group(
            name="Mixing without OPD",
            arms=("opd-mix-00",),
            differs="alpha = 0 of the mixes: RLVR by their code path, at OPD's number of sequences.",
        ),
        Group(
            name="Norm",
            arms=("rlvr-norm",),
            differs="RLVR trained on until its update is as large as OPD's.",
        ),
        Group(
            name="Learning rate",
            arms=("sft-slow", "opd-fast"),
            differs="SFT from the base at OPD's learning rate and steps, and OPD at SFT's learning rate.",
        ),
    ),
)
STEERING = Suite(
    name="steering",
    title="When a guard-rail trips",
    references=("opd", "rlvr"),
    meaning="RLVR whose guard reads how far the update has turned, and which is disturbed from the step on where that "
    "leaves the band of OPD's runs of the same norm.",
    groups=(
        Group(name="Nothing", arms=("rlvr-noise-sham",), differs="the guard trips and nothing is done."),
        Group(
            name="Isotropic noise",
            arms=("rlvr-noise-iso", "rlvr-noise-iso3"),
            differs="Gaussian noise of one or three times the norm of every later step is added to it.",
        ),
        Group(
            name="Off-channel noise",
            arms=("rlvr-noise-off", "rlvr-noise-off3"),
            differs="the same noise without the 16 leading directions of the update at the trip.",
        ),
    ),
)
SUITES = (OBJECTIVES, INTERVENTIONS, CONTROLS, STEERING)
