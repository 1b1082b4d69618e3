{#- Whether a dispute of this status waits for nobody any more. -#}
{% macro is_closed(status) -%}
{{ status }} in ('won', 'lost', 'warning_closed', 'prevented')
{%- endmacro %}
