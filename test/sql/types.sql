-- Types on their way into chains and out of them: arguments, statements, functions, answers of models, results.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SET timezone = 'UTC';
CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE TYPE party AS (name text, born date);
CREATE TYPE deal AS (id int, parties party[], due timestamptz, terms jsonb);
CREATE DOMAIN grade AS int CHECK (VALUE BETWEEN 1 AND 6);
CREATE DOMAIN grades AS int[] CHECK (cardinality(VALUE) > 0);
CREATE DOMAIN needed AS text NOT NULL;
CREATE DOMAIN adult AS party CHECK ((VALUE).born < '2008-01-01');

----------------------------------------------------------------------------------------------------------------------
-- In: what a chain sees of each type

CREATE FUNCTION sees(a_int int, a_big bigint, a_numeric numeric, a_real real, a_double float8, a_bool boolean, a_text text, a_varchar varchar(9), a_char char(4), a_name name,
  a_date date, a_time time, a_timestamp timestamp, a_timestamptz timestamptz, a_interval interval, a_uuid uuid, a_inet inet, a_enum mood, a_range tstzrange,
  a_json json, a_jsonb jsonb, a_array int[], a_texts text[], a_matrix float8[], a_party party, a_deal deal, a_domain grade, a_grades grades, a_null int)
RETURNS jsonb LANGUAGE chaincall AS $chain$
value: ["{{a_int}}", "{{a_big}}", "{{a_numeric}}", "{{a_real}}", "{{a_double}}", "{{a_bool}}", "{{a_text}}", "{{a_varchar}}", "{{a_char}}", "{{a_name}}",
  "{{a_date}}", "{{a_time}}", "{{a_timestamp}}", "{{a_timestamptz}}", "{{a_interval}}", "{{a_uuid}}", "{{a_inet}}", "{{a_enum}}", "{{a_range}}",
  "{{a_json}}", "{{a_jsonb}}", "{{a_array}}", "{{a_texts}}", "{{a_matrix}}", "{{a_party}}", "{{a_deal}}", "{{a_domain}}", "{{a_grades}}", "{{a_null}}"]
$chain$;
CREATE VIEW seen AS SELECT sees(-5, 9007199254740993, 1.50, 0.1, 0.1, true, E'a "b"\n{{x}}', 'varchar', 'ch', 'name',
  '2024-02-29', '12:30:00.5', '2024-02-29 12:30', '2024-02-29 12:30+02', '1 day -02:03:04.5', '01234567-89ab-cdef-0123-456789abcdef', '10.0.0.1', 'cross', '[2024-01-01 00:00+00,)',
  '{"b": 1,  "a": [null]}', '{"b": 1, "a": [null]}', '{1,NULL,3}', '{}', '{{1,2},{3,4.5}}', ('Ann', '2000-01-31'),
  (7, ARRAY[('Ann', '2000-01-31')::party, NULL], '2024-02-29 12:30+02', '{"x": 1}'), 5, '{1,2}', NULL) AS value;
SELECT e FROM seen, jsonb_array_elements(value) e;
CREATE TABLE calm AS SELECT value FROM seen;
-- whatever the session says
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -15; SET bytea_output = 'escape';
SELECT value = (SELECT value FROM calm) AS same FROM seen;
SET datestyle = 'German'; SET intervalstyle = 'postgres_verbose'; SET timezone = '-13'; SET extra_float_digits = 0;
SELECT value = (SELECT value FROM calm) AS same FROM seen;
-- and the session keeps its settings
SELECT current_setting('datestyle'), current_setting('intervalstyle'), current_setting('timezone'), current_setting('extra_float_digits');
RESET datestyle; RESET intervalstyle; RESET extra_float_digits; RESET bytea_output; SET timezone = 'UTC';
-- by run() as by a call
SELECT chaincall.run('sees', jsonb_object_agg(name, v)) = (SELECT value FROM calm) AS same
FROM (SELECT unnest(p.proargnames) AS name, jsonb_array_elements(c.value) AS v FROM pg_proc p, calm c WHERE p.proname = 'sees') a;

