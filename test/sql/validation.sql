-- What CREATE FUNCTION refuses, once each: with the line, the step and what to do about it.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SELECT model('deepseek-chat', 'echo'), model('embedder', 'hash-embedding', kind => 'embedding'), model('painter', 'picture', kind => 'image'), model('scorer', 'x', 'service', 'json');
CREATE TABLE account (id int, name text, photo bytea);

----------------------------------------------------------------------------------------------------------------------
-- Keys and kinds

SELECT create_chain($$
model: echo
promt: hi
$$);
SELECT create_chain($$
steps:
  a:
    sql: SELECT 1
    each: x
    prompt: hi
$$);
SELECT create_chain($$
value: 1
nonsense: 2
$$);
SELECT create_chain($$
modell: echo
prompt: hi
$$);
SELECT create_chain($$
when: x == 1
$$);
SELECT create_chain($$
model: echo
prompt: hi
value: 1
$$);
SELECT create_chain('');
SELECT create_chain('just text');
SELECT create_chain('- value: 1');
SELECT create_chain($$
steps:
  a: text
$$);
SELECT create_chain($$
steps: {}
$$);
SELECT create_chain($$
steps: [a, b]
$$);
SELECT create_chain($$
switch: {when: x == 1, value: 1}
$$);
SELECT create_chain($$
switch:
  - value: 1
  - when: x == 1
    value: 2
$$);
-- not on every kind
SELECT create_chain($$
output: 1
value: 1
$$);
SELECT create_chain($$
value: 1
retry: 3
$$);
SELECT create_chain($$
value: 1
as: y
$$);
SELECT create_chain($$
value: 1
max: 3
$$);

----------------------------------------------------------------------------------------------------------------------
-- Names

SELECT create_chain($$
steps:
  Answer: {value: 1}
$$);
SELECT create_chain($$
steps:
  1st: {value: 1}
$$);
SELECT create_chain($$
steps:
  last: {value: 1}
$$);
SELECT word, create_chain(format('steps: {%s: {value: 1}}', word)) LIKE '42939: line 1: "' || word || '" is a reserved word%' AS reserved
FROM unnest('{item,index,round,error,true,false,"null",exists,is,last,to,strict,lax,like_regex,starts,with,flag,unknown}'::text[]) word;
SELECT create_chain($$
each: x
as: index
value: 1
$$);
SELECT create_chain($$value: 1$$, 'round int');
SELECT create_chain($$value: 1$$, 'int');
SELECT create_chain($$value: 1$$, '"Upper" int');
-- the same name twice on one way
SELECT create_chain($$
steps:
  x: {value: 1}
$$);
SELECT create_chain($$
steps:
  a:
    steps:
      b: {value: 1}
      a: {value: "{{b}}"}
$$);
SELECT create_chain($$
steps:
  a:
    each: x
    as: b
    steps:
      b: {value: 1}
$$);
SELECT create_chain($$
each: x
as: x
value: 1
$$);
-- a name that nothing has, and one nearby
SELECT create_chain($$
steps:
  answer: {value: 1}
  said:
    value: |
      {{answer}} and
      {{answr}}
$$);
SELECT create_chain($$
value: "{{y}}"
$$);
SELECT create_chain($$
value: "{{item}}"
$$);
SELECT create_chain($$
value: "{{x.a ? (@ > round)}}"
$$);
SELECT create_chain($$
value: "{{error.class}}"
$$);
SELECT create_chain($$
value: 1
after: nobody
$$);
SELECT create_chain($$
value: 1
after: x
$$);
SELECT create_chain($$
steps:
  a: {value: 1, until: "b == 1"}
  c: {steps: {b: {value: "{{a}}"}}}
$$);
-- a step does not see itself, nor do steps form a ring
SELECT create_chain($$
steps:
  a: {value: "{{a}}"}
$$);
SELECT create_chain($$
steps:
  a: {value: "{{c}}"}
  b: {value: "{{a}}"}
  c: {sql: "SELECT 1", after: b}
$$);
SELECT create_chain($$
steps:
  a:
    steps:
      inner: {value: "{{b}}"}
  b: {value: "{{a}}"}
$$);
-- several steps that nobody names, and no output
SELECT create_chain($$
steps:
  a: {value: 1}
  b: {value: "{{a}}"}
  c: {value: "{{a}}"}
$$);
SELECT create_chain($$
steps:
  one:
    steps:
      a: {value: 1}
      b: {value: 2}
$$);

