{% macro reporting_currency() -%}
'eur'
{%- endmacro %}

{#-
    An amount in minor units of a currency with so many decimals, as minor units of the reporting currency. The product
    is a decimal, so it is exact; halves are rounded to the even neighbour. Null without a rate, and beyond 64 bits. The
    online features convert in the same way (`stripe_platform/features/exchange.py`). `rates_by_day` finds the rate.
-#}
{% macro in_reporting_currency(amount, rate, exponent) -%}
{%- set factor = 'case ' ~ exponent ~ ' when 0 then 100 when 2 then 1 when 3 then 0.1 end' -%}
{%- set exact = 'cast(' ~ amount ~ ' as decimal(19, 0)) * cast(' ~ factor ~ ' as decimal(5, 2)) * ' ~ rate -%}
{%- set rounded = 'round(' ~ exact ~ ')' -%}
{#- Halves are rounded away from zero: those that became odd go back by one. -#}
{%- set too_far = 'case when abs(' ~ rounded ~ ' - ' ~ exact ~ ') = 0.5 then mod(' ~ rounded ~ ', 2) else 0 end' -%}
case when abs({{ rounded }}) <= 9223372036854775807 then cast({{ rounded }} - {{ too_far }} as bigint) end
{%- endmacro %}

{#-
    The rate of every `day` and `currency` that the relation has rows of: of the latest day up to it; null when none is.
    Join it by equality: the range is searched once a day, not once a row.
-#}
{% macro rates_by_day(relation) -%}
select
    days.day,
    days.currency,
    rates.rate,
    rates.exponent
from (select distinct day, currency from {{ relation }}) as days
left join {{ ref('int_exchange_rates') }} as rates
    on
        days.currency = rates.currency
        and days.day >= rates.valid_from
        and (days.day < rates.valid_to or rates.valid_to is null)
{%- endmacro %}

{#- The sum of amounts that may be unknown, of a group or of a window (`over (…)`): null when one of them is. -#}
{% macro sum_of_all(amount, window='') -%}
case when count(*) {{ window }} = count({{ amount }}) {{ window }} then sum({{ amount }}) {{ window }} end
{%- endmacro %}
