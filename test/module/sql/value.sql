-- base/value.h: SQL values as JSON and back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on

-- What a statement raises, in one line: SQLSTATE, message, detail, hint and the innermost context.
CREATE FUNCTION fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text; context text;
BEGIN
  EXECUTE statement;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
    hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
  RETURN state || ': ' || message || CASE WHEN detail <> '' THEN ' / detail: ' || detail ELSE '' END
    || CASE WHEN hint <> '' THEN ' / hint: ' || hint ELSE '' END
    || coalesce(' / ' || substring(context FROM '^value of [^\n]*'), '');
END $$;

CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'happy');
CREATE TYPE party AS (name text, born date, tags text[]);
CREATE DOMAIN score AS int CHECK (value BETWEEN 1 AND 10);
CREATE DOMAIN best AS score CHECK (value > 8);
CREATE DOMAIN must AS text NOT NULL;
CREATE DOMAIN path_of AS int[] CHECK (cardinality(value) > 0);
CREATE DOMAIN host AS party CHECK ((value).name <> '');
CREATE DOMAIN due AS date CHECK (value >= date '2024-01-01');
CREATE TYPE deal AS (host party, guests party[], score score, span interval, note jsonb);
CREATE TABLE shop (id int, gone text, "Full Name" varchar(5), price numeric(6,2));
ALTER TABLE shop DROP COLUMN gone;

-- A type as pgvector makes it: text in brackets.
SET client_min_messages = warning;
CREATE TYPE vector;
CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text);
RESET client_min_messages;

-- Every cell once; the same under any settings, so it is a view.
CREATE VIEW cell(name, json) AS VALUES
  ('int2', value_from('-32768'::int2)), ('int4', value_from(2147483647)), ('int8', value_from('-9223372036854775808'::int8)),
  ('numeric', value_from(12345678901234567890.12300::numeric)), ('numeric small', value_from(1e-20::numeric)),
  ('float8', value_from(0.1::float8)), ('float8 sum', value_from(0.1::float8 + 0.2::float8)),
  ('float8 whole', value_from(42::float8)), ('float8 big', value_from(1e22::float8)), ('float8 tiny', value_from(5e-324::float8)),
  ('float8 -0', value_from('-0'::float8)), ('float4', value_from(0.1::float4)), ('float4 third', value_from((1.0/3)::float4)),
  ('float4 whole', value_from(16777216::float4)),
  ('bool', value_from(true)), ('bool f', value_from(false)),
  ('text', value_from('a "b" \ '::text || chr(10) || 'ä€𝄞')), ('text empty', value_from(''::text)),
  ('varchar', value_from('v'::varchar(3))), ('char', value_from('c'::char(3))), ('"char"', value_from('x'::"char")),
  ('name', value_from('n'::name)),
  ('json', value_from('{"b": [1, {"a": null}], "a": "2024-01-01", "a": 2}'::json)),
  ('json scalar', value_from('"x"'::json)), ('jsonb', value_from('{"b": [1, {"a": null}]}'::jsonb)),
  ('jsonb null', value_from('null'::jsonb)), ('jsonb scalar', value_from('1.50'::jsonb)),
  ('date', value_from(date '2024-02-01')), ('date bc', value_from(date '0044-03-15 BC')),
  ('date infinity', value_from(date 'infinity')),
  ('time', value_from(time '12:34:56.789')), ('timetz', value_from(timetz '12:34:56+05:30')),
  ('timestamp', value_from(timestamp '2024-02-01 12:34:56.789')),
  ('timestamptz', value_from(timestamptz '2024-02-01 12:34:56.5+02')),
  ('timestamptz infinity', value_from(timestamptz '-infinity')),
  ('interval', value_from(interval '1 year 2 months -3 days 04:05:06.7')), ('interval 0', value_from(interval '0')),
  ('interval negative', value_from(interval '-1 day -02:03:04')),
  ('uuid', value_from('019012345678-7abc-8def-0123456789ab'::uuid)), ('inet', value_from('10.0.0.1/8'::inet)),
  ('enum', value_from('so "so"'::mood)), ('oid', value_from(4294967295::oid)),
  ('money', value_from(12.5::numeric::money)), ('bit', value_from(B'0101')), ('point', value_from(point(0.1, 1e-30))),
  ('regclass', value_from('shop'::regclass)), ('regtype', value_from('int4'::regtype)),
  ('tsvector', value_from('a:1 b:2'::tsvector)),
  ('int4range', value_from('[1,5)'::int4range)),
  ('tstzrange', value_from(tstzrange('2024-02-01 12:00+02', null))),
  ('datemultirange', value_from('{[2024-02-01,2024-03-01)}'::datemultirange)),
  ('array', value_from('{1,2,NULL}'::int[])), ('array empty', value_from('{}'::text[])),
  ('array lower bound', value_from('[5:6]={a,b}'::text[])), ('array 2', value_from('{{1,2},{3,4}}'::float8[])),
  ('array 3', value_from('{{{a},{b}}}'::text[])), ('array of times', value_from(array[timestamptz '2024-02-01 12:00+02', null])),
  ('array of intervals', value_from(array[interval '1h', '90 min'])),
  ('array of ranges', value_from(array[daterange('2024-02-01', '2024-02-02')])),
  ('array of json', value_from(array['{"a": 1}', '[2]', null]::jsonb[])),
  ('array of enum', value_from('{sad,happy}'::mood[])),
  ('composite', value_from(row('Ann', '2000-01-31', '{a,NULL}')::party)),
  ('composite nulls', value_from(row(null, null, null)::party)),
  ('composite nested', value_from(row(row('A', null, '{}'), array[row('B', '1999-12-31', null)::party, null], 3, '2 h', '{"x": [null]}')::deal)),
  ('record', value_from(row(1, 'two', 3.0, null::date, row(true)))),
  ('array of composites', value_from(array[row('A', null, null)::party])),
  ('array of records', value_from(array[row(1, 'a'::text), row(2, 'b'::text)])),
  ('domain', value_from(9::best)), ('domain over array', value_from('{1,2}'::path_of)),
  ('domain over composite', value_from(row('A', '2000-01-31', null)::party::host)), ('domain over date', value_from('2024-05-06'::due)),
  ('dropped column', value_from(row(1, 'abc', 2.5)::shop)),
  ('vector', value_from('[0.1,-3e-05,2]'::vector)), ('array of vectors', value_from(array['[1,2]', '[3]']::vector[])),
  ('other vector', value_from('{1:2}/3'::vector)),
  ('null int', value_from(null::int)), ('null jsonb', value_from(null::jsonb)), ('null array', value_from(null::int[])),
  ('null composite', value_from(null::party));

