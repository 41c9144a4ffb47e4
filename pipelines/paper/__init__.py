"""The story of arXiv 2606.07082 for the studies that repeat it: its arms, claims, published values and figures.

In reading order:

- `story.py`         the `Story` of the studies tiny, smollm and qwen3
- `arms.py`          the arms with their looks, and what the paper reports for them, as text; `suites.py`: the other
  arms
- `claims/`          the statements that are tested, with their controls
- `items.py`         the tables and figures; `item.py`: their type; `published.py`: the published numbers
- `table1.py` to `figure9.py`  one item each: its numbers and its limits
- `variants.py`, `confinement.py`  the numbers that items draw
- `spread.py`        the mean and the interval over seeds
- `palette.py`       the look of every arm, the same in all items
- `panels.py`, `strip.py`, `grid.py`, `mosaic.py`, `maps.py`, `dots.py`, `resumed.py`  the drawing

A new item is a file with an `ITEM`, and a line in `items.py`; page and asset graph follow.
"""
