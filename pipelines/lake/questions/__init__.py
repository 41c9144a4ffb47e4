"""Three worked questions about the tables, each answered in three ways with the same result.

- `unchanged.py`, `.sql`   which arms leave how many weights unchanged, in bf16 and in the fp32 masters?
- `locking.py`, `.sql`     when is the final update's leading subspace in place, beside what storage alone would show?
- `rotating.py`, `.sql`    which layers and roles rotate most?
- `notebook.py`            the same through `pipelines.lake.scan`, with figures: `make notebook`

The `.py` files need Polars and nothing of this project, the `.sql` files DuckDB: they may be copied. Each function
takes the store, a folder or (Polars) an s3:// URI; in SQL it is the variable `store`.
"""
