SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
CREATE SCHEMA shape_test;
SET search_path = shape_test, public, chaincall_test;
CREATE TYPE color AS ENUM ('red', 'green', 'blue');
ALTER TYPE color ADD VALUE 'amber' BEFORE 'green';
CREATE DOMAIN price AS numeric(10,2) CHECK (VALUE >= 0);
CREATE TYPE invoice_line AS (sku text, qty int, price price, color color);
CREATE TABLE invoice (id bigint PRIMARY KEY, gone int, lines invoice_line[], seen timestamptz NOT NULL);
ALTER TABLE invoice DROP COLUMN gone;
CREATE DOMAIN line_domain AS invoice_line;
CREATE TYPE with_picture AS (name text, picture bytea);
CREATE TYPE shell;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

-- types
SELECT t, shape('returns', t)->'schema' FROM unnest(ARRAY[
  'int', 'smallint', 'bigint', 'real', 'double precision', 'numeric', 'numeric(10,2)', 'boolean', 'text', 'varchar',
  'varchar(20)', 'char(3)', 'date', 'time', 'timetz', 'timestamp', 'timestamptz', 'timestamp with time zone',
  'timestamp(3)', 'interval', 'uuid', 'json', 'jsonb', 'inet', 'int4range', 'xml', 'text[]', 'int[][]', 'varchar(5)[]',
  'color', 'color[]', 'price', 'shape_test.price', '"price"', 'invoice_line', 'invoice_line[]', 'invoice', 'line_domain',
  '  int  ']) t;
-- what is sent
SELECT t, shape('returns', t)->'wire', shape('returns', t)->'strict' FROM unnest(ARRAY[
  'int', 'varchar(20)', 'timestamp', 'time', 'jsonb', 'color', 'invoice_line', 'invoice', 'invoice_line[]']) t;
SELECT shape_of_type('int') = shape('returns', 'int'), shape_of_type('varchar', 14) = shape('returns', 'varchar(10)'),
       shape_of_type('invoice') = shape('returns', 'invoice');

-- a type named vector, as pgvector has it
SET client_min_messages = warning;
CREATE TYPE vector;
CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text);
RESET client_min_messages;
SELECT shape('returns', 'vector')->'schema';

-- fields
SELECT jsonb_pretty(shape('returns', $$
score: int, 1 to 10
note?: text
amount: numeric(10,2), in euros, with cents
label: [billing, technical]
party: {name: text, vat?: text}
lines: [{sku: text, qty: int}]
color?: color
mood?: [good, bad]
more?: {a: int}
parts?: [{a?: int}]
$$));
SELECT shape('returns', '[billing, technical]');
SELECT shape('returns', '[1, 2.5, true, a, null]')->'schema';
SELECT shape('returns', '[{sku: text, qty?: int}]');
SELECT shape('returns', '"int, how many"');

-- what returns refuses
SELECT shape('returns', E'\nscore: strnig');
SELECT shape('returns', E'a: int\nb: string');
SELECT shape('returns', 'a: datetime');
SELECT shape('returns', 'a: Object');
SELECT shape('returns', 'a: list');
SELECT shape('returns', 'a: numerc');
SELECT shape('returns', 'a: nosuch.thing');
SELECT shape('returns', 'a: shell');
SELECT shape('returns', 'a: int 1');
SELECT shape('returns', 'a: numeric(0)');
SELECT shape('returns', 'a: setof int');
SELECT shape('returns', 'a: invoice.id%type');
SELECT shape('returns', '{a: numeric(10,2)}');
SELECT shape('returns', '{a: text[]}');
SELECT shape('returns', 'a: ", what"');
SELECT shape('returns', 'a:');
SELECT shape('returns', 'a: 3');
SELECT shape('returns', 'a: true');
SELECT shape('returns', '{}');
SELECT shape('returns', '[]');
SELECT shape('returns', 'tags: [text]');
SELECT shape('returns', 'a: [b, {c: int}]');
SELECT shape('returns', 'a: [[b]]');
SELECT shape('returns', 'a: [b, c, b]');
SELECT shape('returns', E'a: int\na?: text');
SELECT shape('returns', '"?": int');
SELECT shape('returns', 'bytea');
SELECT shape('returns', 'a: bytea[]');
SELECT shape('returns', 'with_picture');
SELECT shape('returns', 'void');
SELECT shape('returns', 'a: record');
SELECT shape('returns', 'anyarray');
SELECT shape_of_type('bytea');
SELECT shape_of_type('trigger');

