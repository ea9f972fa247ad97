-- Enqueuing: what a job is when it is inserted, who may do and see what, what is refused. Nothing here is run: jobs that
-- are committed are not due before tomorrow, others are rolled back.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_job_app;
DROP ROLE IF EXISTS "Regress Job Other";
DROP ROLE IF EXISTS regress_job_team;
RESET client_min_messages;
CREATE ROLE regress_job_team LOGIN;
CREATE ROLE regress_job_app LOGIN;
CREATE ROLE "Regress Job Other" LOGIN;
SELECT chaincall.grant_usage('regress_job_app'), chaincall.grant_usage('"Regress Job Other"'), chaincall.grant_usage('regress_job_team');
GRANT USAGE, CREATE ON SCHEMA chaincall_regress TO regress_job_app, "Regress Job Other", regress_job_team;
CREATE FUNCTION says(text text, n int DEFAULT 3, at timestamptz DEFAULT now()) RETURNS text LANGUAGE chaincall AS '{value: "{{text}}"}';
CREATE FUNCTION plain(a jsonb, b text, c int, d text[]) RETURNS text LANGUAGE chaincall AS '{value: x}';
-- an INSERT as users write it, due tomorrow
CREATE FUNCTION enqueue(chain text, input text DEFAULT '{"text": "x"}', columns text DEFAULT '', vals text DEFAULT '') RETURNS text LANGUAGE sql AS $$
  SELECT try(format($q$INSERT INTO chaincall.job (chain, input, run_at%s) VALUES (%L, %L, 'tomorrow'%s)$q$, columns, chain, input, vals))
$$;

-- what the trigger makes of a row
BEGIN;
INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "x"}') RETURNING chain, input - 'at' AS input, input ? 'at' AS at, state, priority, run_at = now() AS now,
  rank = run_at AS rank, expires_at, dedupe_key, labels, owner::regrole = CURRENT_USER::regrole AS mine, traceparent, worker, deaths, created_at = now() AS created, started_at, finished_at, output, error;
INSERT INTO chaincall.job (chain, input, priority, run_at) VALUES ('chaincall_regress.says(text, int, timestamptz)', '{"text": "x", "n": 5, "at": "2020-02-02"}', 3, now() + '1 day')
  RETURNING chain, input, state, run_at - rank AS ahead;
-- the largest priorities stay within times
INSERT INTO chaincall.job (chain, input, priority) VALUES ('says', '{"text": "x"}', 2147483647), ('says', '{"text": "x"}', -2147483648) RETURNING date_part('year', rank - run_at) = 0 OR rank > run_at, isfinite(rank);
-- whatever is given in the columns of the workers
INSERT INTO chaincall.job (id, chain, input, definition, state, output, error, owner, worker, deaths, started_at, finished_at, rank, created_at)
  VALUES (gen_random_uuid(), 'says', '{"text": "x"}', 'x', 'succeeded', '1', '1', 1, 1, 1, now(), now(), 'infinity', 'infinity')
  RETURNING state, output, error, owner::regrole = CURRENT_USER::regrole, worker, deaths, started_at, finished_at, rank = now(), created_at = now(), substr(id::text, 15, 1) = '7';
-- nulls mean what leaving out means
INSERT INTO chaincall.job (chain, input, priority, run_at, labels) VALUES ('says', '{"text": null}', NULL, NULL, NULL) RETURNING input - 'at', priority, run_at = now(), labels;
-- ids grow
SELECT bool_and(id > before) FROM (SELECT id, lag(id) OVER (ORDER BY created_at, ctid) AS before FROM chaincall.job) j;
-- one definition a chain and search_path, whatever the number of jobs; it is its own text's sha256
SELECT count(DISTINCT sha256), bool_and(sha256 = sha256(convert_to(body::text, 'UTF8'))) FROM chaincall.definition;
SELECT count(*) FROM chaincall.job WHERE definition NOT IN (SELECT sha256 FROM chaincall.definition);
SET search_path = public, chaincall_regress;
INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "x"}');
SELECT DISTINCT body->>'search_path', jsonb_array_length(body->'chains') FROM chaincall.definition ORDER BY 1;
ROLLBACK;
SELECT count(*) FROM chaincall.definition;

