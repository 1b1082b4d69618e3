{{ config(meta={'dagster': {'ref': {'name': 'fact_charges'}}}) }}
-- The joins to cards and ledger neither lose nor double a charge.
with staging as (
    select
        currency,
        status,
        count(*) as charges,
        sum(amount) as amount,
        sum(amount_captured) as amount_captured,
        sum(amount_refunded) as amount_refunded
    from {{ ref('stg_charges') }}
    group by currency, status
),

mart as (
    select
        currency,
        status,
        count(*) as charges,
        sum(amount) as amount,
        sum(amount_captured) as amount_captured,
        sum(amount_refunded) as amount_refunded
    from {{ ref('fact_charges') }}
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
