{#-
    The latest state of every key of a captured table, as an incremental table over the raw change log.

    Within a partition the Kafka offset is the order, and a key is always in one partition. Only a streamed change whose
    LSN is below one that was streamed for the key at a lower offset is stale (a replay by hand) and is skipped.

    One row per key ever seen, deleted ones included: a replayed insert must meet the memory of the delete.
        _deleted       the key's last change is a delete, or a truncate came after it
        _partition, _offset   the highest offset seen of the key, stale changes included
        _lsn, _committed_at   position and commit time of the change that the row shows (LSN null: incremental snapshot)
        _streamed_lsn  the highest LSN streamed for the key
        _build         number of the build that wrote the row last: what hangs on it is told by it what to look at again
    A truncate has no key: it is kept as a row whose key is null, one per partition. As no row ever leaves the table,
    the highest offset per partition is the position up to which the change log is taken in.

    A gap (`_op` is 'g', no key, no LSN; `stripe_platform/raw/recovery.py` writes it) says that changes of its partition
    were lost below its offset: no row known before it counts any more, and no unchanged value is carried across it. It
    shares the row of the truncates, whose LSN it leaves as it is.
-#}
{% macro latest_state(table, key) -%}
{{ config(
    materialized='incremental',
    incremental_strategy='latest_state',
    unique_key=key,
    on_schema_change='append_new_columns',
    tmp_relation_type='transient',
) }}
{%- set log = source('raw', table) -%}
{%- set columns = change_log_columns(log, key) -%}
{%- set large = columns | selectattr('can_be_unchanged') | map(attribute='name') | list -%}
{%- set names = columns | map(attribute='name') | list -%}
{%- set keys = key | join(', ') -%}
{%- set incremental = is_incremental() -%}
{#- A column that is new in the log is not in the state yet: dbt adds it after this query. -#}
{%- set stored = column_names(this) if incremental else [] -%}
{%- set batch = {'changes': 1, 'sweeping': 1} -%}
{%- if incremental -%}
    {%- do widen_columns(this, log) -%}
    {%- set batch = new_in(log, past_position(this)) -%}
{%- elif execute -%}
    {%- do begin_whole(this) -%}
{%- endif -%}
{%- if batch['changes'] == 0 -%}
select
    {{ names | join(', ') }},
    false as _deleted, _partition, _offset, _lsn, _lsn as _streamed_lsn, _committed_at, {{ build_number() }} as _build
from {{ log }}
where false
{%- else -%}

with changes as {{ kept_in_memory(incremental) }} (
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

-- What is known already: of every key that has changes, and of rows that a new truncate or gap empties.
known_before as (
    select state.*
    from {{ this }} as state
    inner join changed_keys on {{ same_key('state', 'changed_keys', key) }}
    {%- if batch['sweeping'] %}
    union all
    select state.*
    from {{ this }} as state
    cross join (
        select max(changes._lsn) as lsn, max(changes._committed_at) as committed_at
        from changes
        where changes._op = 't'
    ) as truncated
    left join last_gap on state._partition = last_gap._partition
    left join changed_keys on {{ same_key('state', 'changed_keys', key) }}
    where
        not state._deleted
        and ({{ is_truncated('state') }} or {{ is_before_gap('state._offset') }})
        and changed_keys._partition is null
    {%- endif %}
),

{% endif -%}
events as {{ kept_in_memory(false) }} (
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
        {{ nothing_left_out() }} as _unchanged,
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
        coalesce(max(case when not is_stale and _op <> 'g' then _offset end), max(_offset)) as winning_offset,
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
    where changes._unchanged <> {{ nothing_left_out() }}
    group by {{ qualified('winners', key) }}, winners._partition, winners.deleted_offset
),

-- The last value known of each of their columns since the key was last deleted or changes were lost.
last_known as (
    select
        {{ qualified('events', key) }}, events._partition
        {%- for column in large %},
        first_value(events.{{ column }}) over (
            partition by {{ qualified('events', key) }}, events._partition
            order by case when {{ is_left_out(column, 'events') }} then 1 else 0 end, events._offset desc
            rows between unbounded preceding and unbounded following
        ) as {{ column }}
        {%- endfor %}
    from incomplete
    inner join events on {{ same_key('events', 'incomplete', key) }}
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
            when {{ is_left_out(column, 'events') }} then last_known.{{ column }} else events.{{ column }}
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
    left join last_known on {{ same_key('events', 'last_known', key) }}
    {%- endif %}
)

select * from latest
{%- endif -%}
{%- endmacro %}

{#- How many changes the log holds that a state has not taken in, and how many of them may empty other keys' rows. -#}
{% macro new_in(log, past) -%}
    {%- set found = {'changes': 1, 'sweeping': 1} -%}
    {%- if execute -%}
        {%- set counted = run_query(
            "select count(*), count(case when _op in ('t', 'g') then 1 end) from " ~ log ~ ' where ' ~ past
        ) -%}
        {%- do found.update({'changes': counted[0][0], 'sweeping': counted[0][1]}) -%}
    {%- endif -%}
    {{ return(found) }}
{%- endmacro %}

{#- The table's own columns as {name (quoted), can_be_unchanged}: PostgreSQL may leave a large text out of an update. -#}
{% macro change_log_columns(log, key) -%}
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

{% macro column_names(relation) -%}
    {{ return(adapter.get_columns_in_relation(relation) | map(attribute='quoted') | list if execute else []) }}
{%- endmacro %}

{#-
    The rows that the state has not taken in; with literal offsets, so that the scan skips old row groups: it compares
    them with the lowest alone.
-#}
{% macro past_position(state) -%}
    {%- set predicates = [] -%}
    {%- if execute -%}
        {%- set positions = positions_of(state) -%}
        {%- for partition, offset in positions.items() -%}
            {%- do predicates.append('(_partition = ' ~ partition ~ ' and _offset > ' ~ offset ~ ')') -%}
        {%- endfor -%}
    {%- endif -%}
    {%- if predicates -%}
    (_offset > {{ positions.values() | min }} and ({{ predicates | join(' or ') }}))
    {%- else -%}
    (true)
    {%- endif -%}
{%- endmacro %}

{#- A column whose type in the log was widened is widened here too, before wider values come. -#}
{% macro widen_columns(state, log) -%}
    {%- if execute -%}
        {%- set types = {} -%}
        {%- for column in adapter.get_columns_in_relation(log) -%}
            {%- do types.update({column.name: column.dtype}) -%}
        {%- endfor -%}
        {%- for column in adapter.get_columns_in_relation(state) -%}
            {%- if types.get(column.name, column.dtype) != column.dtype -%}
                {%- do run_query(
                    'alter table ' ~ state ~ ' alter column ' ~ column.quoted ~ ' type ' ~ types[column.name]
                ) -%}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro %}

{#- The highest offset taken in, per partition of the cut; -1 where there is none yet. -#}
{% macro positions_of(state) -%}
    {%- set positions = {} -%}
    {%- set cut = fromjson(run_query('select cut from meta.build')[0][0]) -%}
    {%- for partition in cut['offsets'].get(state.identifier | replace('state_', '', 1), {}) -%}
        {%- do positions.update({partition | int: -1}) -%}
    {%- endfor -%}
    {%- for row in run_query('select _partition, max(_offset) from ' ~ state ~ ' group by _partition order by 1') -%}
        {%- do positions.update({row[0] | int: row[1]}) -%}
    {%- endfor -%}
    {{ return(positions) }}
{%- endmacro %}

{#- Null keys are equal: they are the truncates, kept per partition. -#}
{% macro same_key(left, right, key) -%}
{{ adapter.dispatch('same_key')(left, right, key) }}
{%- endmacro %}

{% macro default__same_key(left, right, key) -%}
    {{ left }}._partition = {{ right }}._partition
    {%- for column in key %} and {{ left }}.{{ column }} is not distinct from {{ right }}.{{ column }}{% endfor %}
{%- endmacro %}

{% macro qualified(relation, columns) -%}
    {%- for column in columns %}{{ relation }}.{{ column }}{{ ', ' if not loop.last }}{% endfor %}
{%- endmacro %}

{#- A row read by an incremental snapshot has no LSN: its time decides. -#}
{% macro is_truncated(relation) -%}
    coalesce({{ relation }}._lsn < truncated.lsn, {{ relation }}._committed_at < truncated.committed_at, false)
{%- endmacro %}

{% macro is_before_gap(offset) -%}
    coalesce({{ offset }} < last_gap._offset, false)
{%- endmacro %}

{#- Whether DuckDB works a part of a query out once, or wherever it is used; others decide for themselves. -#}
{% macro kept_in_memory(is_kept) -%}
{{ adapter.dispatch('kept_in_memory')(is_kept) }}
{%- endmacro %}

{% macro default__kept_in_memory(is_kept) -%}
{%- endmacro %}

{% macro duckdb__kept_in_memory(is_kept) -%}
{{ '' if is_kept else 'not ' }}materialized
{%- endmacro %}

{#- Replaces the state of every key in the batch: delete and insert in dbt's one transaction. -#}
{% macro get_incremental_latest_state_sql(arguments) -%}
    {{ adapter.dispatch('get_incremental_latest_state_sql')(arguments) }}
{%- endmacro %}

{% macro default__get_incremental_latest_state_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments['dest_columns'] | map(attribute='name')) -%}
    {{ feed_sql(arguments) }}

    delete from {{ arguments['target_relation'] }} as state
    using {{ arguments['temp_relation'] }} as batch
    where {{ same_key('state', 'batch', arguments['unique_key']) }};

    insert into {{ arguments['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arguments['temp_relation'] }}
{%- endmacro %}