-- input: unknown and missing arguments, types
SELECT enqueue('says', '{}');
SELECT enqueue('says', '{"text": "x", "txt": 1}');
SELECT enqueue('says', '{"text": "x", "n": "five"}');
SELECT enqueue('says', '[1]');
SELECT enqueue('says', '"x"');
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1}');
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1.5, "d": []}');
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 3000000000, "d": []}');
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1, "d": "x"}');
BEGIN;
INSERT INTO chaincall.job (chain, input) VALUES ('plain', '{"a": {"x": null}, "b": 7, "c": 1.0, "d": ["x", null, 3]}') RETURNING input;
INSERT INTO chaincall.job (chain, input) VALUES ('plain', '{"a": {"x": null}, "b": "7", "c": "1", "d": null}') RETURNING input;
ROLLBACK;
SET chaincall.max_input = '1 kB';
SELECT enqueue('says', jsonb_build_object('text', repeat('x', 2000))::text);
RESET chaincall.max_input;

-- a DEFAULT that enqueues the same chain and changes what it was pinned from, while the trigger is at it
CREATE FUNCTION sly() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('regress.depth', true) = '1' THEN
    RETURN 'inner';
  END IF;
  PERFORM set_config('regress.depth', '1', true);
  CREATE OR REPLACE FUNCTION slyer(x text DEFAULT sly()) RETURNS text LANGUAGE chaincall AS '{value: "new {{x}}"}';
  INSERT INTO chaincall.job (chain, run_at) VALUES ('slyer', 'tomorrow'), ('slyer', 'tomorrow');
  RETURN 'outer';
END
$$;
CREATE FUNCTION slyer(x text DEFAULT sly()) RETURNS text LANGUAGE chaincall AS '{value: "old {{x}}"}';
BEGIN;
INSERT INTO chaincall.job (chain, run_at) SELECT 'slyer', 'tomorrow' FROM generate_series(1, 2);
SELECT input, body #>> '{chains,0,body}' FROM chaincall.job JOIN chaincall.definition ON sha256 = definition ORDER BY id;
ROLLBACK;
DROP FUNCTION slyer, sly;

-- chains: unknown, ambiguous, no chain, null
SELECT enqueue('nosuch');
SELECT enqueue('lower');
SELECT enqueue('chaincall_regress.nosuch(text)');
SELECT enqueue('');
SELECT try($$INSERT INTO chaincall.job (input) VALUES ('{}')$$);
CREATE FUNCTION says(number int) RETURNS text LANGUAGE chaincall AS '{value: 1}';
SELECT regexp_replace(enqueue('says'), 'signature: .*', 'signature: …');
SELECT enqueue('says(int)', '{"number": 1}');
DROP FUNCTION says(int);

-- the other columns
SELECT enqueue('says', columns => ', expires_at', vals => $$, 'yesterday'$$) ~ '^22023: a job cannot expire before it may run';
SELECT enqueue('says', columns => ', labels', vals => $$, '[1]'$$);
SELECT enqueue('says', columns => ', labels', vals => $$, '{"a": 1}'$$);
SELECT enqueue('says', columns => ', dedupe_key', vals => $$, repeat('x', 1001)$$);
SELECT try($$INSERT INTO chaincall.job (chain, input, run_at) VALUES ('says', '{"text": "x"}', 'infinity')$$);
SELECT try($$INSERT INTO chaincall.job (chain, input, run_at) VALUES ('says', '{"text": "x"}', '-infinity')$$);
SELECT t, enqueue('says', columns => ', traceparent', vals => format(', %L', t)) = 'done' FROM unnest(ARRAY[
  '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', '01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more',
  '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more', 'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
  '00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', '00-00000000000000000000000000000000-00f067aa0ba902b7-01',
  '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7', '', 'x']) t;

