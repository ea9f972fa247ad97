-- The fuzz run: psql -v seconds=60 -v seed=1 -f fuzz.sql. Every function fuzz_NAME(seed, n) of the test module gets an
-- equal share of the time and is called with one seed after the other, n inputs each; what it finds it raises. Each gives one line
-- of TAP. A crash ends psql, and with it the run.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;

CREATE FUNCTION pg_temp.fuzz(seconds float8, first_seed bigint) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    n constant int := 1000;
    targets text[] := ARRAY(SELECT oid::regproc::text FROM pg_proc
                            WHERE pronamespace = 'chaincall_test'::regnamespace AND proname LIKE 'fuzz\_%' AND pronargs = 2
                            ORDER BY proname);
    target text;
    seed bigint;
    until timestamptz;
    message text;
    number int := 0;
BEGIN
    FOREACH target IN ARRAY targets LOOP
        number := number + 1;
        seed := first_seed;
        until := clock_timestamp() + seconds / cardinality(targets) * interval '1 second';
        BEGIN
            LOOP
                EXECUTE format('SELECT %s(%s, %s)', target, seed, n);
                EXIT WHEN clock_timestamp() >= until;
                seed := seed + 1;
            END LOOP;
            RETURN NEXT format('ok %s - %s: %s inputs, seeds %s to %s', number, target, (seed - first_seed + 1) * n, first_seed, seed);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS message = MESSAGE_TEXT;
            RETURN NEXT format('not ok %s - %s(%s, %s): %s', number, target, seed, n, message);
        END;
    END LOOP;
    IF number = 0 THEN
        RAISE EXCEPTION 'the test module has no function fuzz_NAME(seed, n)';
    END IF;
END
$$;

SELECT pg_temp.fuzz(:seconds, :seed % 1000000000);
