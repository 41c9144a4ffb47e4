"""The tables and figures of the paper, in its order. Figure 1 is a schematic and has nothing to measure."""

from pipelines.paper import (
    figure2,
    figure3,
    figure4,
    figure5,
    figure6,
    figure7,
    figure8,
    figure9,
    table1,
)
from pipelines.paper.item import Item

ITEMS: tuple[Item, ...] = (
    table1.ITEM,
    figure2.ITEM,
    figure3.ITEM,
    figure4.ITEM,
    figure5.ITEM,
    figure6.ITEM,
    figure7.ITEM,
    figure8.ITEM,
    figure9.ITEM,
)
