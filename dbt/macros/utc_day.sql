{#- The UTC day of a timestamp with time zone. -#}
{% macro utc_day(column) -%}
{{ adapter.dispatch('utc_day')(column) }}
{%- endmacro %}

{% macro default__utc_day(column) -%}
cast({{ column }} at time zone 'UTC' as date)
{%- endmacro %}

{% macro snowflake__utc_day(column) -%}
cast(convert_timezone('UTC', {{ column }}) as date)
{%- endmacro %}

{#- The first day of its month, UTC. -#}
{% macro utc_month(column) -%}
{{ month_of(utc_day(column)) }}
{%- endmacro %}

{#- The first day of the month of a day. -#}
{% macro month_of(day) -%}
cast(date_trunc('month', {{ day }}) as date)
{%- endmacro %}
