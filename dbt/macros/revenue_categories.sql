{#- The reporting categories of the ledger that are revenue or its cost. -#}
{% macro revenue_categories() -%}
('charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'fee')
{%- endmacro %}

{#- What the ledger rows of some reporting categories add up to. -#}
{% macro sum_in(amount, categories) -%}
sum(case when reporting_category in ('{{ categories | join("', '") }}') then {{ amount }} else 0 end)
{%- endmacro %}