----------------------------------------------------------------------------------------------------------------------
-- Models

SELECT create_chain($$
steps:
  a:
    model: deepsek-chat
    prompt: hi
$$);
SELECT create_chain($$
model: something-else
prompt: hi
$$);
SELECT create_chain($$
model: echo
$$);
SELECT create_chain($$
model: echo
prompt: hi
messages: [{role: user, content: hi}]
$$);
SELECT create_chain($$
model: echo
request: {messages: []}
system: hi
$$);
SELECT create_chain($$
model: echo
request: {messages: []}
returns: {a: int}
$$);
SELECT create_chain($$
model: embedder
prompt: hi
$$);
SELECT create_chain($$
model: echo
input: hi
$$);
SELECT create_chain($$
model: embedder
input: hi
system: hi
$$);
SELECT create_chain($$
model: echo
prompt:
$$);
SELECT create_chain($$
model: echo
prompt: [hi]
$$);
SELECT create_chain($$
model: echo
messages: hi
$$);
SELECT create_chain($$
model: echo
messages:
  - {role: boss, content: hi}
$$);
SELECT create_chain($$
model: echo
messages:
  - {role: user}
$$);
SELECT create_chain($$
model: echo
messages:
  - {role: user, content: hi, name: me}
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content:
      - {text: a, image: b}
$$);
SELECT create_chain($$
model: echo
prompt: hi
params: {temprature: 0}
$$);
SELECT create_chain($$
model: echo
prompt: hi
params: 0
$$);
SELECT create_chain($$
model: echo
prompt: hi
extra: {opnai: {user: me}}
$$);
SELECT create_chain($$
model: echo
prompt: hi
extra: {openai: me}
$$);
SELECT create_chain($$
model: echo
prompt: hi
reask: 2
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns: {a: int}
schema: {type: object}
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns:
  score: integr
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns: nothing_known
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns: {photo: bytea}
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns: {label: []}
$$);
SELECT create_chain($$
model: echo
prompt: hi
returns: {"bad name!": 5}
$$);
SELECT create_chain($$
model: echo
prompt: hi
schema: {type: objekt}
$$);
SELECT create_chain($$
model: echo
prompt: hi
schema: {type: string, pattern: "("}
$$);

----------------------------------------------------------------------------------------------------------------------
-- Functions

CREATE FUNCTION add(a int, b int DEFAULT 0) RETURNS int LANGUAGE sql AS 'SELECT a + b';
CREATE FUNCTION twice(a int) RETURNS int LANGUAGE sql AS 'SELECT 2 * a';
CREATE FUNCTION twice(a text) RETURNS text LANGUAGE sql AS 'SELECT a || a';
CREATE FUNCTION unnamed(int) RETURNS int LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION some_record() RETURNS record LANGUAGE sql AS 'SELECT 1, 2';
CREATE FUNCTION any_of(a anyelement) RETURNS anyelement LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION photo_of(id int) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea';
CREATE PROCEDURE proceed(a int) LANGUAGE sql AS 'SELECT 1';
SELECT create_chain($$
steps:
  a:
    function: ad
    args: {a: 1}
$$);
SELECT create_chain($$
function: nowhere.add
args: {a: 1}
$$);
SELECT create_chain($$
function: add(text)
args: {a: 1}
$$);
SELECT create_chain($$
function: "add(int"
args: {a: 1}
$$);
SELECT create_chain($$
function: add
args:
  a: 1
  c: 2
$$);
SELECT create_chain($$
function: add
args: {b: 1}
$$);
SELECT create_chain($$
function: add
args: [1, 2]
$$);
SELECT create_chain($$
function: twice
args: {a: 1}
$$);
SELECT create_chain($$
function: twice
args: {b: 1}
$$);
SELECT create_chain($$
function: unnamed
args: {a: 1}
$$);
SELECT create_chain($$
function: some_record
$$);
SELECT create_chain($$
function: any_of
args: {a: 1}
$$);
SELECT create_chain($$
function: photo_of
args: {id: 1}
$$);
SELECT create_chain($$
function: proceed
args: {a: 1}
$$);
SELECT create_chain($$
function: sum
args: {a: 1}
$$);

----------------------------------------------------------------------------------------------------------------------
-- SQL