-- numbers that JSON has not
CREATE FUNCTION number(x float8, y numeric DEFAULT 0) RETURNS jsonb LANGUAGE chaincall AS 'value: "{{x}}"';
SELECT try($$SELECT number('NaN')$$);
SELECT try($$SELECT number('Infinity')$$);
SELECT try($$SELECT number(1, '-Infinity')$$);
SELECT number(1e300), number(5e-324), number(-0.0), number(123456789012345678);
-- a value that an argument's type refuses
SELECT try($$SELECT chaincall.run('number', '{"x": "one"}')$$);
SELECT try($$SELECT chaincall.run('number', '{"x": [1]}')$$);
SELECT chaincall.run('number', '{"x": "1.5"}'), chaincall.run('number', '{"x": null}');
CREATE FUNCTION graded(g grade, p party DEFAULT NULL, t needed DEFAULT 'x') RETURNS jsonb LANGUAGE chaincall AS 'value: ["{{g}}", "{{p}}", "{{t}}"]';
SELECT chaincall.run('graded', '{"g": 3, "p": {"name": "Ann", "born": null}}');
SELECT try($$SELECT chaincall.run('graded', '{"g": 7}')$$);
SELECT try($$SELECT chaincall.run('graded', '{"g": 3, "t": null}')$$);
SELECT try($$SELECT chaincall.run('graded', '{"g": 3, "p": {"name": "Ann"}}')$$);
SELECT try($$SELECT chaincall.run('graded', '{"g": 3, "p": {"name": "Ann", "born": null, "age": 3}}')$$);
SELECT try($$SELECT chaincall.run('graded', '{"g": 3, "p": {"name": "Ann", "born": "2024-02-30"}}')$$);

-- a type `vector` is an array of numbers
SET client_min_messages = warning;
CREATE TYPE vector;
CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text);
RESET client_min_messages;
CREATE FUNCTION vectors(v vector) RETURNS vector LANGUAGE chaincall AS $chain$
output: "{{same.v}}"
steps:
  size: {value: "{{v.size()}} {{v[0]}}"}
  same: {sql: "SELECT {{v}}::vector AS v, {{size}}::text AS size", returns: row}
$chain$;
SELECT vectors('[0.5,-1,2e-05]'), chaincall.run('vectors', '{"v": [1, 2]}', stop_after => 'same');

----------------------------------------------------------------------------------------------------------------------
-- Statements: rows as objects, parameters by the type that PostgreSQL infers

SELECT run_chain($$
sql: |
  SELECT 1::smallint AS i, 1.50 AS n, 'x'::text AS t, true AS b, date '2024-02-29' AS d, timestamptz '2024-02-29 12:00+02' AS tz, interval '90 min' AS iv,
  ARRAY[1, 2] AS a, ROW(1, 'x')::party2 AS p, '{"a": 1}'::jsonb AS j, 3::grade AS g, NULL::int AS nothing, 'calm'::mood AS e
returns: row
$$) FROM try('CREATE TYPE party2 AS (i int, t text)');
-- a text becomes what the place wants
CREATE TABLE item (id int, due date, tags text[], party party, terms jsonb, mood mood, grade grade);
SELECT run_chain($$
sql: INSERT INTO item VALUES ({{x.id}}, {{x.due}}, {{x.tags}}, {{x.party}}, {{x.terms}}, {{x.mood}}, {{x.grade}}) RETURNING *
returns: row
$$, '{"x": {"id": 1, "due": "2024-02-29", "tags": ["a", "b"], "party": {"name": "Ann", "born": null}, "terms": "text", "mood": "calm", "grade": 3}}');
SELECT id, due, tags, party, terms, jsonb_typeof(terms), mood, grade FROM item;
SELECT run_chain($${sql: "SELECT id FROM item WHERE due = {{x}}::text::date + 0 AND id = ANY({{y}})", returns: value}$$, '{"x": "2024-02-29", "y": [1, 2]}');
-- jsonb gets the JSON itself: a text is a JSON string, never parsed
SELECT run_chain($${sql: "SELECT {{x}}::jsonb AS x, jsonb_typeof({{x}}) AS type", returns: row}$$, jsonb_build_object('x', v)) FROM jsonb_array_elements('["{\"a\": 1}", {"a": 1}, [1], 5, null]') v;
SELECT run_chain($${sql: "SELECT {{x}}::json AS x", returns: value}$$, '{"x": "[1]"}'), run_chain($${sql: "SELECT {{x}}::text AS x", returns: value}$$, '{"x": {"a": [1, "b"]}}');
-- arrays and composites by their elements and fields
SELECT run_chain($${sql: "SELECT ({{x}}::deal).parties[1].born + 1 AS next, ({{x}}::deal).due", returns: row}$$, '{"x": {"id": 1, "parties": [{"name": "Ann", "born": "2000-01-31"}], "due": "2024-01-01T00:00:00Z", "terms": [1]}}');
SELECT run_chain($${sql: "SELECT {{x}}::int[] AS a, {{x}}::text[] AS t", returns: row}$$, '{"x": [[1, 2], [3, 4]]}');
SELECT run_chain($${sql: "SELECT {{x}}::int[]"}$$, '{"x": [[1, 2], [3]]}');
SELECT run_chain($${sql: "SELECT {{x}}::int[]"}$$, '{"x": "{1,2}"}');
SELECT run_chain($${sql: "SELECT {{x}}::party"}$$, '{"x": {"name": "Ann", "birth": null}}');
SELECT run_chain($${sql: "SELECT {{x}}::int + 1"}$$, '{"x": 1.5}');
SELECT run_chain($${sql: "SELECT {{x}}::boolean AS a", returns: value}$$, '{"x": true}'), run_chain($${sql: "SELECT {{x}}::boolean AS a", returns: value}$$, '{"x": "yes"}');
SELECT run_chain($${sql: "SELECT {{x}} + 1 AS a, {{x}}::numeric / 3 AS b, {{x}}::float8 AS c", returns: row}$$, '{"x": 10}');