SELECT name, json FROM cell;
CREATE TABLE calm AS SELECT * FROM cell;

-- Parsed under the settings of CREATE VIEW; only the way out is tried here.
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu';
SET extra_float_digits = -15; SET bytea_output = 'escape'; SET lc_monetary = 'C'; SET search_path = chaincall_test, public, pg_catalog;
SELECT name, c.json AS calm, h.json AS hostile FROM calm c FULL JOIN cell h USING (name) WHERE c.json::text IS DISTINCT FROM h.json::text;
-- and the session has its settings back
SELECT current_setting('datestyle'), current_setting('intervalstyle'), current_setting('timezone'), current_setting('extra_float_digits');
RESET ALL; SET search_path = public, chaincall_test;
SET datestyle = 'German'; SET intervalstyle = 'postgres_verbose'; SET timezone = '-13'; SET extra_float_digits = 0;
SELECT name, c.json AS calm, h.json AS hostile FROM calm c FULL JOIN cell h USING (name) WHERE c.json::text IS DISTINCT FROM h.json::text;
RESET ALL; SET search_path = public, chaincall_test;

-- Rows of a query, as SPI has them.
SELECT value_from_query('SELECT id, "Full Name", price, NULL AS nothing, now() > ''2000-01-01'' AS late FROM (VALUES (1, ''a'', 2.50), (2, NULL, NULL)) v(id, "Full Name", price)');
SELECT value_from_query('SELECT 1 AS a, 2 AS a');
SELECT value_from_query('SELECT');
SELECT value_from_query('SELECT pg_sleep(0) AS void, ''c''::cstring AS cstring, array[1]::anyarray AS any_array');
SELECT value_from_query('SELECT s, s AS whole FROM shop s');
INSERT INTO shop SELECT 1, 'abc', 2.5;
SELECT value_from_query('SELECT s AS whole, repeat(''x'', 5) AS x FROM shop s');
-- a value that is stored out of line, and a short one
CREATE TABLE wide (body text, doc jsonb, party party);
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL, ALTER doc SET STORAGE EXTERNAL;
INSERT INTO wide SELECT repeat('y', 10000), jsonb_build_array(repeat('z', 10000)), row(repeat('w', 10000), null, array[repeat('v', 9000)])::party;
SELECT length(j[1]->>'body'), length(j[1]->'doc'->>0), length(j[1]->'party'->>'name'), length(j[1]->'party'->'tags'->>0) FROM value_from_query('SELECT * FROM wide') j;

