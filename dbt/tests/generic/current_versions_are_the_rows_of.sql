{#-
    The current versions are the rows of a staging model, in its `columns` (with `rename` {column of staging: column}), and
    all others are deleted. `deleted`, SQL over staging, says which of its rows count as deleted too.
-#}
{% test current_versions_are_the_rows_of(model, rows, columns, rename={}, deleted='false') %}
with current_versions as (
    select
        {%- for column in columns %}
        {{ rename.get(column, column) }},
        {%- endfor %}
        is_deleted
    from {{ model }}
    where is_current
),

current_rows as (
    select
        {%- for column in columns %}
        {{ column }} as {{ rename.get(column, column) }},
        {%- endfor %}
        {{ deleted }} as is_deleted
    from {{ rows }}
)

(
    select * from current_rows
    except
    select * from current_versions
)
union all
(
    select * from current_versions where not is_deleted
    except
    select * from current_rows
)
{% endtest %}
