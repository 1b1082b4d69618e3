{{ config(meta={'dagster': {'ref': {'name': 'fact_disputes'}}}) }}
-- Every dispute of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    select
        currency,
        status,
        count(*) as disputes,
        sum(amount) as amount
    from {{ ref('stg_disputes') }}
    group by currency, status
),

mart as (
    select
        currency,
        status,
        count(*) as disputes,
        sum(amount) as amount
    from {{ ref('fact_disputes') }}
    group by currency, status
)

(
    select * from staging
    except
    select * from mart
)
union all
(
    select * from mart
    except
    select * from staging
)
