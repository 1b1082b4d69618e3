-- A charge that did not succeed, were it for the model's own block, can never be reported as fraud: it has no label,
-- and is not called a false positive.
with reported as (
    select charge_id
    from {{ ref('fact_disputes') }}
    where reason = 'fraudulent'
    union distinct
    select charge_id
    from {{ ref('stg_early_fraud_warnings') }}
),

-- What a model said first is what was acted on; a charge scored again has not been decided again.
decisions as (
    select
        charge_id,
        model_version,
        decision
    from {{ ref('int_fraud_scores') }}
    qualify row_number() over (partition by charge_id, model_version order by scored_at, score, decision) = 1
),

rates as (
    {{ rates_by_day(ref('fact_charges')) }}
),

judged as (
    select
        charges.day,
        charges.merchant_id,
        decisions.model_version,
        case
            when reported.charge_id is not null and decisions.decision in ('review', 'block') then 'caught'
            when reported.charge_id is not null then 'missed'
            when charges.status <> 'succeeded' then 'without_label'
            when decisions.decision in ('review', 'block') then 'false_positive'
            else 'passed'
        end as cell,
        {{ in_reporting_currency('charges.amount', 'rates.rate', 'rates.exponent') }} as amount
    from decisions
    inner join {{ ref('fact_charges') }} as charges on decisions.charge_id = charges.charge_id
    left join reported on charges.charge_id = reported.charge_id
    left join rates on charges.day = rates.day and charges.currency = rates.currency
),

counted as (
    select
        day,
        merchant_id,
        model_version,
        count(*) as charges,
        sum(case when cell = 'caught' then 1 else 0 end) as caught,
        sum(case when cell = 'missed' then 1 else 0 end) as missed,
        sum(case when cell = 'false_positive' then 1 else 0 end) as false_positives,
        sum(case when cell = 'passed' then 1 else 0 end) as passed,
        sum(case when cell = 'without_label' then 1 else 0 end) as without_label,
        sum(case when cell in ('caught', 'missed') then amount else 0 end) as fraud_amount,
        sum(case when cell = 'caught' then amount else 0 end) as caught_amount,
        sum(case when cell = 'missed' then amount else 0 end) as missed_amount,
        sum(case when cell = 'false_positive' then amount else 0 end) as false_positive_amount,
        count(*) = count(amount) as has_rates
    from judged
    group by day, merchant_id, model_version
)

select
    day,
    merchant_id,
    model_version,
    cast(charges as bigint) as charges,
    cast(caught as bigint) as caught,
    cast(missed as bigint) as missed,
    cast(false_positives as bigint) as false_positives,
    cast(passed as bigint) as passed,
    cast(without_label as bigint) as without_label,
    cast(case when has_rates then fraud_amount end as bigint) as fraud_amount_reporting,
    cast(case when has_rates then caught_amount end as bigint) as caught_amount_reporting,
    cast(case when has_rates then missed_amount end as bigint) as missed_amount_reporting,
    cast(case when has_rates then false_positive_amount end as bigint) as false_positive_amount_reporting
from counted