----------------------------------------------------------------------------------------------------------------------
-- Functions

CREATE FUNCTION takes(p party, g grade, a int[], v VARIADIC text[] DEFAULT '{}') RETURNS text LANGUAGE sql AS $$ SELECT concat_ws(' ', (p).name, g, a, v) $$;
CREATE FUNCTION gives_deal(n int) RETURNS SETOF deal LANGUAGE sql AS $$ SELECT i, ARRAY[('p' || i, NULL)::party], timestamptz 'epoch', NULL::jsonb FROM generate_series(1, n) i $$;
CREATE FUNCTION gives_array() RETURNS party[] LANGUAGE sql AS $$ SELECT ARRAY[('a', NULL)::party] $$;
CREATE FUNCTION gives_arrays() RETURNS SETOF int[] LANGUAGE sql AS $$ VALUES ('{1,2}'::int[]), ('{}'), (NULL) $$;
SELECT run_chain($${function: takes, args: {p: {name: Ann, born: 2024-02-29}, g: "{{x}}", a: [1, 2], v: [c]}}$$, '{"x": 4}');
SELECT run_chain($${function: takes, args: {p: {name: Ann, born: 2024-02-29}, g: "{{x}}", a: [1, 2], v: []}}$$, '{"x": 7}');
SELECT run_chain($${function: takes, args: {p: null, g: "{{x}}", a: [1, 2]}}$$, '{"x": 1}');
SELECT run_chain($${function: gives_deal, args: {n: 1}}$$), run_chain($$function: gives_array$$), run_chain($$function: gives_arrays$$);

----------------------------------------------------------------------------------------------------------------------
-- Answers of models: `returns` and `schema`. The model echoes its prompt, so the prompt is the answer

CREATE FUNCTION answer(returns text, answer text) RETURNS text LANGUAGE sql AS $$
  SELECT run_chain(E'model: echo\nreask: 0\nprompt: "{{x}}"\nreturns: ' || returns, jsonb_build_object('x', answer), 'x text')
$$;
-- a field map: required, optional and absent, labels, objects, arrays, descriptions
SELECT answer('{score: int, due: date, tags: "text[]"}', '{"score": 3, "due": "2024-02-29", "tags": ["a"]}');
SELECT answer('{score: int}', '{"score": "3"}');
SELECT answer('{score: int}', '{"score": 3.5}');
SELECT answer('{score: int}', '{}');
SELECT answer('{score: int}', '{"score": 3, "more": 4}');
SELECT answer('{score: int}', '[3]');
SELECT answer('{"note?": text, a: int}', '{"a": 1}'), answer('{"note?": text, a: int}', '{"a": 1, "note": "x"}'), answer('{"note?": text, a: int}', '{"a": 1, "note": null}');
SELECT answer('{label: [billing, technical]}', '{"label": "billing"}'), answer('{label: [billing, technical]}', '{"label": "other"}');
SELECT answer('{lines: [{sku: text, qty: int}], party: {name: text}}', '{"lines": [{"sku": "a", "qty": 1}], "party": {"name": "Ann"}}');
SELECT answer('{lines: [{sku: text, qty: int}], party: {name: text}}', '{"lines": [{"sku": "a", "qty": "1"}], "party": {"name": "Ann"}}');
SELECT answer('{score: "int, 1 to 10"}', '{"score": 3}');
-- a type alone: scalar, array, composite, domain
SELECT answer('int', '5'), answer('text[]', '["a"]'), answer('boolean', 'true'), answer('date', '"2024-02-29"');
SELECT answer('party', '{"name": "Ann", "born": "2024-02-29"}'), answer('party', '{"name": "Ann", "born": null}');
SELECT answer('party', '{"name": "Ann"}');
SELECT answer('party[]', '[{"name": "Ann", "born": null}]'), answer('mood', '"calm"'), answer('mood', '"glad"');
-- what the checker cannot see is seen when the value becomes SQL
CREATE FUNCTION graded_by_model(x text) RETURNS grade LANGUAGE chaincall AS '{model: echo, prompt: "{{x}}", returns: grade}';
SELECT graded_by_model('5');
SELECT try('SELECT graded_by_model(''9'')');
-- raw JSON Schema
SELECT run_chain($$
model: echo
prompt: "{{x}}"
reask: 0
schema: {type: object, properties: {n: {type: integer, minimum: 1}, t: {type: string, pattern: "^a"}}, required: [n], additionalProperties: false}
$$, jsonb_build_object('x', v), 'x text') FROM unnest(ARRAY['{"n": 1, "t": "ab"}', '{"n": 0}', '{"n": 1, "t": "b"}', '{"n": 1, "u": 1}']) v;