-- No form in JSON, not yet.
SELECT fails(s) FROM unnest(array[
  $$SELECT value_from('NaN'::float8)$$, $$SELECT value_from('-Infinity'::float4)$$, $$SELECT value_from('Infinity'::numeric)$$,
  $$SELECT value_from('NaN'::numeric)$$, $$SELECT value_from(array[1, 'NaN']::float8[])$$,
  $$SELECT value_from('\x00'::bytea)$$, $$SELECT value_from(array['\x00']::bytea[])$$,
  $$SELECT value_from(row(1, '\x00'::bytea))$$, $$SELECT value_from('"\u0000"'::json)$$]) s;

-- And back. Each short cut and what it leaves to the input function:
SELECT j, t, value_to(j::jsonb, t) FROM (VALUES
  ('1', 'int'), ('3.0', 'int'), ('1e2', 'int'), ('"7"', 'int'), ('-32768', 'smallint'), ('9223372036854775807', 'bigint'), ('4e1', 'int8'), ('4294967295', 'oid'),
  ('0.1', 'float8'), ('1e300', 'float8'), ('0.1', 'real'), ('"NaN"', 'float8'), ('1.005', 'numeric'), ('1.005', 'numeric(5,2)'), ('" 2 "', 'numeric'),
  ('true', 'bool'), ('"yes"', 'bool'), ('1', 'bool'),
  ('"a"', 'text'), ('""', 'text'), ('1.50', 'text'), ('true', 'text'), ('{"b": [1, null]}', 'text'), ('[1, "x"]', 'varchar'), ('"abc"', 'varchar(3)'), ('"ab"', 'char(3)'),
  ('"{\"a\": 1}"', 'jsonb'), ('"{\"a\": 1}"', 'json'), ('{"a": [1, null]}', 'jsonb'), ('{"a": [1, null]}', 'json'), ('1', 'jsonb'), ('true', 'json'), ('null', 'jsonb'), ('null', 'json'), ('null', 'int'), ('null', 'int[]'), ('null', 'party'),
  ('"2024-02-01"', 'date'), ('"01/02/2024"', 'date'), ('"2024-02-01T12:00:00Z"', 'timestamptz'), ('"P1DT2H"', 'interval'), ('"1 day"', 'interval'), ('"12:34"', 'time(0)'),
  ('"happy"', 'mood'), ('"019012345678-7abc-8def-0123456789ab"', 'uuid'), ('"[1,5)"', 'int4range'), ('"shop"', 'regclass'),
  ('[1, "2", null, 3.0]', 'int[]'), ('[]', 'int[]'), ('[[]]', 'int[]'), ('[[1,2],[3,null]]', 'int[]'), ('[[["a"]]]', 'text[]'), ('[{"a": 1}, 2, true, null]', 'text[]'),
  ('[[1], 2, null, {"a": 1}]', 'jsonb[]'), ('[[1], "x"]', 'json[]'), ('["abcd"]', 'varchar(4)[]'), ('["2024-02-01"]', 'date[]'), ('[[0.1, 2], [3]]', 'vector[]'), ('[[1, 2], [3]]', 'path_of[]'),
  ('[0.1, -3e-5, 2]', 'vector'), ('[0.1, 0.2]', 'float8[]'),
  ('{"name": "Ann", "born": "2000-01-31", "tags": ["a", null]}', 'party'), ('{}', 'party'), ('{"born": null}', 'party'),
  ('{"host": {"name": "A"}, "guests": [{"name": "B", "tags": []}, null], "score": 3, "span": "PT2H", "note": {"x": 1}}', 'deal'),
  ('{"id": 1, "Full Name": "abc", "price": 2.345}', 'shop'), ('[{"name": "A"}]', 'party[]'),
  ('9', 'best'), ('null', 'best'), ('"x"', 'must'), ('[1]', 'path_of'), ('{"name": "A"}', 'host'), ('"2024-05-06"', 'due'),
  ('{"a": 1}', 'void'), ('null', 'void')) v(j, t);

