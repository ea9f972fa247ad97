-- The language of a chain: kinds, modifiers, scopes, paths. Every call is answered by what it was asked (model echo).
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SELECT model('slow', 'delay-400'), model('failing', 'echo?status=400&message=wrong'), model('flaky', 'echo?status=503&times=2');
CREATE TABLE log (n serial, what text);
CREATE FUNCTION logged() RETURNS text LANGUAGE sql AS
  $$ WITH l AS (DELETE FROM log RETURNING n, what) SELECT string_agg(what, ', ' ORDER BY n) FROM l $$;

----------------------------------------------------------------------------------------------------------------------
-- Body

-- a body is one step: a call of two lines
CREATE FUNCTION translate(text text) RETURNS text LANGUAGE chaincall AS $chain$
model: echo
prompt: "Translate: {{text}}"
$chain$;
SELECT translate('Guten Tag');
-- as JSON
CREATE FUNCTION translate_json(text text) RETURNS text LANGUAGE chaincall AS $chain${"model": "echo", "prompt": "Translate: {{text}}"}$chain$;
SELECT translate_json('Guten Tag');
-- on the line of the opening quote, or behind a comment
SELECT run_chain('value: 1'), run_chain(E'\n\n# a comment\nvalue: 2\n');

-- the options of a whole chain are the modifiers of its outermost step
SELECT run_chain($$
when: x == true
value: 1
$$, '{"x": false}');
SELECT run_chain($$
each: x
on_error: skip
value: "{{item.a}}"
$$, '{"x": [{"a": 1}, {"b": 2}, {"a": 3}]}');
SELECT run_chain($$
on_error: {value: "{{error.class}} of {{x}} in {{error.step}}"}
output: "{{a}}"
steps:
  a: {value: "{{x.y}}"}
$$, '{"x": 5}');
SELECT run_chain($$
until: round == 3
value: "{{round}}"
$$);

-- arguments: DEFAULT and STRICT hold for run() as they do for a call
CREATE FUNCTION greet(name text, greeting text DEFAULT 'Hello', mark text DEFAULT upper('!')) RETURNS text LANGUAGE chaincall AS $chain$
value: "{{greeting}} {{name}}{{mark}}"
$chain$;
SELECT greet('you'), greet('you', mark => '?'), chaincall.run('greet', '{"name": "you"}'), chaincall.run('greet', '{"mark": "?", "name": "you"}');
SELECT try($$SELECT greet(NULL)$$);
CREATE FUNCTION greet_strictly(name text, greeting text DEFAULT 'Hello') RETURNS text STRICT LANGUAGE chaincall AS $chain$
steps:
  logged: {sql: "INSERT INTO log (what) VALUES ({{name}})"}
  greeted: {value: "{{greeting}} {{name}}", after: logged}
$chain$;
SELECT greet_strictly('you'), greet_strictly(NULL), greet_strictly('you', NULL), chaincall.run('greet_strictly', '{"name": null}'), chaincall.run('greet_strictly', '{"name": "me"}');
SELECT logged();
SELECT try($$SELECT chaincall.run('greet', '{}')$$);
SELECT try($$SELECT chaincall.run('greet', '{"name": "you", "nome": "me"}')$$);
SELECT try($$SELECT chaincall.run('greet', '["you"]')$$);
SELECT try($$SELECT chaincall.run('greet', NULL)$$);
SELECT try($$SELECT chaincall.run('great', '{}')$$);
SELECT try($$SELECT chaincall.run('logged', '{}')$$);

----------------------------------------------------------------------------------------------------------------------
-- Kinds

