{#- Fee and net of the ledger rows that name an object of this type as their source, in the reporting currency too. -#}
{% macro ledger_of(source_type) -%}
select
    source_id,
    sum(fee) as fee,
    sum(net) as net,
    {{ sum_of_all('fee_reporting') }} as fee_reporting,
    {{ sum_of_all('net_reporting') }} as net_reporting
from {{ ref('fact_transactions') }}
where source_type = '{{ source_type }}'
group by source_id
{%- endmacro %}

{#- Keys of the rows of a fact whose fee and net are not those of its ledger rows; without any they are 0. -#}
{% macro net_not_in_the_ledger(fact, key, source_type) -%}
with ledger as (
    {{ ledger_of(source_type) }}
)

select facts.{{ key }}
from {{ fact }} as facts
left join ledger on facts.{{ key }} = ledger.source_id
where
    facts.fee <> coalesce(ledger.fee, 0)
    or facts.net <> coalesce(ledger.net, 0)
    or facts.fee_reporting is distinct from case when ledger.source_id is null then 0 else ledger.fee_reporting end
    or facts.net_reporting is distinct from case when ledger.source_id is null then 0 else ledger.net_reporting end
{%- endmacro %}
