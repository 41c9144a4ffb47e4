"""Three worked questions to the tables of a store, as a marimo notebook: `make notebook` (OPD_STORE, or .opd/store)."""

# It comes with the extra [notebook]; without it nothing else is missing.
# pyright: reportMissingImports=false
import marimo

app = marimo.App(width="medium", app_title="Ask the tables")


@app.cell
def _():
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import polars as pl

    from pipelines.lake import questions, scan
    from pipelines.store.objects import Store, default_uri, normalise

    given = mo.cli_args().get("store")
    store = normalise(str(given)) if given else default_uri()
    return Path, Store, alt, mo, pl, questions, scan, store


@app.cell
def _(Store, mo, pl, scan, store):
    _there = Store(store).store_exists()
    arms = (
        scan("update_support", store).select(pl.col("recipe").unique()).collect()["recipe"].sort().to_list()
        if _there
        else []
    )
    _advice = "`make demo` makes one in five minutes; OPD_STORE names another store."
    mo.stop(not arms, mo.md(f"**{store} holds no measured run.** {_advice}"))
    core = [arm for arm in arms if arm.rpartition(".")[2] in ("sft", "sft-matched", "opd", "rlvr")]
    shown = mo.ui.multiselect(arms, value=core or arms[:4], label="arms in the figures")
    mo.md(f"""
    # Ask the tables

    The store is `{store}`. `scan("rotation", store)` is a Polars LazyFrame of one table; `opd tables` lists them, and
    `pipelines/lake/DICTIONARY.md` explains every column with its unit. Tables show all arms, figures the chosen ones.

    {shown}
    """)
    return (shown,)


@app.cell
def _(Path, mo, pl, questions):
    def table(frame):
        return mo.ui.table(frame.with_columns(pl.col(pl.Float64).round_sig_figs(4)), selection=None)

    def without(name):
        """The same question without this project, as the files beside this one ask it."""
        folder = Path(questions.__file__).parent
        return mo.accordion(
            {
                f"In plain Polars ({name}.py)": mo.md(
                    f"```python\n{(folder / name).with_suffix('.py').read_text()}```"
                ),
                f"In DuckDB ({name}.sql)": mo.md(f"```sql\n{(folder / name).with_suffix('.sql').read_text()}```"),
            }
        )

    return table, without


@app.cell
def _(mo):
    mo.md("""
    ## 1. Which arms leave how many weights unchanged, in bf16 and in the fp32 masters?

    A weight is unchanged in bf16 when the model that is served has it bit for bit as before. The optimizer works on the
    masters: what is sparse in bf16 and dense there was moved, by less than rounding shows.
    """)
    return


@app.cell
def _(pl, scan, store):
    _rows = scan("update_support", store).filter(scope="projection")
    _ends = _rows.filter(pl.col("step") == pl.col("step").max().over("recipe", "seed"))
    _share = (pl.col("unchanged") * pl.col("numel")).sum() / pl.col("numel").sum()
    _by_run = _ends.group_by("recipe", "seed", "view").agg(_share.alias("kept"))
    _views = [pl.col("kept").filter(view=view).mean().alias(view) for view in ("bf16", "master")]
    unchanged = _by_run.group_by("recipe").agg(pl.col("seed").n_unique().alias("runs"), *_views)
    unchanged = unchanged.sort("bf16", "recipe").collect()
    return (unchanged,)


@app.cell
def _(alt, mo, pl, shown, table, unchanged, without):
    _long = unchanged.filter(pl.col("recipe").is_in(shown.value)).unpivot(["bf16", "master"], index="recipe")
    _bars = (
        alt.Chart(_long.drop_nulls())
        .mark_bar()
        .encode(
            x=alt.X("value", title="weights unchanged at the end, share of the projections").axis(format="%"),
            y=alt.Y("recipe", title=None, sort=shown.value),
            yOffset="variable",
            color=alt.Color("variable", title="view"),
            tooltip=["recipe", "variable", alt.Tooltip("value", format=".2%")],
        )
        .properties(width=520)
    )
    mo.vstack([_bars, table(unchanged), without("unchanged")])
    return


