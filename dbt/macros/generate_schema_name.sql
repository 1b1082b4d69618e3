{#-
    Schemas are named exactly as configured: no prefix of the target. On Snowflake the marts are built beside the
    published ones, which `stripe_platform/warehouse/snowflake/build.py` replaces once the tests have passed.
-#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {%- set name = (custom_schema_name or target.schema) | trim -%}
    {{ target.schema ~ '_build' if target.type == 'snowflake' and name == 'marts' else name }}
{%- endmacro %}
