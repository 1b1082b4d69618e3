{#-
    Every value has its parent. A transaction committed while the cut was being made may be in it in part, so a row counts
    only if it was committed before: then its parent was too.
-#}
{% test relationships_at_cut(model, column_name, to, field) %}
select child.{{ column_name }}
from {{ model }} as child
left join {{ to }} as parent on child.{{ column_name }} = parent.{{ field }}
where
    child.{{ column_name }} is not null
    and parent.{{ field }} is null
    and child.committed_at < {{ cut_made_at() }}
{% endtest %}
