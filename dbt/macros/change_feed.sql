{#-
    What the marts are told of the changes of a captured table: `changes_<table>` beside `state_<table>` holds the rows of
    every key that changed, as they were before the build and as they are after it, with its number in `_build`. A
    mart reads what is past its own build; what all marts have read goes. A state that was built whole says so in
    `meta.whole_builds`, and its feed begins anew. Only DuckDB has feeds: elsewhere marts ask the state and the log.
-#}
{% macro feed_of(state) -%}
{{ state.schema }}.{{ state.identifier | replace('state_', 'changes_', 1) }}
{%- endmacro %}

{#- Before the state is built whole: marts that are behind this build have to look at everything again. -#}
{% macro begin_whole(state) -%}
    {%- do run_query(
        "insert into meta.whole_builds select '" ~ state.identifier ~ "' as model, number from meta.build"
    ) -%}
    {%- do run_query(
        "delete from meta.whole_builds where model = '" ~ state.identifier ~ "' and number < " ~ build_number()
    ) -%}
    {%- do adapter.dispatch('drop_feed')(state) -%}
{%- endmacro %}

{% macro default__drop_feed(state) -%}
{%- endmacro %}

{% macro duckdb__drop_feed(state) -%}
    {%- do run_query('drop table if exists ' ~ feed_of(state)) -%}
{%- endmacro %}

{#- After a build: there is a feed, if only an empty one. -#}
{% macro keep_feed() -%}
{{ adapter.dispatch('keep_feed')() }}
{%- endmacro %}

{% macro default__keep_feed() -%}
{%- endmacro %}

{% macro duckdb__keep_feed() -%}
create table if not exists {{ feed_of(this) }} as select * from {{ this }} limit 0
{%- endmacro %}

{#- Before the rows of the batch take the place of those in the state. -#}
{% macro feed_sql(arguments) -%}
    {%- set feed = feed_of(arguments['target_relation']) -%}
    create table if not exists {{ feed }} as select * from {{ arguments['target_relation'] }} limit 0;

    create or replace table {{ feed }} as
    select * from {{ feed }}
    where _build > (select min(number) from meta.model_builds where not starts_with(model, 'state_'))
    union all by name
    select state.* replace ({{ build_number() }} as _build)
    from {{ arguments['target_relation'] }} as state
    semi join {{ arguments['temp_relation'] }} as batch
        on {{ same_key('state', 'batch', arguments['unique_key']) }}
    union all by name
    select * from {{ arguments['temp_relation'] }};
{%- endmacro %}
