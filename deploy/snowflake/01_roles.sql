-- Who may do what, and nobody more: people and services get one of these roles, never a grant of their own.
use role securityadmin;

create role if not exists stripe_loader comment = 'Appends the raw change log.';
create role if not exists stripe_transformer comment = 'Runs dbt on the change log and publishes the marts.';
create role if not exists stripe_analyst comment = 'Reads the published marts, cards masked, merchants by their list.';
create role if not exists stripe_auditor comment = 'Reads everything, unmasked; changes nothing.';

-- Whoever administers the account can act as each of them.
grant role stripe_loader to role sysadmin;
grant role stripe_transformer to role sysadmin;
grant role stripe_analyst to role sysadmin;
grant role stripe_auditor to role sysadmin;
