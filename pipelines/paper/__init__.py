"""The tables and figures of arXiv 2606.07082, drawn from our own runs with the paper's values beside them.

In reading order:

- `items.py`         the list of them; `item.py`: what one is; `published.py`: what the paper reports, as numbers
- `table1.py` to `figure9.py`  one item each: which numbers, and what they do not show
- `matrices.py`, `blocks.py`, `trajectories.py`, `variants.py`, `confinement.py`  the numbers that items draw
- `spread.py`        the mean and the interval over seeds
- `palette.py`       the look of every arm, the same in all items
- `panels.py`, `strip.py`, `grid.py`, `mosaic.py`, `maps.py`, `dots.py`, `resumed.py`  the drawing
- `section.py`       all of it as HTML and PNG, with `png.py`

A new item is a file with an `ITEM`, and a line in `items.py`; page and asset graph follow.
"""
