-- Which layers and roles rotate most?
-- DuckDB; SET VARIABLE store = '.opd/store' first.
WITH ends AS (
    SELECT *
    FROM read_parquet(getvariable('store') || '/lake/rotation/recipe=*/seed=*/part-0.parquet', hive_partitioning = true)
    QUALIFY step = max(step) OVER (PARTITION BY recipe, seed)
)
SELECT recipe, layer, role, avg(mean_deg) AS degrees, max(error_deg) AS error, count(DISTINCT seed) AS runs
FROM ends WHERE "view" = 'bf16' AND side = 'input' AND k = 16
GROUP BY ALL ORDER BY recipe, degrees DESC NULLS LAST, layer NULLS LAST, role
