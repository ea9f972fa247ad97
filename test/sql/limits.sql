-- What bounds a chain, and how it says so.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'chaincall.%' ORDER BY name;
SELECT model('large', 'echo?size=3000000'), model('deep', 'echo?broken=deep'), model('deep_text', 'echo?broken=deeptext'), model('slow', 'delay-300');

-- the input of a chain
CREATE FUNCTION len(x text, y jsonb DEFAULT NULL) RETURNS int LANGUAGE chaincall AS '{sql: "SELECT length({{x}})", returns: value}';
SET chaincall.max_input = '10kB';
SELECT len(repeat('x', 9000));
SELECT try($$SELECT len(repeat('x', 11000))$$);
SELECT try($$SELECT len(repeat('x', 6000), to_jsonb(repeat('x', 6000)))$$);
SELECT try($$SELECT chaincall.run('len', jsonb_build_object('x', repeat('x', 11000)))$$);
SELECT try($$SELECT chaincall.call('echo', repeat('x', 11000))$$);
SELECT try($$SELECT chaincall.request('echo', jsonb_build_object('x', repeat('x', 11000)))$$);
-- in a step it is the step's own error
SELECT run_chain($$
output: "{{called}}"
steps:
  long: {sql: "SELECT repeat('x', 11000)", returns: value}
  called: {function: len, args: {x: "{{long}}"}, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}
$$);
RESET chaincall.max_input;
SELECT len(repeat('x', 11000));

-- an answer, by the setting and by the server's option
SELECT length(chaincall.call('large', 'x')) < 10;
SET chaincall.max_answer = '1MB';
SELECT regexp_replace(try($$SELECT chaincall.call('large', 'x')$$), ': answer is.*|: Maximum.*', '…', 'g');
SELECT run_chain($${model: large, prompt: x, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}$$);
ALTER SERVER openai OPTIONS (ADD max_answer '4MB');
SELECT length(chaincall.call('large', 'x')) < 10;
ALTER SERVER openai OPTIONS (SET max_answer '1kB');
RESET chaincall.max_answer;
SELECT run_chain($${model: large, prompt: x, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}$$);
ALTER SERVER openai OPTIONS (DROP max_answer);

-- the elements of an each
SET chaincall.max_fan_out = 10;
SELECT run_chain($${each: x, value: 1}$$, '{"x": 10}');
SELECT run_chain($${each: x, value: 1}$$, '{"x": 11}');
SELECT run_chain($${each: "x[*]", value: 1}$$, jsonb_build_object('x', array_agg(n))) FROM generate_series(1, 11) n;
SELECT run_chain($${each: x, value: 1}$$, '{"x": 9999999999999999999999}');
SELECT run_chain($$
output: "{{all[*].size()}}"
steps:
  all: {each: 4, as: row, steps: {in: {each: 10, value: 1}}}
$$);
RESET chaincall.max_fan_out;
SELECT run_chain($${output: "{{all.size()}}", steps: {all: {each: x, value: "{{item}}"}}}$$, '{"x": 20000}');

-- the depth of chains in chains
CREATE FUNCTION down(n int) RETURNS int LANGUAGE chaincall AS 'value: 0';
CREATE OR REPLACE FUNCTION down(n int) RETURNS int LANGUAGE chaincall AS $chain$
output: "{{rest | default(n)}}"
steps:
  less: {sql: "SELECT {{n}} - 1", returns: value}
  rest: {when: n > 1, function: down, args: {n: "{{less}}"}}
$chain$;
SELECT down(16);
SELECT try('SELECT down(17)');
SET chaincall.max_depth = 3;
SELECT down(3);
SELECT try('SELECT down(4)');
SELECT run_chain($${function: down, args: {n: 3}, on_error: {value: "{{error.class}} in {{error.step}}"}}$$);
RESET chaincall.max_depth;
-- through statements as well
CREATE FUNCTION around(n int) RETURNS int LANGUAGE chaincall AS 'value: 0';
CREATE OR REPLACE FUNCTION around(n int) RETURNS int LANGUAGE chaincall AS '{sql: "SELECT around({{n}} + 1)", returns: value}';
SELECT (regexp_match(try('SELECT around(1)'), '.*hint[^\n]*'))[1];
SELECT len('still there');

