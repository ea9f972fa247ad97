\echo Use "ALTER EXTENSION chaincall UPDATE" to load this file. \quit

-- From 0.1.0 to 0.2.0. What it leaves must be what CREATE EXTENSION makes of 0.2.0: test/t/050_upgrade.pl compares everything.
--
-- For whoever adds to it:
--   new columns come last, here and in sql/parts, or upgraded and fresh tables would have them in another order; the partitions of span get
--     theirs from span. None is dropped: the library counts them;
--   what is new is revoked from PUBLIC at the end, object by object. GRANT and REVOKE on what 0.1.0 had are not for a script: PostgreSQL would take
--     all privileges that the object has then, those that people have given too, for the extension's own, and pg_dump would leave them out. So
--     grant_usage() is run again after an update, by hand;
--   a function keeps its privileges and its dependants by CREATE OR REPLACE; what the new library has no C function for any more is dropped.

-- What runs by the clock, through pg_cron where that is installed. Nothing here depends on it: its functions are named in statements that are put
-- together when they are needed.

-- ---- retention at an hour of one's choice ----

CREATE TABLE maintenance (
    here        boolean NOT NULL DEFAULT true
                CONSTRAINT maintenance_here_check CHECK (here),
    asked_at    timestamptz NOT NULL,
    scheduled_at timestamptz,
    CONSTRAINT maintenance_pkey PRIMARY KEY (here)
);
COMMENT ON TABLE maintenance IS 'When maintain() was called last, at all and by a schedule; one row or none';

CREATE FUNCTION maintenance_asked() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_maintenance_asked';
COMMENT ON FUNCTION maintenance_asked() IS 'Tells the maintainer at commit';

CREATE TRIGGER drop_replicated BEFORE INSERT OR UPDATE OR DELETE ON maintenance
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
CREATE TRIGGER maintenance_asked AFTER INSERT OR UPDATE OR DELETE ON maintenance
    FOR EACH ROW EXECUTE FUNCTION maintenance_asked();
ALTER TABLE maintenance ENABLE ALWAYS TRIGGER drop_replicated, ENABLE ALWAYS TRIGGER maintenance_asked;

