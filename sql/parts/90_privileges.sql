-- Who may use what: nobody, until grant_usage() says so. This part comes last and looks at what the others have made.

CREATE FUNCTION grant_usage(role regrole) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT chaincall.usage_statements('GRANT %s TO ' || replace(role::text, '%', '%%')) LOOP
        EXECUTE statement;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION grant_usage(regrole) IS 'Lets a role write and run chains and look at models; keys and servers are granted by GRANT USAGE ON FOREIGN SERVER';

CREATE FUNCTION revoke_usage(role regrole) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT chaincall.usage_statements('REVOKE %s FROM ' || replace(role::text, '%', '%%')) LOOP
        EXECUTE statement;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION revoke_usage(regrole) IS 'Takes back what grant_usage() granted';

-- Functions that the server calls (language, wrapper, triggers) are no user's; nor are those that administer.
CREATE FUNCTION usage_statements(pattern text) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format(pattern, privilege)
    FROM (
        SELECT 1, 'USAGE ON SCHEMA chaincall'
        UNION ALL
        SELECT 2, 'USAGE ON LANGUAGE chaincall' FROM pg_language WHERE lanname = 'chaincall'
        UNION ALL
        SELECT 3, 'SELECT ON TABLE ' || t FROM unnest(ARRAY['chaincall.model', 'chaincall.endpoint', 'chaincall.job', 'chaincall.span', 'chaincall.action', 'chaincall.alert', 'chaincall.question', 'chaincall.chain_policy', 'chaincall.dead_letter', 'chaincall.job_status', 'chaincall.queue_status', 'chaincall.activity']) t
        UNION ALL
        SELECT 3, 'INSERT (chain, input, priority, run_at, expires_at, dedupe_key, labels, traceparent) ON TABLE chaincall.job'
        UNION ALL
        SELECT 3, 'INSERT (job, action, step, input, output, alert) ON TABLE chaincall.action'
        UNION ALL
        SELECT 4, 'EXECUTE ON FUNCTION ' || p.oid::regprocedure
        FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.prokind = 'f'
          AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype, 'fdw_handler'::regtype)
          AND p.proname NOT IN ('grant_usage', 'revoke_usage', 'usage_statements', 'stat_reset', 'stat_entries', 'health_entries', 'worker_entries', 'maintain', 'schedule_maintenance', 'unschedule_maintenance')
          AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE p.oid = w.fdwvalidator)
          AND NOT EXISTS (SELECT FROM pg_language l WHERE p.oid IN (l.laninline, l.lanvalidator))
    ) AS privileges (place, privilege)
    ORDER BY place, privilege;
END;
COMMENT ON FUNCTION usage_statements(text) IS 'What grant_usage() and revoke_usage() execute';

DO $body$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).*
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
    LOOP
        IF member.type IN ('function', 'procedure', 'aggregate') THEN
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.identity);
        ELSIF member.type IN ('table', 'view', 'materialized view', 'sequence') THEN
            EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', member.identity);
        ELSIF member.type = 'language' THEN
            EXECUTE format('REVOKE ALL ON LANGUAGE %s FROM PUBLIC', member.identity);
        ELSIF member.type = 'foreign-data wrapper' THEN
            EXECUTE format('REVOKE ALL ON FOREIGN DATA WRAPPER %s FROM PUBLIC', member.identity);
        END IF;
    END LOOP;
END
$body$;