----------------------------------------------------------------------------------------------------------------------
-- Out: RETURNS

CREATE FUNCTION out_int(x jsonb) RETURNS int LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_numeric(x jsonb) RETURNS numeric LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_text(x jsonb) RETURNS text LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_bool(x jsonb) RETURNS boolean LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_time(x jsonb) RETURNS timestamptz LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_json(x jsonb) RETURNS json LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_jsonb(x jsonb) RETURNS jsonb LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_grade(x jsonb) RETURNS grade LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_needed(x jsonb) RETURNS needed LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_mood(x jsonb) RETURNS mood LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_array(x jsonb) RETURNS int[] LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_party(x jsonb) RETURNS party LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_adult(x jsonb) RETURNS adult LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_parties(x jsonb) RETURNS party[] LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_void(x jsonb) RETURNS void LANGUAGE chaincall AS 'value: "{{x}}"';
SELECT out_int('5'), out_int('"5"'), out_numeric('1.005'), out_text('"t"'), out_text('5'), out_text('true'), out_bool('true'), out_bool('"no"'), out_time('"2024-02-29 12:00+02"'), out_int('null') IS NULL;
SELECT out_text('["a", 1]'), out_text('{"a": 1}'), out_json('{"b": 1, "a": [2]}'), out_jsonb('"t"'), out_jsonb('null'), out_grade('3'), out_mood('"calm"'), out_array('[1, null]'), out_void('5');
SELECT out_party('{"born": "2000-01-31", "name": "Ann"}'), (out_party('{"born": null, "name": "Ann"}')).name, out_parties('[{"born": null, "name": "Ann"}, null]'), out_adult('{"born": "2000-01-31", "name": "Ann"}');
SELECT try($$SELECT out_int('1.5')$$);
SELECT try($$SELECT out_int('"x"')$$);
SELECT try($$SELECT out_int('[1]')$$);
SELECT try($$SELECT out_grade('7')$$);
SELECT try($$SELECT out_needed('null')$$);
SELECT try($$SELECT out_mood('"glad"')$$);
SELECT try($$SELECT out_array('5')$$);
SELECT try($$SELECT out_party('{"name": "Ann"}')$$);
SELECT try($$SELECT out_party('{"name": "Ann", "born": null, "age": 5}')$$);
SELECT try($$SELECT out_party('["Ann", null]')$$);
SELECT try($$SELECT out_adult('{"born": "2020-01-31", "name": "Ann"}')$$);
SELECT try($$SELECT out_parties('[{"name": "Ann", "born": "never"}]')$$);

