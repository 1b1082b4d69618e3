-- What cannot be made again is kept for a week; what a build makes again is transient.
use role sysadmin;

create database if not exists stripe data_retention_time_in_days = 1 comment = 'The payments warehouse.';

create schema if not exists stripe.raw data_retention_time_in_days = 7
    comment = 'The change log: every committed change, once.';
create schema if not exists stripe.meta data_retention_time_in_days = 7
    comment = 'Which offsets are loaded, and on which cut the marts are built.';
create transient schema if not exists stripe.staging_state data_retention_time_in_days = 1;
create transient schema if not exists stripe.staging data_retention_time_in_days = 0;
create transient schema if not exists stripe.intermediate data_retention_time_in_days = 0;
create transient schema if not exists stripe.marts_build data_retention_time_in_days = 0;
-- Another schema each time: no retention of its own would outlive the next publication.
create transient schema if not exists stripe.marts data_retention_time_in_days = 0
    comment = 'What people read: replaced whole once the tests of a build have passed; the marts of before are gone.';
create schema if not exists stripe.governance
    comment = 'Policies, and the list of who sees which merchant.';