-- privileges: EXECUTE on the chain; INSERT of a user's columns and nothing else
REVOKE EXECUTE ON FUNCTION plain FROM PUBLIC;
SET ROLE regress_job_app;
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1, "d": []}');
SELECT enqueue('says', columns => ', owner', vals => ', 10');
SELECT enqueue('says', columns => ', state', vals => $$, 'succeeded'$$);
SELECT try($$UPDATE chaincall.job SET priority = 5$$);
SELECT try($$DELETE FROM chaincall.job$$);
SELECT try($$SELECT count(*) FROM chaincall.definition$$);
SELECT try($$INSERT INTO chaincall.definition VALUES ('x', '{}')$$);
SELECT try($$INSERT INTO chaincall.span (job, path) VALUES (gen_random_uuid(), 'x')$$);
SELECT try($$SELECT count(*) FROM chaincall.span_default$$);
SELECT try($$INSERT INTO chaincall.alert (id) VALUES (gen_random_uuid())$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION plain TO regress_job_app;
SET ROLE regress_job_app;
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1, "d": []}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION plain FROM regress_job_app;
SET ROLE regress_job_app;
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1, "d": []}');
RESET ROLE;
DELETE FROM chaincall.job;

-- two roles see nothing of each other's; a role's members see its
SET ROLE regress_job_app;
SELECT enqueue('says', '{"text": "app"}');
SET ROLE "Regress Job Other";
SELECT enqueue('says', '{"text": "other"}');
SELECT enqueue('says', '{"text": "keyed"}', ', dedupe_key', $$, 'k'$$);
SELECT input->>'text', owner::regrole FROM chaincall.job ORDER BY 1;
SET ROLE regress_job_app;
SELECT input->>'text', owner::regrole FROM chaincall.job;
SET ROLE regress_job_team;
SELECT count(*) FROM chaincall.job;
RESET ROLE;
GRANT regress_job_app TO regress_job_team;
SET ROLE regress_job_team;
SELECT input->>'text', owner::regrole FROM chaincall.job;
RESET ROLE;
SELECT input->>'text', owner::regrole FROM chaincall.job ORDER BY 1;
-- a SECURITY DEFINER function's jobs are its owner's
CREATE FUNCTION lends() RETURNS oid LANGUAGE sql SECURITY DEFINER SET search_path = chaincall_regress AS $$ INSERT INTO chaincall.job (chain, input, run_at) VALUES ('says', '{"text": "x"}', 'tomorrow') RETURNING owner $$;
ALTER FUNCTION lends() OWNER TO "Regress Job Other";
SET ROLE regress_job_app;
SELECT lends()::regrole;
RESET ROLE;

