{#- The ways by which a change of another table reaches a charge, each a list of keys for the body of `touched`. -#}

{#- Methods whose card, or whose own row, changed. -#}
{% macro payment_methods_changed() -%}
{{ changed('payment_methods', 'id') }}
union all
select payment_method_id from {{ ref('stg_payment_methods') }}
where card_fingerprint in ({{ changed('card_fingerprints', 'fingerprint') }})
{%- endmacro %}

{#- Charges whose ledger rows changed, or were made those of another charge by a refund or dispute that changed. -#}
{% macro charges_of_ledger_changed() -%}
{{ ever_named('balance_transactions', 'source_id', only="source_type = 'charge'") }}
union all
{{ ever_named('refunds', 'charge_id') }}
union all
{{ ever_named('disputes', 'charge_id') }}
union all
select charge_id from {{ ref('stg_refunds') }}
where refund_id in ({{ ever_named('balance_transactions', 'source_id', only="source_type = 'refund'") }})
union all
select charge_id from {{ ref('stg_disputes') }}
where dispute_id in ({{ ever_named('balance_transactions', 'source_id', only="source_type = 'dispute'") }})
{%- endmacro %}

{#- Whether what the network said of a row of `fact_charges`, or the card that was charged, changed. -#}
{% macro outcome_or_card_changed() -%}
charge_id in ({{ changed('charge_outcomes', 'charge_id') }}) or payment_method_id in ({{ payment_methods_changed() }})
{%- endmacro %}
