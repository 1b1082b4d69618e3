{#- The UTC day of a timestamp with time zone. -#}
{% macro utc_day(column) -%}
cast({{ column }} at time zone 'UTC' as date)
{%- endmacro %}