-- answers to returns
CREATE FUNCTION try(yaml text, answer jsonb) RETURNS text LANGUAGE sql AS $$ SELECT chaincall_test.shape_check('returns', yaml, answer) $$;
SELECT try('{score: int, note?: text}', '{"score": 3}');
SELECT try('{score: int, note?: text}', '{"score": 3.0, "note": "x"}');
SELECT try('{score: int, note?: text}', '{"score": 3, "note": null}');
SELECT try('{score: int, note?: text}', '{"score": 3.5}');
SELECT try('{score: int, note?: text}', '{"score": null}');
SELECT try('{score: int, note?: text}', '{"note": "x"}');
SELECT try('{score: int, note?: text}', '{"score": 3, "nota": "x"}');
SELECT try('{score: int, note?: text}', '[1]');
SELECT try('lines: [{sku: text, qty: int}]', '{"lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}, {"sku": "c", "qty": "two"}]}');
SELECT try('lines: [{sku: text, qty?: int}]', '{"lines": [{"sku": "a", "qty": 1.00}, {"sku": "b"}]}');
SELECT try('party?: {name: text, vat?: text}', '{}');
SELECT try('party?: {name: text, vat?: text}', '{"party": {"name": "x"}}');
SELECT try('party?: {name: text, vat?: text}', '{"party": {}}');
SELECT try('"odd name": {"a.b": int}', '{"odd name": {"a.b": "x"}}');
SELECT try('label: [billing, technical]', '{"label": "sales"}');
SELECT try('label?: [billing, technical]', '{"label": null}');
SELECT try('label: [billing, technical]', '{"label": null}');
SELECT try('a: jsonb', '{"a": [1, {"b": 2.0}]}'), try('a?: jsonb', '{}'), try('a: jsonb', '{}');
-- out of the wrapper, or without one
SELECT try('int', '{"value": 5}'), try('int', '5'), try('int', '5.0'), try('int', '{"value": 5.0}');
SELECT try('int', '"5"'), try('int', '{"value": "5"}'), try('int', '{"number": 5}'), try('int', '{"value": 5, "x": 1}');
SELECT try('[{a: int}]', '{"value": [{"a": 1}, {"a": "x"}]}'), try('[{a: int}]', '[{"a": 1}, {"a": "x"}]');
SELECT try('[a, b]', '{"value": "a"}'), try('[a, b]', '"c"');
SELECT try('jsonb', '{"value": {"value": 1}}'), try('jsonb', '{"a": 1}'), try('jsonb', 'null');
-- composites: columns may be null or missing, others are unknown
SELECT try('invoice_line', '{"sku": "a", "qty": 1}');
SELECT try('invoice_line', '{"sku": "a", "colour": "red"}');
SELECT try('invoice_line', '{"color": "pink"}');
SELECT try('invoice', '{"lines": [{"qty": 1}, null]}');
SELECT try('invoice', '{"id": 1, "lines": [{"qty": 1.0}], "seen": "2024-02-30T00:00:00Z"}');
SELECT try('invoice', '{"id": 1, "lines": [{"qty": 1.0}], "seen": "2024-02-29T00:00:00Z"}');
SELECT try('varchar(3)', '"äöü"'), try('varchar(3)', '"äöüß"');
-- dates and times
SELECT t, v, try(t, to_jsonb(v)) NOT LIKE 'NO:%' FROM (VALUES
  ('date', '2024-02-29'), ('date', '2023-02-29'), ('date', '1900-02-29'), ('date', '2024-13-01'), ('date', '2024-1-1'), ('date', 'today'), ('date', ''),
  ('date', '2024-02-29 '), ('time', '23:59:60'), ('time', '24:00:00'), ('time', '12:00'), ('time', '12:00:00.123'), ('time', '12:00:00Z'), ('time', '12:00:00.'),
  ('timetz', '12:00:00'), ('timetz', '12:00:00+02:00'), ('timestamp', '2024-05-01T10:00:00'), ('timestamp', '2024-05-01T10:00:00Z'),
  ('timestamp', '2024-05-01'), ('timestamptz', '2024-05-01T10:00:00'), ('timestamptz', '2024-05-01 10:00:00-03:30'), ('timestamptz', '2024-05-01T10:00:00+99:00'),
  ('timestamptz', '2024-05-01T10:00:00+2'), ('uuid', '01900000-0000-7000-8000-00000000000a'), ('uuid', '01900000-0000-7000-8000-00000000000g'), ('uuid', '0190')) x(t, v);
