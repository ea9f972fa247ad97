-- chaincall.json_schema(): chains that are right fit it, chains that are wrong do not, and it knows the keys that the compiler knows.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
CREATE EXTENSION IF NOT EXISTS chaincall_test;
BEGIN;
DELETE FROM chaincall.model;
CREATE SCHEMA json_schema_test;
SET search_path = json_schema_test, public, chaincall_test;
CREATE ROLE json_schema_user;
INSERT INTO chaincall.model (name, kind) VALUES ('small', 'chat'), ('large', 'chat'), ('deepseek-chat', 'chat'), ('writer', 'chat'), ('judge', 'chat'),
    ('embed-small', 'embedding'), ('fraud-score', 'json'), ('painter', 'image');
CREATE FUNCTION own_function(a int, b text DEFAULT 'x') RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION no_names(int) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION out_first(OUT x int, a int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION a_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TABLE language AS SELECT chaincall.json_schema() AS schema;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

-- The schema itself is sound, as our own checker understands it; every reference in it leads somewhere.
CREATE FUNCTION fits(body text) RETURNS text LANGUAGE sql AS $$
    SELECT CASE WHEN answer LIKE 'NO: %' THEN 'refused' ELSE 'fits' END
    FROM language, shape_check('schema', schema::text, yaml_json(body)) answer
$$;

\echo what is right
SELECT fits($chain$
steps:
  intent:
    model: small
    prompt: |
      What is this about? {{question}}
    returns: {topic: [billing, technical, other]}
  vector:
    model: embed-small
    input: "{{question}}"
  hits:
    sql: |
      SELECT title, body FROM kb WHERE topic = {{intent.topic}}
      ORDER BY embedding <=> {{vector}}::vector LIMIT 5
  answer:
    model: deepseek-chat
    prompt: |
      Answer from these articles only; say so when they do not help.
      {{hits[*].body | default("(no article found)")}}
      Question: {{question}}
$chain$);
SELECT fits($chain$
timeout: 300 ms
on_error:
  value: {decision: review, why: "{{error.class}}"}
steps:
  rules:
    sql: SELECT coalesce(bool_or(blocks), false) AS block, coalesce(sum(points), 0) AS points FROM rule_hits({{tx}})
    returns: row
  behaviour:
    model: fraud-score
    input: {amount: "{{tx.amount}}", card: "{{tx.card}}", merchant: "{{tx.merchant}}"}
    returns: {score: real}
    timeout: 150 ms
    retry: 0
    on_error: {value: {score: 0.5}}
  ring:
    sql: SELECT count(DISTINCT b.card) FROM seen a JOIN seen b USING (device) WHERE a.card = {{tx.card}}
    returns: value
  decision:
    switch:
      - when: rules.block == true || behaviour.score >= 0.9
        value: {decision: block, score: "{{behaviour.score}}"}
      - when: behaviour.score + rules.points / 100 >= 0.6 || ring > 3
        value: {decision: review, score: "{{behaviour.score}}"}
      - value: {decision: allow, score: "{{behaviour.score}}"}
$chain$);
SELECT fits($chain$
steps:
  clauses:
    function: chaincall.split_text
    args: {text: "{{document}}", by: section}
  summary:
    each: clauses
    as: clause
    max_parallel: 5
    model: small
    prompt: |
      Summarise this clause in two sentences:
      {{clause}}
  points:
    model: deepseek-chat
    after: [summary, clauses]
    prompt: |
      List obligations and deadlines:
      {{summary}}
$chain$);
SELECT fits($chain$
steps:
  kind:
    model: small
    prompt: |
      Classify: {{mail}}
    returns: {label: [billing, technical, other]}
  answer:
    switch:
      - when: kind.label == "billing"
        model: small
        prompt: |
          Answer as the billing desk: {{mail}}
      - model: large
        params: {reasoning: high, temperature: null, max_tokens: "{{n}}", stop: ["a", "b"]}
        prompt: |
          Answer as an engineer, step by step: {{mail}}
$chain$);
SELECT fits($chain$
model: deepseek-chat
system: You read contracts. What the text does not say is null.
prompt: |
  Extract the terms of this contract:
  {{body}}
returns: contract_terms
reask: 2
$chain$);
SELECT fits($chain$
output: "{{best.draft}}"
steps:
  best:
    until: review.score >= 8 || round == 3
    max: 4
    output: {draft: "{{draft}}", critique: "{{review.critique}}"}
    steps:
      draft:
        model: writer
        prompt: |
          Write 300 words on {{topic}}.
          Your last draft: {{best.draft | default("none")}}
      review:
        model: judge
        prompt: |
          Score from 1 to 10 and criticise: {{draft}}
        returns: {score: "int, 1 to 10", critique: text, lines: [{sku: text, qty: int}], party: {name?: text}}
$chain$);
SELECT fits($chain$
steps:
  french:
    model: deepseek-chat
    prompt: |
      Translate into French. Keep numbers, names and markup:
      {{body}}
  saved:
    sql: UPDATE product SET body_fr = {{french}} WHERE id = {{id}} AND body = {{body}} RETURNING true
    returns: value
    retry: {attempts: 3, first: 100 ms, factor: 2, max: 1 s}
$chain$);
SELECT fits($chain$
model: deepseek-chat
messages:
  - "{{shots}}"
  - {role: user, content: [{text: "{{mail}}"}, "and this"]}
extra:
  anthropic: {cache_control: {type: ephemeral}}
schema: {type: array, items: {type: integer}}
$chain$);
SELECT body, fits(body) FROM unnest(ARRAY['{"model": "small", "request": {"a": 1}}', 'value: null', 'value: {a: [1, "{{b}}"]}', 'function: own_function',
    'function: json_schema_test.own_function', 'function: now', 'function: pg_catalog.now', 'function: f(int, text)', 'function: out_first',
    '{each: 3, value: "{{item}}"}', '{when: true, value: 1}', '{model: embed-small, input: [a, b], retry: 3}', '{on_error: skip, timeout: 2 s, sql: SELECT 1}',
    'wait: 1 hour', '{wait: "{{due}}", after: mail}', '{ask: "really?", show: {a: 1}, to: boss, returns: boolean, timeout: 3 days}']) body;

\echo what is wrong
SELECT body, fits(body) FROM unnest(ARRAY['[]', 'x', '{}', 'modle: small', '{model: small}', '{model: smal, prompt: x}', '{model: painter, prompt: x}', '{model: small, prompt: x, input: y}',
    '{model: small, prompt: x, promt: y}', '{model: small, prompt: x, value: 1}', '{model: small, prompt: {a: 1}}', '{model: small, input: x, system: y}',
    '{model: small, request: {}, params: {}}', '{model: small, prompt: x, returns: text, schema: true}', '{model: small, prompt: x, reask: 1}', '{model: small, prompt: x, params: {temprature: 1}}',
    '{model: small, prompt: x, params: {reasoning: extreme}}', '{model: small, prompt: x, params: {max_tokens: 0}}', '{model: small, prompt: x, extra: {opnai: {}}}', '{model: small, messages: []}',
    '{model: small, messages: [{role: boss, content: x}]}', '{model: small, messages: [{role: user}]}', '{model: small, prompt: x, returns: {}}', '{model: small, prompt: x, returns: []}',
    '{sql: SELECT 1, returns: table}', '{sql: [a]}', '{sql: SELECT 1, args: {}}', 'function: no_such_function', 'function: no_names', 'function: a_trigger', '{function: now, args: [1]}',
    'steps: {}', 'steps: {A: {value: 1}}', 'steps: {item: {value: 1}}', 'steps: {a: 1}', 'steps: {a: {b: 1}}', 'switch: []', 'switch: {when: a, value: 1}', '{value: 1, retry: 1}',
    '{value: 1, as: x}', '{value: 1, max: 3}', '{value: 1, each: a, max_parallel: 0}', '{value: 1, each: a, as: item}', '{value: 1, each: [1, 2]}', '{value: 1, on_error: ignore}',
    '{value: 1, on_error: {x: 1}}', '{sql: SELECT 1, retry: -1}', '{sql: SELECT 1, retry: {tries: 3}}',
    'wait: 1', 'wait: [1 s]', '{wait: 1 s, retry: 1}', '{ask: x, retry: 1}', '{timeout: 5, value: 1}',
    -- not yet supported
    '{model: small, prompt: x, tools: [f]}', '{model: small, prompt: x, cache: 1 day}',
    '{model: small, prompt: x, stream: true}', '{model: small, prompt: x, images: [a]}', '{model: small, messages: [{role: user, content: [{image: x}]}]}']) body
WHERE fits(body) <> 'refused';

\echo the keys that the compiler knows
-- It names those of a kind when it meets another; what it then calls not yet supported, or says to belong elsewhere, is not in the schema.
CREATE FUNCTION error_of(body text, OUT message text, OUT hint text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE FUNCTION probe() RETURNS jsonb LANGUAGE chaincall AS %L', body);
    DROP FUNCTION probe();
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
END
$$;
CREATE VIEW compiler_key AS
    SELECT kind, key
    FROM (VALUES ('model', '"small", "prompt": "x"'), ('sql', '"SELECT 1"'), ('function', '"now"'), ('steps', '{"a": {"value": 1}}'), ('switch', '[{"value": 1}]'), ('value', '1'), ('wait', '"1 s"'), ('ask', '"x"')) k (kind, value),
         LATERAL error_of(format('{"qqqqqqqqqqqqqqq": 1, "%s": %s}', kind, value)) e,
         LATERAL regexp_split_to_table(substring(e.hint FROM '^Known keys are (.*)\.$'), ', ') key
    WHERE coalesce((error_of(format('{"%s": 1, "%s": %s}', key, kind, value))).message, '') !~ 'is not yet supported|goes with model, sql and function steps';
CREATE VIEW schema_key AS
    SELECT kind, key
    FROM language, unnest(ARRAY['model', 'sql', 'function', 'steps', 'switch', 'value', 'wait', 'ask']) kind,
         json_object_keys(schema #> ARRAY['$defs', kind || '_step', 'properties']) key;
SELECT kind, count(*) FROM compiler_key GROUP BY kind ORDER BY kind;
SELECT * FROM compiler_key EXCEPT SELECT * FROM schema_key;
SELECT * FROM schema_key EXCEPT SELECT * FROM compiler_key;
SELECT count(*) FROM language, json_array_elements(schema #> '{$defs,step,oneOf}');
-- smaller lists
SELECT json_object_keys(schema #> '{$defs,params,properties}') FROM language EXCEPT
SELECT regexp_split_to_table(substring((error_of('{model: small, prompt: x, params: {qqqqqqqqqqqqqqq: 1}}')).hint FROM '^Known are (.*);'), ', | and ');
SELECT word, (error_of(format('steps: {%s: {value: 1}}', word))).message
FROM language, json_array_elements_text(schema #> '{$defs,name,not,enum}') word
WHERE (error_of(format('steps: {"%s": {value: 1}}', word))).message NOT LIKE '%is a reserved word of the language';
-- every key has its help
SELECT DISTINCT key FROM schema_key, language WHERE schema #>> ARRAY['$defs', kind || '_step', 'properties', key, 'description'] IS NULL;

\echo models and functions
SELECT chaincall.json_schema() #> '{$defs,model_name}';
SELECT name FROM json_array_elements_text(chaincall.json_schema() #> '{$defs,function_name,anyOf,0,enum}') name
WHERE name ~ 'own_function|no_names|out_first|a_trigger|split_text|grant_usage' ORDER BY name COLLATE "C";
SELECT chaincall.grant_usage('json_schema_user');
GRANT USAGE ON SCHEMA json_schema_test TO json_schema_user;
REVOKE EXECUTE ON FUNCTION own_function FROM PUBLIC;
SET ROLE json_schema_user;
SET search_path = chaincall;
SELECT name FROM json_array_elements_text(json_schema() #> '{$defs,function_name,anyOf,0,enum}') name
WHERE name ~ 'own_function|no_names|out_first|a_trigger|split_text|grant_usage' ORDER BY name COLLATE "C";
RESET ROLE;
-- nobody's names are captured
SET search_path = json_schema_test, public, chaincall_test;
CREATE FUNCTION jsonb_agg_captured(jsonb, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN RAISE 'captured'; END $$;
CREATE OPERATOR || (FUNCTION = jsonb_agg_captured, LEFTARG = jsonb, RIGHTARG = jsonb);
CREATE FUNCTION jsonb_build_object(VARIADIC "any") RETURNS jsonb LANGUAGE internal AS 'jsonb_build_object';
SET search_path = json_schema_test, pg_catalog;
SELECT chaincall.json_schema() ->> 'title';
SET search_path = public, chaincall_test;
DELETE FROM chaincall.model;
SELECT chaincall.json_schema() #> '{$defs,model_name}';
ROLLBACK;