-- sets: each element of the output a row
CREATE FUNCTION set_int(x jsonb) RETURNS SETOF int LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION set_text(x jsonb) RETURNS SETOF text LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION set_jsonb(x jsonb) RETURNS SETOF jsonb LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION set_party(x jsonb) RETURNS SETOF party LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION set_array(x jsonb) RETURNS SETOF int[] LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION table_two(x jsonb) RETURNS TABLE (name text, n int) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION table_one(x jsonb) RETURNS TABLE (name text) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION table_jsonb(x jsonb) RETURNS TABLE (doc jsonb) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_args(x jsonb, OUT name text, OUT n int) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION out_arg(x jsonb, OUT n int) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION inout_arg(INOUT x int) LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION set_out(x jsonb, OUT name text, OUT n int) RETURNS SETOF record LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION a_record(x jsonb) RETURNS record LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION records(x jsonb) RETURNS SETOF record LANGUAGE chaincall AS 'value: "{{x}}"';
SELECT * FROM set_int('[1, null, 3]');
SELECT set_int('[1, 2]');
SELECT * FROM set_text('["a", 5]') WITH ORDINALITY t (line, n);
SELECT * FROM set_jsonb('[1, {"a": 2}, null]');
SELECT * FROM set_party('[{"name": "Ann", "born": "2000-01-31"}, null, {"name": "Bob", "born": null}]');
SELECT set_party('[{"name": "Ann", "born": "2000-01-31"}]');
SELECT * FROM set_array('[[1], []]');
SELECT * FROM table_two('[{"name": "a", "n": 1}, {"n": null, "name": "b"}]');
SELECT * FROM table_one('["a", {"name": "b"}, null]');
SELECT * FROM table_jsonb('[{"a": 1}, {"doc": 2}]');
SELECT * FROM out_args('{"name": "a", "n": 1}'), out_arg('5'), inout_arg(6);
SELECT out_args('{"name": "a", "n": 1}');
SELECT * FROM set_out('[{"name": "a", "n": 1}]');
SELECT * FROM a_record('{"a": 1, "b": "2024-02-29"}') AS t (a int, b date);
SELECT * FROM records('[{"a": 1, "b": null}, {"b": "2024-02-29", "a": 2}]') AS t (a int, b date);
SELECT * FROM set_int('[]');
SELECT try($$SELECT count(*) FROM set_int('5')$$);
SELECT try($$SELECT count(*) FROM set_int('{"a": 1}')$$);
SELECT try($$SELECT count(*) FROM table_two('[{"name": "a"}]')$$);
SELECT try($$SELECT count(*) FROM table_two('[["a", 1]]')$$);
SELECT try($$SELECT a_record('{"a": 1}')$$);
SELECT try($$SELECT * FROM records('[{"a": 1}]') AS t (a int, b date)$$);
-- LATERAL: one run a row
SELECT t.x, s.name, s.n FROM (VALUES ('{"name": "a", "n": 1}'::jsonb), ('{"name": "b", "n": 2}')) t (x), LATERAL out_args(t.x) s ORDER BY s.n;
-- rows of a statement are rows of a table
CREATE FUNCTION from_sql(n int) RETURNS TABLE (a int, b date) LANGUAGE chaincall AS 'sql: SELECT i AS a, date ''2024-01-01'' + i AS b FROM generate_series(1, {{n}}) i';
CREATE FUNCTION one_column(n int) RETURNS TABLE (i int) LANGUAGE chaincall AS 'sql: SELECT i FROM generate_series(1, {{n}}) i';
SELECT * FROM from_sql(2);
SELECT count(*) FROM from_sql(1000);
SELECT sum(i), pg_typeof(sum(i)) FROM one_column(3);
-- what run() gives of each is what the function gives, as JSON
SELECT chaincall.run('out_numeric', '{"x": "1.005"}'), chaincall.run('out_party', '{"x": {"name": 5, "born": "31 Jan 2000"}}'), chaincall.run('set_int', '{"x": ["1"]}'), chaincall.run('out_void', '{"x": 1}'),
  chaincall.run('table_two', '{"x": [{"name": "a", "n": "1"}, null, {"n": 2}]}'), chaincall.run('one_column', '{"n": 2}'), chaincall.run('a_record', '{"x": {"a": 1}}'), chaincall.run('out_args', '{"x": {"name": "a", "n": "1"}}');
-- and a nested chain gives the same
SELECT run_chain($${function: out_numeric, args: {x: "1.005"}}$$), run_chain($${function: table_two, args: {x: [{name: a, n: "1"}]}}$$), run_chain($${function: out_args, args: {x: {name: a, n: "1"}}}$$),
  run_chain($${function: set_party, args: {x: [{name: a, born: 31 Jan 2000}]}}$$), run_chain($${function: one_column, args: {n: 2}}$$);
SELECT run_chain($${function: table_two, args: {x: [{name: a, n: one}]}}$$);
SELECT run_chain($${function: table_two, args: {x: {name: a, n: 1}}}$$);
SELECT try($$SELECT chaincall.run('set_party', '{"x": 5}')$$);
