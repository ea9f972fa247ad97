-- The board as callers see it, and pinned chains as they load them. Workers are off: they would take from the board too.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
ALTER SYSTEM SET chaincall.workers = off;
SELECT pg_reload_conf();
DO $$ BEGIN
  FOR i IN 1..200 LOOP
    EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND backend_type ~ '^chaincall (caller|maintainer|executor)');
    PERFORM pg_sleep(0.05), pg_stat_clear_snapshot();
  END LOOP;
END $$;
\pset format unaligned
\pset tuples_only on
SET search_path = chaincall_test, public;
SELECT board_forget();

-- what was told is taken, at most so many at a time, in turn
SELECT board_has_work();
SELECT board_tell(1, 100), board_tell(1, 50), board_tell(1, 70), board_tell(2, 10);
SELECT board_has_work();
SELECT owner, mark FROM board_take(1);
SELECT owner, mark FROM board_take(1);
SELECT owner, mark FROM board_take(10) ORDER BY owner;

-- the mark is raised to what was seen, cleared when there was no more
SELECT owner, mark, generation FROM board_take(10) WHERE owner = 1 \gset a_
SELECT board_settle(1, :a_generation, false, 60);
SELECT mark FROM board_take(10) WHERE owner = 1;
SELECT board_settle(1, :a_generation, false, 55);
SELECT mark FROM board_take(10) WHERE owner = 1;
SELECT board_settle(1, :a_generation, true, 0);
SELECT owner, mark FROM board_take(10);

-- A takes; a job is told of; A's claim, whose snapshot may not have it, ends with nothing left: the job stays told of
SELECT board_tell(1, 100);
SELECT mark, generation FROM board_take(10) WHERE owner = 1 \gset a_
SELECT board_tell(1, 120);
SELECT board_settle(1, :a_generation, true, 0);
SELECT mark FROM board_take(10) WHERE owner = 1;

-- A takes; a job is told of; B takes that; A's claim ends with nothing left: that does not count, B's does
SELECT mark, generation FROM board_take(10) WHERE owner = 1 \gset a_
SELECT board_tell(1, 130);
SELECT mark, generation FROM board_take(10) WHERE owner = 1 \gset b_
SELECT :a_generation <> :b_generation, :b_mark;
SELECT board_settle(1, :a_generation, true, 0);
SELECT mark FROM board_take(10) WHERE owner = 1;
SELECT board_settle(1, :b_generation, false, 130);
SELECT mark FROM board_take(10) WHERE owner = 1;

-- a job of a smaller rank lowers the mark, and nobody who took before raises it
SELECT board_tell(1, 5);
SELECT mark FROM board_take(10) WHERE owner = 1;
SELECT board_settle(1, :b_generation, true, 0);
SELECT mark, generation FROM board_take(10) WHERE owner = 1 \gset a_
SELECT :a_mark;
SELECT board_settle(1, :a_generation, true, 0);
SELECT owner FROM board_take(10);
-- settled for an owner whom the board has not
SELECT board_settle(77, 1, true, 0);
-- the end of times is a rank, not nothing
SELECT board_tell(1, 9223372036854775807);
SELECT mark FROM board_take(10) WHERE owner = 1;
SELECT board_forget();
SELECT board_has_work();

-- counts: at once against the limit, for the others at commit; told at commit only
SET chaincall.max_queued = 3;
BEGIN;
SELECT board_reserve(1), board_announce(1, 30);
SAVEPOINT a;
SELECT board_reserve(1), board_announce(1, 20);
SAVEPOINT b;
SELECT board_reserve(1), board_announce(1, 10), board_reserve(2), board_announce(2, 2);
RELEASE b;
ROLLBACK TO a;
SELECT board_reserve(1), board_announce(1, 25);
SAVEPOINT c;
SELECT board_reserve(1), board_announce(1, 24);
RELEASE c;
SELECT board_count(1), board_has_work();
COMMIT;
SELECT board_count(1), board_count(2);
SELECT owner, mark FROM board_take(10);
BEGIN;
SELECT board_announce(1, 1);
ROLLBACK;
SELECT owner, mark FROM board_take(10);
-- many subtransactions
SET chaincall.max_queued = -1;
DO $$ BEGIN
  FOR i IN 1..1000 LOOP
    BEGIN
      PERFORM chaincall_test.board_reserve(3), chaincall_test.board_announce(3, i);
      IF i % 2 = 0 THEN RAISE division_by_zero; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END $$;
