"""The page in a real browser: three widths, both themes, values by pointer and keys, a choice, paper, and no script.

`make browser` installs what this needs.
"""

import pytest

from pipelines.report.captions import FIGURES
from pipelines.report.exhibits import drawings
from pipelines.report.page import document, page
from tests.browser import chromium

WIDTHS = (360, 800, 1440)


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    path.write_text(page("tiny", tiny, provenance={"commit": "0123abc"}))
    return path.as_uri()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def opens(browser, written):
    """opens(width, **context): the page, whose complaints are in its `said`; none is allowed."""
    contexts, said = [], []

    def opened(width=1440, **how):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **how))
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: said.append(request.url) if request.url != written else None)
        tab.goto(written)
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_body_never_scrolls_sideways(opens, width, scheme):
    tab = opens(width, color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 29)"}[scheme]


def test_the_pointer_shows_the_value_of_a_mark(opens):
    tab = opens()
    mark = tab.locator("#norm [data-told]").last
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    box = tab.get_by_role("status")
    told = box.inner_text().split("\n")
    assert mark.get_attribute("data-told") in told
    assert sorted(line.split(",")[0] for line in told) == ["OPD", "sft-matched"], "which lie on each other here"
    tab.mouse.move(1, 1)
    assert not box.is_visible()


def test_the_keyboard_reaches_a_figure_and_walks_along_its_marks(opens):
    tab = opens()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.locator("#stable-rank select[name=layer]").focus()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.parentElement.parentElement.id") == "stable-rank"
    box, seen = tab.get_by_role("status"), []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Home", "End"):
        tab.keyboard.press(key)
        seen.append(box.inner_text())
    first, second, _, home, end = seen
    assert first == home != second != end and all(": " in told for told in seen)
    tab.keyboard.press("Escape")
    assert not box.is_visible()


def test_a_choice_changes_the_figure_and_the_first_one_brings_it_back(opens):
    tab = opens()
    figure = tab.locator("#stable-rank")
    assert figure.locator("svg:not([hidden])").count() == 1
    figure.locator("select[name=role]").select_option("k")
    assert figure.locator("output").inner_text() == "Shown: role k, layer all."
    chosen = figure.locator("svg.chosen")
    told = chosen.locator("[data-told]").evaluate_all("marks => marks.map(mark => mark.dataset.told)")
    assert "RLVR, bf16, 100 % of the run: 4.18 [4.17 to 4.19]" in told, "1.1 times 3.8, within 0.2 %"
    assert not figure.locator("svg").first.is_visible()
    figure.locator("select[name=role]").select_option("all")
    assert chosen.count() == 0 and figure.locator("svg").first.is_visible()


@pytest.mark.parametrize("key", [figure.key for figure in FIGURES if figure.choice])
def test_every_figure_with_choices_draws_another_one(opens, key):
    tab = opens(800)
    figure = tab.locator(f"#{key}")
    figure.locator("select[name=role]").select_option("q")
    assert figure.locator("svg.chosen [data-told]").count() > 10
    assert "NaN" not in figure.locator("svg.chosen").evaluate("svg => svg.outerHTML")


def test_a_screen_reader_has_landmarks_and_names(opens):
    tab = opens()
    for role, name in (("navigation", "Sections"), ("main", None), ("banner", None), ("region", "Findings")):
        assert tab.get_by_role(role, name=name, exact=True).count() == 1, role
    unnamed = "all => all.filter(one => !one.getAttribute('aria-label')).length"
    assert tab.locator("svg[role=img]").evaluate_all(unnamed) == 0
    assert tab.locator("table:not(:has(caption))").count() == 0
    assert tab.locator("th:not([scope])").count() == 0
    assert tab.locator("select").evaluate_all("all => all.filter(one => !one.labels.length).length") == 0


def test_without_scripts_every_figure_and_number_is_there(opens):
    tab = opens(java_script_enabled=False)
    assert tab.locator("form.choices:visible").count() == 0
    assert tab.locator("figure svg:visible").count() == tab.locator("figure svg").count() > len(FIGURES)
    assert tab.locator("#stable-rank details td").count() > 10


def test_paper_is_white_and_leaves_out_what_only_a_screen_can_use(opens):
    tab = opens(color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    color = tab.locator("#norm [data-told]").first.evaluate("mark => getComputedStyle(mark).fill")
    assert color in ("rgb(0, 114, 178)", "rgb(0, 158, 115)", "rgb(200, 133, 0)", "rgb(204, 121, 167)")
    for hidden in ("nav", ".choices fieldset", "details:not([open])", "#value"):
        assert tab.locator(f"{hidden}:visible").count() == 0, hidden
    clipped = "all => all.filter(one => getComputedStyle(one).overflowX !== 'visible').length"
    assert tab.locator(".scroll, .card").evaluate_all(clipped) == 0


def test_seeds_that_end_at_different_steps_are_read_off_between_their_own(browser, tmp_path):
    """The script's mean over seeds is `series.pooled`'s, straight lines between snapshots included."""
    import polars as pl

    from pipelines.lake.schemas import TABLES
    from pipelines.report.choices import NORM

    rows = [
        {"study": "t", "recipe": "t.opd", "seed": seed, "step": step, "matrix": "m", "layer": 0, "role": role}
        | {"view": "bf16", "frobenius": float(step * (seed + 1)), "relative_norm": 0.1}
        for seed, steps in enumerate([(10, 50, 100), (10, 40, 80)])
        for step in steps
        for role in ("q", "k")
    ]
    tables = {"update_norm": pl.DataFrame(rows, schema=TABLES["update_norm"].schema).lazy()}
    path = tmp_path / "index.html"
    path.write_text(document("norms", "", drawings(tables, [one for one in FIGURES if one.key == "norm"])))
    (expected,) = NORM.numbers(NORM.rows(tables), NORM.starts(tables)).values()
    tab = browser.new_page()
    tab.goto(path.as_uri())
    tab.locator("select[name=role]").select_option("k")
    told = tab.locator("svg.chosen [data-told]").evaluate_all("marks => marks.map(mark => mark.dataset.told)")
    values = [float(one.split(": ")[1].split(" [")[0]) for one in told]
    assert values == pytest.approx(expected["value"].to_list(), rel=5e-3), "three digits are kept"
    tab.close()
