"""The contract of every table: column names, types, units and meanings, declared once.

Fractions lie in [0, 1], angles are in degrees, norms are in weight units. `output` is the left singular space of the
[out, in] weight, `input` the right. A value that does not exist (a cut past min(m, n), a zero update) is null and its
row says why in `reason`; it is never NaN.
"""

from pipelines.lake.schemas import compared, geometry, training
from pipelines.lake.schemas.column import Column, Table

__all__ = ["TABLES", "Column", "Table"]

TABLES = {table.name: table for room in (training, geometry, compared) for table in room.TABLES}
