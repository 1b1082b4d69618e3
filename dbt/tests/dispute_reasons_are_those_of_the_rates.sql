{{ config(meta={'dagster': {'ref': {'name': 'dispute_reasons'}}}) }}
-- The disputes of a month and merchant are the same by reason and by card brand.
with reasons as (
    select
        month,
        merchant_id,
        sum(disputes) as disputes,
        sum(won) as won,
        sum(lost) as lost,
        {{ sum_of_all('amount_reporting') }} as amount
    from {{ ref('dispute_reasons') }}
    group by month, merchant_id
),

rates as (
    select
        month,
        merchant_id,
        sum(disputes) as disputes,
        sum(won) as won,
        sum(lost) as lost,
        {{ sum_of_all('amount_disputed_reporting') }} as amount
    from {{ ref('dispute_rates') }}
    group by month, merchant_id
    having sum(disputes) > 0
)

{{ rows_that_differ('reasons', 'rates') }}