-- Errors: ours, and the types' own.
SELECT t, j, fails(format('SELECT value_to(%L, %L)', j, t)) FROM (VALUES
  ('1.5', 'int'), ('3000000000', 'int'), ('1e30', 'bigint'), ('40000', 'smallint'), ('"x"', 'int'), ('true', 'int'), ('[1]', 'int'), ('1e400', 'float8'), ('12345', 'numeric(5,2)'),
  ('"maybe"', 'bool'), ('"abcd"', 'varchar(3)'), ('"soon"', 'date'), ('"glad"', 'mood'), ('{"a": 1}', 'date'),
  ('"{1,2}"', 'int[]'), ('1', 'int[]'), ('{"a": 1}', 'int[]'), ('[1, "x"]', 'int[]'), ('[[1], [2, 3]]', 'int[]'), ('[[1], 2]', 'int[]'), ('[1, [2]]', 'int[]'), ('[[1], null]', 'int[]'), ('[[], [1]]', 'int[]'), ('[[1], []]', 'int[]'),
  ('[[[[[[[1]]]]]]]', 'int[]'), ('[[["x"]]]', 'date[]'), ('["abc"]', 'varchar(2)[]'),
  ('"(Ann,,)"', 'party'), ('[1]', 'party'), ('{"nam": "Ann"}', 'party'), ('{"name": "Ann", "phone number": 1}', 'party'), ('{"gone": 1}', 'shop'), ('{"full name": "x"}', 'shop'), ('{"": 1}', 'party'),
  ('{"born": "soon"}', 'party'), ('{"host": {"name": "A"}, "guests": [{"name": "B"}, {"tags": ["x", {"y": 1}], "born": "2024-02-30"}]}', 'deal'), ('{"id": 1, "Full Name": "abcdef"}', 'shop'), ('{"price": 12345}', 'shop'),
  ('{"score": 11}', 'deal'), ('11', 'score'), ('8', 'best'), ('null', 'must'), ('[]', 'path_of'), ('{}', 'host'), ('{"name": ""}', 'host'), ('"2023-01-01"', 'due'),
  ('"\\x00"', 'bytea'), ('["\\x00"]', 'bytea[]'), ('{"a": 1}', 'record'), ('[1]', 'anyarray'), ('1', 'anyelement'), ('1', 'trigger')) v(j, t);
-- a NOT NULL domain in a composite refuses a missing field
CREATE TYPE strict_party AS (name must);
SELECT fails($$SELECT value_to('{}', 'strict_party')$$);

-- There and back under hostile settings: parsing does not listen to them either.
CREATE VIEW round(type, json, back) AS SELECT t, j::jsonb, value_round(j::jsonb, t) FROM (VALUES
  ('"2024-02-01"', 'date'), ('"01/02/2024"', 'date'), ('"2024-02-01 12:00"', 'timestamptz'), ('"2024-02-01T12:00:00+05:30"', 'timestamptz'), ('"02/03/2024 01:00"', 'timestamp'),
  ('"12:00"', 'timetz'), ('"P1Y2M-3DT4H5M6.7S"', 'interval'), ('"-1 day 02:03:04"', 'interval'), ('"[01/02/2024,02/02/2024)"', 'daterange'), ('"[2024-02-01 12:00,)"', 'tstzrange'),
  ('["01/02/2024", "2024-02-01"]', 'date[]'), ('{"born": "01/02/2024"}', 'party'), ('"03/04/2024"', 'due'), ('"$1,234.50"', 'money'), ('0.1', 'float8'), ('"(0.1,0.2)"', 'point')) v(j, t);
SELECT * FROM round;
-- 17 knows infinite intervals
SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN value_round(to_jsonb(t), 'interval') ELSE to_jsonb(t) END FROM unnest(array['infinity', '-infinity']) t;
CREATE TABLE calm_round AS SELECT * FROM round;
SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'Asia/Kathmandu'; SET extra_float_digits = -15;
SELECT type, json, c.back AS calm, h.back AS hostile FROM calm_round c FULL JOIN round h USING (type, json) WHERE c.back::text IS DISTINCT FROM h.back::text;
SET datestyle = 'German'; SET intervalstyle = 'postgres_verbose'; SET timezone = '-13';
SELECT type, json, c.back AS calm, h.back AS hostile FROM calm_round c FULL JOIN round h USING (type, json) WHERE c.back::text IS DISTINCT FROM h.back::text;
-- an error gives the settings back too, also where nothing aborts what it happened in
SELECT fails($$SELECT value_to('{"born": "soon"}', 'party')$$);
SELECT current_setting('datestyle'), current_setting('intervalstyle'), current_setting('timezone');
-- a domain's CHECK sees the session's settings
CREATE DOMAIN curious AS date CHECK (current_setting('timezone') = '<-13>+13' AND value::text LIKE '%.%.%');
SELECT value_round('"2024-02-01"', 'curious'), value_round('["2024-02-01", "2024-02-02"]', 'curious[]');
RESET ALL; SET search_path = public, chaincall_test;

