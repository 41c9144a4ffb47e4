"""The classes Column and Table, and the columns that many tables share."""

from dataclasses import dataclass

import polars as pl

TEXT, INT, REAL, FLAG = pl.String(), pl.Int64(), pl.Float64(), pl.Boolean()


@dataclass(frozen=True)
class Column:
    """One column: Polars type, unit ("" for none) and meaning. was: its names in older files."""

    name: str
    dtype: pl.DataType
    unit: str
    meaning: str
    was: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """One table. by: the hive keys of a partition, i.e. of a run (recipe, seed), a study or a commit."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    by: tuple[str, ...] = ("recipe", "seed")

    @property
    def schema(self) -> pl.Schema:
        return pl.Schema({column.name: column.dtype for column in self.columns})


STUDY = Column("study", TEXT, "", "study the run belongs to")
RECIPE = Column("recipe", TEXT, "", "<study>.<arm>, or external.<name> for imported checkpoints")
SEED = Column("seed", INT, "", "seed of the run")
STEP = Column("step", INT, "optimizer steps", "optimizer step of the row; 0 is the start W0")
RUN_KEYS = (STUDY, RECIPE, SEED, STEP)
MATRIX_KEYS = (
    *RUN_KEYS,
    Column("matrix", TEXT, "", "Hugging Face parameter name without .weight"),
    Column("layer", INT, "", "decoder layer index; null outside the decoder"),
    Column("role", TEXT, "", "q k v o gate up down, or embed head norm bias other"),
)
DEPENDS_ON = (
    Column("dtype", TEXT, "", "dtype the snapshot stores: bf16 fp16 fp32 fp64; fp32-update-bf16: W0 and a bf16 update"),
    Column("objective", TEXT, "", "objective that trained the run; null for imported checkpoints"),
    Column("optimizer", TEXT, "", "optimizer with its betas and eps"),
    Column("learning_rate", REAL, "", "peak learning rate"),
    Column("weight_decay", REAL, "", "decoupled weight decay"),
    Column("run_steps", INT, "optimizer steps", "steps of the whole run"),
    Column("method", TEXT, "", "algorithm and version that produced the row"),
)
VIEW = Column("view", TEXT, "", "bf16 (what is served) or master (stored dtype, where wider than bf16)")
SIDE = Column("side", TEXT, "", "output (left singular space) or input (right)")
REASON = Column("reason", TEXT, "", "why a value is null; null when nothing is missing")
