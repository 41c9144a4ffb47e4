-- Which arms leave how many weights unchanged at the end, in bf16 and in the fp32 masters?
-- DuckDB; SET VARIABLE store = '.opd/store' first.
WITH ends AS (
    SELECT recipe, seed, "view", numel, unchanged
    FROM read_parquet(getvariable('store') || '/lake/update_support/recipe=*/seed=*/part-0.parquet', hive_partitioning = true)
    WHERE scope = 'projection'
    QUALIFY step = max(step) OVER (PARTITION BY recipe, seed)
), by_run AS (
    SELECT recipe, seed, "view", sum(unchanged * numel) / sum(numel) AS kept FROM ends GROUP BY ALL
)
SELECT recipe,
    count(DISTINCT seed) AS runs,
    avg(kept) FILTER ("view" = 'bf16') AS bf16,
    avg(kept) FILTER ("view" = 'master') AS master
FROM by_run GROUP BY recipe ORDER BY bf16, recipe