SELECT create_chain($$
steps:
  a:
    sql: |
      SELECT id
      FROM acount
$$);
SELECT create_chain($$
sql: SELECT nmae FROM account
$$);
SELECT create_chain($$
steps:
  a:
    sql: |
      SELECT 1
        FORM account
$$);
SELECT create_chain($$
sql: SELECT no_such_function({{x}})
$$);
SELECT create_chain($$
sql: SELECT name FROM account WHERE id = 'one'
$$);
SELECT create_chain($$
sql: INSERT INTO account (id) VALUES ({{x}}, 1)
$$);
SELECT create_chain($$
sql: "SELECT id FROM account; SELECT 1 +"
$$);
SELECT create_chain($$
sql: |
  -- nothing at all
$$);
SELECT create_chain($$
sql: SELECT name FROM account WHERE name = '{{x}}'
$$);
SELECT create_chain($$
sql: SELECT name FROM account WHERE name = 'mr {{x}}'
$$);
SELECT create_chain($$
sql: SELECT "{{x}}" FROM account
$$);
SELECT create_chain($$
sql: SELECT $t$ {{x}} $t$
$$);
SELECT create_chain($$
sql: SELECT 1 -- {{x}}
$$);
SELECT create_chain($$
sql: SELECT $1
$$);
SELECT create_chain($$
sql: COMMIT
$$);
SELECT create_chain($$
sql: SELECT photo FROM account
$$);
SELECT create_chain($$
sql: SELECT id FROM account WHERE photo = {{x}}
$$);
SELECT create_chain($$
sql: SELECT id, name FROM account
returns: value
$$);
SELECT create_chain($$
sql: DELETE FROM account
returns: value
$$);
SELECT create_chain($$
sql: DELETE FROM account
returns: row
$$);
SELECT create_chain($$
sql: SELECT 1
returns: scalar
$$);
-- a parameter of whose type nothing says anything is text
SELECT run_chain($${sql: "SELECT {{x}} IS NULL", returns: value}$$, '{"x": 1}'), run_chain($${sql: "SELECT {{x}}", returns: value}$$, '{"x": 1}');

----------------------------------------------------------------------------------------------------------------------
-- Modifiers

SELECT create_chain($$
value: 1
each: "{{x}}"
$$);
SELECT create_chain($$
value: 1
each: [1, 2]
$$);
SELECT create_chain($$
value: 1
when: true
$$);
SELECT create_chain($$
value: 1
each: x
max_parallel: 0
$$);
SELECT create_chain($$
value: 1
until: round == 1
max: many
$$);
SELECT create_chain($$
value: 1
timeout: soon
$$);
SELECT create_chain($$
value: 1
timeout: -1 s
$$);
SELECT create_chain($$
sql: SELECT 1
retry: often
$$);
SELECT create_chain($$
sql: SELECT 1
retry: {attemps: 3}
$$);
SELECT create_chain($$
sql: SELECT 1
retry: {factor: 0.5}
$$);
SELECT create_chain($$
value: 1
on_error: ignore
$$);
SELECT create_chain($$
value: 1
on_error: {value: "{{error.nothing}}", prompt: hi}
$$);

----------------------------------------------------------------------------------------------------------------------
-- Expressions and templates

SELECT create_chain($$
value: "{{x.}}"
$$);
SELECT create_chain($$
value: "{{x[}}"
$$);
SELECT create_chain($$
value: "{{x"
$$);
SELECT create_chain($$
value: "{{}}"
$$);
SELECT create_chain($$
value: |
  one
  {{x.a ? (@ = 1)}}
$$);
SELECT create_chain($$
value: "{{x.a ? (@ like_regex \"(\")}}"
$$);
SELECT create_chain($$
value: "{{$x}}"
$$);
SELECT create_chain($$
value: "{{x.datetime().year()}}"
$$);
SELECT create_chain($$
value: "{{x.bigint()}}"
$$);
SELECT create_chain($$
value: "{{lax x.a}}"
$$);
SELECT create_chain($$
value: "{{x | upper}}"
$$);
SELECT create_chain($$
value: "{{x | truncat(3)}}"
$$);
SELECT create_chain($$
value: "{{x | truncate}}"
$$);
SELECT create_chain($$
value: "{{x | truncate(-1)}}"
$$);
SELECT create_chain($$
value: "{{x | join(1)}}"
$$);
SELECT create_chain($$
value: "{{x | default}}"
$$);
SELECT create_chain($$
value: {"{{x}}": 1}
$$);
SELECT create_chain($$
when: x = 1
value: 1
$$);
SELECT create_chain($$
when: x == "a
value: 1
$$);
SELECT create_chain($$
when: x.a and x.b
value: 1
$$);

