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
    -- not everybody may see that setting
    IF (SELECT setting FROM pg_settings s WHERE s.name = 'cron.use_background_workers') = 'off' THEN
        RAISE NOTICE USING
            MESSAGE = format('pg_cron connects to this server for it as role "%s", which pg_hba.conf must allow without a password', current_user),
            HINT = 'Where it does not, cron.job_run_details says "connection failed"; with cron.use_background_workers = on no connection is needed.';
    END IF;
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
