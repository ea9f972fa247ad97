-- What goes on and how well: statistics of session runs, what is in the air, jobs and queues, traces; and who sees which of it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_chain_app;
DROP ROLE IF EXISTS regress_chain_other;
DROP ROLE IF EXISTS regress_chain_watch;
RESET client_min_messages;
CREATE ROLE regress_chain_app;
CREATE ROLE regress_chain_other;
CREATE ROLE regress_chain_watch IN ROLE pg_monitor;
GRANT USAGE, CREATE ON SCHEMA chaincall_regress TO regress_chain_app, regress_chain_other, regress_chain_watch;
SELECT chaincall.grant_usage('regress_chain_app'), chaincall.grant_usage('regress_chain_other');
GRANT USAGE ON FOREIGN SERVER openai, anthropic TO regress_chain_app, regress_chain_other;
SELECT model('flaky', 'echo?status=500&times=2'), model('wrong', 'echo?status=400'), model('late', 'delay-20'), model('busy', 'echo?status=429&times=1'),
  model('no', 'echo?refuse=1'), model('cut', 'echo?broken=json&times=1'), model('hung', 'echo?hang=1'), model('slow', 'delay-300');
SELECT chaincall.stat_reset();
SELECT count(*) FROM chaincall.stat_model;

-- sessions count: attempts by class
CREATE FUNCTION ask(m text) RETURNS text LANGUAGE sql AS $$ SELECT left(try(format('SELECT chaincall.call(%L, %L)', m, 'a b c')), 5) $$;
SELECT ask('echo'), ask('echo'), ask('claude'), ask('flaky'), ask('wrong'), ask('busy'), ask('no'), ask('cut');
SELECT run_chain('{model: hung, prompt: x, timeout: 50 ms}') ~ '^MC007';
SET statement_timeout = '100ms';
SELECT chaincall.call('hung', 'x');
RESET statement_timeout;
SELECT model, attempts, in_flight, succeeded, transient, throttled, permanent, invalid, content, too_large, timeout, cancelled, last_failure
FROM chaincall.stat_model ORDER BY model COLLATE "C";
SELECT model, version, server, tokens_in > 0, tokens_out > 0 FROM chaincall.stat_endpoint WHERE model IN ('echo', 'claude') ORDER BY model;
SELECT bool_and(attempts = in_flight + succeeded + transient + throttled + permanent + invalid + content + too_large + timeout + cancelled),
  bool_and(since <= last_attempt_at), bool_and((last_failure_at IS NULL) = (last_failure IS NULL)) FROM chaincall.stat_endpoint;

-- durations: quantiles grow, and are what the service takes
SELECT count(chaincall.call('late', 'x')) FROM generate_series(1, 20);
SELECT p50_ms >= 20 * (1 - 1 / 32.0), p50_ms <= p99_ms, first_byte_p50_ms <= first_byte_p99_ms, first_byte_p50_ms <= p50_ms, mean_ms >= 20
FROM chaincall.stat_model WHERE model = 'late';
SELECT bool_and(p50_ms <= p99_ms), bool_and(first_byte_p50_ms <= first_byte_p99_ms) FROM chaincall.stat_endpoint;
-- what was cancelled has no duration
SELECT attempts, p50_ms IS NOT NULL FROM chaincall.stat_model WHERE model = 'hung';

-- a model's endpoints count together; a name of any length has its place
INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('echo', 'anthropic', 'echo');
SELECT ask('echo'), ask('echo');
SELECT server, attempts FROM chaincall.stat_endpoint WHERE model = 'echo' ORDER BY server;
SELECT attempts, succeeded FROM chaincall.stat_model WHERE model = 'echo';
INSERT INTO chaincall.model (name) SELECT name FROM unnest(ARRAY[repeat('long', 63), 'versions']) name;
INSERT INTO chaincall.endpoint (model, version, server, remote_name)
VALUES (repeat('long', 63), '1', 'openai', 'echo'), ('versions', repeat('long', 100), 'openai', 'echo'), ('versions', repeat('long', 100) || 'er', 'openai', 'echo');
SELECT ask(repeat('long', 63)), ask('versions'), ask('versions');
SELECT model = repeat('long', 63), version ~ '^(long)+l?o?n?~[0-9a-f]{8}$', attempts FROM chaincall.stat_endpoint
WHERE model LIKE 'longlong%' OR model = 'versions' ORDER BY model;

-- counted anew
SELECT chaincall.stat_reset();
SELECT count(*) FROM chaincall.stat_endpoint;
SELECT ask('echo');
SELECT attempts FROM chaincall.stat_endpoint;

-- what is in the air, seen by a statement of the run itself
CREATE FUNCTION seen() RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_agg(concat_ws(' ', kind, owner, path, what, server, attempts, steps_done || ' of ' || steps_known, CASE WHEN pid <> pg_backend_pid() THEN 'elsewhere' END)
                   ORDER BY kind, path)
  FROM chaincall.activity WHERE since <= clock_timestamp() $$;
