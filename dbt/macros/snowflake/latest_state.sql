{#- The first condition can be hashed; Snowflake joins on null-safe comparisons alone by trying every pair. -#}
{% macro snowflake__same_key(left, right, key) -%}
    coalesce(cast({{ left }}.{{ key[0] }} as varchar), '') = coalesce(cast({{ right }}.{{ key[0] }} as varchar), '')
    and {{ default__same_key(left, right, key) }}
{%- endmacro %}

{#- Replaces the state of every key in the batch, in one statement. -#}
{% macro snowflake__get_incremental_latest_state_sql(arguments) -%}
    {%- set columns = arguments['dest_columns'] | map(attribute='quoted') | list -%}
    merge into {{ arguments['target_relation'] }} as state
    using {{ arguments['temp_relation'] }} as batch
    on {{ same_key('state', 'batch', arguments['unique_key']) }}
    when matched then update set
        {%- for column in columns %}
        {{ column }} = batch.{{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    when not matched then insert ({{ columns | join(', ') }})
    values ({% for column in columns %}batch.{{ column }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}
