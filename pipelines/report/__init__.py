"""A page that a person looks at, from a study's story, its tables and the statistics about them. It knows no arm.

In reading order:

- `page.py`      the self-contained HTML page of a study; `hero.py`: its first screen; `exhibits.py`: its pictures;
                 `sections.py`: what is folded below; `imported.py`: the page of an imported trajectory
- `words.py`     sentences made from verdict rows; `markup.py`: small pieces of HTML; `page.css`
- `captions.py`  the figures of every study: what each means, how it is computed and what to be careful about
- `choices.py`   the quantities they draw, by role, layer and cut, as a reader chooses
- `figures.py`   the charts, and their SVG and PNG; `panels.py`: axes, lines and the house style
- `palette.py`   the look of every arm of a story
- `vega.py`      a chart in the page: a still picture, and what `page.js` makes live

A figure of another quantity is a `Quantity` in `choices.py` and an entry of `captions.FIGURES`.
"""
