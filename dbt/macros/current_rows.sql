{#- The rows that exist at the cut, every column of theirs (a new one flows through), with `rename` {old: new}. -#}
{% macro current_rows(table, rename={}) -%}
select
    * exclude (_deleted, _partition, _offset, _lsn, _streamed_lsn, _build)
    rename (
        {%- for old, new in rename.items() %}{{ old }} as {{ new }}, {% endfor -%}
        _committed_at as committed_at
    )
from {{ ref('state_' ~ table) }}
where not _deleted
{%- endmacro %}
