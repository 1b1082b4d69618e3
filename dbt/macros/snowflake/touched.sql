{#- Each statement of dbt's commits by itself on Snowflake: together they are one transaction only when told so. -#}
{% macro snowflake__get_incremental_touched_sql(arguments) -%}
    {{ snowflake_dml_explicit_transaction(default__get_incremental_touched_sql(arguments)) }}
{%- endmacro %}