SELECT board_count(3);
SELECT board_started(3, 100), board_started(3, 0);
SELECT board_count(3);
SELECT board_started(3, 1000);
SELECT board_count(3);
-- recounted: what came since the count was taken is kept
SELECT board_reserve(3);
SELECT board_recount(3, 0, 10);
SELECT board_count(3);
SELECT board_recount(3, 11, 0), board_recount(4, 0, 7), board_recount(5, 0, 0);
SELECT board_count(3), board_count(4), board_count(5);
-- a full board says so; whoever has neither work nor count makes room
SELECT board_forget();
SELECT count(board_tell(1000 + g, 1)) FROM generate_series(1, current_setting('chaincall.max_owners')::int + 10) g;
SELECT board_reserve(1);
SELECT owner, generation FROM board_take(1) \gset a_
SELECT board_settle(:a_owner, :a_generation, true, 0);
SELECT board_reserve(1);
SELECT board_reserve(2);
SELECT board_count(1);
SELECT board_forget();
RESET chaincall.max_queued;

-- waiters
SELECT waiter('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001'), waiter('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000002');

-- ---- pinned chains ----

CREATE SCHEMA pinned;
SET search_path = pinned, public;
INSERT INTO chaincall.model (name) VALUES ('pinned') ON CONFLICT DO NOTHING;
CREATE TYPE pair AS (a int, b text);
CREATE FUNCTION deep(x text, n int DEFAULT 3) RETURNS SETOF text LANGUAGE chaincall STRICT AS '{value: ["{{x}}"]}';
CREATE FUNCTION other(p pair DEFAULT NULL) RETURNS pair LANGUAGE chaincall AS '{value: {a: 1, b: x}}';
CREATE FUNCTION top(d date) RETURNS void LANGUAGE chaincall AS $chain$
steps:
  a: {function: deep, args: {x: x}}
  b: {function: other}
  c: {sql: "SELECT {{d}}::date", returns: value}
  e: {model: pinned, prompt: x, returns: {"p": pair, "q?": "text[]"}}
  f: {function: chaincall.join_text, args: {items: "{{a}}"}}