-- sql: rows, row, value
SELECT run_chain($$sql: SELECT n, n * n AS square FROM generate_series(1, 3) n$$);
SELECT run_chain($$sql: SELECT 1 AS n WHERE false$$);
SELECT run_chain($${sql: "SELECT n, 'x' AS t FROM generate_series(1, 1) n", returns: rows}$$);
SELECT run_chain($${sql: "SELECT 1 AS n, NULL AS m", returns: row}$$), run_chain($${sql: SELECT 1 AS n WHERE false, returns: row}$$);
SELECT run_chain($${sql: SELECT 42, returns: value}$$), run_chain($${sql: SELECT 42 WHERE false, returns: value}$$), run_chain($${sql: SELECT NULL::int, returns: value}$$);
SELECT run_chain($${sql: "SELECT n FROM generate_series(1, 2) n", returns: row}$$);
SELECT run_chain($${sql: "SELECT n FROM generate_series(1, 2) n", returns: value}$$);
-- statements that give nothing, and those with RETURNING
SELECT run_chain($$sql: INSERT INTO log (what) VALUES ('sql')$$), logged();
SELECT run_chain($${sql: INSERT INTO log (what) VALUES ('sql') RETURNING what, returns: value}$$), logged();
SELECT run_chain($$sql: SELECT$$);
-- several statements: the last one's rows
SELECT run_chain($$
sql: |
  INSERT INTO log (what) VALUES ({{x}});
  UPDATE log SET what = what || '!';
  SELECT what FROM log ORDER BY n;
$$, '{"x": "two"}', 'x text'), logged();
SELECT run_chain($${sql: "SELECT 1; SELECT 2", returns: value}$$);
SELECT run_chain($${sql: SELECT 1; CREATE TEMP TABLE t (a int)}$$);
-- what a statement raises: its own SQLSTATE, the place in the chain
SELECT run_chain($$
steps:
  a:
    each: x
    sql: SELECT 1 / {{item}}
$$, '{"x": [1, 0]}');

-- function: by name or signature, arguments by name
CREATE FUNCTION area(width int, height int DEFAULT 10) RETURNS int LANGUAGE sql AS $$ SELECT width * height $$;
CREATE FUNCTION area(width text) RETURNS text LANGUAGE sql AS $$ SELECT 'text ' || width $$;
CREATE FUNCTION area(shape jsonb) RETURNS text LANGUAGE sql AS $$ SELECT 'jsonb ' || shape::text $$;
SELECT run_chain($${function: area, args: {height: 3, width: 2}}$$), run_chain($${function: "area(int, int)", args: {width: 2}}$$),
  run_chain($${function: area(text), args: {width: 2}}$$), run_chain($${function: area, args: {shape: {a: [1]}}}$$);
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS $$ INSERT INTO log (what) VALUES ('nothing') $$;
CREATE FUNCTION numbers(n int) RETURNS SETOF int LANGUAGE sql AS $$ SELECT generate_series(1, n) $$;
CREATE FUNCTION pairs(n int) RETURNS TABLE (a int, b text) LANGUAGE sql AS $$ SELECT i, 'b' || i FROM generate_series(1, n) i $$;
CREATE FUNCTION two(OUT a int, OUT b text) LANGUAGE sql AS $$ SELECT 1, 'x' $$;
CREATE FUNCTION total(VARIADIC n int[]) RETURNS bigint LANGUAGE sql AS $$ SELECT sum(m) FROM unnest(n) m $$;
SELECT run_chain($$function: nothing$$), logged(), run_chain($${function: two, args: }$$), run_chain($${function: total, args: {n: [1, 2, 3]}}$$);
SELECT run_chain($${function: numbers, args: {n: 3}}$$), run_chain($${function: numbers, args: {n: 1}}$$), run_chain($${function: numbers, args: {n: 0}}$$);
SELECT run_chain($${function: pairs, args: {n: 2}}$$), run_chain($${function: chaincall_regress.pairs, args: {n: 0}}$$);
SELECT run_chain($${function: area, args: {width: 2147483647, height: 2}}$$);

-- value: any JSON with templates
SELECT run_chain($$
value:
  number: 1.50
  text: "{{x.text}} and {{x.number}}"
  whole: "{{x}}"
  list: [null, true, no, "{{x.number}}", {deep: "{{x.list[*]}}"}]
$$, '{"x": {"text": "t", "number": 7, "list": [1, "2"]}}');

-- steps: the only sink is the output, or what `output` says; a block's names stay inside
SELECT run_chain($$
steps:
  c: {value: "{{b}}c"}
  b: {value: "{{a}}b"}
  a: {value: a}
$$);
SELECT run_chain($$
output: {x: "{{a}}", y: ["{{b}}"]}
steps:
  a: {value: 1}
  b: {value: "{{a}}2"}
$$);
SELECT run_chain($$
steps:
  outer: {value: 1}
  block:
    steps:
      inner: {value: "{{outer}} {{x}}"}
      joined: {value: "{{inner}} {{outer}}"}
  same:
    steps:
      inner: {value: "{{block}}!"}
$$, '{"x": 0}');
SELECT run_chain($$
steps:
  block:
    steps:
      inner: {value: 1}
  other: {value: "{{inner}}"}
$$);

