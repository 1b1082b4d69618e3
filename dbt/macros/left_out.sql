{#- Whether PostgreSQL left a column, quoted or not, out of a change, as it does with a large text that did not change. -#}
{% macro is_left_out(column, relation=none) -%}
{{ adapter.dispatch('is_left_out')(column | replace('"', ''), relation ~ '.' if relation else '') }}
{%- endmacro %}

{% macro default__is_left_out(column, prefix) -%}
coalesce(list_contains({{ prefix }}_unchanged, '{{ column }}'), false)
{%- endmacro %}

{#- The load keeps the list as JSON text, in the names of PostgreSQL. -#}
{% macro snowflake__is_left_out(column, prefix) -%}
coalesce(contains({{ prefix }}_unchanged, '"{{ column | lower }}"'), false)
{%- endmacro %}

{#- What a change that leaves nothing out says. -#}
{% macro nothing_left_out() -%}
{{ adapter.dispatch('nothing_left_out')() }}
{%- endmacro %}

{% macro default__nothing_left_out() -%}
cast([] as varchar[])
{%- endmacro %}

{% macro snowflake__nothing_left_out() -%}
'[]'
{%- endmacro %}
