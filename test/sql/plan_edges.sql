-- Where a run is cut short or looked into: mocked rounds, paths that are not there, stop_after, time-outs inside time-outs, cancels,
-- retries of called chains, spans of what failed.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all
SELECT model('slow', 'delay-30000');

-- a mocked round of a block has no steps inside, which the condition may want
CREATE FUNCTION rounds() RETURNS jsonb LANGUAGE chaincall AS $chain$
steps:
  best:
    until: review.score >= round
    steps:
      draft: {value: "draft {{round}}"}
      review: {value: {score: 3, of: "{{draft}}"}}
    output: "{{draft}}"
  more:
    each: 2
    until: round == item
    value: "{{item}}.{{round}}"
  end: {value: ["{{best}}", "{{more}}"]}
$chain$;
SELECT try($$SELECT chaincall.run('rounds', '{}', '{"best[1]": "mocked"}')$$);
SELECT chaincall.run('rounds', '{}', '{"best[1]/review": {"score": 0}, "best[2]/draft": "mocked"}');

-- paths that end in the wrong place
SELECT try($$SELECT chaincall.run('rounds', '{}', '{"end/arm[0]": 1}')$$);
CREATE FUNCTION arms() RETURNS jsonb LANGUAGE chaincall AS 'switch: [{value: 1}]';
SELECT try($$SELECT chaincall.run('arms', '{}', '{"chain/arm[1]": 1}')$$);
SELECT try($$SELECT chaincall.run('arms', '{}', '{"chain/arm[4294967000]": 1}')$$);
SELECT try($$SELECT chaincall.run('arms', '{}', '{"chain/arm[99999999999999999999]": 1}')$$);
SELECT chaincall.run('arms', '{}', '{"chain/arm[0]": 2}');

-- stop_after takes items and rounds; what is never reached stops nothing; nothing runs behind the step
SELECT chaincall.run('rounds', '{}', stop_after => 'more[1]') - 'best' - '{best[1]/draft,best[1]/review}'::text[];
SELECT chaincall.run('rounds', '{}', stop_after => 'more[1][1]') - 'best' - '{best[1]/draft,best[1]/review}'::text[];
SELECT chaincall.run('rounds', '{}', stop_after => 'more[1][9]');
CREATE FUNCTION number() RETURNS int LANGUAGE chaincall AS $chain$
steps:
  text: {value: not a number}
$chain$;
CREATE FUNCTION calls_number() RETURNS jsonb LANGUAGE chaincall AS 'steps: {n: {function: number}}';
SELECT chaincall.run('calls_number', '{}', stop_after => 'n/text');
SELECT try($$SELECT chaincall.run('calls_number', '{}')$$);

-- the body is `chain`, also where its steps stand alone; each handler has a path of its own
CREATE FUNCTION handled() RETURNS jsonb LANGUAGE chaincall AS $chain$
on_error: {value: inner handler}
steps:
  a: {sql: SELECT 1/0}
$chain$;
CREATE FUNCTION calls_handled() RETURNS jsonb LANGUAGE chaincall AS $chain$
on_error: {value: outer handler}
steps:
  s: {function: handled, on_error: {value: handler of the step}}
$chain$;
SELECT chaincall.run('calls_handled', '{}', stop_after => 'chain');
SELECT chaincall.run('calls_handled', '{}', '{"s/chain/on_error": "mocked"}'), chaincall.run('calls_handled', '{}', '{"s/on_error": "mocked"}'),
  chaincall.run('calls_handled', '{}', '{"chain": "mocked"}');

-- the name of a step that repeats is not the path of a step inside it
CREATE FUNCTION repeats() RETURNS jsonb LANGUAGE chaincall AS $chain$
each: 2
steps:
  text: {model: echo, prompt: "{{item}}"}
$chain$;
SELECT try($$SELECT chaincall.render('repeats', 'chain', '{}')$$);
SELECT chaincall.render('repeats', 'chain[1]/text', '{}') #> '{body,messages}';

-- work that needs nobody is cancelled and timed out like any other
CREATE FUNCTION forever(t jsonb) RETURNS jsonb LANGUAGE chaincall AS $chain$
until: t.done
max: 2000000000
value: 1
$chain$;
SET statement_timeout = '100 ms';
SELECT chaincall.run('forever', '{"t": {"done": false}}');
RESET statement_timeout;
SELECT run_chain($$
timeout: 50 ms
function: forever
args: {t: {done: false}}
$$);

-- a time-out is that of the outermost step whose time is up: on_error inside does not go on in a chain that is over
SELECT run_chain($$
timeout: 50 ms
on_error: {value: "{{error.class}} at {{error.step}}"}
steps:
  a: {sql: SELECT pg_sleep(30), on_error: skip}
  b: {value: went on, after: a}
$$);
SELECT run_chain($$
timeout: 50 ms
on_error: {value: "{{error.class}}"}
steps:
  a: {model: slow, prompt: x, on_error: skip}
  b: {value: went on, after: a}
$$);
SELECT run_chain($$
timeout: 1 h
steps:
  a: {sql: SELECT pg_sleep(30), timeout: 50 ms, on_error: skip}
  b: {value: went on, after: a}
output: "{{b}}"
$$);

-- one time-out is one cancel, however long it takes to undo what it ended
CREATE FUNCTION many_slow() RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{calls}}", "{{rest}}"]
steps:
  calls: {each: 300, model: slow, prompt: "{{item}}"}
  rest: {sql: SELECT pg_sleep(30), timeout: 1 h}
$chain$;
CREATE FUNCTION call_many_slow() RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN many_slow(); END';
SELECT run_chain($$
output: ["{{a}}", "{{b}}"]
steps:
  a: {function: call_many_slow, timeout: 200 ms, on_error: {value: "{{error.class}}"}}
  b: {sql: "SELECT 'not cancelled' FROM pg_sleep(0.01)", returns: value, after: a}
$$);

-- conditions of a switch are bounded in time too
SELECT run_chain($$
switch:
  - when: x like_regex "^(..*)(..*)(..*)(..*)x\\4\\3\\2\\1$"
    value: 1
on_error: {value: "{{error.class}}: {{error.message}}"}
$$, jsonb_build_object('x', repeat('ab', 150) || 'x' || repeat('ab', 149)));

-- a retry of a called chain holds for the statements in it
CREATE SEQUENCE tries;
CREATE FUNCTION third_time() RETURNS jsonb LANGUAGE chaincall AS $chain$
sql: SELECT 1 / (nextval('tries') / 3) AS done
returns: value
$chain$;
SELECT run_chain('{function: third_time, retry: {attempts: 3, first: 1 ms}}');
SELECT setval('tries', 1, false);
SELECT run_chain('{function: third_time, retry: {attempts: 2, first: 1 ms}}');

-- what failed has its error in its span, whether or not anything caught it
SELECT try($$SELECT third_time()$$ ) FROM setval('tries', 1, false);
SELECT chaincall.last_trace() ~ 'chain +sql .* sql +\|.*division by zero';