-- nor does a superuser who maintains a role's table enqueue for himself what the role's index expression enqueues
SET ROLE regress_job_app;
CREATE FUNCTION sneaks() RETURNS void LANGUAGE sql AS $$ INSERT INTO chaincall.job (chain, input, run_at) VALUES ('chaincall_regress.says', '{"text": "sneaked"}', 'tomorrow') $$;
CREATE FUNCTION looks(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM chaincall_regress.sneaks(); RETURN n; END $$;
CREATE TABLE indexed AS SELECT 1 AS n;
CREATE INDEX ON indexed (looks(n));
RESET ROLE;
REINDEX TABLE indexed;
ANALYZE indexed;
SELECT count(*) > 1, count(DISTINCT owner), min(owner::regrole::text) FROM chaincall.job WHERE input->>'text' = 'sneaked';
DROP TABLE indexed;
DELETE FROM chaincall.job WHERE input->>'text' = 'sneaked';

-- dedupe_key: one job not yet started per owner, chain and key
SET ROLE regress_job_app;
SELECT enqueue('says', '{"text": "a"}', ', dedupe_key', $$, 'k'$$);
SELECT regexp_replace(enqueue('says', '{"text": "b"}', ', dedupe_key', $$, 'k'$$), '=\(\d+', '=(…');
INSERT INTO chaincall.job (chain, input, run_at, dedupe_key) VALUES ('says', '{"text": "c"}', 'tomorrow', 'k') ON CONFLICT DO NOTHING RETURNING id;
SELECT chaincall.submit('says', '{"text": "d"}', run_at => 'tomorrow', dedupe_key => 'k', dedupe => 'skip') = id FROM chaincall.job WHERE dedupe_key = 'k';
SELECT chaincall.submit('says', '{"text": "d"}', run_at => 'tomorrow', dedupe_key => 'other', dedupe => 'skip') = id FROM chaincall.job WHERE dedupe_key = 'k';
SELECT regexp_replace(try($$SELECT chaincall.submit('says', '{"text": "d"}', dedupe_key => 'k')$$), '=\(\d+', '=(…');
BEGIN;
SELECT chaincall.submit('says', '{"text": "d"}', dedupe_key => 'k', dedupe => 'replace') = id FROM chaincall.job WHERE dedupe_key = 'k';
SELECT a.job = j.id, a.action, a.input->>'text' FROM chaincall.action a, chaincall.job j WHERE a.action = 'replace' AND j.dedupe_key = 'k';
ROLLBACK;
SELECT try($$SELECT chaincall.submit('says', '{"text": "d"}', dedupe_key => 'k', dedupe => 'sometimes')$$);
SELECT try($$SELECT chaincall.submit('says', '{"text": "d"}', dedupe => 'skip')$$);
SELECT try($$SELECT chaincall.submit(NULL)$$);
SELECT input->>'text', dedupe_key FROM chaincall.job ORDER BY id;
RESET ROLE;
DELETE FROM chaincall.job;

-- a role's limit: counted in shared memory, given back by what is rolled back, skipped or refused
SET chaincall.max_queued = 3;
CREATE ROLE regress_job_new LOGIN;
SELECT chaincall.grant_usage('regress_job_new');
GRANT USAGE ON SCHEMA chaincall_regress TO regress_job_new;
SET ROLE regress_job_new;
SELECT try($$INSERT INTO chaincall.job (chain, input, run_at) SELECT 'says', '{"text": "x"}', 'tomorrow' FROM generate_series(1, 4)$$);
SELECT try($$INSERT INTO chaincall.job (chain, input, run_at, dedupe_key) SELECT 'says', '{"text": "x"}', 'tomorrow', g::text FROM generate_series(1, 4) g$$);
BEGIN;
SELECT enqueue('says', columns => ', dedupe_key', vals => $$, 'k'$$);
SAVEPOINT a;
SELECT enqueue('says');
SAVEPOINT b;
SELECT enqueue('says');
SELECT enqueue('says');
RELEASE b;
SELECT enqueue('says');
ROLLBACK TO a;
SELECT enqueue('says');
INSERT INTO chaincall.job (chain, input, run_at, dedupe_key) SELECT 'says', '{"text": "c"}', 'tomorrow', 'k' FROM generate_series(1, 10) ON CONFLICT DO NOTHING;
SELECT enqueue('says', columns => ', dedupe_key', vals => $$, 'k'$$) LIKE '23505%';
SELECT enqueue('says');
SELECT enqueue('says');
COMMIT;
SELECT count(*) FROM chaincall.job;
SELECT enqueue('says');
RESET ROLE;
RESET chaincall.max_queued;
SET ROLE regress_job_new;
SELECT enqueue('says');
RESET ROLE;
DELETE FROM chaincall.job;
DROP OWNED BY regress_job_new;
DROP ROLE regress_job_new;

-- what is rolled back around jobs does not store their definition again and again
CREATE FUNCTION often() RETURNS text LANGUAGE chaincall AS '{value: x}';
DO $$
BEGIN
  FOR i IN 1..100 LOOP
    BEGIN
      INSERT INTO chaincall.job (chain, run_at) VALUES ('often', 'tomorrow');
      IF i % 2 = 1 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END
$$;
SELECT count(*), count(DISTINCT definition), (SELECT count(*) FROM chaincall.definition WHERE body::text LIKE '%often%') FROM chaincall.job WHERE chain LIKE '%often%';
DELETE FROM chaincall.job;

-- pinning: a chain, those it calls (each once, itself too), functions and the shapes of their answers
CREATE TYPE party AS (name text, born date);
CREATE FUNCTION helper(x text) RETURNS text LANGUAGE sql AS 'SELECT x';
CREATE FUNCTION inner_chain(x text DEFAULT 'y' || 'z') RETURNS int LANGUAGE chaincall AS '{value: 1}';
CREATE FUNCTION whole(p party, n int) RETURNS TABLE (a int, b date) LANGUAGE chaincall AS $chain$
steps:
  one: {function: inner_chain, args: {x: a}}
  two: {function: inner_chain}
  three: {function: helper, args: {x: "{{one}}"}, on_error: {model: echo, prompt: x, returns: {who: party, "sum?": "numeric, in euros"}}}
  four: {function: chaincall.split_text, args: {text: "a b", by: sentence}}
  five: {sql: "SELECT count(*) FROM pg_class WHERE oid = {{n}}"}
  six: {when: n > 100, function: whole, args: {p: null, n: 1}}
  seven: {model: echo, prompt: x, returns: [yes, no]}
output: []
$chain$;
SELECT enqueue('whole', '{"p": {"name": "x", "born": "2000-1-1"}, "n": 1}');
SELECT enqueue('whole', '{"p": {"name": "x"}, "n": 1}');
SELECT chain, input FROM chaincall.job;
CREATE VIEW pinned AS SELECT body->'search_path' AS search_path, place, chain FROM chaincall.definition, jsonb_array_elements(body->'chains') WITH ORDINALITY c (chain, place) WHERE body::text LIKE '%whole%';
SELECT search_path, chain->'signature', chain->'strict', chain->'set', chain->'result', chain->'columns' FROM pinned ORDER BY place;
SELECT place, arg FROM pinned, jsonb_array_elements(chain->'args') arg ORDER BY place, arg->>'name';
SELECT place, f FROM pinned, jsonb_array_elements(chain->'functions') WITH ORDINALITY f (f, n) ORDER BY place, n;
SELECT place, shape FROM pinned, jsonb_array_elements(chain->'shapes') WITH ORDINALITY s (shape, n) ORDER BY place, n;
-- what is dropped or changed afterwards does not touch it; a new definition is another one
CREATE OR REPLACE FUNCTION inner_chain(x text DEFAULT 'y' || 'z') RETURNS int LANGUAGE chaincall AS '{value: 2}';
SELECT enqueue('whole', '{"p": null, "n": 1}');
SELECT count(DISTINCT definition) FROM chaincall.job;
DROP FUNCTION whole;
DROP FUNCTION inner_chain;
SELECT enqueue('whole', '{"p": null, "n": 1}');
SELECT count(*) FROM chaincall.job JOIN chaincall.definition ON definition = sha256;
-- what was altered behind the validator's back is refused
CREATE FUNCTION altered() RETURNS text LANGUAGE chaincall AS '{value: x}';
ALTER FUNCTION altered() SECURITY DEFINER;
SELECT enqueue('altered', '{}');
DROP FUNCTION altered();
-- a model that is gone
CREATE FUNCTION asks() RETURNS text LANGUAGE chaincall AS '{model: claude, prompt: x}';
SELECT enqueue('asks', '{}');
DELETE FROM chaincall.model WHERE name = 'claude';
SELECT enqueue('asks', '{}');
DELETE FROM chaincall.job;

-- a role that cannot log in runs no statements before PostgreSQL 17
ALTER ROLE regress_job_app NOLOGIN;
CREATE FUNCTION queries() RETURNS text LANGUAGE chaincall AS '{sql: SELECT 1, returns: value}';
SET ROLE regress_job_app;
SELECT (enqueue('queries', '{}') LIKE '55000: role "regress_job_app" cannot run statements in jobs%') = (current_setting('server_version_num')::int < 170000);
SELECT enqueue('plain', '{"a": 1, "b": "x", "c": 1, "d": []}') LIKE '42501%', enqueue('says(text, int, timestamptz)');
RESET ROLE;
ALTER ROLE regress_job_app LOGIN;

-- result(): what cannot be waited for, and what has ended
CREATE FUNCTION job_id() RETURNS uuid LANGUAGE sql AS 'SELECT id FROM chaincall.job ORDER BY id DESC LIMIT 1';
CREATE FUNCTION result_of(timeout text DEFAULT '10 ms') RETURNS text LANGUAGE sql AS $$
  SELECT regexp_replace(try(format('SELECT chaincall.result(job_id(), %L)', timeout)), '[0-9a-f-]{36}', '…')
$$;
SELECT result_of();
SELECT chaincall.result(NULL);
BEGIN;
INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "x"}');
SELECT result_of(NULL);
ROLLBACK;
DELETE FROM chaincall.job;
SELECT enqueue('says');
SELECT result_of();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT result_of();
COMMIT;
SET ROLE "Regress Job Other";
SELECT regexp_replace(try(format('SELECT chaincall.result(%L)', gen_random_uuid())), '[0-9a-f-]{36}', '…');
RESET ROLE;
SELECT job_id() AS id \gset
SET ROLE "Regress Job Other";
SELECT regexp_replace(try(format('SELECT chaincall.result(%L)', :'id')), '[0-9a-f-]{36}', '…');
RESET ROLE;
UPDATE chaincall.job SET state = 'succeeded', output = '{"a": 1}';
SELECT result_of();
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT result_of();
COMMIT;
UPDATE chaincall.job SET output = NULL;
SELECT result_of();
UPDATE chaincall.job SET state = 'failed', error = '{"class": "throttled", "message": "too fast", "detail": "HTTP 429", "hint": "Wait.", "step": "a[2]", "sqlstate": "MC002", "tried": []}';
SELECT result_of();
UPDATE chaincall.job SET error = '{"message": "what", "sqlstate": "00000"}';
SELECT result_of();
UPDATE chaincall.job SET error = '{"class": "cancelled", "message": "stopped", "sqlstate": "57014"}';
SELECT result_of();
UPDATE chaincall.job SET error = NULL;
SELECT result_of();
UPDATE chaincall.job SET state = 'cancelled';
SELECT result_of();
UPDATE chaincall.job SET state = 'expired';
SELECT result_of();
DELETE FROM chaincall.job;