@app.cell
def _(mo):
    mo.md("""
    ## 2. When is the final update's leading subspace in place, beside what storage alone would show?

    Sim_16 of the update so far to the final one, input side. Null: the final update scaled down to the step's norm and
    rounded to bf16, a direction that never turns. Where bf16 only follows the null, its rise is rounding.
    """)
    return


@app.cell
def _(pl, scan, store):
    def _mean(rows, *columns):
        by_run = rows.group_by("recipe", "seed", "step").agg(columns)
        return by_run.group_by("recipe", "step").agg(pl.all().exclude("seed").mean())

    _views = [pl.col("similarity").filter(view=view).mean().alias(view) for view in ("master", "bf16")]
    _rows = scan("locking", store).filter(side="input", k=16)
    _ends = _rows.filter(pl.col("step_other") == pl.col("step_other").max().over("recipe", "seed"))
    _still = scan("nulls", store).filter(pl.col("null") == "fixed_direction", similarity_k=16)
    _null = _mean(_still, pl.col("similarity_input").mean().alias("null"))
    locking = _mean(_ends, *_views, pl.col("chance").mean()).join(_null, on=["recipe", "step"], how="left")
    locking = locking.select("recipe", "step", "master", "bf16", "null", "chance").sort("recipe", "step").collect()
    return (locking,)


@app.cell
def _(alt, locking, mo, pl, shown, table, without):
    _long = locking.filter(pl.col("recipe").is_in(shown.value)).unpivot(
        ["master", "bf16", "null", "chance"], index=["recipe", "step"]
    )
    _dashed = "datum.variable == 'null' || datum.variable == 'chance'"
    _lines = (
        alt.Chart(_long.drop_nulls())
        .mark_line()
        .encode(
            x=alt.X("step", title="optimizer step"),
            y=alt.Y("value", title="Sim_16 to the final update").scale(domain=[0, 1]),
            color=alt.Color("variable", title=None, sort=["master", "bf16", "null", "chance"]),
            strokeDash=alt.condition(_dashed, alt.value([5, 4]), alt.value([1, 0])),
            tooltip=["recipe", "step", "variable", alt.Tooltip("value", format=".3f")],
        )
        .properties(width=270, height=180)
        .facet(alt.Facet("recipe", title=None, sort=shown.value), columns=2)
    )
    mo.vstack([_lines, table(locking), without("locking")])
    return


@app.cell
def _(mo):
    mo.md("""
    ## 3. Which layers and roles rotate most?

    Mean principal angle between the 16 leading input directions of a weight before and after, as it is served.
    """)
    return


@app.cell
def _(pl, scan, store):
    _rows = scan("rotation", store).filter(view="bf16", side="input", k=16)
    _ends = _rows.filter(pl.col("step") == pl.col("step").max().over("recipe", "seed"))
    rotating = _ends.group_by("recipe", "layer", "role").agg(
        pl.col("mean_deg").mean().alias("degrees"),
        pl.col("error_deg").max().alias("error"),
        pl.col("seed").n_unique().alias("runs"),
    )
    rotating = rotating.sort(
        "recipe", "degrees", "layer", "role", descending=[False, True, False, False], nulls_last=True
    ).collect()
    return (rotating,)


@app.cell
def _(alt, mo, pl, rotating, shown, table, without):
    _some = rotating.filter(pl.col("recipe").is_in(shown.value))
    _maps = [
        alt.Chart(_some.filter(recipe=arm), title=arm)
        .mark_rect()
        .encode(
            x=alt.X("role:N", title=None, sort=["q", "k", "v", "o", "gate", "up", "down"]).axis(labelAngle=0),
            y=alt.Y("layer:O", title="layer"),
            color=alt.Color("degrees", title="degrees").scale(scheme="viridis"),
            tooltip=["layer", "role", alt.Tooltip("degrees", format=".3g"), alt.Tooltip("error", format=".1g"), "runs"],
        )
        .properties(width=250, height=110)
        for arm in shown.value
    ]
    _charts = (
        alt.concat(*_maps, columns=2).resolve_scale(color="independent") if _maps else mo.md("Choose an arm above.")
    )
    mo.vstack([_charts, table(rotating), without("rotating")])
    return


if __name__ == "__main__":
    app.run()