----------------------------------------------------------------------------------------------------------------------
-- YAML

-- a duplicate key at any depth
SELECT create_chain($$
value: 1
timeout: 1 s
value: 2
$$);
SELECT create_chain($$
steps:
  a: {value: {b: 1, c: {d: 1, "d": 2}}}
$$);
-- tabs, tags, documents, directives, merge keys
SELECT create_chain(E'\nsteps:\n\ta: {value: 1}\n');
SELECT create_chain($$
value: !!str 1
$$);
SELECT create_chain($$
value: !important
$$);
SELECT create_chain($$
value: 1
---
value: 2
$$);
SELECT create_chain($$%YAML 1.1
---
value: 1
$$);
SELECT create_chain($$
steps:
  a: &a {value: 1}
  b:
    <<: *a
$$);
-- a text that a comment would cut, under each key of free text
SELECT create_chain($$
model: echo
prompt: issue #42
$$);
SELECT create_chain($$
model: echo
prompt: hi
system: rule #1
$$);
SELECT create_chain($$
sql: SELECT '{}'::jsonb #> '{a}'
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content: issue #42
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content:
      - text: issue #42
$$);
SELECT create_chain($$
ask: issue #42
$$);
-- elsewhere, behind quotes and in a block a comment is one
SELECT create_chain($$
model: echo    # the model
prompt: "hi"   # the prompt
system: |      # the system text
  rule #1
$$);
-- an unquoted value that begins with {{
SELECT create_chain($$
model: echo
prompt: {{x}} please
$$);
SELECT create_chain($$
value:
  list: [1, {{x}}]
$$);
-- a colon in an unquoted text
SELECT create_chain($$
model: echo
prompt: Translate: {{x}}
$$);
-- what is not closed
SELECT create_chain($$
value: {a: 1
$$);
SELECT create_chain($$
value: "a
$$);
-- aliases up to 10,000 nodes
SELECT create_chain('value: [&a b' || repeat(', *a', 9990) || ']');
SELECT create_chain(E'\nvalue:\n  [&a b' || repeat(', *a', 10000) || ']');
SELECT create_chain($$
value:
  - &a [x, x, x, x, x, x, x, x, x, x]
  - &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]
  - &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]
  - &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]
  - [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]
$$);
SELECT create_chain('value: &a [1, *a]');
-- deep nesting
SELECT create_chain('value: ' || repeat('[', 100000));
SELECT create_chain((SELECT string_agg(repeat(' ', 2 * n) || 'steps:' || E'\n' || repeat(' ', 2 * n + 1) || 's' || n || ':' || E'\n', '') FROM generate_series(0, 60) n) || repeat(' ', 130) || 'value: 1');
-- JSON's types only: these are texts
SELECT run_chain($$
value: [no, yes, on, off, 0777, 0x1F, 1:30, 2024-05-01, 1_000, .5, +1, ~, null, true, 1.50, 1e3]
$$);

----------------------------------------------------------------------------------------------------------------------
-- Waits

SELECT create_chain('wait: 1 hour');
SELECT create_chain('wait: "{{x}}"');
SELECT create_chain('wait: tomorrow');
SELECT create_chain('wait: -1 s');
SELECT create_chain('wait: 5');
SELECT create_chain('wait: ""');
SELECT create_chain('wait: [1 s]');
SELECT create_chain($$
wait: 1 s
retry: 2
$$);

----------------------------------------------------------------------------------------------------------------------
-- Asks

SELECT create_chain($$
steps:
  a:
    ask: May I {{x}}?
    show: {x: "{{x}}", all: ["{{x}}"]}
    to: no such role
    returns: {yes: boolean, note?: text}
    timeout: 1 hour
  b: {value: "{{a.yes}}"}
$$);
SELECT create_chain('ask: "Yes?"');
SELECT create_chain('ask: ""');
SELECT create_chain('ask: " "');
SELECT create_chain('ask: [1]');
SELECT create_chain('ask: May I, {{y}}?');
SELECT create_chain($$
ask: Who?
to: ""
$$);
SELECT create_chain($$
ask: Who?
to: [a, b]
$$);
SELECT create_chain($$
ask: Who?
show: "{{nobody}}"
$$);
SELECT create_chain($$
ask: Who?
returns: no_such_type
$$);
SELECT create_chain($$
ask: Who?
retry: 2
$$);
SELECT create_chain($$
ask: Who?
prompt: me
$$);
SELECT create_chain($$
model: echo
prompt: hi
to: boss
$$);
SELECT create_chain($$
ask: Who?
value: 1
$$);