SELECT try('date', '"soon"'), try('timestamptz', '"2024-05-01T10:00:00"'), try('uuid', '"x"');

-- raw schemas: as written on the wire
SELECT shape('schema', '{type: object, properties: {a: {type: integer, minLength: 2}}, $comment: x}');
SELECT shape('schema', '{type: array, items: {$ref: "#/$defs/n"}, $defs: {n: {type: number}}}');
SELECT shape('schema', '{$ref: "#/definitions/n", definitions: {n: {type: object, properties: {next: {$ref: "#/definitions/n"}}}}}');
SELECT shape('schema', '{type: object, properties: {a: {type: [string, "null"]}, b: {anyOf: [{type: integer}, {$ref: "#"}]}}, required: [a, b], additionalProperties: false}')->'strict';
SELECT shape('schema', s)->'strict' FROM unnest(ARRAY['true', '{type: object, properties: {a: {type: integer}}}',
  '{type: object, properties: {a: {}}, required: [a], additionalProperties: false}', '{type: array}', '{type: string, minLength: 1}',
  '{type: object, properties: {a: {type: integer}}, required: [a, b], additionalProperties: false}', '{type: integer, minimum: 3}']) s;

-- what schema refuses
SELECT shape('schema', E'type: object\nproperties:\n  a:\n    type: string\n    minLenght: 3');
SELECT shape('schema', E'type: string\nnullable: true');
SELECT shape('schema', '{type: object, unevaluatedProperties: false}');
SELECT shape('schema', '{"$anchor": x}');
SELECT shape('schema', '{zzzzzzzzzzz: 1}');
SELECT shape('schema', 'just text');
SELECT shape('schema', E'type: array\nitems: [{type: string}]');
SELECT shape('schema', E'type: array\nprefixItems:\n  - type: string\n  - 3');
SELECT shape('schema', '{type: text}');
SELECT shape('schema', '{type: strin}');
SELECT shape('schema', '{type: []}');
SELECT shape('schema', '{type: [string, string]}');
SELECT shape('schema', '{type: {a: 1}}');
SELECT shape('schema', '{enum: a}');
SELECT shape('schema', '{enum: []}');
SELECT shape('schema', '{minimum: "3"}');
SELECT shape('schema', '{exclusiveMinimum: true}');
SELECT shape('schema', '{multipleOf: 0}');
SELECT shape('schema', '{minLength: -1}');
SELECT shape('schema', '{maxItems: 1.5}');
SELECT shape('schema', '{uniqueItems: 1}');
SELECT shape('schema', '{required: a}');
SELECT shape('schema', '{required: [a, 1]}');
SELECT shape('schema', '{properties: [a]}');
SELECT shape('schema', '{patternProperties: {"(": {}}}');
SELECT shape('schema', '{dependentRequired: {a: b}}');
SELECT shape('schema', '{anyOf: {}}');
SELECT shape('schema', '{allOf: []}');
SELECT shape('schema', '{$defs: 1}');
SELECT shape('schema', E'type: object\nproperties:\n  a: {type: string,\n      pattern: "[a-"}');
SELECT shape('schema', '{pattern: 3}');
SELECT shape('schema', '{format: 3}');
SELECT shape('schema', '{$ref: 3}');
SELECT shape('schema', '{$ref: "#/$defs/a"}');
SELECT shape('schema', '{$ref: "#/properties/a", properties: {a: {}}}');
SELECT shape('schema', '{$ref: "https://example.com/schema"}');
SELECT shape('schema', '{type: array, items: {$ref: "#"}}');
SELECT shape('schema', '{type: object, $ref: "#"}');
SELECT shape('schema', '{$ref: "#/$defs/a", $defs: {a: {allOf: [{$ref: "#/$defs/b"}]}, b: {not: {$ref: "#/$defs/a"}}}}');
SELECT shape('schema', '{$defs: {a: {typ: string}}}');

