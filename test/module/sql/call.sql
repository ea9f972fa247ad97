-- Model calls without a chain around them: attempts, routes, slots, time, and what is left behind
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
CREATE SCHEMA call_test;
SET search_path = call_test, public, chaincall_test;
\getenv url CHAINCALL_TEST_URL
\set openai :url /v1
\pset format unaligned
\pset tuples_only on

CREATE SERVER stub FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url :'openai');
CREATE SERVER narrow FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url :'openai', max_in_flight '2');
CREATE SERVER nobody FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://127.0.0.1:1/v1');
CREATE SERVER anthropic FOREIGN DATA WRAPPER chaincall OPTIONS (api 'anthropic', url :'url');
CREATE SERVER json FOREIGN DATA WRAPPER chaincall OPTIONS (api 'http', url :'url', path '/json');
CREATE USER MAPPING FOR PUBLIC SERVER stub OPTIONS (api_key 'sk-secret');
CREATE USER MAPPING FOR PUBLIC SERVER anthropic OPTIONS (api_key 'sk-ant-secret');

-- a model for each way of failing: what the server is to do stands behind the name of its model
CREATE FUNCTION add(model text, VARIADIC remote text[]) RETURNS void LANGUAGE sql AS $$
	INSERT INTO chaincall.model (name) VALUES (model);
	INSERT INTO chaincall.endpoint (model, server, remote_name)
	SELECT model, split_part(r, ' ', 1), split_part(r, ' ', 2) FROM unnest(remote) r;
$$;
DO $$ BEGIN PERFORM add(model, VARIADIC string_to_array(remote, '; ')) FROM (VALUES
	('echo', 'stub echo'), ('claude', 'anthropic echo'), ('claude-labels', 'anthropic labels?miss=1'),
	('flaky', 'stub echo?status=503&times=2'), ('down', 'stub echo?status=500'), ('overloaded', 'stub echo?status=429&retry_after=0&times=3'),
	('limited', 'stub echo?status=429&retry_after=100'), ('busy', 'stub echo?status=503&retry_after=100'),
	('bad', 'stub echo?status=400&message=wrong'), ('leaky', 'stub echo?status=401&message=key+sk-secret+is+wrong'),
	('unauthorized', 'stub echo?status=401'), ('two_keys', 'stub echo?status=401; narrow echo'), ('no_key', 'stub echo?status=403; narrow echo?status=403'),
	('half_down', 'stub echo?status=500; narrow echo'), ('gone', 'nobody echo'), ('moved', 'stub echo?redirect=http://127.0.0.1:1/'),
	('reset', 'stub echo?reset=mid&times=1'), ('html', 'stub echo?broken=html'), ('empty', 'stub echo?broken=empty'), ('refusing', 'stub echo?refuse=1'),
	('large', 'stub echo?size=20000000'), ('labels', 'stub labels'), ('misses1', 'stub labels?miss=1'), ('misses9', 'stub labels?miss=9'), ('babbling', 'stub labels?broken=deeptext'),
	('hanging', 'stub echo?hang=1'), ('stuck', 'narrow echo?hang=1'), ('slow', 'narrow delay-200'), ('quick', 'stub delay-30'), ('json', 'json any'),
	('paused', 'stub echo'), ('nowhere', NULL), ('weighted', 'stub echo; narrow echo; nobody echo')) t (model, remote); END $$;
DELETE FROM chaincall.endpoint WHERE model = 'nowhere';
UPDATE chaincall.model SET paused = true WHERE name = 'paused';
UPDATE chaincall.model SET kind = 'json' WHERE name = 'json';
UPDATE chaincall.endpoint SET weight = CASE server WHEN 'stub' THEN 3 WHEN 'narrow' THEN 1 ELSE 0 END WHERE model = 'weighted';