----------------------------------------------------------------------------------------------------------------------
-- Not yet supported

SELECT create_chain($$
model: echo
prompt: hi
tools: [add]
max_turns: 3
$$);
SELECT create_chain($$
model: echo
prompt: hi
images: ["{{x}}"]
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content:
      - image: "{{x}}"
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content: [{file: "{{x}}"}]
$$);
SELECT create_chain($$
model: echo
messages:
  - role: user
    content: [{audio: "{{x}}"}]
$$);
SELECT create_chain($$
model: echo
prompt: hi
cache: 1 day
$$);
SELECT create_chain($$
model: echo
prompt: hi
stream: true
$$);
SELECT create_chain($$
model: painter
prompt: hi
$$);
SELECT create_chain('value: 1', 'x bytea');
SELECT create_chain('value: 1', 'x bytea[]');
SELECT create_chain('value: 1', 'x account');
SELECT create_chain('value: 1', result => 'bytea');
SELECT create_chain('value: 1', result => 'TABLE (a int, photo bytea)');

----------------------------------------------------------------------------------------------------------------------
-- Fallback

SELECT create_chain($$
model: echo
prompt: hi
fallback: [deepseek-chat, deepseek-chat-2]
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback:
  - deepseek-chat
  - embedder
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback: echo
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback: [deepseek-chat, deepseek-chat]
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback: {a: 1}
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback: [[deepseek-chat]]
$$);
SELECT create_chain($$
model: echo
prompt: hi
fallback:
$$);
SELECT create_chain($$
model: echo
request: {}
fallback: deepseek-chat
$$);
SELECT create_chain($$
value: 1
fallback: deepseek-chat
$$);

----------------------------------------------------------------------------------------------------------------------
-- What a function in this language may be

SELECT create_chain('value: 1', attributes => 'SECURITY DEFINER');
SELECT create_chain('value: 1', attributes => 'SET work_mem = ''1MB''');
SELECT create_chain('value: 1', attributes => 'STABLE');
SELECT create_chain('value: 1', attributes => 'IMMUTABLE');
SELECT create_chain('value: 1', attributes => 'PARALLEL SAFE');
SELECT create_chain('value: 1', attributes => 'PARALLEL RESTRICTED');
SELECT create_chain('value: 1', attributes => 'WINDOW');
SELECT create_chain('value: 1', attributes => 'COST 1000 STRICT NOT LEAKPROOF');
SELECT create_chain('value: 1', '', 'trigger');
SELECT create_chain('value: 1', '', 'event_trigger');
SELECT create_chain('value: 1', 'x anyelement');
SELECT create_chain('value: 1', 'x anyarray', 'anyelement');
SELECT create_chain('value: 1', 'VARIADIC x "any"');
SELECT create_chain('value: 1', 'x cstring');
SELECT try('CREATE PROCEDURE p() LANGUAGE chaincall AS ''value: 1''');
SELECT try('DO LANGUAGE chaincall ''value: "{{x}}"''');

-- ALTER FUNCTION asks no validator: the next call does
CREATE FUNCTION altered(x int) RETURNS int LANGUAGE chaincall AS 'value: "{{x}}"';
CREATE FUNCTION calls_altered() RETURNS int LANGUAGE chaincall AS '{function: altered, args: {x: 2}}';
SELECT altered(1), calls_altered();
ALTER FUNCTION altered(int) SECURITY DEFINER;
SELECT try('SELECT altered(1)');
SELECT try('SELECT calls_altered()');
ALTER FUNCTION altered(int) SECURITY INVOKER SET work_mem = '1MB';
SELECT try('SELECT altered(1)');
ALTER FUNCTION altered(int) RESET ALL IMMUTABLE;
SELECT try('SELECT altered(1)');
ALTER FUNCTION altered(int) VOLATILE PARALLEL SAFE;
SELECT try('SELECT altered(1)');
ALTER FUNCTION altered(int) PARALLEL UNSAFE;
SELECT altered(1), calls_altered();

----------------------------------------------------------------------------------------------------------------------
-- check_function_bodies = off: the first use checks

SET check_function_bodies = off;
CREATE FUNCTION unchecked() RETURNS text LANGUAGE chaincall AS $chain$
model: not-yet-there
prompt: hi
$chain$;
CREATE FUNCTION unchecked_too() RETURNS text STABLE LANGUAGE chaincall AS 'no: yaml: at all';
RESET check_function_bodies;
SELECT try('SELECT unchecked()');
SELECT model('not-yet-there', 'echo');
SELECT unchecked();
SELECT try('SELECT unchecked_too()');
ALTER FUNCTION unchecked_too() VOLATILE;
SELECT try('SELECT unchecked_too()');

