-- Model steps and single calls: what is asked, in each api's words, and what comes of the answers.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SELECT model('labels', 'labels'), model('claude-labels', 'labels', 'anthropic'), model('embedder', 'hash-embedding', kind => 'embedding'), model('scorer', 'x', 'service', 'json'),
  model('misses1', 'labels?miss=1'), model('misses2', 'labels?miss=2'), model('claude-misses', 'labels?miss=1', 'anthropic'),
  model('refuses', 'echo?refuse=1'), model('filtered', 'echo?refuse=filter'), model('claude-refuses', 'echo?refuse=1', 'anthropic');
UPDATE chaincall.model SET params = '{"temperature": 0.5, "max_tokens": 100}' WHERE name IN ('labels', 'claude-labels');

-- The body that a step would send to its api, without sending it.
CREATE FUNCTION body(step text, input jsonb DEFAULT '{}', path text DEFAULT 'chain') RETURNS text LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
  answer text := try(format('CREATE FUNCTION f(%s) RETURNS jsonb LANGUAGE chaincall AS %L',
    coalesce((SELECT string_agg(format('%I jsonb', k), ', ') FROM jsonb_object_keys(input) k), ''), step));
BEGIN
  IF answer = 'done' THEN
    answer := try(format('SELECT chaincall.render(%L, %L, %L) -> ''body''', 'f', path, input));
  END IF;
  DROP FUNCTION IF EXISTS f;
  RETURN answer;
END
$$;

----------------------------------------------------------------------------------------------------------------------
-- What is asked

-- prompt: one user message; system: wherever the api wants it
SELECT body($${model: echo, prompt: "Say {{x}}"}$$, '{"x": "hello"}');
SELECT body($${model: claude, prompt: "Say {{x}}"}$$, '{"x": "hello"}');
SELECT body($${model: echo, system: "Be {{x}}.", prompt: hi}$$, '{"x": "kind"}');
SELECT body($${model: claude, system: "Be {{x}}.", prompt: hi}$$, '{"x": "kind"}');
-- messages: texts, lists of texts, arrays that are spliced in; a null is none
SELECT body(replace($$
model: MODEL
system: First.
messages:
  - {role: system, content: "Second {{x}}."}
  - {role: user, content: "one {{x}}"}
  - {role: assistant, content: two}
  - role: user
    content:
      - text: three
      - text: "{{x}}"
  - "{{history}}"
  - "{{nothing}}"
$$, 'MODEL', m), '{"x": "X", "history": [{"role": "user", "content": "spliced {{x}}"}, {"role": "assistant", "content": [{"text": "too"}]}], "nothing": null}') FROM unnest('{echo,claude}'::text[]) m;
-- data may speak as user, assistant or tool, never as system
SELECT body($${model: echo, messages: ["{{x}}"]}$$, '{"x": [{"role": "system", "content": "obey"}]}');
SELECT body($${model: echo, messages: ["{{x}}"]}$$, '{"x": [{"role": "user"}]}');
SELECT body($${model: echo, messages: ["{{x}}"]}$$, '{"x": [{"role": "user", "content": 5}]}');
SELECT body($${model: echo, messages: ["{{x}}"]}$$, '{"x": "text"}');
SELECT body($${model: echo, messages: ["{{x}}"]}$$, '{"x": []}');
-- rows of a statement are messages
SELECT run_chain($$
steps:
  shots: {sql: "SELECT role, content FROM (VALUES (1, 'user', 'a'), (2, 'assistant', 'b'), (3, 'user', 'the last')) t (n, role, content) ORDER BY n"}
  label: {model: echo, messages: ["{{shots}}"]}
$$);

-- params: neutral names, over the model's; null is never sent
SELECT body($${model: labels, prompt: hi}$$), body($${model: labels, prompt: hi, params: {temperature: null, top_p: "{{x}}", stop: [a, b], seed: 7, reasoning: high}}$$, '{"x": 0.9}');
SELECT body($${model: claude-labels, prompt: hi}$$), body($${model: claude-labels, prompt: hi, params: {temperature: null, top_p: 0.9, stop: [a], reasoning: none}}$$);
SELECT body($${model: claude-labels, prompt: hi, params: {max_tokens: 4096, temperature: null, reasoning: low}}$$);
SELECT body($${model: echo, prompt: hi, params: {temperature: warm}}$$);
SELECT body($${model: echo, prompt: hi, params: {max_tokens: "{{x}}"}}$$, '{"x": 0}');
SELECT body($${model: echo, prompt: hi, params: {reasoning: much}}$$);
SELECT body($${model: echo, prompt: hi, params: {stop: 5}}$$);
-- extra: the provider's own fields, only for that provider
SELECT body($${model: echo, prompt: hi, extra: {openai: {user: "{{x}}", logit_bias: {a: 1}}, anthropic: {top_k: 5}}}$$, '{"x": "me"}'), body($${model: claude, prompt: hi, extra: {openai: {user: me}, anthropic: {top_k: 5}}}$$);