-- Records whose columns the caller names.
SELECT * FROM value_to_row('{"a": 1, "b": ["x"]}') r(a int, b text[]);
SELECT fails($$SELECT * FROM value_to_row('{"a": 1, "c": 2}') r(a int, b text)$$);
SELECT fails($$SELECT * FROM value_to_row('[]') r(a int, b text)$$);

-- Types change under the cache.
DROP VIEW cell, round;
SELECT fails($$SELECT value_to('{"name": "A", "phone": "1"}', 'party')$$);
ALTER TYPE party ADD ATTRIBUTE phone text;
SELECT value_to('{"name": "A", "phone": "1"}', 'party');
ALTER DOMAIN score DROP CONSTRAINT score_check;
SELECT value_to('11', 'score');
ALTER DOMAIN score ADD CHECK (value < 5);
SELECT fails($$SELECT value_to('11', 'score')$$);
ALTER TYPE vector RENAME TO arrow;
SELECT value_from('[1]'::arrow);
ALTER TYPE mood ADD VALUE 'wild';
SELECT value_to('"wild"', 'mood');
DROP DOMAIN must CASCADE;
CREATE DOMAIN must AS int;
SELECT value_to('5', 'must');

-- A CHECK that converts values of its own domain, and changes a type meanwhile.
CREATE FUNCTION small_enough(n int) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
  IF n > 0 THEN
    EXECUTE format('COMMENT ON DOMAIN countdown IS %L', n);
    EXECUTE 'ALTER DOMAIN countdown SET DEFAULT ' || n;
    RETURN chaincall_test.value_to(to_jsonb(n - 1), 'countdown') = (n - 1)::text;
  END IF;
  RETURN true;
END $$;
CREATE DOMAIN countdown AS int CHECK (small_enough(value));
SELECT value_to('5', 'countdown'), value_to('[3, 2]', 'countdown[]');

-- What chains cannot take, told at CREATE.
SELECT t, fails(format('SELECT value_check(%L)', t)) FROM unnest(array['int', 'text[]', 'party', 'deal', 'best', 'jsonb', 'record', 'void', 'arrow', 'int4range', 'int4multirange', 'name',
  'bytea', 'bytea[]', 'blob', 'blobs', 'blobs[]', 'byterange', 'anyelement', 'anyarray', 'anycompatible', 'anyenum', 'record[]', 'trigger', 'event_trigger', 'internal', 'cstring', 'cstring[]']) t
  WHERE to_regtype(t) IS NOT NULL;
CREATE DOMAIN blob AS bytea;
CREATE TYPE blobs AS (id int, data blob[]);
CREATE TYPE byterange AS RANGE (subtype = bytea);
SELECT t, fails(format('SELECT value_check(%L)', t)) FROM unnest(array['blob', 'blobs', 'blobs[]', 'byterange']) t;

-- As text (rule T3).
SELECT j, value_text(j::jsonb) FROM (VALUES ('"a \"b\""'), ('""'), ('1.50'), ('-0.0'), ('1e3'), ('true'), ('false'), ('{"a": [1, null, "x"]}'), ('[]'), ('["a", 1, true, {"b": null}]'), ('[["a", "b"], [], "c"]'), ('["only"]')) v(j);
SELECT fails(format('SELECT value_text(%L)', j)) FROM unnest(array['null', '["a", null]', '["a", ["b", null, null]]', '[null]']) j;

-- Depth: an error, not a crash.
CREATE TABLE deep AS SELECT (repeat('[', 3000) || repeat(']', 3000))::jsonb AS doc;
SELECT value_text(doc) FROM deep;
SET max_stack_depth = '100kB';
SELECT split_part(fails($$SELECT value_text(doc) FROM deep$$), ' / ', 1);
RESET max_stack_depth;