-- switch: the first arm whose `when` holds, else the one without, else null; only that one runs
SELECT x, run_chain($$
switch:
  - when: x > 10
    sql: INSERT INTO log (what) VALUES ('large') RETURNING what
    returns: value
  - when: x > 5
    model: echo
    prompt: middling
  - steps:
      a: {value: small}
      b: {value: "{{a}}: {{x}}"}
$$, jsonb_build_object('x', x)), logged() FROM generate_series(3, 15, 6) x;
SELECT run_chain($$
switch:
  - when: x > 10
    value: large
$$, '{"x": 1}');
-- arms have modifiers too; what stands behind the arm taken is not decided
SELECT run_chain($$
switch:
  - when: x.size() > 1
    each: x
    value: "{{item}} of several"
  - when: x.nothing == 1
    value: never
$$, '{"x": ["a", "b"]}');

----------------------------------------------------------------------------------------------------------------------
-- Modifiers

-- when: null and nothing of it runs; decided once, before each
SELECT run_chain($$
output: ["{{a}}", "{{b}}", "{{c}}"]
steps:
  a:
    when: x > 1
    sql: INSERT INTO log (what) VALUES ('a')
  b:
    when: x == 1
    each: x
    value: "{{item}}"
  c:
    when: x > 1
    each: x.nothing
    value: "{{item}}"
$$, '{"x": 1}'), logged();
SELECT create_chain($$
each: 3
when: item > 1
value: "{{item}}"
$$);

-- each: elements in their order, a number, null; item, index and `as`
SELECT run_chain($${each: x, value: "{{index}}={{item}}"}$$, '{"x": ["a", "b", "c"]}');
SELECT run_chain($${each: x, value: "{{item}}"}$$, '{"x": 3}'), run_chain($${each: x, value: "{{item}}"}$$, '{"x": 0}'),
  run_chain($${each: x, value: "{{item}}"}$$, '{"x": null}'), run_chain($${each: x, value: "{{item}}"}$$, '{"x": []}');
SELECT run_chain($${each: "x[*] ? (@ > 1)", value: "{{item}}"}$$, '{"x": [1, 2, 3]}');
SELECT run_chain($${each: x, value: "{{item}}"}$$, '{"x": "abc"}');
SELECT run_chain($${each: x, value: "{{item}}"}$$, '{"x": {"a": 1}}');
SELECT run_chain($${each: x, value: "{{item}}"}$$, '{"x": 1.5}'), run_chain($${each: x, value: "{{item}}"}$$, '{"x": -1}');
SELECT run_chain($$
each: x
as: row
steps:
  cell:
    each: row
    value: "{{row[0]}}/{{item}}@{{index}}"
$$, '{"x": [[1, 2], [3]]}');
-- the order of the output is that of the elements, whoever ends first
SELECT run_chain($$
each: x
model: echo
prompt: "{{item}}"
extra: {openai: {fault: {delay: "{{item}}"}}}
$$, '{"x": [300, 150, 0]}');

-- max_parallel bounds one fan-out
CREATE FUNCTION waves(delays int[], n int) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM run_chain(format($c$
each: x
%s
steps:
  a:
    model: echo
    prompt: a
    extra: {openai: {fault: {delay: "{{item}}"}}}
  b:
    sql: INSERT INTO log (what) VALUES ({{item}}::text)
    after: a
$c$, 'max_parallel: ' || n), jsonb_build_object('x', delays));
  RETURN logged();
END $$;
SELECT waves('{500,250,0}', 3), waves('{500,250,0}', 1), waves('{0,500,0}', 2);

-- no barrier between the items of an each: the second goes through all its steps while the first waits
SELECT run_chain($$
output: "{{text}}"
steps:
  text:
    each: x
    as: delay
    steps:
      first:
        model: echo
        prompt: "{{delay}}"
        extra: {openai: {fault: {delay: "{{delay}}"}}}
      noted:
        sql: INSERT INTO log (what) VALUES ({{first}} || ' first') RETURNING what
        returns: value
      second:
        model: echo
        prompt: "{{noted}}, second"
      noted_too:
        sql: INSERT INTO log (what) VALUES ({{second}}) RETURNING what
        returns: value
$$, '{"x": [600, 0]}');
SELECT logged();
-- nor between steps that do not need each other: the statement runs while the call is in the air
SELECT run_chain($$
steps:
  call: {model: slow, prompt: x}
  noted: {sql: INSERT INTO log (what) VALUES ('statement')}
  end: {sql: INSERT INTO log (what) VALUES ('call'), after: [call, noted]}
$$), logged();

