-- When is the final update's leading subspace in place, beside what storage alone would show?
-- DuckDB; SET VARIABLE store = '.opd/store' first.
WITH ends AS (
    SELECT *
    FROM read_parquet(getvariable('store') || '/lake/locking/recipe=*/seed=*/part-0.parquet', hive_partitioning = true)
    WHERE side = 'input' AND k = 16
    QUALIFY step_other = max(step_other) OVER (PARTITION BY recipe, seed)
), by_run AS (
    SELECT recipe, seed, step,
        avg(similarity) FILTER ("view" = 'master') AS master,
        avg(similarity) FILTER ("view" = 'bf16') AS bf16,
        avg(chance) AS chance
    FROM ends GROUP BY ALL
), still AS (
    SELECT recipe, seed, step, avg(similarity_input) AS similarity
    FROM read_parquet(getvariable('store') || '/lake/nulls/recipe=*/seed=*/part-0.parquet', hive_partitioning = true)
    WHERE "null" = 'fixed_direction' AND similarity_k = 16 GROUP BY ALL
), nulls AS (
    SELECT recipe, step, avg(similarity) AS similarity FROM still GROUP BY ALL
)
SELECT by_run.recipe, by_run.step, avg(master) AS master, avg(bf16) AS bf16,
    any_value(nulls.similarity) AS "null", avg(chance) AS chance
FROM by_run LEFT JOIN nulls USING (recipe, step)
GROUP BY ALL ORDER BY ALL
