{#- The reporting categories of the ledger that are revenue or its cost. -#}
{% macro revenue_categories() -%}
('charge', 'refund', 'refund_failure', 'dispute', 'dispute_reversal', 'fee')
{%- endmacro %}
