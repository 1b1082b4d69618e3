-- One warehouse for what the platform runs and one for what people ask, so that neither waits for the other.
use role accountadmin;

create resource monitor if not exists stripe_platform with
    credit_quota = 100
    frequency = monthly
    start_timestamp = immediately
    triggers
        on 75 percent do notify
        on 95 percent do suspend
        on 100 percent do suspend_immediate;

create resource monitor if not exists stripe_people with
    credit_quota = 50
    frequency = monthly
    start_timestamp = immediately
    triggers
        on 75 percent do notify
        on 100 percent do suspend;

use role sysadmin;

-- Builds begin half an hour apart (`min_age` in stripe_platform/warehouse/engines.py), of minutes each, and it sleeps in
-- between: the shortest suspension that Snowflake bills for. Who shortens the one raises the quota above.
create warehouse if not exists stripe_transforming with
    warehouse_size = xsmall
    auto_suspend = 60
    auto_resume = true
    initially_suspended = true
    statement_timeout_in_seconds = 1800
    comment = 'Loads, dbt and the publication.';

create warehouse if not exists stripe_reading with
    warehouse_size = xsmall
    auto_suspend = 120
    auto_resume = true
    initially_suspended = true
    statement_timeout_in_seconds = 600
    comment = 'Queries of people and dashboards.';

use role accountadmin;

alter warehouse stripe_transforming set resource_monitor = stripe_platform;
alter warehouse stripe_reading set resource_monitor = stripe_people;
