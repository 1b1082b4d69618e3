{#- As `default__latest_state` (macros/latest_state.sql), where it is told what the state is, in Snowflake's words. -#}
{% macro snowflake__latest_state(table, key) -%}
{{ config(
    materialized='incremental',
    incremental_strategy='latest_state',
    unique_key=key,
    on_schema_change='append_new_columns',
    tmp_relation_type='transient',
) }}
{%- set log = source('raw', table) -%}
{%- set columns = snowflake_change_log_columns(log, key) -%}
{%- set large = columns | selectattr('can_be_unchanged') | map(attribute='name') | list -%}
{%- set names = columns | map(attribute='name') | list -%}
{%- set keys = key | join(', ') -%}
{%- set incremental = is_incremental() -%}
{#- A column that is new in the log is not in the state yet: dbt adds it after this query. -#}
{%- set stored = column_names(this) if incremental else [] -%}
{%- if execute and not incremental -%}
    {%- do begin_whole(this) -%}
{%- endif -%}

with changes as (
    select
        {{ names | join(', ') }},
        _op, _partition, _offset, _lsn, _committed_at, _unchanged,
        case when _op <> 'r' and not coalesce(_snapshot, false) then _lsn end as _streamed_lsn
    from {{ log }}
    where {{ past_position(this) if incremental else 'true' }}
),

-- Where each partition's gaps end.
gaps as (
    select _partition, _offset from changes where _op = 'g'
),

last_gap as (
    select _partition, max(_offset) as _offset from gaps group by _partition
),

{% if incremental -%}
changed_keys as (
    select distinct {{ keys }}, _partition from changes
),

newly_truncated as (
    select max(_lsn) as lsn, max(_committed_at) as committed_at from changes where _op = 't'
),

-- What is known already: of every key that has changes, and of rows that a new truncate or gap empties.
known_before as (
    select state.*
    from {{ this }} as state
    inner join changed_keys on {{ snowflake_same_key('state', 'changed_keys', key) }}
    union all
    select state.*
    from {{ this }} as state
    cross join newly_truncated as truncated
    left join last_gap on state._partition = last_gap._partition
    left join changed_keys on {{ snowflake_same_key('state', 'changed_keys', key) }}
    where
        not state._deleted
        and ({{ is_truncated('state') }} or {{ is_before_gap('state._offset') }})
        and changed_keys._partition is null
),

{% endif -%}
events as (
    select
        {{ names | join(', ') }},
        _op, _partition, _offset, _lsn, _committed_at, _unchanged, _streamed_lsn
    from changes
    {%- if incremental %}
    union all
    select
        {%- for column in names %}
        {{ column if column in stored else 'null' }} as {{ column }},
        {%- endfor %}
        case when _deleted then 'd' else 'r' end as _op,
        _partition, _offset, _lsn, _committed_at,
        '[]' as _unchanged,
        _streamed_lsn
    from known_before
    {%- endif %}
),

judged as (
    select
        {{ keys }}, _op, _partition, _offset, _streamed_lsn,
        coalesce(
            _streamed_lsn < max(_streamed_lsn) over (
                partition by {{ keys }}, _partition order by _offset
                rows between unbounded preceding and 1 preceding
            ),
            false
        ) as is_stale
    from events
),

winners as (
    select
        {{ keys }}, _partition,
        coalesce(
            max(case when not is_stale and _op <> 'g' then _offset end), max(_offset)
        ) as winning_offset,
        max(case when not is_stale and _op = 'd' then _offset end) as deleted_offset,
        max(_offset) as seen_offset,
        max(_streamed_lsn) as streamed_lsn
    from judged
    group by {{ keys }}, _partition
),

truncated as (
    select max(_lsn) as lsn, max(_committed_at) as committed_at
    from (
        select _lsn, _committed_at from changes where _op = 't'
        {%- if incremental %}
        union all
        select _lsn, _committed_at from {{ this }} where {{ key[0] }} is null
        {%- endif %}
    ) as truncates
),

{% if large -%}
-- The keys whose winning change leaves out a column that did not change.
incomplete as (
    select
        {{ qualified('winners', key) }}, winners._partition,
        greatest(coalesce(winners.deleted_offset, -1), coalesce(max(gaps._offset), -1)) as unknown_offset
    from winners
    inner join changes on winners._partition = changes._partition and winners.winning_offset = changes._offset
    left join gaps on winners._partition = gaps._partition and gaps._offset < winners.winning_offset
    where changes._unchanged <> '[]'
    group by {{ qualified('winners', key) }}, winners._partition, winners.deleted_offset
),

-- The last value known of each of their columns since the key was last deleted or changes were lost.
last_known as (
    select
        {{ qualified('events', key) }}, events._partition
        {%- for column in large %},
        first_value(events.{{ column }}) over (
            partition by {{ qualified('events', key) }}, events._partition
            order by case when {{ snowflake_is_known('events', column) }} then 0 else 1 end, events._offset desc
            rows between unbounded preceding and unbounded following
        ) as {{ column }}
        {%- endfor %}
    from incomplete
    inner join events on {{ snowflake_same_key('events', 'incomplete', key) }}
    inner join judged on events._partition = judged._partition and events._offset = judged._offset
    where
        not judged.is_stale
        and events._op not in ('d', 't')
        and events._offset > incomplete.unknown_offset
    qualify
        row_number() over (
            partition by {{ qualified('events', key) }}, events._partition order by events._offset
        ) = 1
),

{% endif -%}
latest as (
    select
        {%- for column in names %}
        {% if column in large -%}
        case
            when {{ snowflake_is_known('events', column) }} then events.{{ column }} else last_known.{{ column }}
        end as {{ column }},
        {%- else -%}
        events.{{ column }},
        {%- endif %}
        {%- endfor %}
        (
            events._op in ('d', 't', 'g')
            or {{ is_truncated('events') }}
            or {{ is_before_gap('winners.winning_offset') }}
        ) as _deleted,
        winners._partition,
        winners.seen_offset as _offset,
        events._lsn,
        winners.streamed_lsn as _streamed_lsn,
        events._committed_at,
        {{ build_number() }} as _build
    from events
    inner join winners on events._partition = winners._partition and events._offset = winners.winning_offset
    cross join truncated
    left join last_gap on events._partition = last_gap._partition
    {%- if large %}
    left join last_known on {{ snowflake_same_key('events', 'last_known', key) }}
    {%- endif %}
)

select * from latest
{%- endmacro %}

{#- The table's own columns as {name (quoted), can_be_unchanged}: PostgreSQL may leave a large text out of an update. -#}
{% macro snowflake_change_log_columns(log, key) -%}
    {%- set columns = [] -%}
    {%- if execute -%}
        {%- for column in adapter.get_columns_in_relation(log) if not column.name.startswith('_') -%}
            {%- set is_large = column.name | lower not in key and column.is_string() -%}
            {%- do columns.append({'name': adapter.quote(column.name), 'can_be_unchanged': is_large}) -%}
        {%- endfor -%}
    {%- else -%}
        {%- for name in key -%}
            {%- do columns.append({'name': name, 'can_be_unchanged': false}) -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(columns) }}
{%- endmacro %}

{#- The first condition can be hashed; Snowflake joins on null-safe comparisons alone by trying every pair. -#}
{% macro snowflake_same_key(left, right, key) -%}
    coalesce(cast({{ left }}.{{ key[0] }} as varchar), '') = coalesce(cast({{ right }}.{{ key[0] }} as varchar), '')
    and {{ same_key(left, right, key) }}
{%- endmacro %}

{#- The load keeps the list as JSON text, in the names of PostgreSQL; `column` is in quotes, as there. -#}
{% macro snowflake_is_known(relation, column) -%}
    not coalesce(contains({{ relation }}._unchanged, '{{ column | lower }}'), false)
{%- endmacro %}

{#- Replaces the state of every key in the batch, in one statement. -#}
{% macro snowflake__get_incremental_latest_state_sql(arguments) -%}
    {%- set columns = arguments['dest_columns'] | map(attribute='quoted') | list -%}
    merge into {{ arguments['target_relation'] }} as state
    using {{ arguments['temp_relation'] }} as batch
    on {{ snowflake_same_key('state', 'batch', arguments['unique_key']) }}
    when matched then update set
        {%- for column in columns %}
        {{ column }} = batch.{{ column }}{{ ',' if not loop.last }}
        {%- endfor %}
    when not matched then insert ({{ columns | join(', ') }})
    values ({% for column in columns %}batch.{{ column }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}