-- until: its own name is the last round's output, null in the first; the condition sees a block's names
SELECT run_chain($$
output: "{{n}}"
steps:
  n:
    until: n like_regex "^3"
    value: "{{round}}{{n | default(\"\")}}"
$$);
SELECT run_chain($$
output: "{{best}}"
steps:
  best:
    until: score >= 2 || round == 5
    output: {text: "{{text}}", last: "{{best.text | default(null)}}"}
    steps:
      text: {value: "draft {{round}}"}
      score: {value: "{{round}}"}
$$);
SELECT run_chain($${until: round >= 4, max: 3, value: "{{round}}"}$$);
SELECT run_chain($${until: round > 10, value: 1}$$), run_chain($${until: round >= 10, value: "{{round}}"}$$);
SELECT run_chain($${until: round >= 4 || round == 3, max: 3, value: "{{round}}"}$$);
-- each item has rounds of its own
SELECT run_chain($${each: x, until: round == item, value: "{{item}}:{{round}}"}$$, '{"x": [1, 3]}');

-- after: waits for what it does not use; the order of writing does not matter
SELECT run_chain($$
steps:
  c: {sql: INSERT INTO log (what) VALUES ('c'), after: [a, b]}
  b: {sql: INSERT INTO log (what) VALUES ('b'), after: a}
  a: {sql: INSERT INTO log (what) VALUES ('a')}
$$), logged();

-- timeout: a model, a statement, a block; on_error decides what comes of it
SELECT run_chain($${model: slow, prompt: x, timeout: 50 ms}$$);
SELECT run_chain($${sql: SELECT pg_sleep(60), timeout: 50 ms}$$);
SELECT run_chain($$
timeout: 50 ms
output: "{{a}}"
steps:
  a: {model: slow, prompt: x}
$$);
SELECT run_chain($${model: slow, prompt: x, timeout: 50 ms, on_error: {value: "{{error.class}} at {{error.step}}"}}$$);
SELECT run_chain($${sql: SELECT pg_sleep(60), timeout: 50 ms, on_error: skip}$$);
-- it is one item's: three items one after another may take longer together
SELECT run_chain($${each: 3, max_parallel: 1, timeout: 700 ms, model: slow, prompt: x}$$);
-- it bounds all rounds and attempts, and a backoff that would overrun it is not sat out
SELECT run_chain($${timeout: 700 ms, until: round == 3, model: slow, prompt: x}$$);
SELECT model('throttled', 'echo?status=429&retry_after=60');
SELECT run_chain($${model: throttled, prompt: x, timeout: 5 s, on_error: {value: "{{error.class}}"}}$$);

