{#- What one of two relations has and the other has not; none when both hold the same rows. -#}
{% macro rows_that_differ(one, other) -%}
(
    select * from {{ one }}
    except
    select * from {{ other }}
)
union all
(
    select * from {{ other }}
    except
    select * from {{ one }}
)
{%- endmacro %}

{#- The rows of a relation counted, and its `sums` added up, for each combination of `keys`. -#}
{% macro sums_by(relation, keys, sums) -%}
select
    {{ keys | join(', ') }},
    count(*) as row_count
    {%- for column in sums %},
    sum({{ column }}) as {{ column }}
    {%- endfor %}
from {{ relation }}
group by {{ keys | join(', ') }}
{%- endmacro %}