-- What came of calls, a line each, and the attempts they took
CREATE FUNCTION show(options jsonb) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	r jsonb := chaincall_test.call(options);
BEGIN
	RETURN QUERY SELECT coalesce(e ->> 'output', concat_ws(E'\n  ', e #>> '{error,class}', e #>> '{error,message}', e #>> '{error,detail}', e #>> '{error,hint}'))
		FROM jsonb_array_elements(r -> 'results') e;
	RETURN NEXT (SELECT string_agg(s, '; ') FROM jsonb_array_elements_text(r -> 'spans') s);
END
$$;

-- answers
SELECT show('{"model": "echo", "prompt": "Grüße", "n": 3}');
SELECT show('{"model": "claude", "prompt": "Grüße"}');
SELECT show('{"model": "json", "input": {"a": 1}}');
SELECT show('{"model": "echo", "request": {"model": "fixed", "messages": [{"role": "user", "content": "x"}]}}') ~ '"A fixed answer\."';

-- what passes is tried again, what does not is not
SELECT show('{"model": "flaky", "prompt": "x"}');
SELECT show('{"model": "flaky", "prompt": "x", "attempts": 2}');
SELECT show('{"model": "flaky", "prompt": "x", "attempts": 1}');
SELECT show('{"model": "down", "prompt": "x", "attempts": 3}');
SELECT show('{"model": "reset", "prompt": "x"}');
SELECT show('{"model": "bad", "prompt": "x"}');
SELECT show('{"model": "moved", "prompt": "x"}');
SELECT show('{"model": "html", "prompt": "x"}');
SELECT show('{"model": "empty", "prompt": "x"}');
SELECT show('{"model": "refusing", "prompt": "x"}');
SELECT show('{"model": "large", "prompt": "x"}');
SELECT show('{"model": "echo", "prompt": "one two three four", "params": {"max_tokens": 2}}');
SELECT regexp_replace(show('{"model": "gone", "prompt": "x", "attempts": 2}'), '(cannot be reached|seen): [^\n]*', '\1: …', 'g');

-- being throttled uses up no attempt, but time
SELECT show('{"model": "overloaded", "prompt": "x", "attempts": 2}');
SELECT show('{"model": "limited", "prompt": "x", "timeout": 60000}');
SELECT show('{"model": "busy", "prompt": "x", "timeout": 60000}');

-- another endpoint after a failure, another server after a refused key; a key is never shown
SELECT call('{"model": "half_down", "prompt": "x"}') #>> '{results,0,output}' FROM generate_series(1, 4);
SELECT call('{"model": "two_keys", "prompt": "x"}') #>> '{results,0,output}' FROM generate_series(1, 2);
SELECT call('{"model": "no_key", "prompt": "x"}') #>> '{results,0,error,class}';
SELECT show('{"model": "leaky", "prompt": "x"}');

-- weights; an endpoint of weight 0 gets nothing
SELECT right(s, 6), count(*) FROM jsonb_array_elements_text(call('{"model": "weighted", "prompt": "x", "n": 40}') -> 'spans') s GROUP BY 1 ORDER BY 2;

-- an answer that does not fit is asked for again
\set labels '{"schema": {"type": "object", "properties": {"label": {"enum": ["billing", "technical"]}}, "required": ["label"], "additionalProperties": false}}'
SELECT show('{"model": "labels", "prompt": "a billing question for labels"}'::jsonb || :'labels');
SELECT show('{"model": "misses1", "prompt": "a billing question for misses1"}'::jsonb || :'labels');
SELECT show('{"model": "claude-labels", "prompt": "a billing question for claude-labels"}'::jsonb || :'labels');
SELECT r #>> '{results,0,error,class}', r -> 'spans' FROM call('{"model": "babbling", "prompt": "x"}'::jsonb || :'labels') r;
SELECT call('{"model": "misses9", "prompt": "a technical question", "reask": 2}'::jsonb || :'labels') #>> '{results,0,error,class}';
SELECT jsonb_array_length(call('{"model": "misses9", "prompt": "a technical question", "reask": 2}'::jsonb || :'labels') -> 'spans');
SELECT jsonb_array_length(call('{"model": "misses9", "prompt": "another technical question", "reask": 0}'::jsonb || :'labels') -> 'spans');
SELECT show('{"model": "json", "input": {"a": 1}, "reask": 1, "schema": {"type": "array"}}');

-- time: the step's and the model's
SELECT show('{"model": "hanging", "prompt": "x", "timeout": 50}');
SELECT show('{"model": "echo", "prompt": "x", "timeout": 0}');
UPDATE chaincall.model SET timeout = '50 ms' WHERE name = 'hanging';
SELECT show('{"model": "hanging", "prompt": "x"}');
-- waiting for a slot does not count against the server (seven rounds of 200 ms)
UPDATE chaincall.model SET timeout = '1 s' WHERE name = 'slow';
SELECT r -> 'at_once', count(e -> 'output') FROM call('{"model": "slow", "prompt": "x", "n": 14, "attempts": 1}') r, jsonb_array_elements(r -> 'results') e GROUP BY 1;
-- but does against the step
SELECT e #>> '{error,class}', e #>> '{error,message}' FROM jsonb_array_elements(call('{"model": "stuck", "prompt": "x", "n": 4, "timeout": 50}') -> 'results') e;
-- what lay in the socket while nobody looked is not late
SELECT call_late('{"model": "quick", "prompt": "x", "timeout": 500, "busy": 700}') #>> '{results,0,output}';

-- what is wrong with the model, the step or the caller
SELECT show('{"model": "paused", "prompt": "x"}');
SELECT show('{"model": "nowhere", "prompt": "x"}');
SELECT show('{"model": "ecco", "prompt": "x"}');
SELECT show('{"model": "echo", "prompt": "x", "params": {"temperature": "hot"}}');
SET client_min_messages = error;
DROP ROLE IF EXISTS chaincall_test_stranger;
CREATE ROLE chaincall_test_stranger;
RESET client_min_messages;
GRANT USAGE ON SCHEMA chaincall, chaincall_test TO chaincall_test_stranger;
SET ROLE chaincall_test_stranger;
SELECT chaincall_test.call('{"model": "echo", "prompt": "x"}');
RESET ROLE;

-- runs within runs share slots and the loop, not callbacks
SELECT jsonb_path_query_array(call_nested('{"model": "slow", "prompt": "x", "n": 3, "attempts": 1}', '{"model": "slow", "prompt": "x", "n": 2, "attempts": 1}'), '$[*].results[*].output');

-- nothing is left in the air
SELECT call_leave('{"model": "hanging", "prompt": "x", "n": 3}', 'destroy');
SELECT call_leave('{"model": "hanging", "prompt": "x", "n": 3}', 'forget');
SELECT call_leave('{"model": "slow", "prompt": "x", "n": 5}', 'forget');
SELECT call_leave('{"model": "down", "prompt": "x", "n": 3}', 'error');
SELECT show('{"model": "slow", "prompt": "x", "n": 3}');

-- the request as it would be sent
SELECT call_render('{"model": "claude", "prompt": "x", "system": "Be brief.", "extra": {"anthropic": {"top_k": 3}, "openai": {"n": 1}}}') #- '{url}';
SELECT call_render('{"model": "nowhere", "prompt": "x"}');

DROP OWNED BY chaincall_test_stranger;
DROP ROLE chaincall_test_stranger;
SET client_min_messages = warning;
DROP SCHEMA call_test CASCADE;
DROP SERVER stub, narrow, nobody, anthropic, json CASCADE;
DELETE FROM chaincall.model;