-- every keyword, fit and unfit
CREATE OR REPLACE FUNCTION try(yaml text, answer jsonb) RETURNS text LANGUAGE sql AS $$ SELECT chaincall_test.shape_check('schema', yaml, answer) $$;
SELECT s, a, try(s, a::jsonb) FROM (VALUES
  ('true', '1'), ('false', '1'), ('{}', 'null'),
  ('{type: "null"}', 'null'), ('{type: "null"}', '0'), ('{type: boolean}', 'true'), ('{type: boolean}', '"true"'),
  ('{type: integer}', '1e2'), ('{type: integer}', '1.5'), ('{type: number}', '1.5'), ('{type: number}', '"1.5"'),
  ('{type: [string, "null"]}', 'null'), ('{type: [string, "null"]}', '[]'), ('{type: array}', '{}'), ('{type: object}', '[]'),
  ('{enum: [1, a, [2]]}', '1.0'), ('{enum: [1, a, [2]]}', '[2]'), ('{enum: [1, a, [2]]}', '[3]'), ('{const: {a: 1, b: 2}}', '{"b": 2, "a": 1.0}'), ('{const: 5}', '6'),
  ('{minimum: 3}', '3'), ('{minimum: 3}', '2.9'), ('{maximum: 3}', '3'), ('{maximum: 3}', '4'), ('{exclusiveMinimum: 3}', '3.1'), ('{exclusiveMinimum: 3}', '3'),
  ('{exclusiveMaximum: 3}', '2'), ('{exclusiveMaximum: 3}', '3'), ('{multipleOf: 0.1}', '0.3'), ('{multipleOf: 0.1}', '0.35'), ('{multipleOf: 5}', '1e400'), ('{minimum: 3}', '"a"'),
  ('{minLength: 2}', '"ää"'), ('{minLength: 2}', '"ä"'), ('{maxLength: 2}', '"ää"'), ('{maxLength: 2}', '"abc"'),
  ('{pattern: "^[a-z]+$"}', '"abc"'), ('{pattern: "^[a-z]+$"}', '"ABC"'), ('{pattern: b}', '"abc"'), ('{pattern: ''\bfoo\b''}', '"a foo b"'), ('{pattern: ''\bfoo\b''}', '"afoo"'),
  ('{pattern: ''^[\b]$''}', '"\b"'), ('{pattern: ''^\d{3}\B''}', '"1234"'), ('{pattern: "^.$"}', '"ä"'),
  ('{format: email}', '"a@b.c"'), ('{format: email}', '"a b@c"'), ('{format: uri}', '"https://a.b/c?d=%20#e"'), ('{format: uri}', '"a b"'), ('{format: ipv4}', '"127.0.0.1"'), ('{format: ipv4}', '"127.1"'),
  ('{format: ipv6}', '"::1"'), ('{format: ipv6}', '"x"'), ('{format: unheard-of}', '"x"'), ('{format: date}', '"1"'), ('{format: date}', '1'),
  ('{items: {type: integer}}', '[1, 2]'), ('{items: {type: integer}}', '[1, "2"]'), ('{prefixItems: [{type: string}], items: false}', '["a"]'), ('{prefixItems: [{type: string}], items: false}', '["a", 1]'),
  ('{prefixItems: [{type: string}]}', '[1]'), ('{contains: {const: 1}}', '[2, 1]'), ('{contains: {const: 1}}', '[2]'), ('{contains: {const: 1}, minContains: 2}', '[1, 1]'), ('{contains: {const: 1}, minContains: 2}', '[1]'),
  ('{contains: {const: 1}, maxContains: 1}', '[1, 1]'), ('{contains: {const: 1}, minContains: 0}', '[]'), ('{minItems: 1}', '[]'), ('{maxItems: 1}', '[1, 2]'), ('{uniqueItems: true}', '[1, 2, "1"]'),
  ('{uniqueItems: true}', '[{"a": 1, "b": 2}, 3, {"b": 2, "a": 1.0}]'),
  ('{properties: {a: {type: string}}}', '{"b": 1}'), ('{properties: {a: {type: string}}}', '{"a": 1}'), ('{required: [a]}', '{"a": null}'), ('{required: [a]}', '{}'),
  ('{additionalProperties: {type: string}}', '{"a": 1}'), ('{properties: {a: {}}, additionalProperties: false}', '{"a": 1}'), ('{properties: {a: {}}, additionalProperties: false}', '{"b": 1}'),
  ('{patternProperties: {"^x": {type: integer}}, additionalProperties: false}', '{"xa": 1}'), ('{patternProperties: {"^x": {type: integer}}, additionalProperties: false}', '{"xa": "1"}'), ('{patternProperties: {"^x": {type: integer}}, additionalProperties: false}', '{"y": 1}'),
  ('{propertyNames: {maxLength: 2}}', '{"ab": 1}'), ('{propertyNames: {maxLength: 2}}', '{"abc": 1}'), ('{minProperties: 1}', '{}'), ('{maxProperties: 1}', '{"a": 1, "b": 2}'),
  ('{dependentRequired: {a: [b]}}', '{"c": 1}'), ('{dependentRequired: {a: [b]}}', '{"a": 1}'),
  ('{allOf: [{minimum: 1}, {maximum: 3}]}', '2'), ('{allOf: [{minimum: 1}, {maximum: 3}]}', '4'), ('{anyOf: [{type: string}, {minimum: 3}]}', '3'), ('{anyOf: [{type: string}, {minimum: 3}]}', '2'),
  ('{properties: {a: {anyOf: [{type: string}, {properties: {b: {type: integer}}, required: [b]}]}}}', '{"a": {"b": "x"}}'),
  ('{oneOf: [{minimum: 1}, {maximum: 3}]}', '4'), ('{oneOf: [{minimum: 1}, {maximum: 3}]}', '2'), ('{oneOf: [{type: string}]}', '2'), ('{not: {type: string}}', '1'), ('{not: {type: string}}', '"x"'),
  ('{if: {type: string}, then: {minLength: 2}, else: {minimum: 2}}', '"ab"'), ('{if: {type: string}, then: {minLength: 2}, else: {minimum: 2}}', '"a"'), ('{if: {type: string}, then: {minLength: 2}, else: {minimum: 2}}', '1'), ('{if: {type: string}}', '1'),
  ('{type: object, properties: {next: {$ref: "#"}, v: {type: integer}}}', '{"next": {"next": {"v": 1}}}'), ('{type: object, properties: {next: {$ref: "#"}, v: {type: integer}}}', '{"next": {"next": {"v": "x"}}}'),
  ('{$ref: "#/$defs/a~1b~0", $defs: {"a/b~": {type: integer}}}', '1'), ('{$ref: "#/$defs/a~1b~0", $defs: {"a/b~": {type: integer}}}', '"1"'),
  ('{title: a, description: b, default: c, examples: [d], deprecated: true, readOnly: true, writeOnly: true, $id: e, $schema: f, $comment: g}', '1'),
  ('{type: integer}', '{"value": 3}'), ('{type: integer}', '{"value": "x"}'), ('{properties: {value: {type: integer}}}', '{"value": 3}')) x(s, a);