CREATE FUNCTION look() RETURNS jsonb LANGUAGE chaincall AS $chain$
steps:
  word: {model: slow, prompt: x}
  by_sql: {sql: "SELECT seen() AS x", returns: value}
  by_function: {function: seen}
  raising: {sql: "SELECT 1 / 0", on_error: {value: 0}}
output: {by_sql: "{{by_sql}}", by_function: "{{by_function}}", word: "{{word}}", raising: "{{raising}}"}
$chain$;
SELECT jsonb_pretty(regexp_replace(look()::text, current_user, 'me', 'g')::jsonb);
SELECT run_chain('{steps: {a: {model: slow, prompt: x}, b: {sql: "SELECT 1 / 0"}}, output: "{{a}}"}');
SELECT count(*) FROM chaincall.activity;

-- others see nothing of it, unless they are members of pg_monitor
CREATE FUNCTION seen_by_other() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT count(*) FROM chaincall.activity';
CREATE FUNCTION seen_by_watch() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS 'SELECT count(*) FROM chaincall.activity';
ALTER FUNCTION seen_by_other() OWNER TO regress_chain_other;
ALTER FUNCTION seen_by_watch() OWNER TO regress_chain_watch;
SET ROLE regress_chain_app;
CREATE FUNCTION look_around() RETURNS jsonb LANGUAGE chaincall AS
  '{sql: "SELECT (SELECT count(*) FROM chaincall.activity) AS own, seen_by_other() AS other, seen_by_watch() AS watch"}';
SELECT look_around();
RESET ROLE;

-- statistics are for pg_monitor; setting them to zero is for administrators
SET ROLE regress_chain_app;
SELECT try('SELECT count(*) FROM chaincall.stat_model');
SELECT try('SELECT count(*) FROM chaincall.stat_endpoint');
SELECT try('SELECT count(*) FROM chaincall.stat_worker');
SELECT try('SELECT count(*) FROM chaincall.stat_entries(true)');
SELECT try('SELECT count(*) FROM chaincall.worker_entries()');
SELECT try('SELECT chaincall.stat_reset()');
RESET ROLE;
SET ROLE regress_chain_watch;
SELECT try('SELECT attempts FROM chaincall.stat_model WHERE model = ''echo''');
SELECT try('SELECT attempts FROM chaincall.stat_endpoint WHERE model = ''echo''');
SELECT try('SELECT count(*) >= 0 FROM chaincall.stat_worker');
SELECT try('SELECT chaincall.stat_reset()');
SELECT try('SELECT count(*) FROM chaincall.job_status');
RESET ROLE;

-- jobs as they would be stored; no worker shall meet them
BEGIN;
ALTER TABLE chaincall.job DISABLE TRIGGER USER;
ALTER TABLE chaincall.span DISABLE TRIGGER USER;
DO $$
BEGIN
  IF NOT (SELECT relrowsecurity FROM pg_class WHERE oid = 'chaincall.job'::regclass) THEN
    ALTER TABLE chaincall.job ENABLE ROW LEVEL SECURITY;
    ALTER TABLE chaincall.span ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON chaincall.job FOR SELECT USING (pg_has_role(owner, 'USAGE'));
    CREATE POLICY own ON chaincall.span FOR SELECT USING (pg_has_role(owner, 'USAGE'));
    GRANT SELECT ON chaincall.job, chaincall.span TO regress_chain_app, regress_chain_other;
  END IF;
END
$$;
INSERT INTO chaincall.job (id, chain, definition, state, run_at, rank, owner, created_at, started_at, finished_at, error)
SELECT format('01900000-0000-7000-8000-%s', lpad(n::text, 12, '0'))::uuid, chain, '\x00', state, clock_timestamp() - interval '1 hour', clock_timestamp(),
  role::regrole, '2026-01-01 00:00:00', started, finished, error::jsonb
FROM (VALUES
  (1, 'public.report(text)', 'failed', 'regress_chain_app', timestamptz '2026-01-01 00:00:01', timestamptz '2026-01-01 00:00:03', '{"class": "content", "message": "it refused"}'),
  (2, 'public.report(text)', 'succeeded', 'regress_chain_app', '2026-01-01 00:00:01', '2026-01-01 00:00:02', NULL),
  (3, 'public.report(text)', 'running', 'regress_chain_app', '2026-01-01 00:00:01', NULL, NULL),
  (4, 'public.report(text)', 'queued', 'regress_chain_app', NULL, NULL, NULL),
  (5, 'public.other(text)', 'queued', 'regress_chain_app', NULL, NULL, NULL),
  (6, 'public.other(text)', 'waiting', 'regress_chain_app', '2026-01-01 00:00:01', NULL, NULL),
  (7, 'public.secret(text)', 'queued', 'regress_chain_other', NULL, NULL, NULL),
  (8, 'public.secret(text)', 'expired', 'regress_chain_other', NULL, '2026-01-01 00:00:03', NULL)) AS j (n, chain, state, role, started, finished, error);
