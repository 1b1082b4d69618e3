-- A rate holds from its day until the next one of its currency; the reporting currency itself needs none.
select
    rates.currency,
    rates.day as valid_from,
    lead(rates.day) over (partition by rates.currency order by rates.day) as valid_to,
    rates.rate,
    currencies.exponent
from {{ ref('stg_exchange_rates') }} as rates
inner join {{ ref('stg_currencies') }} as currencies on rates.currency = currencies.code
where rates.currency <> {{ reporting_currency() }}
union all
select
    {{ reporting_currency() }} as currency,
    cast('0001-01-01' as date) as valid_from,
    cast(null as date) as valid_to,
    cast(1 as decimal(20, 10)) as rate,
    cast(2 as smallint) as exponent