----------------------------------------------------------------------------------------------------------------------
-- CREATE OR REPLACE, \sf, overloading, DO

CREATE FUNCTION versions(x text) RETURNS text LANGUAGE chaincall AS $chain$
value: "one {{x}}"
$chain$;
SELECT versions('a');
CREATE OR REPLACE FUNCTION versions(x text) RETURNS text LANGUAGE chaincall AS $chain$
value: "two {{x}}"   # and a comment that stays
$chain$;
SELECT versions('a');
-- what does not compile replaces nothing
CREATE OR REPLACE FUNCTION versions(x text) RETURNS text LANGUAGE chaincall AS $chain$
value: "{{y}}"
$chain$;
SELECT versions('a');
-- a transaction that rolls back takes its version with it
BEGIN;
CREATE OR REPLACE FUNCTION versions(x text) RETURNS text LANGUAGE chaincall AS $chain$value: "three {{x}}"$chain$;
SELECT versions('a');
ROLLBACK;
SELECT versions('a');
\sf versions(text)
CREATE FUNCTION versions(x int) RETURNS text LANGUAGE chaincall AS $chain$value: "int {{x}}"$chain$;
CREATE FUNCTION versions(x text, y text) RETURNS text LANGUAGE chaincall AS $chain$value: "{{x}} {{y}}"$chain$;
SELECT versions('a'), versions(1), versions('a', 'b'), versions(y => 'b', x => 'a');
SELECT chaincall.run('versions(integer)', '{"x": 5}'), chaincall.run('chaincall_regress.versions(text, text)', '{"x": 5, "y": 6}');
SELECT regexp_replace(try($$SELECT chaincall.run('versions', '{"x": 5}')$$), 'signature: .*', 'signature: …');
CREATE TABLE done (what text);
DO LANGUAGE chaincall $chain$
steps:
  a: {model: echo, prompt: said in a block}
  b: {sql: "INSERT INTO done VALUES ({{a}})"}
$chain$;
SELECT * FROM done;
DO LANGUAGE chaincall $chain$
steps:
  a: {sql: "INSERT INTO done VALUES (1 / {{0}})"}
$chain$;

----------------------------------------------------------------------------------------------------------------------
-- What a chain named is changed or gone when it runs

CREATE FUNCTION helper(a int) RETURNS int LANGUAGE sql AS 'SELECT a';
CREATE TABLE source (a int, b text);
INSERT INTO source VALUES (1, 'b');
CREATE FUNCTION uses_model() RETURNS text LANGUAGE chaincall AS '{model: deepseek-chat, prompt: hi}';
CREATE FUNCTION uses_function() RETURNS int LANGUAGE chaincall AS '{steps: {a: {function: helper, args: {a: 1}}}}';
CREATE FUNCTION uses_table() RETURNS jsonb LANGUAGE chaincall AS 'sql: SELECT * FROM source';
CREATE FUNCTION uses_chain() RETURNS jsonb LANGUAGE chaincall AS 'function: uses_table';
SELECT uses_model(), uses_function(), uses_table(), uses_chain();
DELETE FROM chaincall.model WHERE name = 'deepseek-chat';
SELECT try('SELECT uses_model()');
DROP FUNCTION helper;
ALTER TABLE source DROP COLUMN b, ADD COLUMN c int DEFAULT 7;
SELECT try('SELECT uses_function()');
SELECT uses_table(), uses_chain();
DROP TABLE source;
SELECT try('SELECT uses_table()');
SELECT try('SELECT uses_chain()');
DROP FUNCTION uses_table;
SELECT try('SELECT uses_chain()');
CREATE FUNCTION helper(a int) RETURNS text LANGUAGE sql AS 'SELECT ''five''';
SELECT try('SELECT uses_function()');
CREATE OR REPLACE FUNCTION helper(b int, a int DEFAULT 1) RETURNS int LANGUAGE sql AS 'SELECT a';
DROP FUNCTION helper(int);
SELECT try('SELECT uses_function()');
CREATE FUNCTION helper(a int) RETURNS int LANGUAGE sql AS 'SELECT 5';
SELECT uses_function();
SELECT model('deepseek-chat', 'fixed');
SELECT uses_model();
