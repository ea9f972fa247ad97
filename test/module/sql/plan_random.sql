-- Random chains against a plain evaluator: blocks, fan-outs, rounds, switches, handlers, retries, time-outs, chains in chains, and
-- leaves that fail. What they give must be what the language says, twice, and again with every output mocked; nothing may be left
-- in the air. The seeds are fixed; to look for more: psql -v seeds='generate_series(1000, 2000)' -f plan_random.sql
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
CREATE SCHEMA plan_random;
SET search_path = plan_random, public, chaincall_test;
\getenv url CHAINCALL_TEST_URL
\set openai :url /v1
\if :{?seeds}
\else
\set seeds 'generate_series(1, 60)'
\endif
\pset format unaligned
\pset tuples_only on

CREATE SERVER random_stub FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url :'openai');
INSERT INTO chaincall.model (name) SELECT 'random-' || m FROM unnest('{echo,bad,flaky,slow}'::text[]) m;
INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES
	('random-echo', 'random_stub', 'echo'), ('random-bad', 'random_stub', 'echo?status=400'),
	('random-flaky', 'random_stub', 'echo?status=503&times=1'), ('random-slow', 'random_stub', 'delay-30000');

CREATE TABLE body (name text PRIMARY KEY, body jsonb);
CREATE SEQUENCE step_number;

