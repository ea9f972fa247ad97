-- What the regression tests start from, whatever ran before: a fresh extension, the stand-in model server under its three
-- apis, a schema of their own, and functions that show errors. Included by \i; the tests leave no trace of the server's port.
SET client_min_messages = warning;
DROP SCHEMA IF EXISTS chaincall_regress CASCADE;
DROP EXTENSION IF EXISTS chaincall CASCADE;
CREATE EXTENSION chaincall;
CREATE SCHEMA chaincall_regress;
SET search_path = chaincall_regress, public;
\pset format unaligned
\pset tuples_only on
\pset null NULL

\getenv url CHAINCALL_TEST_URL
\set openai_url :url /v1
CREATE SERVER openai FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url :'openai_url');
CREATE SERVER anthropic FOREIGN DATA WRAPPER chaincall OPTIONS (api 'anthropic', url :'url');
CREATE SERVER service FOREIGN DATA WRAPPER chaincall OPTIONS (api 'http', url :'url', path '/json');

-- Adds a model. What the stand-in server is to do wrong stands behind the name it has there: 'echo?status=503&times=2'.
CREATE FUNCTION model(name text, remote text, server text DEFAULT 'openai', kind text DEFAULT 'chat') RETURNS void LANGUAGE sql AS $$
  INSERT INTO chaincall.model (name, kind, retry) VALUES (name, kind, '{"first": "1 ms"}');
  INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES (name, server, remote);
$$;
DO $$ BEGIN PERFORM model('echo', 'echo'), model('claude', 'echo', 'anthropic'); END $$;

-- An error as text: SQLSTATE and message, then detail, hint and those lines of the context that chaincall has written.
CREATE FUNCTION error_text(state text, message text, detail text, hint text, context text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT state || ': ' || message || coalesce(E'\n  detail: ' || nullif(detail, ''), '') || coalesce(E'\n  hint: ' || nullif(hint, ''), '')
    || coalesce((SELECT string_agg(E'\n  at: ' || line, '' ORDER BY n)
                 FROM regexp_split_to_table(context, E'\n') WITH ORDINALITY t (line, n) WHERE line ~ '^(chain|step) '), '')
$$;

-- What a statement gives: the value of its first row, `done` for what is no query, or its error.
CREATE FUNCTION try(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text; context text; result text := 'done';
BEGIN
  IF statement ~* '^\s*(SELECT|WITH|VALUES)' THEN
    EXECUTE statement INTO result;
  ELSE
    EXECUTE statement;
  END IF;
  RETURN coalesce(result, 'NULL');
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
    hint = PG_EXCEPTION_HINT, context = PG_EXCEPTION_CONTEXT;
  RETURN error_text(state, message, detail, hint, context);
END
$$;

-- What CREATE FUNCTION says to a body: `done`, or its error.
CREATE FUNCTION create_chain(body text, args text DEFAULT 'x jsonb', result text DEFAULT 'jsonb', attributes text DEFAULT '') RETURNS text
LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
  answer text := try(format('CREATE FUNCTION f(%s) RETURNS %s LANGUAGE chaincall %s AS %L', args, result, attributes, body));
BEGIN
  DROP FUNCTION IF EXISTS f;
  RETURN answer;
END
$$;

-- What a body gives for an input by run(), or its error. Arguments are jsonb unless args says what they are.
CREATE FUNCTION run_chain(body text, input jsonb DEFAULT '{}', args text DEFAULT NULL, result text DEFAULT 'jsonb') RETURNS text
LANGUAGE plpgsql SET client_min_messages = warning AS $$
DECLARE
  answer text;
BEGIN
  args := coalesce(args, (SELECT string_agg(format('%I jsonb', k), ', ') FROM jsonb_object_keys(input) k), '');
  answer := try(format('CREATE FUNCTION f(%s) RETURNS %s LANGUAGE chaincall AS %L', args, result, body));
  IF answer = 'done' THEN
    answer := try(format('SELECT chaincall.run(%L, %L)', 'f', input));
  END IF;
  DROP FUNCTION IF EXISTS f;
  RETURN answer;
END
$$;
RESET client_min_messages;
