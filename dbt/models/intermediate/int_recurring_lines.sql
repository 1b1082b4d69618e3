-- Prorations are paid once, a void invoice was never owed, metered use does not recur, and a subscription whose first
-- invoice nobody paid has not begun.
with owed as (
    select
        lines.invoice_line_id,
        lines.subscription_item_id,
        items.subscription_id,
        subscriptions.merchant_id,
        subscriptions.customer_id,
        subscriptions.currency,
        {{ utc_month('lines.period_start') }} as month,
        lines.quantity,
        lines.amount,
        lines.period_start,
        lines.period_end,
        lines.created,
        prices.recurring_interval,
        prices.interval_count,
        coalesce(prices.usage_type, 'licensed') = 'licensed' as is_licensed,
        case
            when subscriptions.ended_at is not null then {{ utc_day('subscriptions.ended_at') }}
            when subscriptions.status = 'canceled' then {{ utc_day('subscriptions.canceled_at') }}
        end as ended_on,
        lead(lines.period_start) over (
            partition by lines.subscription_item_id
            order by lines.period_start, lines.created, lines.invoice_line_id
        ) as next_period_start
    from {{ ref('stg_invoice_lines') }} as lines
    inner join {{ ref('stg_invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
    inner join {{ ref('stg_subscription_items') }} as items on lines.subscription_item_id = items.subscription_item_id
    inner join {{ ref('stg_subscriptions') }} as subscriptions on items.subscription_id = subscriptions.subscription_id
    inner join {{ ref('stg_prices') }} as prices on coalesce(lines.price_id, items.price_id) = prices.price_id
    where
        not lines.proration
        and invoices.status <> 'void'
        and prices.type = 'recurring'
        and subscriptions.status not in ('incomplete', 'incomplete_expired')
),

last_of_month as (
    select *
    from owed
    where is_licensed
    qualify row_number() over (
        partition by subscription_item_id, month
        order by period_start desc, created desc, invoice_line_id desc
    ) = 1
),

-- Items of one subscription may be billed at times and for intervals of their own: an invoice without an item says
-- nothing before the item's period is over.
left_out as (
    select distinct
        item.subscription_item_id,
        item.month
    from last_of_month as item
    inner join owed as others
        on
            item.subscription_id = others.subscription_id
            and item.subscription_item_id <> others.subscription_item_id
            and item.period_start < others.period_start
            and item.period_end < others.period_end
    where item.next_period_start is null or item.next_period_start > item.period_end
)

select
    lines.subscription_item_id,
    lines.subscription_id,
    lines.merchant_id,
    lines.customer_id,
    lines.currency,
    lines.month,
    lines.quantity,
    cast(
        round(
            cast(lines.amount as double)
            * case lines.recurring_interval when 'week' then 52 when 'day' then 365 else 1 end
            / (case lines.recurring_interval when 'month' then 1 else 12 end * lines.interval_count)
        ) as bigint
    ) as amount_a_month,
    lines.ended_on,
    case when left_out.month is not null then {{ utc_day('lines.period_end') }} end as dropped_on
from last_of_month as lines
left join left_out on lines.subscription_item_id = left_out.subscription_item_id and lines.month = left_out.month
