-- A charge that did not succeed, were it for the model's own block, can never be reported as fraud: it has no label,
-- and is not called a false positive.
with reports as (
    select charge_id
    from {{ ref('fact_disputes') }}
    where reason = 'fraudulent'
    union all
    select charge_id
    from {{ ref('stg_early_fraud_warnings') }}
),

reported as (
    select distinct charge_id
    from reports
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
        charges.amount_captured_reporting as amount
    from decisions
    inner join {{ ref('fact_charges') }} as charges on decisions.charge_id = charges.charge_id
    left join reported on charges.charge_id = reported.charge_id
)

select
    day,
    merchant_id,
    model_version,
    cast(count(*) as bigint) as charges,
    cast(sum(case when cell = 'caught' then 1 else 0 end) as bigint) as caught,
    cast(sum(case when cell = 'missed' then 1 else 0 end) as bigint) as missed,
    cast(sum(case when cell = 'false_positive' then 1 else 0 end) as bigint) as false_positives,
    cast(sum(case when cell = 'passed' then 1 else 0 end) as bigint) as passed,
    cast(sum(case when cell = 'without_label' then 1 else 0 end) as bigint) as without_label,
    cast(
        {{ sum_of_all("case when cell in ('caught', 'missed') then amount else 0 end") }} as bigint
    ) as fraud_amount_reporting,
    cast({{ sum_of_all("case when cell = 'caught' then amount else 0 end") }} as bigint) as caught_amount_reporting,
    cast({{ sum_of_all("case when cell = 'missed' then amount else 0 end") }} as bigint) as missed_amount_reporting,
    cast(
        {{ sum_of_all("case when cell = 'false_positive' then amount else 0 end") }} as bigint
    ) as false_positive_amount_reporting
from judged
group by day, merchant_id, model_version