-- long things are cut
SELECT try('{type: integer}', to_jsonb(repeat('äb', 1000)));
SELECT try('{type: string}', to_jsonb((repeat('9', 300))::numeric));
SELECT try('{enum: [' || string_agg('label_' || i, ', ') || ']}', '"x"') FROM generate_series(1, 30) i;
SELECT try('{anyOf: [{const: 1}, {const: 2}, {const: 3}, {const: 4}]}', '5');
-- bounded, whatever the schema and the answer are
SELECT left(try('{type: array, items: {$ref: "#/$defs/a"}, $defs: {a: {type: array, items: {$ref: "#/$defs/a"}}}}', (repeat('[', 900) || repeat(']', 900))::jsonb), 60);
SELECT left(try('{$ref: "#/$defs/a", $defs: {a: {anyOf: [{type: array, items: {$ref: "#/$defs/a"}}, {type: array, items: {$ref: "#/$defs/a"}, maxItems: 2}, {const: 1}]}}}', (repeat('[', 60) || '2' || repeat(']', 60))::jsonb), 60);
SELECT try('{patternProperties: {"^a": {}}, type: object, additionalProperties: false, minProperties: 3}', (SELECT jsonb_object_agg('a' || i, i) FROM generate_series(1, 10000) i)) LIKE '{%';
SELECT try('{uniqueItems: true}', (SELECT jsonb_agg(i) FROM generate_series(1, 100000) i)) LIKE '[%';

-- nonsense by the thousand
SELECT fuzz_shape(1, 2000) LIKE '4000 shapes: %';

\pset tuples_only off
SET client_min_messages = warning;
DROP SCHEMA shape_test CASCADE;
