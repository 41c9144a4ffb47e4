"""The story of a study: its own with every gap filled, or the defaults."""

from dataclasses import replace
from importlib import import_module

from opd_ops.recipe import Recipe
from pipelines.statistics.claims import default_claims
from pipelines.statistics.metrics import ACCURACY, NORM, ROTATION, STABLE_RANK, UNCHANGED
from pipelines.studies.story import Arm, Group, Story, Suite
from pipelines.studies.study import Study

HEADLINE = (UNCHANGED, ROTATION["bf16"], NORM["bf16"], STABLE_RANK["master"], ACCURACY)


def story_of(study: Study) -> Story:
    """The story of a study, complete: core arms in declared order, a table for every suite, claims, five headline rows.

    Errors: ValueError where `Study.story` names what is not there.
    """
    story = load_story(study.story)
    core = tuple(recipe.arm for recipe in study.arms())
    declared = {arm.key for arm in story.arms}
    meanings = {recipe.arm: _describe_arm(recipe) for recipe in study.arms()}
    own = [replace(arm, meaning=arm.meaning or meanings.get(arm.key, "")) for arm in story.arms]
    arms = [Arm(key=key, meaning=meaning) for key, meaning in meanings.items() if key not in declared]
    suites = {suite.name: suite for suite in story.suites}
    described = {"core", *suites, *([story.sizes.suite] if story.sizes else ())}
    suites |= {name: _suite(name, recipes, core) for name, recipes in study.suites.items() if name not in described}
    return complete_story(
        replace(
            story,
            title=story.title or f"Weight geometry of {study.title or study.name}",
            arms=(*own, *arms),
            suites=tuple(suites.values()),
            core=core,
        )
    )


def complete_story(story: Story) -> Story:
    """A story that has its core arms, with claims, headline and references filled in where it has none."""
    controls = {story.arm(key).control for key in story.core}
    compared = {key: story.label(key) for key in story.core if key not in controls}
    return replace(
        story,
        headline=story.headline or HEADLINE,
        claims=default_claims(story) if story.claims is None else story.claims,
        references=story.references or (compared if len(compared) > 1 else {}),
    )


def load_story(story: Story | str | None) -> Story:
    """A story as it is declared: itself, `package.module:NAME`, or nothing. Errors: ValueError for a wrong name."""
    if not isinstance(story, str):
        return story or Story()
    module, _, name = story.partition(":")
    try:
        loaded = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no story {story!r}: {error}; name one as package.module:NAME") from error
    if not isinstance(loaded, Story):
        raise ValueError(f"{story!r} is a {type(loaded).__name__}, not a pipelines.studies.story.Story")
    return loaded


def _describe_arm(recipe: Recipe) -> str:
    """What an arm trains, in one line."""
    return recipe.objective.title or recipe.objective.kind


def _suite(name: str, recipes: tuple[Recipe, ...], core: tuple[str, ...]) -> Suite:
    arms = tuple(recipe.arm for recipe in recipes if recipe.arm not in core)
    return Suite(name=name, title=name.capitalize(), references=core, groups=(Group(name="Arms", arms=arms),))
