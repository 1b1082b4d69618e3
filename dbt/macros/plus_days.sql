{#- A date so many days later. -#}
{% macro plus_days(day, number) -%}
{{ adapter.dispatch('plus_days')(day, number) }}
{%- endmacro %}

{% macro default__plus_days(day, number) -%}
{{ day }} + cast({{ number }} as integer)
{%- endmacro %}

{% macro snowflake__plus_days(day, number) -%}
dateadd('day', {{ number }}, {{ day }})
{%- endmacro %}
