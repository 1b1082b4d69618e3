-- The platform's user: a key pair and no password, let in from the platform's addresses alone.
use role securityadmin;

create network policy if not exists stripe_platform_only
    -- The addresses that the platform goes out by.
    allowed_ip_list = ('203.0.113.0/28')
    comment = 'Where the platform runs.';

create user if not exists stripe_platform
    type = service
    default_role = stripe_transformer
    default_warehouse = stripe_transforming
    default_namespace = stripe.marts
    comment = 'The payments platform.';

alter user stripe_platform set network_policy = stripe_platform_only;
-- The public half of SNOWFLAKE_PRIVATE_KEY_PATH, without its first and last line.
alter user stripe_platform set rsa_public_key = 'MIIB...';
-- dbt's sessions, too, tell times in UTC, and wait a minute at most for another transaction.
alter user stripe_platform set timezone = 'UTC', lock_timeout = 60;

grant role stripe_loader to user stripe_platform;
grant role stripe_transformer to user stripe_platform;
