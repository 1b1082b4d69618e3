{#-
    Marts that follow the raw change log: a build computes again the rows that a change since the last one may touch, and
    no others. The feed of a captured table (change_feed.sql) says which of its keys changed in which build; a mart says,
    in the body of `touched`, which of its own keys hang on those. The same SQL builds the whole mart: then every key is touched.

        {{ rebuilt_by_key(['refund_id']) }}
        with touched as (
            {% call touched(ref('stg_refunds'), ['refund_id']) %}
            {{ changed('refunds', 'id as refund_id') }}
            union all
            {{ ever_named('balance_transactions', 'source_id') }}
            {% endcall %}
        )
        select touched.refund_id, … from touched left join …

    The variable `month` (its first day) touches the rows of a month besides, whose UTC day is `day` of the relation and
    `own_day` of the mart.

    The key of an aggregate are the columns that a change touches few rows of: not its day alone, which late changes make
    that of most days. A key that is no more keeps its row of nulls in the query, so that the mart loses it: `present`
    tells such a row.
    The query reads the mart itself for such keys only: it may be asked again when its rows have been taken away.
-#}
{% macro rebuilt_by_key(key, present='committed_at is not null') -%}
{{ config(
    materialized='incremental',
    incremental_strategy='touched',
    unique_key=key,
    on_schema_change='append_new_columns',
    meta={'present': present},
    tmp_relation_type='transient',
) }}
{%- endmacro %}

{% macro touched(relation, key, only='true', day=none, own_day='day') -%}
{%- set is_key = key | join(' is not null and ') ~ ' is not null' -%}
{#- A unit test is of the whole mart. -#}
{%- if not execute or (model.resource_type == 'model' and is_incremental()) -%}
{%- set told = caller() -%}
select distinct {{ key | join(', ') }}
from (
    {%- if execute and is_behind_a_whole_build() %}
    select {{ key | join(', ') }} from {{ relation }} where {{ only }}
    union all
    select {{ key | join(', ') }} from {{ this }}
    {%- else %}
    {{ told }}
    {%- endif %}
    {%- if var('month', none) %}
    union all
    select {{ key | join(', ') }} from {{ relation }} where {{ in_month(day or utc_day('created')) }}
    union all
    select {{ key | join(', ') }} from {{ this }} where {{ in_month(own_day) }}
    {%- endif %}
) as keys
where {{ is_key }}
{%- else -%}
select distinct {{ key | join(', ') }} from {{ relation }} where {{ only }} and {{ is_key }}
{%- endif -%}
{%- endmacro %}

{#-
    Whether a row is of a touched key. No join: before one, DuckDB 2.0 adds up the rows of every key, touched or not.
-#}
{% macro is_touched(relation, key) -%}
exists (
    select 1 from touched
    where
        {%- for column in key %}
        touched.{{ column }} = {{ relation }}.{{ column }}{{ ' and' if not loop.last }}
        {%- endfor %}
)
{%- endmacro %}

{% macro in_month(day) -%}
{{ month_of(day) }} = cast('{{ var('month') }}' as date)
{%- endmacro %}

{#- A column of the rows of a captured table that changed since this mart was last built, deleted ones included. -#}
{% macro changed(table, column) -%}
{{ adapter.dispatch('changed')(table, column) }}
{%- endmacro %}

{% macro default__changed(table, column) -%}
select {{ column }} from {{ ref('state_' ~ table) }} where _build > {{ built_up_to() }}
{%- endmacro %}

{% macro duckdb__changed(table, column) -%}
select {{ column }} from {{ feed_of(ref('state_' ~ table)) }} where _build > {{ built_up_to() }}
{%- endmacro %}

{#-
    What an expression says, or said when this mart was last built, of the rows of a captured table that changed since: a
    deleted row has no columns but its key, and one that moved left a place behind.
-#}
{% macro ever_named(table, expression, only='true', key='id') -%}
{{ adapter.dispatch('ever_named')(table, expression, only, key) }}
{%- endmacro %}

{#- The change log remembers all that was ever said of a key. -#}
{% macro default__ever_named(table, expression, only, key) -%}
select {{ expression }}
from {{ source('raw', table) }}
where {{ only }} and {{ key }} in ({{ changed(table, key) }})
{%- endmacro %}

{% macro duckdb__ever_named(table, expression, only, key) -%}
{{ changed(table, expression) }} and {{ only }}
{%- endmacro %}

{#- Keys of rows that have a `currency` and a `created` whose rate may be another one now. -#}
{% macro of_rates_changed(relation, key) -%}
select {{ qualified('amounts', key) }}
from {{ relation }} as amounts
inner join (
    select
        currency,
        min(day) as day
    from ({{ changed('exchange_rates', 'currency, day') }}) as rates
    group by currency
) as rates on amounts.currency = rates.currency and {{ utc_day('amounts.created') }} >= rates.day
union all
select {{ key | join(', ') }} from {{ relation }} where currency in ({{ changed('currencies', 'code') }})
{%- endmacro %}

{#- Whether this mart was built before a table that it follows was built whole, and so without a word of what went. -#}
{% macro is_behind_a_whole_build() -%}
    {%- set states = ["''"] -%}
    {%- for node in model.depends_on.nodes if node.split('.')[-1].startswith('state_') -%}
        {%- do states.append("'" ~ node.split('.')[-1] ~ "'") -%}
    {%- endfor -%}
    {%- set built = built_up_to() | int -%}
    {%- set later = run_query(
        'select count(*) from meta.whole_builds where number > ' ~ built ~ ' and model in (' ~ (states | join(', ')) ~ ')'
    ) -%}
    {{ return(built == 0 or later[0][0] > 0) }}
{%- endmacro %}

{#- The build that this mart has taken in; `record_build` writes it. -#}
{% macro built_up_to() -%}
{%- if execute -%}
    {%- set rows = run_query("select max(number) from meta.model_builds where model = '" ~ this.identifier ~ "'") -%}
    {{ rows[0][0] or 0 }}
{%- else -%}
    0
{%- endif -%}
{%- endmacro %}

{#-
    Says that a model holds this build; on DuckDB in the transaction that wrote its rows, elsewhere after it. It holds no
    more than what it is made from: one that is built without those before it is told of their changes again.
-#}
{% macro record_build() -%}
delete from meta.model_builds where model = '{{ this.identifier }}';
insert into meta.model_builds (model, number)
select '{{ this.identifier }}' as model, min(number) as number
from (
    select number from meta.build
    {%- for node in model.depends_on.nodes if node.startswith('model.') and not node.split('.')[-1].startswith('stg_') %}
    union all
    select coalesce(max(number), 0) as number from meta.model_builds where model = '{{ node.split('.')[-1] }}'
    {%- endfor %}
) as builds
{%- endmacro %}

{#- Takes the rows of every touched key away and puts those that are still there in their place. -#}
{% macro get_incremental_touched_sql(arguments) -%}
    {{ adapter.dispatch('get_incremental_touched_sql')(arguments) }}
{%- endmacro %}

{% macro default__get_incremental_touched_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments['dest_columns'] | map(attribute='name')) -%}
    {%- set key = arguments['unique_key'] | join(', ') -%}
    delete from {{ arguments['target_relation'] }}
    where ({{ key }}) in (select {{ key }} from {{ arguments['temp_relation'] }});

    insert into {{ arguments['target_relation'] }} ({{ columns }})
    select {{ columns }} from {{ arguments['temp_relation'] }}
    where {{ config.get('meta')['present'] }}
{%- endmacro %}
