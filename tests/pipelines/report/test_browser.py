"""The page in a real browser: three widths, both themes, charts with values and choices, paper, and no script.

`make browser` installs what this needs.
"""

import pytest

from pipelines.report.captions import FIGURES
from pipelines.report.page import render_page
from pipelines.studies.catalog import find_study
from pipelines.studies.story import Arm, Story
from tests.browser import chromium
from tests.pipelines.report.test_page import NAMES, foreign, renamed

WIDTHS = (390, 800, 1440)
KEYS = [figure.key for figure in FIGURES if figure.key != "locking"]  # which stands on the first screen


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(render_page(find_study("tiny"), tiny, provenance={"commit": "0123abc"}))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def opens(browser, written):
    """opens(width, **context): the page. No complaint and no request is allowed."""
    contexts, complaints = [], []

    def opened(width=1440, **how):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **how))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: complaints.append(message.text) if "WARN" not in message.text else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: complaints.append(request.url) if request.url != written else None)
        tab.goto(written)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def live(tab, key):
    """The figure `key`, once its chart is drawn."""
    figure = tab.locator(f"#{key}")
    figure.scroll_into_view_if_needed()
    figure.locator(".chart.drawn").wait_for()
    return figure


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_scrolls_sideways_and_no_chart_is_cut(opens, width, scheme):
    tab = opens(width, color_scheme=scheme)
    for key in KEYS:
        live(tab, key)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ends = tab.locator(".live svg").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert len(ends) >= len(KEYS) and max(ends) <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]


def test_panels_stand_above_each_other_on_a_narrow_screen_with_axes_of_their_own(opens):
    heights, words = {}, {}
    for width in (390, 1440):
        svg = live(opens(width), "norm").locator(".live svg")
        heights[width] = svg.bounding_box()["height"]
        words[width] = svg.locator("text").all_text_contents()
    assert heights[390] > 1.5 * heights[1440]
    assert words[1440].count("Frobenius norm (weight units)") == 1
    assert words[390].count("Frobenius norm (weight units)") == 2
    assert {"SFT", "OPD", "RLVR", "sft-matched"} <= set(words[390]) & set(words[1440])


def test_a_window_that_becomes_narrow_draws_its_charts_again(opens):
    tab = opens(1440)
    before = live(tab, "norm").locator(".live svg").bounding_box()["height"]
    tab.set_viewport_size({"width": 390, "height": 900})
    tab.wait_for_function("before => document.querySelector('#norm .live svg').clientHeight > 1.5 * before", arg=before)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    for width in (1440, 390, 1440):  # the last one counts, however fast they follow each other
        tab.set_viewport_size({"width": width, "height": 900})
    tab.wait_for_function("before => document.querySelector('#norm .live svg').clientHeight === before", arg=before)


def test_the_pointer_shows_the_value_of_a_mark(opens):
    tab = opens()
    figure = live(tab, "norm")
    figure.locator(".live .mark-symbol path[aria-label*=RLVR]").last.hover(force=True)
    box = tab.locator("#vg-tooltip-element")
    box.wait_for(state="visible")
    told = box.inner_text()
    assert "RLVR" in told and "100" in told and "% of the run" in told and "seeds" in told
    tab.mouse.move(1, 1)
    box.wait_for(state="hidden")


@pytest.mark.parametrize("key", [key for key in KEYS if key != "roles"])
def test_a_choice_changes_the_lines_and_the_first_one_brings_them_back(opens, key):
    name, value = {"overlap": ("mask", "principal"), "hill": ("cut k", "32")}.get(key, ("role", "q"))  # planted apart
    figure = live(opens(800), key)
    lines = "all => all.map(one => one.getAttribute('d')).join()"
    paths = figure.locator(".live .mark-line path")
    first = paths.evaluate_all(lines)
    select = figure.get_by_label(name, exact=False).first
    begin = select.input_value()
    select.select_option(value)
    other = paths.evaluate_all(lines)
    assert other and other != first and "NaN" not in other
    select.select_option(begin)
    assert paths.evaluate_all(lines) == first


def test_fields_and_pictures_have_names_and_the_keyboard_reaches_them(opens):
    tab = opens()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    figure = live(tab, "stable-rank")
    assert tab.locator("select").evaluate_all("all => all.filter(one => !one.labels.length).length") == 0
    unnamed = "all => all.filter(one => !one.getAttribute('aria-label')).length"
    assert (
        tab.locator(".still, .live svg, .chart").evaluate_all(
            unnamed.replace("one.getAttribute", "(one.closest('.live') ?? one).getAttribute")
        )
        == 0
    )
    assert "Stable rank" in figure.locator(".live").get_attribute("aria-label")
    figure.locator("select").first.focus()
    tab.keyboard.press("ArrowDown")
    assert figure.locator("select").first.input_value() != "all"


def test_a_dark_page_turns_the_charts_over(opens):
    filters = {
        scheme: live(opens(color_scheme=scheme), "norm")
        .locator(".live svg")
        .evaluate("svg => getComputedStyle(svg).filter")
        for scheme in ("light", "dark")
    }
    assert filters == {"light": "none", "dark": "invert(1) hue-rotate(180deg)"}


def test_without_scripts_every_picture_and_number_is_there(opens):
    tab = opens(java_script_enabled=False)
    assert tab.locator(".choices").count() == 0
    assert tab.locator(".still:visible").count() == tab.locator(".chart").count() > len(KEYS)
    assert tab.locator("#stable-rank details td").count() > 10


def test_paper_has_the_still_pictures_on_white(opens):
    tab = opens(color_scheme="dark")
    live(tab, "norm")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    still = tab.locator("#norm .still")
    assert still.is_visible() and still.evaluate("svg => getComputedStyle(svg).filter") == "none"
    for hidden in ("nav", ".choices", ".live", "figure details:not([open])"):
        assert tab.locator(f"{hidden}:visible").count() == 0, hidden


LONG = "a label that goes on and on, since somebody wrote down all that is special about the arm, seed by seed"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_study_of_ones_own_with_a_long_label_is_not_cut(browser, tiny, tmp_path, width):
    story = Story(arms=(Arm(key="distill", label=LONG, control="offline"),))
    path = tmp_path / "index.html"
    path.write_text(render_page(foreign("mine", NAMES, story=story), renamed(tiny, "mine", NAMES), provenance={}))
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto(path.as_uri())
    live(tab, "norm")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    cells = ".headline th, .headline td"
    inside = "all => all.every(one => one.scrollWidth <= one.clientWidth + 1)"
    assert tab.locator(cells).evaluate_all(inside), "a cell runs over its neighbour"
    tab.close()


def test_a_count_unfolds_the_list_that_it_links_to(opens):
    tab = opens()
    listed = tab.locator("details:has(> #verdicts-holds)")
    assert not listed.evaluate("part => part.open")
    tab.locator(".chips a").first.click()
    assert listed.evaluate("part => part.open")
