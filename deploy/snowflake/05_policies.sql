-- Cards are masked for whoever is not an auditor, and rows are shown by the list of merchants of one's role.
use role sysadmin;

create table if not exists stripe.governance.merchants_of_role (
    role_name varchar not null comment 'A role, in upper case.',
    merchant_id varchar not null comment 'A merchant whose rows it sees; * stands for all.'
);

create or replace masking policy stripe.governance.card_identity as (value varchar) returns varchar ->
    case
        when is_role_in_session('STRIPE_AUDITOR') or is_role_in_session('STRIPE_TRANSFORMER') then value
    end
    comment = 'Null: a hash of six or four digits is undone by trying all of them, and one of a fingerprint by knowing it.';

create or replace row access policy stripe.governance.merchants as (merchant varchar) returns boolean ->
    is_role_in_session('STRIPE_AUDITOR')
    or is_role_in_session('STRIPE_TRANSFORMER')
    or exists (
        select 1
        from stripe.governance.merchants_of_role as shown
        where shown.role_name = current_role() and shown.merchant_id in ('*', merchant)
    )
    comment = 'A row of a merchant is for those whose role has the merchant.';

-- The publication calls it on the next marts, before they take the place of the published ones: readers are let in once
-- the policies are on, and when anything fails, nothing is published.
create or replace procedure stripe.governance.open_to_readers(schema_name varchar)
    returns varchar
    language sql
    execute as caller
as
$$
declare
    policies resultset default (
        select
            'alter table ' || columns.table_schema || '.' || columns.table_name ||
            case columns.column_name
                when 'MERCHANT_ID' then ' add row access policy governance.merchants on (merchant_id)'
                else ' modify column ' || columns.column_name || ' set masking policy governance.card_identity'
            end as statement
        from information_schema.columns as columns
        inner join information_schema.tables as tables
            on columns.table_schema = tables.table_schema and columns.table_name = tables.table_name
        where
            columns.table_schema = upper(:schema_name)
            and tables.table_type = 'BASE TABLE'
            and (
                columns.column_name in (
                    'MERCHANT_ID', 'FINGERPRINT', 'CARD_FINGERPRINT', 'CARD_ID', 'BIN6', 'LAST4'
                )
                -- It begins with the fingerprint.
                or columns.table_name = 'DIM_CARDS' and columns.column_name = 'VERSION_ID'
            )
    );
begin
    for policy in policies do
        execute immediate policy.statement;
    end for;
    execute immediate 'grant usage on schema ' || schema_name || ' to role stripe_analyst';
    execute immediate 'grant select on all tables in schema ' || schema_name || ' to role stripe_analyst';
    return 'open';
end;
$$;

use role securityadmin;

grant usage on schema stripe.governance to role stripe_transformer;
grant usage on procedure stripe.governance.open_to_readers(varchar) to role stripe_transformer;
grant apply on masking policy stripe.governance.card_identity to role stripe_transformer;
grant apply on row access policy stripe.governance.merchants to role stripe_transformer;
