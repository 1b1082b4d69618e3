{#-
    The versions of a key are numbered from 1, in time; the first holds from the beginning of time, each later one from the
    end of the one before, and the last, which alone is current, without end.
-#}
{% test versions_follow_each_other(model, key) %}
with versions as (
    select
        {{ key }}, version_id, valid_from, valid_to, is_current, version,
        row_number() over (partition by {{ key }} order by version) as place,
        lag(valid_to) over (partition by {{ key }} order by version) as end_of_previous,
        lead(version) over (partition by {{ key }} order by version) is null as is_last
    from {{ model }}
)

select version_id
from versions
where
    version is distinct from place
    or valid_from is distinct from case when place = 1 then {{ beginning_of_time() }} else end_of_previous end
    or (not is_last and valid_to is null)
    or valid_to <= valid_from
    or is_current is distinct from is_last
    or is_current is distinct from (valid_to is null)
{% endtest %}