output: 1
$chain$;
CREATE FUNCTION closure(chain text, input jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  hash bytea;
BEGIN
  INSERT INTO chaincall.job (chain, input, run_at) VALUES (chain, input, 'tomorrow') RETURNING definition INTO hash;
  RETURN (SELECT body FROM chaincall.definition WHERE sha256 = hash LIMIT 1);
END $$;
SELECT closure('top', '{"d": "2020-02-02"}') AS closure \gset
-- everything it names is gone
DROP FUNCTION top, deep, other;
DROP TYPE pair;
DELETE FROM chaincall.model WHERE name = 'pinned';
SELECT jsonb_pretty(chaincall_test.pin_load(:'closure', 0, '{"d": "2020-02-02"}', '5'));
SELECT chaincall_test.pin_load(:'closure', 1, '{"x": 5}', '["a", 1, null]');
SELECT chaincall_test.pin_load(:'closure', 1, '{"x": null, "n": 2}', 'null');
SELECT chaincall_test.pin_load(:'closure', 2, '{}', '{"a": 1, "b": "x"}');
SELECT chaincall_test.pin_load(:'closure', 1, '{"y": 5}');
SELECT chaincall_test.pin_load(:'closure', 1, '{"n": 5}');
SELECT chaincall_test.pin_load(:'closure', 1, '{"x": "x", "n": "y"}');
SELECT chaincall_test.pin_load(:'closure', 1, NULL, '5');
-- damaged ones
SELECT chaincall_test.pin_load('{}');
SELECT chaincall_test.pin_load('[]');
SELECT chaincall_test.pin_load('5');
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{format}', '2'));
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{chains}', '[]'));
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{chains,0,functions}', '[]'));
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{chains,0,shapes}', '[]'));
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{chains,0,args}', '[5]'));
SELECT chaincall_test.pin_load(jsonb_set(:'closure', '{chains,0,body}', '"nonsense: ["'));

-- arguments and results of plain types are what a session makes of them, or an executor's: no row is shown
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  result text;
BEGIN
  EXECUTE statement INTO result;
  RETURN coalesce(result, 'null');
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE || ': ' || SQLERRM;
END $$;
CREATE FUNCTION compare(type text, value jsonb, OUT session text, OUT argument text, OUT result text) LANGUAGE plpgsql AS $$
DECLARE
  pinned jsonb;
BEGIN
  EXECUTE format('CREATE FUNCTION same(x %s) RETURNS %1$s LANGUAGE chaincall AS ''{value: "{{x}}"}''', type);
  pinned := closure('same', '{"x": null}');
  session := try(format('SELECT chaincall.run(''same'', %L)', jsonb_build_object('x', value)));
  argument := try(format('SELECT chaincall_test.pin_load(%L, 0, %L) #> ''{inputs,0}''', pinned, jsonb_build_object('x', value)));
  result := try(format('SELECT chaincall_test.pin_load(%L, 0, NULL, %L)->''result''', pinned, value));
  DROP FUNCTION same;
END $$;
CREATE TABLE compared AS SELECT t, v, c.* FROM unnest(ARRAY['text', 'jsonb', 'json', 'boolean', 'smallint', 'integer', 'bigint', 'numeric', 'real', 'double precision']) t,
  unnest(ARRAY['null', 'true', '"true"', '"x"', '""', '"5"', '5', '-5', '5.0', '5.5', '40000', '3000000000', '1e30', '99999999999999999999', '1e400', '0.1', '0.30000000000000004', '1.10', '"NaN"', '"Infinity"', '" 7 "', '"1e3"', '{"a": 1}', '[]', '[1, "a", null]', '[[1, 2], [3, 4]]']::jsonb[]) v,
  LATERAL compare(t, v) c;
INSERT INTO compared SELECT t, v, c.* FROM unnest(ARRAY['text[]', 'jsonb[]', 'boolean[]', 'integer[]', 'numeric[]', 'double precision[]']) t,
  unnest(ARRAY['null', '"{1,2}"', '5', '[]', '[null]', '[1, 2.0, "3"]', '["a", {"b": 1}]', '[true, "f"]', '[[1, 2], [3, 4]]', '[[], []]', '{"a": 1}']::jsonb[]) v,
  LATERAL compare(t, v) c;
SELECT count(*), count(*) FILTER (WHERE argument LIKE '_____: %'), count(DISTINCT session) > 100 FROM compared;
SELECT * FROM compared WHERE argument NOT IN (session, '"executor"') AND argument <> 'null' OR result NOT IN (session, '"executor"');
SELECT t, v FROM compared WHERE result = '"executor"';
SELECT t, v, session, argument FROM compared WHERE argument = 'null' AND session <> 'null' AND result <> '"executor"';
-- only these are plain
SELECT t FROM unnest(ARRAY['varchar', 'date', 'oid', 'uuid', 'name', 'bpchar', 'int4range', 'pg_catalog.text[]', '"char"']) t WHERE (compare(t, 'null')).result <> '"executor"';

DELETE FROM chaincall.job;
SET client_min_messages = warning;
DROP SCHEMA pinned CASCADE;
RESET client_min_messages;
ALTER SYSTEM RESET chaincall.workers;
SELECT pg_reload_conf();
