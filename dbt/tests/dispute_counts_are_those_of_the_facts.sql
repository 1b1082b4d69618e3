{{ config(meta={'dagster': {'ref': {'name': 'dispute_rates'}}}) }}
-- Every successful charge is counted in its month and the one after, every dispute in its own and that of its charge.
with facts as (
    select
        'charges' as counted,
        {{ month_of('day') }} as month,
        count(*) as occurrences
    from {{ ref('fact_charges') }}
    where status = 'succeeded'
    group by {{ month_of('day') }}
    union all
    select
        'charges of the month before' as counted,
        months.day as month,
        count(*) as occurrences
    from {{ ref('fact_charges') }} as charges
    inner join {{ ref('dim_date') }} as months
        on months.day = {{ month_of('charges.day') }} + interval '1 month'
    where charges.status = 'succeeded'
    group by months.day
    union all
    select
        'disputes' as counted,
        {{ month_of('day') }} as month,
        count(*) as occurrences
    from {{ ref('fact_disputes') }}
    where not is_inquiry
    group by {{ month_of('day') }}
    union all
    select
        'disputes of charges' as counted,
        {{ month_of('charges.day') }} as month,
        count(*) as occurrences
    from {{ ref('fact_disputes') }} as disputes
    inner join {{ ref('fact_charges') }} as charges on disputes.charge_id = charges.charge_id
    where not disputes.is_inquiry
    group by {{ month_of('charges.day') }}
),

mart as (
    select
        'charges' as counted,
        month,
        sum(successful_charges) as occurrences
    from {{ ref('dispute_rates') }}
    group by month
    having sum(successful_charges) > 0
    union all
    select
        'charges of the month before' as counted,
        month,
        sum(charges_of_month_before) as occurrences
    from {{ ref('dispute_rates') }}
    group by month
    having sum(charges_of_month_before) > 0
    union all
    select
        'disputes' as counted,
        month,
        sum(disputes) as occurrences
    from {{ ref('dispute_rates') }}
    group by month
    having sum(disputes) > 0
    union all
    select
        'disputes of charges' as counted,
        month,
        sum(disputes_of_charges) as occurrences
    from {{ ref('dispute_rates') }}
    group by month
    having sum(disputes_of_charges) > 0
)

{{ rows_that_differ('facts', 'mart') }}