-- The generator --------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION chance(percent int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT random() * 100 < percent';
CREATE FUNCTION pick(names text[]) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT names[1 + floor(random() * cardinality(names))::int]';
CREATE FUNCTION same(a jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT a';
CREATE FUNCTION fail(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no''; END';

-- a leaf that names one of `names`
CREATE FUNCTION make_leaf(names text[], chains text[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	name text := pick(names);
	hole text := '{{' || name || '}}';
	words text := 't {{' || name || ' | json}}';
BEGIN
	RETURN CASE floor(random() * 18)::int
		WHEN 0 THEN jsonb_build_object('value', floor(random() * 4))
		WHEN 1 THEN jsonb_build_object('value', jsonb_build_object('k', hole, 'l', jsonb_build_array(hole, words)))
		WHEN 2 THEN jsonb_build_object('value', jsonb_build_array(1, hole, 'x'))
		WHEN 3 THEN jsonb_build_object('value', words)
		WHEN 4 THEN jsonb_build_object('value', hole)
		WHEN 5 THEN jsonb_build_object('sql', 'SELECT ' || hole || '::jsonb', 'returns', 'value')
		WHEN 6 THEN jsonb_build_object('sql', 'SELECT ' || hole || '::jsonb AS v', 'returns', 'row', 'retry', 1)
		WHEN 7 THEN jsonb_build_object('function', 'plan_random.same', 'args', jsonb_build_object('a', hole))
		WHEN 8 THEN jsonb_build_object('sql', 'SELECT 1/0', 'retry', '{"attempts": 2, "first": "1 ms"}'::jsonb)
		WHEN 9 THEN jsonb_build_object('value', '{{' || name || '.not_there}}')
		WHEN 10 THEN jsonb_build_object('function', 'plan_random.fail', 'args', jsonb_build_object('a', hole))
		WHEN 11 THEN jsonb_build_object('model', 'random-bad', 'prompt', 'x')
		WHEN 12 THEN jsonb_build_object('model', 'random-flaky', 'prompt', words, 'retry', '{"attempts": 3, "first": "1 ms"}'::jsonb)
		WHEN 13 THEN CASE WHEN chance(50) THEN '{"model": "random-slow", "prompt": "x", "timeout": "5 ms"}'::jsonb
			ELSE '{"sql": "SELECT pg_sleep(30)", "timeout": "5 ms"}' END
		WHEN 14 THEN CASE WHEN chains = '{}' THEN jsonb_build_object('value', hole)
			ELSE jsonb_build_object('function', 'plan_random.' || pick(chains), 'args', jsonb_build_object('a', hole)) END
		ELSE jsonb_build_object('model', 'random-echo', 'prompt', words)
	END;
END
$$;

CREATE FUNCTION make_step(self text, names text[], chains text[], depth int, arm boolean DEFAULT false) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	inner_names text[] := names;
	item_names text[];
	modifiers jsonb := '{}';
	body jsonb;
	children jsonb := '{}';
	arms jsonb := '[]';
	outputs jsonb := '{}';
	name text;
	child jsonb;
BEGIN
	IF chance(15) OR arm AND chance(80) THEN
		modifiers := modifiers || jsonb_build_object('when', pick(names) || pick('{" == null"," != null"," != null"}'));
	END IF;
	IF chance(25) THEN
		modifiers := modifiers || jsonb_build_object('each', CASE WHEN chance(60) THEN to_jsonb(floor(random() * 4)) ELSE to_jsonb(pick(names)) END);
		inner_names := inner_names || '{item,index}'::text[];
		IF chance(30) THEN
			modifiers := modifiers || jsonb_build_object('max_parallel', 1 + floor(random() * 2));
		END IF;
	END IF;
	item_names := inner_names;
	IF chance(20) THEN
		IF self IS NOT NULL AND chance(30) THEN
			modifiers := modifiers || jsonb_build_object('until', self || pick('{" != null"," == null"}'), 'max', 2);
		ELSE
			modifiers := modifiers || jsonb_build_object('until', 'round == ' || 1 + floor(random() * 3), 'max', 1 + floor(random() * 3));
		END IF;
		inner_names := inner_names || 'round'::text || CASE WHEN self IS NULL THEN '{}' ELSE ARRAY[self] END;
	END IF;
	IF chance(10) THEN
		modifiers := modifiers || '{"timeout": "1 h"}';
	END IF;
	IF chance(35) THEN
		modifiers := modifiers || jsonb_build_object('on_error', CASE WHEN chance(50) THEN '"skip"'::jsonb
			WHEN chance(50) THEN '{"value": "caught"}' ELSE make_step(NULL, item_names, chains, depth - 1) END);
	END IF;

	IF depth <= 0 OR chance(35) THEN
		body := make_leaf(inner_names, chains);
	ELSIF chance(25) THEN
		FOR i IN 1 .. 1 + floor(random() * 3) LOOP
			child := make_step(NULL, inner_names, chains, depth - 1, true);
			arms := arms || child;
			EXIT WHEN NOT child ? 'when';
		END LOOP;
		body := jsonb_build_object('switch', arms);
	ELSE
		FOR i IN 1 .. 1 + floor(random() * 4) LOOP
			name := 's' || nextval('step_number');
			child := make_step(name, inner_names, chains, depth - 1);
			IF i > 1 AND chance(15) THEN
				child := child || jsonb_build_object('after', ARRAY[pick(ARRAY(SELECT jsonb_object_keys(children)))]);
			END IF;
			children := children || jsonb_build_object(name, child);
			outputs := outputs || jsonb_build_object(name, '{{' || name || '}}');
			inner_names := inner_names || name;
		END LOOP;
		body := jsonb_build_object('steps', children, 'output', outputs);
	END IF;
	/* a leaf may have a time-out or retry of its own */
	RETURN modifiers || body;
END
$$;

-- The language, as plainly as can be -----------------------------------------------------------------------------------------------

CREATE FUNCTION expand(template jsonb, env jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	source text := template #>> '{}';
	name text := substring(source FROM '\{\{(\w+)');
BEGIN
	CASE jsonb_typeof(template)
		WHEN 'object' THEN
			RETURN (SELECT coalesce(jsonb_object_agg(key, expand(value, env)), '{}') FROM jsonb_each(template));
		WHEN 'array' THEN
			RETURN (SELECT coalesce(jsonb_agg(expand(value, env) ORDER BY n), '[]') FROM jsonb_array_elements(template) WITH ORDINALITY e(value, n));
		ELSE
			IF source LIKE '%.not\_there%' THEN
				RAISE 'missing';
			ELSIF name IS NULL THEN
				RETURN template;
			ELSIF NOT env ? name THEN
				RAISE EXCEPTION USING ERRCODE = 'assert_failure', MESSAGE = format('%s is not in %s', name, env);
			END IF;
			RETURN CASE WHEN source LIKE 't %' THEN to_jsonb('t ' || (env -> name)::text) ELSE env -> name END;
	END CASE;
END
$$;

CREATE FUNCTION holds(condition text, env jsonb) RETURNS boolean LANGUAGE sql AS $$
	SELECT CASE WHEN condition LIKE 'round == %' THEN env ->> 'round' = split_part(condition, ' ', 3)
		ELSE (env -> split_part(condition, ' ', 1) = 'null') = (condition LIKE '%==%') END
$$;

CREATE FUNCTION evaluate_body(step jsonb, env jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	name text;
	arm jsonb;
	inner_env jsonb := env;
BEGIN
	IF step ? 'value' THEN
		RETURN expand(step -> 'value', env);
	ELSIF step ? 'sql' THEN
		IF step ->> 'sql' ~ '1/0|pg_sleep' THEN
			RAISE 'failed';
		END IF;
		arm := expand(step -> 'sql', env);
		RETURN CASE WHEN step ->> 'returns' = 'row' THEN jsonb_build_object('v', arm) ELSE arm END;
	ELSIF step ->> 'function' = 'plan_random.same' THEN
		RETURN expand(step #> '{args,a}', env);
	ELSIF step ->> 'function' = 'plan_random.fail' OR step ->> 'model' IN ('random-bad', 'random-slow') THEN
		RAISE 'failed';
	ELSIF step ? 'function' THEN
		RETURN evaluate((SELECT b.body FROM body b WHERE 'plan_random.' || b.name = step ->> 'function'), NULL, jsonb_build_object('a', expand(step #> '{args,a}', env)));
	ELSIF step ? 'model' THEN
		RETURN expand(step -> 'prompt', env);
	ELSIF step ? 'switch' THEN
		FOR arm IN SELECT jsonb_array_elements(step -> 'switch') LOOP
			IF NOT arm ? 'when' OR holds(arm ->> 'when', env) THEN
				RETURN evaluate(arm - 'when', NULL, env);
			END IF;
		END LOOP;
		RETURN 'null';
	END IF;
	/* names are numbered in the order in which they may be used */
	FOR name IN SELECT k FROM jsonb_object_keys(step -> 'steps') k ORDER BY substr(k, 2)::int LOOP
		inner_env := inner_env || jsonb_build_object(name, evaluate(step -> 'steps' -> name, name, inner_env));
	END LOOP;
	RETURN expand(step -> 'output', inner_env);
END
$$;

CREATE FUNCTION evaluate_item(step jsonb, self text, env jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	output jsonb := 'null';
	inner_env jsonb;
BEGIN
	IF NOT step ? 'until' THEN
		RETURN evaluate_body(step, env);
	END IF;
	FOR round IN 1 .. (step ->> 'max')::int LOOP
		inner_env := env || jsonb_build_object('round', round);
		IF self IS NOT NULL THEN
			inner_env := inner_env || jsonb_build_object(self, output);
		END IF;
		output := evaluate_body(step, inner_env);
		IF self IS NOT NULL THEN
			inner_env := inner_env || jsonb_build_object(self, output);
		END IF;
		IF holds(step ->> 'until', inner_env) THEN
			RETURN output;
		END IF;
	END LOOP;
	RAISE 'limit';
END
$$;

CREATE FUNCTION evaluate_caught(step jsonb, self text, env jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN evaluate_item(step, self, env);
EXCEPTION WHEN raise_exception THEN
	IF NOT step ? 'on_error' THEN
		RAISE;
	ELSIF step ->> 'on_error' = 'skip' THEN
		RETURN 'null';
	END IF;
	RETURN evaluate(step -> 'on_error', NULL, env);
END
$$;

CREATE FUNCTION evaluate(step jsonb, self text, env jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	items jsonb;
	outputs jsonb := '[]';
BEGIN
	IF step ? 'when' AND NOT holds(step ->> 'when', env) THEN
		RETURN 'null';
	ELSIF NOT step ? 'each' THEN
		RETURN evaluate_caught(step, self, env);
	END IF;
	items := CASE WHEN jsonb_typeof(step -> 'each') = 'number' THEN step -> 'each' ELSE env -> (step ->> 'each') END;
	CASE jsonb_typeof(items)
		WHEN 'null' THEN
			items := '[]';
		WHEN 'number' THEN
			items := (SELECT coalesce(jsonb_agg(i), '[]') FROM generate_series(1, items::int) i);
		WHEN 'array' THEN
		ELSE
			RAISE 'no array';
	END CASE;
	FOR i IN 0 .. jsonb_array_length(items) - 1 LOOP
		outputs := outputs || jsonb_build_array(evaluate_caught(step, self, env || jsonb_build_object('item', items -> i, 'index', i)));
	END LOOP;
	RETURN outputs;
END
$$;

-- The comparison -------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION run_caught(chain text, input jsonb, mock jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN coalesce(chaincall.run(chain, input, mock => mock), 'null');
EXCEPTION WHEN OTHERS THEN
	RETURN jsonb_build_object('failed', CASE WHEN SQLSTATE IN ('P0001', '22012', 'MC003', 'MC006', 'MC007', 'MC008') THEN '' ELSE SQLSTATE || SQLERRM END);
END
$$;

CREATE FUNCTION evaluate_all(body jsonb, input jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
	RETURN evaluate(body, NULL, input);
EXCEPTION WHEN raise_exception THEN
	RETURN '{"failed": ""}';
END
$$;

CREATE FUNCTION create_random(name text, chains text[], depth int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO body VALUES (name, make_step(NULL, '{a}', chains, depth));
	EXECUTE format('CREATE FUNCTION %I(a jsonb) RETURNS jsonb LANGUAGE chaincall AS %L', name, (SELECT jsonb_pretty(b.body) FROM body b WHERE b.name = create_random.name));
END
$$;

-- the outputs by path up to a step of the outermost block
CREATE FUNCTION outputs_of(chain text, input jsonb) RETURNS jsonb LANGUAGE sql AS $$
	SELECT chaincall.run(chain, input, stop_after => CASE WHEN b.body ? 'steps' AND NOT b.body ?| '{each,until}'
		THEN pick(ARRAY(SELECT jsonb_object_keys(b.body -> 'steps'))) ELSE 'chain' END)
	FROM body b WHERE b.name = chain
$$;

-- what is wrong with the chain of a seed, or nothing
CREATE FUNCTION try_seed(seed int) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
	chain text := 'c' || seed;
	input jsonb := jsonb_build_object('a', '[null, 2, [1, "two"], {"x": "y"}, "text"]'::jsonb -> seed % 5);
	expected jsonb;
	actual jsonb;
	outputs jsonb;
BEGIN
	PERFORM setseed(seed / 1e6), setval('step_number', 1);
	PERFORM create_random(chain || '_in', '{}', 2);
	PERFORM create_random(chain || '_mid', ARRAY[chain || '_in'], 2);
	PERFORM create_random(chain, ARRAY[chain || '_in', chain || '_mid'], 4);
	expected := evaluate_all((SELECT b.body FROM body b WHERE b.name = chain), input);
	FOR i IN 1 .. 2 LOOP
		actual := run_caught(chain, input);
		IF actual <> expected THEN
			RETURN NEXT format('seed %s, run %s: %s instead of %s', seed, i, actual, expected);
		END IF;
	END LOOP;
	IF NOT expected ? 'failed' THEN
		outputs := outputs_of(chain, input);
		actual := run_caught(chain, input, outputs);
		IF actual <> expected THEN
			RETURN NEXT format('seed %s, with the outputs %s: %s instead of %s', seed, outputs, actual, expected);
		END IF;
		outputs := (SELECT jsonb_object_agg(key, value) FROM jsonb_each(outputs) WHERE key LIKE '%/%');
		actual := run_caught(chain, input, coalesce(outputs, '{}'));
		IF actual <> expected THEN
			RETURN NEXT format('seed %s, with the inner outputs %s: %s instead of %s', seed, outputs, actual, expected);
		END IF;
	END IF;
	IF (SELECT in_flight FROM chaincall_test_http_state()) <> 0 THEN
		RETURN NEXT format('seed %s: calls are left in the air', seed);
	END IF;
END
$$;

SELECT try_seed(seed) FROM :seeds seed;
SELECT count(*) AS chains, count(*) FILTER (WHERE evaluate_all(body, '{"a": 1}') ? 'failed') > 0 AS some_fail FROM body;
