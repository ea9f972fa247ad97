-- Null, missing, empty: LANGUAGE.md's table, cell by cell, through real chains.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

CREATE FUNCTION argument(a jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'got ' || coalesce(a::text, 'NULL') $$;
CREATE FUNCTION text_argument(a text) RETURNS text LANGUAGE sql AS $$ SELECT 'got ' || coalesce(a, 'NULL') $$;
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION no_text() RETURNS text LANGUAGE sql AS 'SELECT NULL::text';

-- The cells of a row: what the expression $1, of a step s written as $2, becomes in each place. Errors without their hints.
CREATE FUNCTION cells(expression text, step text, input jsonb DEFAULT '{}') RETURNS TABLE (place text, becomes text) LANGUAGE sql AS $$
  SELECT place, regexp_replace(run_chain(format(E'output: "{{r}}"\nsteps:\n  s: %s\n  r: %s', step, replace(body, '§', expression)), input), E'\n.*', '')
  FROM (VALUES
    ('text', '{model: echo, prompt: "[{{§}}]"}'),
    ('JSON', '{value: {a: ["{{§}}"]}}'),
    ('args', '{function: argument, args: {a: "{{§}}"}}'),
    ('text args', '{function: text_argument, args: {a: "{{§}}"}}'),
    ('x == null', '{when: "§ == null", value: holds}'),
    ('x >= 1', '{when: "§ >= 1", value: holds}'),
    ('x.a == 1', '{when: "§.a == 1", value: holds}'),
    ('each', '{each: "§", model: echo, prompt: "{{item}}"}'),
    ('sql text', '{sql: "SELECT {{§}}::text", returns: value}'),
    ('sql jsonb', '{sql: "SELECT {{§}}::jsonb", returns: value}'),
    ('sql int[]', '{sql: "SELECT {{§}}::int[]", returns: value}'),
    ('sql IS NULL', '{sql: "SELECT {{§}}::int IS NULL", returns: value}')) t (place, body)
$$;

-- null: an argument, a skipped step, an error skipped, void, no row, an SQL null, no arm
SELECT * FROM cells('x', '{value: "{{x}}"}', '{"x": null}');
SELECT * FROM cells('s', '{when: x > 1, value: 1}', '{"x": 1}');
SELECT * FROM cells('s', '{value: "{{x.missing}}", on_error: skip}', '{"x": 1}');
SELECT * FROM cells('s', '{function: nothing}');
SELECT * FROM cells('s', '{sql: SELECT 1 WHERE false, returns: value}');
SELECT * FROM cells('s', '{sql: SELECT 1 AS a WHERE false, returns: row}');
SELECT * FROM cells('s', '{function: no_text}');
SELECT * FROM cells('s', '{switch: [{when: x == 2, value: 1}]}', '{"x": 1}');
SELECT * FROM cells('s.a', '{sql: "SELECT NULL::text AS a", returns: row}');

-- a missing key, a missing index: an error everywhere
SELECT * FROM cells('s.b', '{value: {a: 1}}');
SELECT * FROM cells('s[1]', '{value: [1]}');
SELECT * FROM cells('s.a.b', '{value: {a: {}}}');

-- with default(): the default; for `each` a number means that many. Conditions have no default, but a guard
SELECT * FROM cells('s | default(7)', '{value: null}') WHERE place NOT LIKE 'x%';
SELECT * FROM cells('s.b | default(7)', '{value: {a: 1}}') WHERE place NOT LIKE 'x%';
SELECT * FROM cells('s[1] | default(7)', '{value: [1]}') WHERE place NOT LIKE 'x%';
SELECT * FROM cells('s | default(7)', '{value: []}') WHERE place NOT LIKE 'x%';
SELECT run_chain($${each: x.missing | default(2), value: "{{item}}"}$$, '{"x": {}}'), run_chain($${each: x | default(y), value: "{{item}}"}$$, '{"x": null, "y": ["default"]}'),
  run_chain($${each: x | default(y), value: "{{item}}"}$$, '{"x": [], "y": ["default"]}'), run_chain($${each: x | default(y) | first(1), value: "{{item}}"}$$, '{"x": ["a", "b"], "y": ["default"]}');
SELECT run_chain($${when: x | default(1) == 1, value: 1}$$, '{"x": null}');
SELECT run_chain($${switch: [{when: x != null && x.a == 1, value: 1}, {value: else}]}$$, '{"x": null}'), run_chain($${switch: [{when: "exists(x[*] ? (@.a == 1))", value: 1}, {value: else}]}$$, '{"x": [{}]}'),
  run_chain($${switch: [{when: x == null || x.a == 1, value: 1}, {value: else}]}$$, '{"x": null}');

-- an empty array
SELECT * FROM cells('s', '{value: []}') WHERE place NOT LIKE 'x%' AND place <> 'sql IS NULL';
SELECT * FROM cells('s', '{each: x, value: 1}', '{"x": null}') WHERE place NOT LIKE 'x%' AND place <> 'sql IS NULL';
SELECT * FROM cells('s[*].a', '{value: []}') WHERE place NOT LIKE 'x%' AND place <> 'sql IS NULL';
SELECT * FROM cells('s', '{sql: SELECT 1 WHERE false}') WHERE place NOT LIKE 'x%' AND place <> 'sql IS NULL';

-- an item that failed under skip is null at its place
SELECT * FROM cells('s', '{each: x, value: "{{item.a}}", on_error: skip}', '{"x": [{"a": 1}, {}, {"a": 3}]}') WHERE place NOT LIKE 'x%' AND place <> 'sql IS NULL';
SELECT run_chain($$
output: "{{s[*] ? (@ != null)}}"
steps:
  s: {each: x, value: "{{item.a}}", on_error: skip}
$$, '{"x": [{"a": 1}, {}, {"a": 3}]}');

-- what a null becomes outside
CREATE FUNCTION null_text() RETURNS text LANGUAGE chaincall AS 'value: null';
CREATE FUNCTION null_rows() RETURNS SETOF int LANGUAGE chaincall AS 'value: null';
CREATE FUNCTION null_row(OUT a int, OUT b int) LANGUAGE chaincall AS 'value: null';
CREATE FUNCTION null_jsonb() RETURNS jsonb LANGUAGE chaincall AS 'value: null';
SELECT null_text() IS NULL, (SELECT count(*) FROM null_rows()), null_row(), null_jsonb() IS NULL, chaincall.run('null_text', '{}'), chaincall.run('null_rows', '{}');
SELECT * FROM null_row();