-- the time of an expression: a regular expression that would take very long
SELECT $$x like_regex "^(.*)x?(.*)y?(.*)\\1\\2\\3d$"$$ AS slow, jsonb_build_object('x', repeat('ab', 500) || 'd') AS input \gset
SELECT clock_timestamp() AS started \gset
SELECT run_chain(format(E'when: %s\nvalue: 1', :'slow'), :'input');
SELECT run_chain(format(E'until: %s\nmax: 2\nvalue: 1', :'slow'), :'input');
SELECT run_chain(format(E'switch:\n  - when: %s\n    value: 1', :'slow'), :'input');
SELECT run_chain(format(E'each: x[*] ? (%s)\nvalue: 1', replace(:'slow', 'x like', '@ like')), jsonb_build_object('x', jsonb_build_array(:'input'::jsonb -> 'x')));
SELECT run_chain(format(E'value: ''{{x[*] ? (%s)}}''', replace(:'slow', 'x like', '@ like')), jsonb_build_object('x', jsonb_build_array(:'input'::jsonb -> 'x')));
SELECT run_chain(format(E'value: ''{{%s}}''\non_error: {value: "{{error.class}} {{error.sqlstate}}"}', :'slow'), :'input');
SELECT clock_timestamp() - :'started' < interval '5 s';
-- what else bounds it still does, and no on_error catches that
SET chaincall.inline_timeout = '1min';
SELECT try(format('CREATE FUNCTION slow_condition(x jsonb) RETURNS jsonb LANGUAGE chaincall AS %L', format(E'when: %s\nvalue: 1\non_error: skip', :'slow')));
\set VERBOSITY terse
SET statement_timeout = '200ms';
SELECT slow_condition(to_jsonb(repeat('ab', 500) || 'd'));
\set VERBOSITY default
RESET statement_timeout;
SELECT run_chain(format(E'timeout: 200 ms\noutput: "{{a}}"\non_error: {value: "{{error.class}}"}\nsteps:\n  a:\n    when: %s\n    value: 1', :'slow'), :'input');
RESET chaincall.inline_timeout;

-- bodies: bytes, steps in steps
SELECT create_chain('value: "' || repeat('x', 2000000) || '"');
SELECT create_chain(repeat('{value: 1, on_error: ', 49) || '{value: 1}' || repeat('}', 49));
SELECT regexp_replace(create_chain(repeat('{value: 1, on_error: ', 60) || '{value: 1}' || repeat('}', 60)), '\n  at: .*', '');
SELECT run_chain((SELECT 'steps: {' || string_agg(format('s%s: {value: "{{s%s | default(0)}}"}', n, n + 1), ', ') || ', s2001: {value: end}}' FROM generate_series(1, 2000) n));
SELECT create_chain((SELECT 'steps: {' || string_agg(format('s%s: {value: "{{s%s}}"}', n, (n + 1) % 2000), ', ') || '}' FROM generate_series(0, 1999) n)) LIKE '42P13: line 1: the steps form a cycle%';

-- nested JSON
SELECT run_chain($${model: deep, prompt: x, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}$$);
SELECT run_chain($${model: deep_text, prompt: x, returns: jsonb, reask: 0, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}$$);
SELECT run_chain($${model: deep_text, prompt: x, schema: {type: array}, reask: 0, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}$$);
SELECT length(chaincall.call('deep_text', 'x')) > 100000;
SELECT length(run_chain($${output: "{{n | json}}", steps: {n: {until: round == 1000, max: 1000, value: ["{{n}}", "{{round}}"]}}}$$));

-- calls in the air of one process
SET chaincall.max_in_flight = 1;
SELECT clock_timestamp() AS started \gset
SELECT run_chain($${each: 3, model: slow, prompt: x}$$);
SELECT clock_timestamp() - :'started' >= interval '0.9 s';
RESET chaincall.max_in_flight;
ALTER SERVER openai OPTIONS (ADD max_in_flight '1');
SELECT clock_timestamp() AS started \gset
SELECT run_chain($${each: 3, model: slow, prompt: x}$$);
SELECT clock_timestamp() - :'started' >= interval '0.9 s';
ALTER SERVER openai OPTIONS (DROP max_in_flight);

-- spans kept of a run: the others are counted
SET chaincall.max_spans = 2;
SELECT run_chain($${each: 5, model: echo, prompt: x}$$);
SELECT substring(chaincall.last_trace() FROM '[0-9]+ spans not kept[^\n]*');
RESET chaincall.max_spans;

-- who may raise them
SELECT name FROM pg_settings WHERE name LIKE 'chaincall.%' AND context = 'user' ORDER BY name;