-- retry: of a model what may pass; written on a statement, whatever it raised, and its writes are undone
SELECT run_chain($${model: flaky, prompt: the third answers}$$), run_chain($${model: flaky, prompt: the second does not, retry: {attempts: 2, first: 1 ms}}$$);
SELECT run_chain($${model: flaky, prompt: once, retry: 0, on_error: {value: "{{error.class}}: {{error.tried[*].model}}"}}$$);
CREATE SEQUENCE attempts;
CREATE FUNCTION third_time(what text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO log (what) VALUES (what);
  IF nextval('attempts') % 3 <> 0 THEN
    RAISE EXCEPTION 'not yet' USING ERRCODE = 'XX001', HINT = 'Try again.';
  END IF;
  RETURN what || '!';
END $$;
SELECT run_chain($${sql: SELECT third_time('sql') AS t, retry: {attempts: 3, first: 1 ms, factor: 1, max: 1 ms}}$$), logged();
SELECT run_chain($${function: third_time, args: {what: function}, retry: {attempts: 3, first: 1 ms}}$$), logged();
SELECT run_chain($${function: third_time, args: {what: never}, retry: {attempts: 2, first: 1 ms}, on_error: {value: "{{error.sqlstate}}"}}$$), logged();
-- without it a statement is not repeated
SELECT run_chain($$function: third_time
args: {what: once}$$), logged(), currval('attempts');

-- on_error: fail, skip, a step that sees the error
SELECT run_chain($${model: failing, prompt: x}$$);
SELECT run_chain($${model: failing, prompt: x, on_error: fail}$$) = run_chain($${model: failing, prompt: x}$$);
SELECT run_chain($${model: failing, prompt: x, on_error: skip}$$);
SELECT run_chain($$
steps:
  a:
    each: x
    model: failing
    prompt: "{{item}}"
    on_error:
      value: {item: "{{item}}", index: "{{index}}", class: "{{error.class}}", message: "{{error.message}}", step: "{{error.step}}",
              sqlstate: "{{error.sqlstate}}", tried: "{{error.tried}}"}
$$, '{"x": ["m"]}');
SELECT run_chain($$
steps:
  a:
    sql: SELECT 1 / {{x}}::int
    on_error:
      value: {class: "{{error.class}}", message: "{{error.message}}", step: "{{error.step}}", sqlstate: "{{error.sqlstate}}", tried: "{{error.tried}}"}
$$, '{"x": 0}');
-- an item that failed is null at its place
SELECT run_chain($${each: x, sql: "SELECT 6 / {{item}}::int", returns: value, on_error: skip}$$, '{"x": [1, 0, 3]}');
-- what fails inside a block fails the block; on_error of the outer step sees the inner path
SELECT run_chain($$
output: "{{outer}}"
steps:
  outer:
    each: 2
    on_error: {value: "{{error.step}} {{item}}"}
    steps:
      inner:
        each: 2
        switch:
          - when: item == 2
            sql: SELECT 1 / (2 - {{item}}::int)
          - value: fine
$$);
-- on_error is around timeout, until and retry, not around each; its step may fail too
SELECT run_chain($${each: x, value: "{{item}}", on_error: skip}$$, '{"x": "no array"}');
SELECT run_chain($${until: round > 2, max: 2, value: 1, on_error: {value: "{{error.class}}"}}$$);
SELECT run_chain($${model: failing, prompt: x, on_error: {sql: "SELECT {{error.class}}::int"}}$$);
SELECT run_chain($$
model: failing
prompt: x
on_error:
  model: failing
  prompt: y
  on_error: {value: "twice {{error.class}}"}
$$);
-- `when` is outside of it
SELECT run_chain($${when: x.y == 1, value: 1, on_error: skip}$$, '{"x": 1}');
-- errors take the writes of the step that failed with them, not those before it
SELECT run_chain($$
output: "{{b}}"
steps:
  a: {sql: INSERT INTO log (what) VALUES ('a')}
  b: {sql: "INSERT INTO log (what) VALUES ('b'); SELECT 1 / {{x}}::int", on_error: skip, after: a}
$$, '{"x": 0}'), logged();
-- and the chain's with it, when nothing catches
SELECT run_chain($$
steps:
  a: {sql: INSERT INTO log (what) VALUES ('a')}
  b: {sql: "SELECT 1 / {{x}}::int", after: a}
$$, '{"x": 0}'), logged();

-- the whole order: when, each, on_error around timeout around until around retry
SELECT run_chain($$
when: x != null
each: x
max_parallel: 1
on_error: {value: "{{item}}: {{error.class}}"}
timeout: 10 s
until: round == item
max: 2
retry: {attempts: 3, first: 1 ms}
function: third_time
args: {what: "{{item}}.{{round}}"}
$$, '{"x": [1, 2, 3]}');
SELECT logged();

----------------------------------------------------------------------------------------------------------------------
-- Chains in chains

-- a chain is a function: DEFAULT, STRICT, overloads, its result type
CREATE FUNCTION inner_chain(a text, b int DEFAULT 7) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  said: {model: echo, prompt: "{{a}}-{{b}}"}
$chain$;
CREATE FUNCTION inner_chain(a jsonb) RETURNS int LANGUAGE chaincall AS $chain$
value: "{{a.n}}"
$chain$;
CREATE FUNCTION strict_chain(a text) RETURNS text STRICT LANGUAGE chaincall AS $chain$
sql: INSERT INTO log (what) VALUES ({{a}}) RETURNING what
returns: value
$chain$;
CREATE FUNCTION set_chain(n int) RETURNS SETOF int LANGUAGE chaincall AS $chain$
each: n
value: "{{item}}"
$chain$;
CREATE FUNCTION void_chain() RETURNS void LANGUAGE chaincall AS $chain$
sql: INSERT INTO log (what) VALUES ('void')
$chain$;
SELECT run_chain($${function: "inner_chain(text, int)", args: {a: x}}$$), run_chain($${function: inner_chain, args: {a: x, b: 8}}$$),
  run_chain($${function: inner_chain(jsonb), args: {a: {n: 9}}}$$);
SELECT run_chain($${function: strict_chain, args: {a: null}}$$), run_chain($${function: strict_chain, args: {a: ran}}$$), logged();
SELECT run_chain($${function: set_chain, args: {n: 2}}$$), run_chain($${function: set_chain, args: {n: 0}}$$), run_chain($$function: void_chain$$), logged();
SELECT run_chain($${function: inner_chain(jsonb), args: {a: {n: nine}}}$$);
SELECT run_chain($$
output: "{{all}}"
steps:
  all:
    each: x
    function: inner_chain(text, int)
    args: {a: "{{item}}"}
    until: round == 2
$$, '{"x": ["a", "b"]}');
-- their model calls are in the air together
SELECT clock_timestamp() AS started \gset
SELECT run_chain($$
each: 5
function: slow_chain
args: {}
$$) IS NOT NULL FROM (SELECT try('CREATE FUNCTION slow_chain() RETURNS text LANGUAGE chaincall AS ''{model: slow, prompt: x}''')) t;
SELECT clock_timestamp() - :'started' < interval '1.5 s';
-- recursion
CREATE FUNCTION countdown(n int) RETURNS jsonb LANGUAGE chaincall AS 'value: 0';
CREATE OR REPLACE FUNCTION countdown(n int) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{n}}", "{{rest}}"]
steps:
  less: {sql: "SELECT {{n}} - 1", returns: value}
  rest: {when: n > 0, function: countdown, args: {n: "{{less}}"}}