-- actions: a row that says who, when and what
BEGIN;
SET ROLE regress_job_app;
SELECT enqueue('says');
SELECT job_id() AS id \gset
SELECT chaincall.cancel(:'id') IS NOT NULL;
SELECT chaincall.cancel(NULL);
SELECT job = :'id', action, author::regrole, created_at <= now(), state, reason, applied_at FROM chaincall.action WHERE action = 'cancel';
SELECT action, try(format('INSERT INTO chaincall.action (job, action) VALUES (gen_random_uuid(), %L)', action)) FROM unnest(ARRAY['retry', 'resolve', 'discard', 'explode', NULL]) action;
SELECT try($$INSERT INTO chaincall.action (action) VALUES ('cancel')$$);
SELECT try($$INSERT INTO chaincall.action (job, action, step) VALUES (gen_random_uuid(), 'cancel', 'a')$$);
SELECT try($$INSERT INTO chaincall.action (job, action, author) VALUES (gen_random_uuid(), 'cancel', 10)$$);
SELECT try($$UPDATE chaincall.action SET state = 'applied'$$);
-- on a job of another's it is only an asking, which its author sees, and the job's owner
SET ROLE "Regress Job Other";
SELECT count(*) FROM chaincall.action;
SELECT chaincall.cancel(:'id') IS NOT NULL;
SELECT count(*) FROM chaincall.action;
SET ROLE regress_job_app;
SELECT author::regrole FROM chaincall.action WHERE action = 'cancel' ORDER BY id;
ROLLBACK;
RESET ROLE;

