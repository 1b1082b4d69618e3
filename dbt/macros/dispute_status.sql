{#- Whether a dispute of this status waits for nobody any more. -#}
{% macro is_closed(status) -%}
{{ status }} in ('won', 'lost', 'warning_closed', 'prevented')
{%- endmacro %}

{#- Whether a dispute of this status is an inquiry: the bank asks, and takes no money. -#}
{% macro is_inquiry(status) -%}
{{ status }} in ('warning_needs_response', 'warning_under_review', 'warning_closed')
{%- endmacro %}
