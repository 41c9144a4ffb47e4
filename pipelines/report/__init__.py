"""The HTML report of a study, made from its story, its tables and their statistics. No arm is named in this package.

In reading order:

- `page.py`      the self-contained HTML page of a study; `hero.py`: its first screen; `exhibits.py`: its pictures;
                 `sections.py`: what is folded below; `imported.py`: the page of an imported trajectory
- `verdict_text.py`  sentences made from verdict rows; `markup.py`: small pieces of HTML; `page.css`
- `captions.py`  the figures of every study: meaning, method and caveat
- `choices.py`   the quantities that figures draw, with the choice of role, layer and cut
- `figures.py`   the charts and their PNG; `panels.py`: axes, lines and the house style
- `palette.py`   the look of every arm of a story
- `vega.py`      a chart in the page: an SVG, and the spec that `page.js` draws

A figure of another quantity is a `Quantity` in `choices.py` and an entry of `captions.FIGURES`.
"""