INSERT INTO chaincall.span (job, path, try, id, owner, kind, model, version, server, started_at, sent_at, first_byte_at, ended_at, tokens_in, tokens_out, attempt, class, message)
SELECT format('01900000-0000-7000-8000-%s', lpad(job::text, 12, '0'))::uuid, path, try, 10 * job + n, 'regress_chain_app'::regrole, kind,
  CASE kind WHEN 'model' THEN 'writer' END, CASE kind WHEN 'model' THEN '1' END, CASE kind WHEN 'model' THEN 'stub' END,
  t + interval '100 ms' * n, t + interval '100 ms' * n, CASE WHEN kind = 'model' AND class IS NULL THEN t + interval '100 ms' * n + interval '200 ms' END, t + interval '100 ms' * n + interval '400 ms',
  CASE kind WHEN 'model' THEN 12 END, CASE kind WHEN 'model' THEN 34 END, attempt, class, CASE WHEN class IS NOT NULL THEN 'it refused' END
FROM (VALUES (1, 1, 'rules', 'sql', 0, 1, NULL), (1, 2, 'draft[0]', 'model', 0, 1, NULL), (1, 3, 'draft[1]', 'model', 1, 1, 'transient'), (1, 5, 'draft[1]', 'model', 2, 2, 'content'),
  (2, 1, 'rules', 'sql', 0, 1, NULL), (2, 2, 'draft', 'model', 0, 1, NULL), (3, 1, 'rules', 'sql', 0, 1, NULL)) AS s (job, n, path, kind, try, attempt, class),
  (VALUES (timestamptz '2026-01-01 00:00:01')) AS begin (t);

SET LOCAL ROLE regress_chain_app;
SELECT right(id::text, 1) AS n, chain, owner, state, steps_done, steps_known, waits_for, error_class, error_message FROM chaincall.job_status ORDER BY id;
SELECT owner, chain, queued, running, waiting, oldest_age BETWEEN interval '59 minutes' AND interval '61 minutes' FROM chaincall.queue_status ORDER BY chain;
SELECT chaincall.trace('01900000-0000-7000-8000-000000000001');
SELECT chaincall.trace('01900000-0000-7000-8000-000000000002');
SELECT regexp_replace(chaincall.trace('01900000-0000-7000-8000-000000000003'), '[0-9.]+ s  open', 'N s  open') ~ '^trace 01900000-0000-7000-8000-000000000003  public.report\(text\)  N s  open\nrules ';
-- another's job, and one that never was: the same words
SELECT try($$SELECT chaincall.trace('01900000-0000-7000-8000-000000000007')$$);
SELECT try($$SELECT chaincall.trace('01900000-0000-7000-8000-999999999999')$$);
SELECT chaincall.trace(NULL) IS NULL;
-- a longer trace than chaincall.max_spans
SET LOCAL chaincall.max_spans = 2;
SELECT split_part(chaincall.trace('01900000-0000-7000-8000-000000000001'), 'in all steps', 2);
SET LOCAL chaincall.max_spans = 0;
SELECT chaincall.trace('01900000-0000-7000-8000-000000000001');
RESET chaincall.max_spans;
SET LOCAL ROLE regress_chain_other;
SELECT right(id::text, 1) AS n, chain, state FROM chaincall.job_status ORDER BY id;
SELECT owner, chain, queued FROM chaincall.queue_status ORDER BY chain;
-- who watches sees how many, not what
SET LOCAL ROLE regress_chain_watch;
SELECT owner, chain, queued, running, waiting FROM chaincall.queue_status ORDER BY chain;
-- neither a person's own function nor his operator learns of others' jobs
SET LOCAL ROLE regress_chain_other;
CREATE FUNCTION leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
SELECT chain FROM chaincall.queue_status WHERE leak(chain);
SELECT chain FROM chaincall.job_status WHERE leak(chain) AND state = 'queued';
RESET ROLE;
-- finished jobs are not counted one by one
INSERT INTO chaincall.job (id, chain, definition, state, run_at, rank, owner, created_at, finished_at)
SELECT gen_random_uuid(), 'public.report(text)', '\x00', 'succeeded', now(), now(), 'regress_chain_app'::regrole, now(), now() FROM generate_series(1, 20000);
ANALYZE chaincall.job;
CREATE FUNCTION scans() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
  FOR line IN EXPLAIN (COSTS OFF) SELECT * FROM chaincall.queue_status LOOP
    IF line ~ 'on job' THEN RETURN NEXT substring(line, '(Seq Scan|job_\w+)'); END IF;
  END LOOP;
END $$;
SELECT DISTINCT scans() ORDER BY 1;
ROLLBACK;

-- every view and column says what it is
SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'chaincall'::regnamespace AND c.relkind = 'v' AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL);

SET client_min_messages = warning;
SELECT chaincall.revoke_usage('regress_chain_app'), chaincall.revoke_usage('regress_chain_other');
DROP EXTENSION chaincall CASCADE;
DROP SCHEMA chaincall_regress CASCADE;
DROP ROLE regress_chain_app, regress_chain_other, regress_chain_watch;