CREATE FUNCTION maintain(scheduled boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    INSERT INTO chaincall.maintenance AS m (asked_at, scheduled_at)
    VALUES (clock_timestamp(), CASE WHEN scheduled THEN clock_timestamp() END)
    ON CONFLICT (here) DO UPDATE SET asked_at = excluded.asked_at, scheduled_at = coalesce(excluded.scheduled_at, m.scheduled_at);
END
$body$;
COMMENT ON FUNCTION maintain(boolean) IS
    'has the maintainer drop and delete at once what is older than keep_jobs and keep_spans; scheduled: from now on only when it is called, not every hour';

-- ---- pg_cron ----

-- Raises, with what is to be done, unless pg_cron is in this database; elsewhere: the statement to run where it is.
CREATE FUNCTION require_cron(what text, elsewhere text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    cron_database text;
BEGIN
    BEGIN
        cron_database := nullif(current_setting('cron.database_name', true), '');
    EXCEPTION WHEN insufficient_privilege THEN
        cron_database := '';        -- somewhere; where is shown to few
    END;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        IF NOT has_schema_privilege('cron', 'USAGE') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('role "%s" may not use pg_cron', current_user),
                HINT = format('Have a superuser run: GRANT USAGE ON SCHEMA cron TO %I;', current_user);
        END IF;
    ELSIF cron_database IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs pg_cron, which is not installed', what),
            HINT = format('Install its package, add to postgresql.conf shared_preload_libraries = ''chaincall, pg_cron'' and cron.database_name = %L, restart the server, and run: CREATE EXTENSION pg_cron;', current_database());
    ELSIF cron_database = current_database() THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs the extension pg_cron', what),
            HINT = 'Have a superuser run: CREATE EXTENSION pg_cron;';
    ELSIF cron_database = '' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs pg_cron, which is not in this database', what),
            HINT = format('Where it is in another database, have a superuser run there: %s Else have one run here: CREATE EXTENSION pg_cron;', elsewhere);
    ELSE
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = format('%s needs pg_cron, which is in another database', what),
            DETAIL = format('cron.database_name is "%s", this database is "%s".', cron_database, current_database()),
            HINT = format('Have a superuser run there: %s', elsewhere);
    END IF;
END
$body$;
COMMENT ON FUNCTION require_cron(text, text) IS 'raises unless pg_cron can be used here';

CREATE FUNCTION schedule_maintenance(cron text DEFAULT '30 3 * * *') RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    command CONSTANT text := 'SELECT chaincall.maintain(scheduled => true)';
    job bigint;
    message text;
    hint text;
BEGIN
    BEGIN
        PERFORM chaincall.require_cron('a schedule', format('SELECT cron.schedule_in_database(%L, %L, %L, %L);',
            'chaincall/maintenance@' || current_database(), cron, command, current_database()));
    EXCEPTION WHEN undefined_object OR feature_not_supported THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
        RETURN format('The maintainer goes on doing it, once an hour: %s. %s', message, hint);
    END;
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING 'chaincall/maintenance', cron, command;
    -- from now on, not from the first time on
    INSERT INTO chaincall.maintenance AS m (asked_at, scheduled_at) VALUES ('-infinity', clock_timestamp())
    ON CONFLICT (here) DO UPDATE SET scheduled_at = excluded.scheduled_at;
    RETURN format('pg_cron has it done at "%s" (its job %s).', cron, job);
END
$body$;
COMMENT ON FUNCTION schedule_maintenance(text) IS
    'drops and deletes what is too old at the times of a cron expression, by pg_cron, instead of once an hour; says so, or why not';

CREATE FUNCTION unschedule_maintenance() RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    jobs bigint := 0;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        EXECUTE 'SELECT count(cron.unschedule(jobid)) FROM cron.job WHERE jobname = $1 AND username = current_user' INTO jobs
        USING 'chaincall/maintenance';
    END IF;
    UPDATE chaincall.maintenance SET scheduled_at = NULL WHERE scheduled_at IS NOT NULL;
    RETURN FOUND OR jobs > 0;
END
$body$;
COMMENT ON FUNCTION unschedule_maintenance() IS 'takes schedule_maintenance() back: the maintainer does it once an hour; false: there was no schedule';

-- ---- chains ----

-- A job that is made as the schedule will make it, and taken back: the qualified name of its chain, or what is wrong with it. The chain is looked for by
-- the search_path given.
CREATE FUNCTION try_job(path text, chain text, input jsonb, priority integer, expires_after interval, labels jsonb) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    signature text;
BEGIN
    BEGIN
        PERFORM set_config('search_path', path, true);
        INSERT INTO chaincall.job (chain, input, priority, expires_at, labels)
        VALUES (chain, input, priority, pg_catalog.now() OPERATOR(pg_catalog.+) expires_after, labels)
        RETURNING job.chain INTO signature;
        RAISE EXCEPTION USING ERRCODE = 'MCTRY';
    EXCEPTION WHEN SQLSTATE 'MCTRY' THEN
        NULL;
    END;
    RETURN signature;
END
$body$;
COMMENT ON FUNCTION try_job(text, text, jsonb, integer, interval, jsonb) IS 'what submit() would say to a job';

-- What pg_cron runs: one statement, so one transaction.
CREATE FUNCTION schedule_command(path text, name text, signature text, input jsonb, priority integer, expires_after interval, labels jsonb,
                                 overlap boolean) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format('SELECT chaincall.submit(chain => %L, input => %L, priority => %L, ', signature, input, priority)
        || CASE WHEN expires_after IS NULL THEN ''
           ELSE format('expires_at => pg_catalog.now() OPERATOR(pg_catalog.+) %L::pg_catalog.interval, ', expires_after) END
        || CASE WHEN overlap THEN '' ELSE format('dedupe_key => %L, dedupe => ''skip'', ', 'schedule ' || name) END
        || format('labels => %L) FROM pg_catalog.set_config(''search_path'', %L, true)', labels, path)
        || CASE WHEN overlap THEN ''
           ELSE format(' WHERE NOT EXISTS (SELECT FROM chaincall.job j WHERE j.labels OPERATOR(pg_catalog.@>) %L AND j.finished_at IS NULL'
               || ' AND j.owner OPERATOR(pg_catalog.=) pg_catalog.to_regrole(pg_catalog.quote_ident(CURRENT_USER::pg_catalog.text))::pg_catalog.oid)',
               jsonb_build_object('schedule', name)) END;
END;
COMMENT ON FUNCTION schedule_command(text, text, text, jsonb, integer, interval, jsonb, boolean) IS 'the statement that a schedule runs';

CREATE FUNCTION make_schedule(path text, name text, cron text, chain text, input jsonb, priority integer, expires_after interval, labels jsonb,
                              overlap boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    command text;
    job bigint;
BEGIN
    IF name IS NULL OR cron IS NULL OR overlap IS NULL OR octet_length(name) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a schedule needs a name of at most 200 bytes, and a cron expression',
            HINT = 'Write chaincall.schedule(''headlines'', ''*/10 * * * *'', ''refresh_headlines'').';
    END IF;
    IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('role "%s" cannot have schedules', current_user),
            DETAIL = 'pg_cron connects as the role that has made a schedule, and this one has no LOGIN.',
            HINT = format('ALTER ROLE %I LOGIN, or make the schedule as another role.', current_user);
    END IF;
    command := chaincall.schedule_command(path, name, chaincall.try_job(path, chain, input, priority, expires_after, labels),
        coalesce(input, '{}'), coalesce(priority, 0), expires_after, coalesce(labels, '{}') || jsonb_build_object('schedule', name), overlap);
    PERFORM chaincall.require_cron('a schedule', format('SELECT cron.schedule_in_database(%L, %L, %L, %L, %L);',
        'chaincall/' || name || '@' || current_database(), cron, command, current_database(), current_user));
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING 'chaincall/' || name, cron, command;
    RETURN job;
END
$body$;
COMMENT ON FUNCTION make_schedule(text, text, text, text, jsonb, integer, interval, jsonb, boolean) IS
    'what schedule() calls, with the search_path of its caller';

CREATE FUNCTION schedule(name text, cron text, chain text, input jsonb DEFAULT '{}', priority integer DEFAULT 0, expires_after interval DEFAULT NULL,
                         labels jsonb DEFAULT '{}', overlap boolean DEFAULT false) RETURNS bigint
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT chaincall.make_schedule(pg_catalog.current_setting('search_path'), name, cron, chain, input, priority, expires_after, labels, overlap);
END;
COMMENT ON FUNCTION schedule(text, text, text, jsonb, integer, interval, jsonb, boolean) IS
    'enqueues a chain as a job, as the current role, at the times of a cron expression, by pg_cron; not as long as a job of it has not ended, save with overlap. Gives pg_cron''s number; a schedule of that name is replaced';

CREATE FUNCTION unschedule(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    jobs bigint;
BEGIN
    PERFORM chaincall.require_cron('a schedule', format('SELECT cron.unschedule(%L);', 'chaincall/' || name || '@' || current_database()));
    EXECUTE 'SELECT count(cron.unschedule(jobid)) FROM cron.job WHERE jobname = $1 AND username = current_user' INTO jobs
    USING 'chaincall/' || name;
    RETURN jobs > 0;
END
$body$;
COMMENT ON FUNCTION unschedule(text) IS 'ends one of the current role''s schedules; false: there is none of that name. Jobs that it has made go on';

-- ---- who may use what: nobody what is new, until grant_usage() says so ----

CREATE OR REPLACE FUNCTION usage_statements(pattern text) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format(pattern, privilege)
    FROM (
        SELECT 1, 'USAGE ON SCHEMA chaincall'
        UNION ALL
        SELECT 2, 'USAGE ON LANGUAGE chaincall' FROM pg_language WHERE lanname = 'chaincall'
        UNION ALL
        SELECT 3, 'SELECT ON TABLE ' || t FROM unnest(ARRAY['chaincall.model', 'chaincall.endpoint', 'chaincall.job', 'chaincall.span', 'chaincall.action', 'chaincall.alert', 'chaincall.job_status', 'chaincall.queue_status', 'chaincall.activity']) t
        UNION ALL
        SELECT 3, 'INSERT (chain, input, priority, run_at, expires_at, dedupe_key, labels, traceparent) ON TABLE chaincall.job'
        UNION ALL
        SELECT 3, 'INSERT (job, action, step, input, output) ON TABLE chaincall.action'
        UNION ALL
        SELECT 4, 'EXECUTE ON FUNCTION ' || p.oid::regprocedure
        FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.prokind = 'f'
          AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype, 'fdw_handler'::regtype)
          AND p.proname NOT IN ('grant_usage', 'revoke_usage', 'usage_statements', 'stat_reset', 'stat_entries', 'worker_entries', 'maintain', 'schedule_maintenance', 'unschedule_maintenance')
          AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE p.oid = w.fdwvalidator)
          AND NOT EXISTS (SELECT FROM pg_language l WHERE p.oid IN (l.laninline, l.lanvalidator))
    ) AS privileges (place, privilege)
    ORDER BY place, privilege;
END;

-- What is new is the extension's owner's, whichever superuser runs this.
DO $body$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT CASE WHEN d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'ROUTINE' ELSE pg_catalog.upper(i.type) END AS type, i.identity,
            e.extowner::pg_catalog.regrole AS owner
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid AND NOT c.relispartition
        LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
        WHERE e.extname = 'chaincall' AND coalesce(c.relowner, p.proowner) <> e.extowner
    LOOP
        EXECUTE pg_catalog.format('ALTER %s %s OWNER TO %s', member.type, member.identity, member.owner);
    END LOOP;
END
$body$;

DO $body$
DECLARE
    made text;
BEGIN
    FOREACH made IN ARRAY ARRAY[
        'TABLE chaincall.maintenance',
        'FUNCTION chaincall.maintenance_asked()',
        'FUNCTION chaincall.maintain(boolean)',
        'FUNCTION chaincall.require_cron(text, text)',
        'FUNCTION chaincall.schedule_maintenance(text)',
        'FUNCTION chaincall.unschedule_maintenance()',
        'FUNCTION chaincall.try_job(text, text, jsonb, integer, interval, jsonb)',
        'FUNCTION chaincall.schedule_command(text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.make_schedule(text, text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.schedule(text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.unschedule(text)'
    ] LOOP
        EXECUTE 'REVOKE ALL ON ' || made || ' FROM PUBLIC';
    END LOOP;
END
$body$;

DO $body$
DECLARE
    roles text := (SELECT pg_catalog.string_agg(DISTINCT a.grantee::pg_catalog.regrole::text, ', ')
                   FROM pg_catalog.pg_language l, pg_catalog.aclexplode(l.lanacl) a
                   WHERE l.lanname = 'chaincall' AND a.grantee <> l.lanowner AND a.grantee <> 0);
BEGIN
    IF roles IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = 'roles have no privileges yet on what is new in chaincall: ' || roles,
            HINT = 'Run chaincall.grant_usage() again for those that shall have them.';
    END IF;
END
$body$;
