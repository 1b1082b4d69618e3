{{ config(meta={'dagster': {'ref': {'name': 'fact_transactions'}}}) }}
-- Every movement of staging is in the fact once: a lost or doubled row shows as a count or a sum per currency.
with staging as (
    select
        currency,
        count(*) as movements,
        sum(amount) as amount,
        sum(fee) as fee,
        sum(net) as net
    from {{ ref('stg_transactions') }}
    group by currency
),

mart as (
    select
        currency,
        count(*) as movements,
        sum(amount) as amount,
        sum(fee) as fee,
        sum(net) as net
    from {{ ref('fact_transactions') }}
    group by currency
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
