-- Prorations are paid once, a void invoice was never owed, metered use does not recur, and a subscription whose first
-- invoice nobody paid has not begun.
select
    lines.subscription_item_id,
    items.subscription_id,
    subscriptions.merchant_id,
    subscriptions.customer_id,
    subscriptions.currency,
    cast(date_trunc('month', {{ utc_day('lines.period_start') }}) as date) as month,
    lines.quantity,
    cast(
        round(
            cast(lines.amount as double)
            * case prices.recurring_interval when 'week' then 52 when 'day' then 365 else 1 end
            / (case prices.recurring_interval when 'month' then 1 else 12 end * prices.interval_count)
        ) as bigint
    ) as amount_a_month,
    case
        when subscriptions.ended_at is not null then {{ utc_day('subscriptions.ended_at') }}
        when subscriptions.status = 'canceled' then {{ utc_day('subscriptions.canceled_at') }}
    end as ended_on
from {{ ref('stg_invoice_lines') }} as lines
inner join {{ ref('stg_invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
inner join {{ ref('stg_subscription_items') }} as items on lines.subscription_item_id = items.subscription_item_id
inner join {{ ref('stg_subscriptions') }} as subscriptions on items.subscription_id = subscriptions.subscription_id
inner join {{ ref('stg_prices') }} as prices on coalesce(lines.price_id, items.price_id) = prices.price_id
where
    not lines.proration
    and invoices.status <> 'void'
    and prices.type = 'recurring'
    and coalesce(prices.usage_type, 'licensed') = 'licensed'
    and subscriptions.status not in ('incomplete', 'incomplete_expired')
qualify row_number() over (
    partition by lines.subscription_item_id, month
    order by lines.period_start desc, lines.created desc, lines.invoice_line_id desc
) = 1