-- rows that come by replication are the other node's
SET session_replication_role = replica;
INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "replicated"}') RETURNING id;
INSERT INTO chaincall.action (job, action) VALUES (gen_random_uuid(), 'cancel') RETURNING id;
INSERT INTO chaincall.definition VALUES ('x', '{}') RETURNING sha256;
INSERT INTO chaincall.alert VALUES (gen_random_uuid(), 'x', NULL, NULL, 'x', NULL, now()) RETURNING id;
INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at) VALUES (gen_random_uuid(), 'x', 0, 1, 10, 'model', now(), now()) RETURNING id;
INSERT INTO chaincall.span_default (job, path, try, id, owner, kind, started_at, ended_at) VALUES (gen_random_uuid(), 'x', 0, 1, 10, 'model', now(), now()) RETURNING id;
INSERT INTO chaincall.origin VALUES (1) RETURNING database;
RESET session_replication_role;

-- revoke_usage takes everything back
SELECT chaincall.revoke_usage('regress_job_app');
SET ROLE regress_job_app;
SELECT try($$SELECT count(*) FROM chaincall.job$$);
SELECT try($$INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "x"}')$$);
RESET ROLE;
SELECT grantee::regrole, relname FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'chaincall'::regnamespace AND grantee = 'regress_job_app'::regrole;
SELECT attrelid::regclass, attname FROM pg_attribute, aclexplode(attacl) WHERE grantee = 'regress_job_app'::regrole;

DELETE FROM chaincall.job;
DROP OWNED BY regress_job_app, "Regress Job Other", regress_job_team;
DROP ROLE regress_job_app, "Regress Job Other", regress_job_team;
