{#-
    Every version of every key of a captured table, from the raw change log: a slowly changing dimension of type 2.

    What it shows of a key last is what `latest_state` shows: both skip the same replays, carry the same unchanged
    values and end rows at the same deletes, truncates and gaps. The Kafka offset is the order.

    One row per state of a key's `attributes` that lasted:
        version_id, version    unique; 1, 2, … of the key
        valid_from, valid_to   half-open; the first version holds from the beginning of time, the last has no end
        is_current             it has no end
        is_deleted             the row was deleted, or `is_deleted` (SQL over the attributes) holds
        committed_at           when the change that made the version was committed
        <key>, <attributes>    a deleted row keeps those it had last

    A version begins when its change was committed, or an earlier change of the key where the clock stepped back. Of
    changes with one commit time, as those of a transaction, only the last has a version. A state that equals the one
    before, as of a row that is read again, begins none.

    After the last commit before a gap nothing is known of its partition: there a row ends. But one that is read,
    updated or deleted behind the gap has lived till then; one that is inserted there has not.
-#}
{% macro versions(table, key, attributes, is_deleted='false') -%}
{%- set log = source('raw', table) -%}
{%- set large = can_be_unchanged(log, attributes) -%}
{%- set of_key = 'partition by ' ~ key ~ ', _partition' -%}
{%- set history = of_key ~ ' order by _offset' -%}

with truncates as (
    select _lsn, _committed_at from {{ log }} where _op = 't'
),

gaps as (
    select
        gap._partition,
        gap._offset,
        coalesce(lag(gap._offset) over (partition by gap._partition order by gap._offset), -1) as previous_offset,
        max(earlier._committed_at) + interval '1 microsecond' as unknown_from
    from {{ log }} as gap
    inner join {{ log }} as earlier on gap._partition = earlier._partition and gap._offset > earlier._offset
    where gap._op = 'g'
    group by gap._partition, gap._offset
),

-- Each with the gap that comes next.
changes as (
    select
        {{ qualified('logged', [key] + attributes) }},
        logged._op,
        logged._partition,
        logged._offset,
        logged._lsn,
        logged._committed_at,
        logged._unchanged,
        case when logged._op <> 'r' and not coalesce(logged._snapshot, false) then logged._lsn end as streamed_lsn,
        gaps._offset as gap_offset,
        gaps.unknown_from
    from {{ log }} as logged
    left join gaps
        on
            logged._partition = gaps._partition
            and logged._offset > gaps.previous_offset
            and logged._offset < gaps._offset
    where logged.{{ key }} is not null
),

judged as (
    select
        *,
        max(streamed_lsn) over ({{ history }} rows between unbounded preceding and 1 preceding) as highest_lsn
    from changes
),

-- Without the stale ones; with the offsets at which each value, and the row, was seen last, and what comes next.
events as (
    select
        *,
        {%- for column in large %}
        max(case when _op <> 'd' and not {{ is_left_out(column) }} then _offset end) over ({{ history }})
            as {{ column }}_seen_at,
        {%- endfor %}
        max(case when _op <> 'd' then _offset end) over ({{ history }}) as row_offset,
        coalesce(max(case when _op = 'd' then _offset end) over ({{ history }}), -1) as deleted_offset,
        lead(_op) over ({{ history }}) as next_op,
        lead(_offset) over ({{ history }}) as next_offset,
        lead(_lsn) over ({{ history }}) as next_lsn,
        lead(_committed_at) over ({{ history }}) as next_committed_at
    from judged
    where coalesce(streamed_lsn >= highest_lsn, true)
),

-- A value that was left out is the one seen last, unless the row was deleted or changes were lost since.
complete as (
    select
        {{ qualified('events', [key, '_partition', '_offset']) }}
        {%- for column in attributes %},
        {%- if column in large %}
        case
            when events.{{ column }}_seen_at = events._offset then events.{{ column }}
            else {{ column }}_seen.{{ column }}
        end as {{ column }}
        {%- else %}
        events.{{ column }}
        {%- endif %}
        {%- endfor %}
    from events
    {%- for column in large %}
    left join events as {{ column }}_seen
        on
            events._partition = {{ column }}_seen._partition
            and events.{{ column }}_seen_at = {{ column }}_seen._offset
            and events.{{ column }}_seen_at < events._offset
            and events.{{ column }}_seen_at > events.deleted_offset
            and events.gap_offset is not distinct from {{ column }}_seen.gap_offset
    {%- endfor %}
    where events._op <> 'd'
),

-- Rows that end without a change of their own.
ends as (
    select {{ key }}, _partition, _offset, row_offset, unknown_from as _committed_at
    from events
    where gap_offset is not null and (next_op is null or (next_op = 'c' and next_offset > gap_offset))
    union all
    select {{ qualified('events', [key, '_partition', '_offset', 'row_offset']) }}, truncates._committed_at
    from events
    cross join truncates
    where
        {{ is_before_truncate('events._lsn', 'events._committed_at') }}
        and not {{ is_before_truncate('events.next_lsn', 'events.next_committed_at') }}
),

states as (
    select {{ key }}, _partition, _offset, row_offset, _committed_at, _op = 'd' as is_gone, false as is_end
    from events
    union all
    select {{ key }}, _partition, _offset, row_offset, _committed_at, true as is_gone, true as is_end
    from ends
),

in_time as (
    select
        {{ key }}, _partition, _offset, row_offset, is_gone, is_end,
        max(_committed_at) over ({{ history }}, is_end, _committed_at) as committed_at
    from states
),

lasting as (
    select {{ key }}, _partition, row_offset, is_gone, committed_at
    from in_time
    qualify lead(committed_at) over ({{ history }}, is_end, committed_at) is distinct from committed_at
),

described as (
    select
        {{ qualified('lasting', [key, '_partition', 'committed_at']) }},
        lasting.is_gone or ({{ is_deleted }}) as is_deleted,
        {{ qualified('complete', attributes) }}
    from lasting
    left join complete on lasting._partition = complete._partition and lasting.row_offset = complete._offset
),

distinguished as (
    select *
    from described
    qualify
        row_number() over ({{ of_key }} order by committed_at) = 1
        {%- for column in ['is_deleted'] + attributes %}
        or lag({{ column }}) over ({{ of_key }} order by committed_at) is distinct from {{ column }}
        {%- endfor %}
),

numbered as (
    select
        *,
        cast(row_number() over ({{ of_key }} order by committed_at) as integer) as version,
        lead(committed_at) over ({{ of_key }} order by committed_at) as valid_to
    from distinguished
)

select
    {{ key }} || ':' || cast(version as varchar) as version_id,
    {{ key }},
    {{ attributes | join(', ') }},
    version,
    case when version = 1 then {{ beginning_of_time() }} else committed_at end as valid_from,
    valid_to,
    valid_to is null as is_current,
    is_deleted,
    committed_at
from numbered
{%- endmacro %}

{% macro beginning_of_time() -%}
cast('0001-01-01 00:00:00+00' as timestamp with time zone)
{%- endmacro %}

{#- Those of the columns that PostgreSQL may leave out of an update: large texts. -#}
{% macro can_be_unchanged(log, columns) -%}
    {%- set others = [] -%}
    {%- if execute -%}
        {%- for column in adapter.get_columns_in_relation(log) -%}
            {%- if not column.is_string() -%}
                {%- do others.append(column.name | lower) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{ return(columns | reject('in', others) | list) }}
{%- endmacro %}

{#- A row that an incremental snapshot read has no LSN: its time decides. -#}
{% macro is_before_truncate(lsn, committed_at) -%}
    coalesce({{ lsn }} < truncates._lsn, {{ committed_at }} < truncates._committed_at, false)
{%- endmacro %}
