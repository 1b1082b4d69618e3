-- Empty until the fraud model scores: no captured table holds scores yet. The one that will is read here alone.
select
    cast(null as varchar) as charge_id,
    cast(null as varchar) as model_version,
    cast(null as double) as score,
    cast(null as varchar) as decision,
    cast(null as timestamp with time zone) as scored_at
where false