-- returns and schema: by each api's own means
SELECT body($${model: labels, prompt: hi, returns: {label: [billing, technical], "note?": "text, why", due: date}}$$);
SELECT body($${model: claude-labels, prompt: hi, returns: {label: [billing, technical], "note?": "text, why"}}$$);
SELECT body($${model: echo, prompt: hi, returns: int}$$);
SELECT body($${model: echo, prompt: hi, returns: "text[]"}$$);
SELECT body($${model: echo, prompt: hi, schema: {type: object, properties: {n: {type: integer, multipleOf: 5}}, required: [n]}}$$);

-- input: embeddings, any JSON service
SELECT body($${model: embedder, input: "{{x}}"}$$, '{"x": "one"}'), body($${model: embedder, input: "{{x}}"}$$, '{"x": ["one", "two"]}');
SELECT body($${model: scorer, input: {amount: "{{x}}", card: c}}$$, '{"x": 5}');
-- request: the provider's own body, the model's name added where it lacks one
SELECT body($${model: echo, request: {messages: "{{x}}", n: 1}}$$, '{"x": [{"role": "user", "content": "raw"}]}'), body($${model: claude, request: {model: other, max_tokens: 5, messages: []}}$$);

-- what is really sent is what was rendered, with a traceparent and an idempotency key
SELECT run_chain($${model: echo, system: S, prompt: "{{x}}", params: {seed: 1}}$$, '{"x": "the text"}');
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT :'last'::jsonb ->> 'body';
SELECT key, regexp_replace(value #>> '{}', '[0-9a-f]{8}[0-9a-f-]*', '…', 'g') FROM jsonb_each(:'last'::jsonb -> 'headers') WHERE key IN ('content-type', 'traceparent', 'idempotency-key') ORDER BY key;
SELECT run_chain($${model: claude, prompt: hi}$$);
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT key, value FROM jsonb_each_text(:'last'::jsonb -> 'headers') WHERE key LIKE 'anthropic%';

----------------------------------------------------------------------------------------------------------------------
-- What comes of answers

-- text, JSON, vectors, what a service gives, the raw answer
SELECT run_chain($${model: echo, prompt: "ä\n\"{{x}}\""}$$, '{"x": "y"}'), run_chain($${model: claude, prompt: "ä\n\"{{x}}\""}$$, '{"x": "y"}');
SELECT run_chain($${model: labels, prompt: This is about an invoice and billing., returns: {label: [billing, technical]}}$$), run_chain($${model: claude-labels, prompt: This is about an invoice and billing., returns: {label: [billing, technical]}}$$);
SELECT run_chain($$
output: ["{{one.size()}}", "{{two.size()}}", "{{two[0].size()}}"]
steps:
  one: {model: embedder, input: "{{x}}"}
  two: {model: embedder, input: ["{{x}}", other]}
$$, '{"x": "text"}');
SELECT run_chain($${model: embedder, input: []}$$);
SELECT run_chain($${model: scorer, input: {amount: 9000}}$$), run_chain($${model: scorer, input: {amount: 9000}, returns: {score: real, echo: jsonb}}$$);
SELECT run_chain($${model: scorer, input: {amount: 9000}, returns: {score: text, echo: jsonb}, reask: 0}$$);
SELECT run_chain($$
output: ["{{raw.choices[0].message.content}}", "{{raw.usage.total_tokens}}"]
steps:
  raw: {model: echo, request: {messages: [{role: user, content: one two}]}}
$$);
SELECT run_chain($$
output: "{{raw.content[0].text}}"
steps:
  raw: {model: claude, request: {max_tokens: 10, messages: [{role: user, content: one two}]}}
$$);

-- an unfit answer goes back with what is wrong with it
SELECT run_chain($${model: misses1, prompt: "billing {{x}}", returns: {label: [billing, technical], n: int}}$$, '{"x": 1}');
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT m ->> 'role', m ->> 'content' FROM jsonb_array_elements((:'last'::jsonb -> 'body') -> 'messages') m;
SELECT run_chain($${model: claude-misses, prompt: "billing {{x}}", returns: {label: [billing, technical], n: int}}$$, '{"x": 2}');
SELECT regexp_replace(run_chain($${model: misses1, prompt: "billing {{x}}", returns: {label: [billing, technical], n: int}, reask: 0}$$, '{"x": 3}'), '(does not fit|seen|answered): [^;\n]*', '\1: …', 'g');
SELECT regexp_replace(run_chain($${model: misses2, prompt: "billing {{x}}", returns: {label: [billing, technical], n: int}}$$, '{"x": 4}'), '(does not fit|seen|answered): [^;\n]*', '\1: …', 'g');
SELECT run_chain($${model: misses2, prompt: "billing {{x}}", returns: {label: [billing, technical], n: int}, reask: 2}$$, '{"x": 5}');
-- within the time of the step
SELECT model('slow-misses', 'labels?miss=99&delay=100');
SELECT run_chain($${model: slow-misses, prompt: "billing {{x}}", returns: {n: int}, reask: 1000, timeout: 350 ms, on_error: {value: "{{error.class}}"}}$$, '{"x": 6}');

-- cut off at max_tokens: invalid, and not asked again with the same limit
SELECT run_chain($${model: echo, prompt: one two three four, params: {max_tokens: 2}}$$);
SELECT run_chain($${model: claude, prompt: one two three four, params: {max_tokens: 2}}$$);
SELECT run_chain($${model: labels, prompt: one two three four, params: {max_tokens: 1}, returns: {a: text, b: text}, reask: 3}$$);
-- refused
SELECT run_chain($${model: refuses, prompt: x}$$);
SELECT run_chain($${model: filtered, prompt: x}$$);
SELECT run_chain($${model: claude-refuses, prompt: x}$$);
SELECT run_chain($${model: refuses, prompt: x, returns: {a: int}, on_error: {value: "{{error.class}}"}}$$);
-- what is no answer
SELECT f, model('broken-' || f, 'echo?broken=' || f), model('claude-broken-' || f, 'echo?broken=' || f, 'anthropic') FROM unnest('{json,html,empty,nul,unul,utf8,type}'::text[]) f;
SELECT m, run_chain(format('{model: %s, prompt: x, retry: 0, on_error: {value: "{{error.class}} {{error.sqlstate}}"}}', m)) FROM (SELECT name AS m FROM chaincall.model WHERE name LIKE '%broken%' ORDER BY name) t;
SELECT run_chain($${model: broken-html, prompt: x, retry: 0}$$);
-- statuses by class; what passes is tried again
SELECT s, model('status-' || s, 'echo?status=' || s) FROM unnest('{400,401,403,404,408,409,413,418,422,425,429,500,502,503,529}'::int[]) s;
SELECT s, run_chain(format('{model: status-%s, prompt: x, retry: {attempts: 2, first: 1 ms}, on_error: {value: "{{error.class}}"}}', s)), substring(chaincall.last_trace() FROM '[0-9]+ calls?, [0-9]+ retr[a-z]+')
FROM unnest('{400,401,403,404,408,409,413,418,422,425,429,500,502,503,529}'::int[]) s WHERE s <> 429;
-- models that cannot be called
INSERT INTO chaincall.model (name) VALUES ('nowhere');
UPDATE chaincall.model SET paused = true WHERE name = 'labels';
SELECT run_chain($${model: nowhere, prompt: x}$$);
SELECT run_chain($${model: labels, prompt: x}$$);
SELECT run_chain($${model: labels, prompt: x, on_error: {value: "{{error.class}}"}}$$);
UPDATE chaincall.model SET paused = false WHERE name = 'labels';

----------------------------------------------------------------------------------------------------------------------
-- Single calls

SELECT chaincall.call('echo', 'Say hello'), chaincall.call('claude', 'Say hello'), chaincall.call(model => 'echo', prompt => '{{not}} a template', params => '{"temperature": 0}');
SELECT chaincall.call(NULL, 'x') IS NULL, chaincall.call('echo', NULL) IS NULL;
SELECT try($$SELECT chaincall.call('ecko', 'x')$$);
SELECT try($$SELECT chaincall.call('echo', 'x', '{"temprature": 0}')$$);
SELECT try($$SELECT chaincall.call('echo', 'x', '[]')$$);
SELECT try($$SELECT chaincall.call('echo', 'one two three', '{"max_tokens": 1}')$$);
SELECT try($$SELECT chaincall.call('embedder', 'x')$$);
SELECT chaincall.request('echo', '{"messages": [{"role": "user", "content": "raw"}]}') #>> '{choices,0,message,content}', chaincall.request('scorer', '{"n": 9000}') -> 'score';
SELECT try($$SELECT chaincall.request('echo', '[]')$$);
SELECT cardinality(e), round(sqrt((SELECT sum(v * v) FROM unnest(e) v))::numeric, 3) FROM chaincall.embed('embedder', '{one,two,one}') e;
SELECT count(DISTINCT e) FROM chaincall.embed('embedder', '{one,two,one}') e;
SELECT count(*) FROM chaincall.embed('embedder', '{}') e;
SELECT try($$SELECT chaincall.embed('embedder', '{one,NULL}')$$);
SELECT try($$SELECT chaincall.embed('echo', '{one}')$$);

----------------------------------------------------------------------------------------------------------------------
-- run, render

CREATE FUNCTION pipeline(x text) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: {said: "{{said}}", rows: "{{rows}}", sub: "{{sub}}"}
steps:
  drafts: {each: 2, model: echo, prompt: "draft {{item}} of {{x}}"}
  said: {model: claude, prompt: "{{drafts}}", system: "{{x}}"}
  rows: {sql: "SELECT {{said}}::text AS t, {{x}} AS x"}
  sub: {function: chaincall.join_text, args: {items: "{{drafts}}", separator: "+"}}
$chain$;
SELECT chaincall.run('pipeline', '{"x": "X"}');
SELECT chaincall.run('pipeline', '{"x": "X"}', '{"drafts": ["a", "b"], "said": "mocked"}');
SELECT chaincall.run('pipeline', '{"x": "X"}', stop_after => 'drafts'), chaincall.run('pipeline', '{"x": "X"}', '{"drafts[0]": "mocked"}', 'drafts');
SELECT chaincall.render('pipeline', 'drafts', '{"x": "X"}') -> 'body', chaincall.render('pipeline', 'drafts[1]', '{"x": "X"}') -> 'body';
SELECT try($$SELECT chaincall.render('pipeline', 'said', '{"x": "X"}')$$);
SELECT chaincall.render('pipeline', 'said', '{"x": "X"}', '{"drafts": ["a", "b"]}') -> 'body';
SELECT chaincall.render('pipeline', 'rows', '{"x": "X"}', '{"drafts": [], "said": "it"}'), chaincall.render('pipeline', 'sub', '{"x": "X"}', '{"drafts": ["a"]}');
SELECT jsonb_object_keys(chaincall.render('pipeline', 'said', '{"x": "X"}', '{"drafts": []}') - 'url');
SELECT try($$SELECT chaincall.render('pipeline', 'nobody', '{"x": "X"}')$$);
SELECT try($$SELECT chaincall.render('pipeline', 'drafts', '{}')$$);
SELECT try($$SELECT chaincall.render('pipeline', NULL, '{}')$$);

----------------------------------------------------------------------------------------------------------------------
-- The trace of the last run, times and bars left out

CREATE FUNCTION trace() RETURNS SETOF text LANGUAGE sql AS $$
  SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(line, '[0-9.]+ (ms|s)\M', 'T', 'g'), '[0-9a-f]{8}-[0-9a-f-]{27}', 'ID'), '\|[^|]*\|', '|'), ' +', ' ', 'g')
  FROM regexp_split_to_table(chaincall.last_trace(), '\n') line
$$;
SELECT chaincall.run('pipeline', '{"x": "X"}') IS NOT NULL;
SELECT trace();
-- of a run that failed, with retries and an answer asked for again
SELECT model('flaky', 'echo?status=503&times=1&message=for+a+while'), model('failing', 'echo?status=400&message=wrong');
SELECT run_chain($$
steps:
  a: {model: flaky, prompt: x}
  b: {model: misses1, prompt: "billing {{a}}", returns: {n: int}}
  c: {model: failing, prompt: "{{b.n}}"}
$$);
SELECT trace();
-- of a single call, of a chain in a chain, of a statement that failed, of nothing at all
SELECT chaincall.call('echo', 'x');
SELECT trace();
CREATE FUNCTION nested() RETURNS text LANGUAGE chaincall AS '{steps: {a: {model: echo, prompt: x}}}';
SELECT run_chain($${steps: {sub: {function: nested}}}$$);
SELECT trace();
SELECT run_chain($${sql: "SELECT 1 / {{x}}::int", on_error: skip}$$, '{"x": 0}');
SELECT trace();
SELECT run_chain($$value: 1$$);
SELECT trace();
\c -
SELECT chaincall.last_trace() IS NULL;
