-- Schema, the functions that every table shares, and the reference data tables.

CREATE SCHEMA payments;

-- Unqualified names in hand-written statements mean the payments schema.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = payments, public', current_database());
END
$$;

-- RFC 9562, sections 5.7 and 6.2 (method 3): 48 bits of Unix milliseconds, version 7, 12 bits of the fraction of the
-- millisecond, so that keys made one after the other also sort so, then random bits.
-- Writers make their own keys; the default serves a row that is inserted by hand.
CREATE FUNCTION payments.uuid_v7() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (
    SELECT
        encode(
            substring(int8send(floor(clock.milliseconds)::bigint) FROM 3)
            || substring(int4send(28672 + floor((clock.milliseconds % 1) * 4096)::integer) FROM 3)
            || substring(uuid_send(gen_random_uuid()) FROM 9),
            'hex'
        )::uuid
    FROM (SELECT extract(EPOCH FROM clock_timestamp()) * 1000 AS milliseconds) AS clock
);

CREATE FUNCTION payments.set_updated() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated := now();
    RETURN NEW;
END
$$;

-- Every store downstream merges by key: a changed key would leave the old row behind there for good.
-- Fires only when one of its arguments, the columns that may not change, has changed.
CREATE FUNCTION payments.forbid_key_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    fixed text;
BEGIN
    FOREACH fixed IN ARRAY TG_ARGV LOOP
        IF to_jsonb(NEW) -> fixed IS DISTINCT FROM to_jsonb(OLD) -> fixed THEN
            RAISE EXCEPTION 'column % of %.% cannot change', fixed, TG_TABLE_SCHEMA, TG_TABLE_NAME
                USING ERRCODE = 'integrity_constraint_violation',
                HINT = 'delete the row and insert a new one';
        END IF;
    END LOOP;
    RETURN NEW;
END
$$;

CREATE FUNCTION payments.forbid_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'TRUNCATE of %.% is not allowed', TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation',
        HINT = 'delete the rows: a truncated partition tells no consumer of the change stream';
END
$$;

-- A statement trigger is not inherited: each partition needs its own.
CREATE PROCEDURE payments.guard_against_truncate(guarded regclass)
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'CREATE TRIGGER forbid_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT '
        'EXECUTE FUNCTION payments.forbid_truncate()',
        guarded
    );
END
$$;

-- Called once per table, so that no table can forget one of the three. The comparison stands in the trigger's WHEN:
-- an update that changes no key does not call the function.
CREATE PROCEDURE payments.guard(guarded regclass, VARIADIC fixed text[])
LANGUAGE plpgsql AS $$
DECLARE
    key_changed text;
    arguments text;
BEGIN
    SELECT string_agg(format('OLD.%1$I IS DISTINCT FROM NEW.%1$I', name), ' OR '), string_agg(quote_literal(name), ', ')
    INTO key_changed, arguments
    FROM unnest(fixed) AS name;
    EXECUTE format(
        'CREATE TRIGGER forbid_key_change BEFORE UPDATE ON %s FOR EACH ROW WHEN (%s) '
        'EXECUTE FUNCTION payments.forbid_key_change(%s)',
        guarded, key_changed, arguments
    );
    EXECUTE format(
        'CREATE TRIGGER set_updated BEFORE UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION payments.set_updated()', guarded
    );
    CALL payments.guard_against_truncate(guarded);
END
$$;

CREATE TABLE payments.currencies (
    code char(3) PRIMARY KEY CHECK (code ~ '^[a-z]{3}$'),
    name text NOT NULL,
    exponent smallint NOT NULL CHECK (exponent IN (0, 2, 3)),
    charge_multiple integer NOT NULL DEFAULT 1 CHECK (charge_multiple > 0),
    payout_multiple integer NOT NULL DEFAULT 1 CHECK (payout_multiple > 0),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments.countries (
    iso2 char(2) PRIMARY KEY CHECK (iso2 ~ '^[A-Z]{2}$'),
    name text NOT NULL,
    region text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE payments.exchange_rates (
    day date NOT NULL,
    currency char(3) NOT NULL REFERENCES payments.currencies (code),
    rate numeric(20, 10) NOT NULL CHECK (rate > 0),
    created timestamptz NOT NULL DEFAULT now(),
    updated timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, currency)
);

CALL payments.guard('payments.currencies', 'code', 'created');
CALL payments.guard('payments.countries', 'iso2', 'created');
CALL payments.guard('payments.exchange_rates', 'day', 'currency', 'created');

COMMENT ON COLUMN payments.currencies.exponent
IS 'Digits after the decimal point: 1 major unit is 10^exponent minor units.';
COMMENT ON COLUMN payments.currencies.charge_multiple
IS 'Charged amounts are multiples of so many minor units.';
COMMENT ON COLUMN payments.currencies.payout_multiple IS 'Payouts are multiples of so many minor units.';
COMMENT ON COLUMN payments.exchange_rates.day
IS 'The rate is known before any payment of this day, and holds until the next row of the currency.';
COMMENT ON COLUMN payments.exchange_rates.rate
IS 'Major units of the reporting currency (eur) for one major unit of this currency.';
