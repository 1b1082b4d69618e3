-- A line's amount recurs until the next one's period begins, the subscription ends, or it goes on without the item.
-- Who has ended by a month's end has no MRR in it, and no row from the next month on, unless the item comes again.
with months as (
    select distinct
        month_start as month,
        cast(month_start + interval '1 month' as date) as next_month
    from {{ ref('dim_date') }}
    where day <= {{ utc_day(cut_made_at()) }}
),

terms as (
    select
        *,
        lead(month) over (partition by subscription_item_id order by month) as replaced_in
    from {{ ref('int_recurring_lines') }}
),

monthly as (
    select
        months.month,
        cast(months.next_month - interval '1 day' as date) as day,
        terms.subscription_item_id,
        terms.subscription_id,
        terms.merchant_id,
        terms.customer_id,
        terms.currency,
        case
            when terms.ended_on < months.next_month or terms.dropped_on < months.next_month then 0
            else terms.quantity
        end as quantity,
        case
            when terms.ended_on < months.next_month or terms.dropped_on < months.next_month then 0
            else terms.amount_a_month
        end as mrr
    from terms
    inner join months
        on
            terms.month <= months.month
            and (terms.replaced_in > months.month or terms.replaced_in is null)
            and (terms.ended_on >= months.month or terms.ended_on is null)
            and (terms.dropped_on >= months.month or terms.dropped_on is null or terms.replaced_in is not null)
),

rates as (
    {{ rates_by_day('monthly') }}
),

converted as (
    select
        monthly.*,
        case
            when monthly.mrr = 0 then 0
            else {{ in_reporting_currency('monthly.mrr', 'rates.rate', 'rates.exponent') }}
        end as mrr_reporting
    from monthly
    left join rates on monthly.day = rates.day and monthly.currency = rates.currency
),

followed as (
    select
        *,
        lag(mrr, 1, 0) over (partition by subscription_item_id order by month) as previous_mrr,
        lag(mrr_reporting, 1, 0) over (partition by subscription_item_id order by month) as previous_mrr_reporting
    from converted
),

-- A customer who left and comes back does so by a new subscription: then it is the customer's MRR that begins again.
-- Beside a subscription that goes on, another one is new.
remembered as (
    select
        *,
        min(case when mrr > 0 then month end) over (partition by subscription_item_id) as first_month_of_item,
        min(case when mrr > 0 then month end) over (partition by customer_id) as first_month_of_customer,
        max(case when mrr > 0 and previous_mrr > 0 then 1 else 0 end) over (
            partition by customer_id, month
        ) as customer_goes_on
    from followed
)

select
    month,
    subscription_item_id,
    subscription_id,
    merchant_id,
    customer_id,
    currency,
    quantity,
    cast(mrr as bigint) as mrr,
    cast(previous_mrr as bigint) as previous_mrr,
    cast(mrr - previous_mrr as bigint) as change,
    case
        when mrr = previous_mrr then 'unchanged'
        when mrr = 0 then 'churn'
        when previous_mrr > 0 and mrr > previous_mrr then 'expansion'
        when previous_mrr > 0 then 'contraction'
        when first_month_of_item < month then 'reactivation'
        when first_month_of_customer < month and customer_goes_on = 0 then 'reactivation'
        else 'new'
    end as movement,
    cast(mrr_reporting as bigint) as mrr_reporting,
    cast(previous_mrr_reporting as bigint) as previous_mrr_reporting,
    cast(mrr_reporting - previous_mrr_reporting as bigint) as change_reporting
from remembered