$chain$;
SELECT countdown(3);
-- an error inside, with the path through both chains
CREATE FUNCTION failing_chain() RETURNS text LANGUAGE chaincall AS $chain$
steps:
  call: {model: failing, prompt: x}
$chain$;
SELECT run_chain($$
steps:
  sub:
    each: 1
    function: failing_chain
$$);

----------------------------------------------------------------------------------------------------------------------
-- Paths

CREATE FUNCTION paths(x jsonb) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{merged}}", "{{sub}}", "{{decided}}", "{{saved}}"]
steps:
  plain: {value: p}
  merged:
    each: x
    as: row
    steps:
      text:
        each: row
        until: round == 2
        value: "{{row[0]}}{{item}}{{round}}{{plain}}"
  sub: {each: 2, function: inner_chain(jsonb), args: {a: {n: "{{item}}"}}}
  sub2: {function: "inner_chain(text, int)", args: {a: s}}
  decided:
    switch:
      - when: x.size() > 5
        value: many
      - steps:
          few: {value: "{{sub2}}"}
  saved: {each: 1, value: "{{plain.nothing}}", on_error: {value: saved}}
  end: {value: end, after: [merged, sub, decided, saved]}
$chain$;
SELECT key, value FROM jsonb_each(chaincall.run('paths', '{"x": [["a", "b"], []]}', stop_after => 'end')) ORDER BY key COLLATE "C";
-- a mock has that output at its path, and does not run
SELECT chaincall.run('paths', '{"x": [["a", "b"], ["c"]]}', '{"merged[0]/text[1]": "item", "merged[1]": "outer item", "sub": [], "decided": null, "saved[0]/on_error": "handler"}');
SELECT chaincall.run('paths', '{"x": [["a", "b"], ["c"]]}', '{"merged[0]/text[0][2]": "round", "merged[1]/text": "step", "sub[1]": 5, "decided/arm[1]": "arm", "sub2/said": "nested", "saved": "saved"}');
SELECT chaincall.run('paths', '{"x": []}', '{"sub2/said": "nested", "sub[0]/chain": 8}');
-- what cannot be a path is said
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"nobody": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"merged[0]/nobody": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"plain[0]": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"decided/arm[2]": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"plain/on_error": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"merged/": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '{"": 1}')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', '[1]')$$);
SELECT try($$SELECT chaincall.run('paths', '{"x": []}', stop_after => 'nobody')$$);
-- an unnamed body is `chain`
SELECT chaincall.run('translate', '{"text": "x"}', '{"chain": "mocked"}'), chaincall.run('translate', '{"text": "x"}', stop_after => 'chain');
CREATE FUNCTION body_each(x int) RETURNS jsonb LANGUAGE chaincall AS $chain$
each: x
on_error: {value: "{{item}}"}
steps:
  a: {value: "{{item.nothing}}"}
