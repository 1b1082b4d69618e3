-- Schemas of the build belong to the transformer, who swaps them; the change log belongs to the loader.
use role securityadmin;

grant usage on database stripe to role stripe_loader;
grant usage on database stripe to role stripe_transformer;
grant usage on database stripe to role stripe_analyst;
grant usage on database stripe to role stripe_auditor;

grant usage, operate on warehouse stripe_transforming to role stripe_loader;
grant usage, operate on warehouse stripe_transforming to role stripe_transformer;
grant usage on warehouse stripe_reading to role stripe_analyst;
grant usage on warehouse stripe_reading to role stripe_auditor;

grant usage, create table, create stage on schema stripe.raw to role stripe_loader;
grant usage, create table on schema stripe.meta to role stripe_loader;

grant usage on schema stripe.raw to role stripe_transformer;
grant usage on schema stripe.meta to role stripe_transformer;
grant select on future tables in schema stripe.raw to role stripe_transformer;
grant select, insert, update, delete on future tables in schema stripe.meta to role stripe_transformer;

-- The swap needs a schema of its own for the next marts.
grant create schema on database stripe to role stripe_transformer;
grant ownership on schema stripe.staging_state to role stripe_transformer copy current grants;
grant ownership on schema stripe.staging to role stripe_transformer copy current grants;
grant ownership on schema stripe.intermediate to role stripe_transformer copy current grants;
grant ownership on schema stripe.marts_build to role stripe_transformer copy current grants;
grant ownership on schema stripe.marts to role stripe_transformer copy current grants;

-- Analysts are let into the published marts by the publication itself (05_policies.sql), for those are another schema
-- each time. Future grants of a schema put those of its database out of force: the auditor is named in both.
grant usage on future schemas in database stripe to role stripe_auditor;
grant select on future tables in database stripe to role stripe_auditor;
grant select on future views in database stripe to role stripe_auditor;
grant select on future tables in schema stripe.raw to role stripe_auditor;
grant select on future tables in schema stripe.meta to role stripe_auditor;
grant usage on all schemas in database stripe to role stripe_auditor;
grant select on all tables in database stripe to role stripe_auditor;
grant select on all views in database stripe to role stripe_auditor;