$chain$;
SELECT chaincall.run('body_each', '{"x": 2}', stop_after => 'chain'), chaincall.run('body_each', '{"x": 2}', '{"chain[0]": "item", "chain[1]/a": "a"}');

----------------------------------------------------------------------------------------------------------------------
-- Expressions and templates

-- a leading name is an input or a step, inside filters too; what may be many is an array
SELECT run_chain($$
value:
  one: "{{x.a[0].b}}"
  last: "{{x.a[last].b}}"
  all: "{{x.a[*].b}}"
  none: "{{x.a[*] ? (@.b > 100)}}"
  some: "{{x.a[*] ? (@.b > x.least).b}}"
  range: "{{x.a[0 to 1].b}}"
  any: "{{x.a.size()}}"
  sum: "{{x.a[0].b + x.a[1].b * 10}}"
  members: "{{x.*}}"
$$, '{"x": {"a": [{"b": 1}, {"b": 2}, {"b": 3}], "least": 1}}');
SELECT run_chain($$value: "{{x.c}}"$$, '{"x": {"a": 1}}');
SELECT run_chain($$value: "{{x[3]}}"$$, '{"x": [1]}');
SELECT run_chain($$value: "{{x.a.b}}"$$, '{"x": {"a": 1}}');
-- a condition is true or false; unknown is an error that shows both values
SELECT run_chain($${when: x > 3, value: 1}$$, '{"x": "10"}');
SELECT run_chain($${when: x.a == 1, value: 1}$$, '{"x": {}}');
SELECT run_chain($${when: x, value: 1}$$, '{"x": 1}');
SELECT run_chain($${when: x, value: 1}$$, '{"x": true}'), run_chain($${when: '!(x == 1) && x < 5', value: 1}$$, '{"x": 2}');
SELECT run_chain($${when: 'x like_regex "^A" flag "i" || x starts with "b"', value: 1}$$, '{"x": "abc"}');
SELECT run_chain($${when: 'exists(x[*] ? (@ > 2))', value: 1}$$, '{"x": [1, 3]}');
-- templates are expanded once: what came in is text, whatever it looks like
SELECT run_chain($$
steps:
  a: {model: echo, prompt: "Say: {{x}}"}
  b: {value: "{{a}} {{\"{{\"}}"}
$$, '{"x": "{{secret}} $chain$ \"}} '' ; DROP"}', 'x text');
SELECT run_chain($${sql: "SELECT {{x}} AS x, length({{x}})", returns: row}$$, '{"x": "''; DROP TABLE log; --"}', 'x text');
-- as text: texts as they are, numbers and booleans as JSON, arrays as their elements' texts, objects as JSON
SELECT run_chain($${model: echo, prompt: "{{x.t}} {{x.n}} {{x.b}} {{x.o}} {{x.a}}"}$$, '{"x": {"t": "t\"", "n": 1.50, "b": true, "o": {"k": "v"}, "a": ["one", 2, {"k": 3}]}}');
-- filters
SELECT run_chain($$
value: ["{{x.none | default(1)}}", "{{x.missing | default(\"d\")}}", "{{x.empty | default(x.t)}}", "{{x.none | default(x.missing) | default(x.t)}}",
  "{{x.a | join(\", \")}}", "{{x.a | json}}", "{{x.t | truncate(3)}}", "{{x.t | truncate(100)}}", "{{x.t | truncate(0)}}",
  "{{x.a | first(2)}}", "{{x.a | first(0)}}", "{{x.a | first(9)}}", "{{x.a | first(2) | join(\"+\") | truncate(2)}}"]
$$, '{"x": {"none": null, "empty": [], "t": "äöüß", "a": [1, "b", 3]}}');
SELECT run_chain($$value: "{{x | json}}"$$, '{"x": null}'), run_chain($$value: "{{x.a.b | default(null)}}"$$, '{"x": {}}'), run_chain($$value: "{{x | default(y) | truncate(1)}}"$$, '{"x": [], "y": "äb"}');
SELECT run_chain($$value: "{{x | join(\", \")}}"$$, '{"x": "text"}');
SELECT run_chain($$value: "{{x | first(1)}}"$$, '{"x": "text"}');
