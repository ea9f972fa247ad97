-- Who may do what: PUBLIC nothing, others what they were granted; keys are spent, not seen.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SET client_min_messages = warning;
DROP ROLE IF EXISTS regress_chain_app;
DROP ROLE IF EXISTS regress_chain_other;
RESET client_min_messages;
CREATE ROLE regress_chain_app;
CREATE ROLE regress_chain_other;
GRANT USAGE, CREATE ON SCHEMA chaincall_regress TO regress_chain_app, regress_chain_other;
CREATE USER MAPPING FOR PUBLIC SERVER openai OPTIONS (api_key 'sk-shared-secret');
SELECT model('leaky', 'echo?status=401&message=bad+key+sk-shared-secret'), model('own', 'echo'), model('nowhere', 'echo', 'anthropic');
CREATE FUNCTION ask(text text) RETURNS text LANGUAGE chaincall AS '{model: echo, prompt: "{{text}}"}';

-- PUBLIC has nothing
SET ROLE regress_chain_app;
SELECT try($$SELECT chaincall.call('echo', 'x')$$);
SELECT try($$SELECT count(*) FROM chaincall.model$$);
SELECT create_chain('value: 1');
SELECT try($$DO LANGUAGE chaincall 'value: 1'$$);
SELECT try($$CREATE SERVER mine FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://localhost')$$);
SELECT try($$SELECT chaincall.grant_usage('regress_chain_app')$$);
RESET ROLE;
SELECT classid::regclass, pg_describe_object(classid, objid, 0) FROM pg_depend d
WHERE deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'chaincall')
  AND (classid = 'pg_proc'::regclass AND has_function_privilege('regress_chain_app', objid, 'EXECUTE')
    OR classid = 'pg_class'::regclass AND has_table_privilege('regress_chain_app', objid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
    OR classid = 'pg_language'::regclass AND has_language_privilege('regress_chain_app', objid, 'USAGE')
    OR classid = 'pg_foreign_data_wrapper'::regclass AND has_foreign_data_wrapper_privilege('regress_chain_app', objid, 'USAGE'));
SELECT has_schema_privilege('regress_chain_app', 'chaincall', 'USAGE, CREATE');

-- grant_usage: chains may be written and run, models looked at; nothing else
SELECT chaincall.usage_statements('%s');
SELECT chaincall.grant_usage('regress_chain_app');
SET ROLE regress_chain_app;
SELECT create_chain('value: 1');
SELECT name FROM chaincall.model ORDER BY name;
SELECT try($$INSERT INTO chaincall.model (name) VALUES ('mine')$$);
SELECT try($$UPDATE chaincall.endpoint SET server = 'anthropic'$$);
SELECT try($$CREATE SERVER mine FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://localhost')$$);
SELECT try($$SELECT chaincall.grant_usage('regress_chain_other')$$);
SELECT try($$SELECT chaincall.validator(0)$$);
-- but no server may be used yet: neither by a chain nor by a single call
SELECT try($$SELECT ask('x')$$);
SELECT try($$SELECT chaincall.call('echo', 'x')$$);
SELECT try($$SELECT chaincall.request('echo', '{}')$$);
SELECT try($$SELECT chaincall.embed('echo', '{x}')$$);
SELECT run_chain($${model: echo, prompt: x, on_error: {value: "{{error.class}}, {{error.sqlstate}}"}}$$);
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER openai TO regress_chain_app;
SET ROLE regress_chain_app;
SELECT ask('x'), chaincall.call('echo', 'y');
SELECT try($$SELECT chaincall.call('nowhere', 'x')$$);

-- the key is spent, not seen
SELECT srvname, usename, umoptions FROM pg_user_mappings WHERE srvname = 'openai';
SELECT try($$SELECT count(*) FROM pg_user_mapping$$);
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT :'last'::jsonb #>> '{headers,authorization}';
SELECT try($$SELECT chaincall.call('leaky', 'x')$$);
SELECT chaincall.last_trace() LIKE '%secret%', chaincall.render('ask', 'chain', '{"text": "x"}')::text LIKE '%secret%';
RESET ROLE;
SELECT srvname, usename, umoptions FROM pg_user_mappings WHERE srvname = 'openai';
-- a mapping of one's own goes before that of PUBLIC, and is readable to its role
CREATE USER MAPPING FOR regress_chain_app SERVER openai OPTIONS (api_key 'sk-own');
SET ROLE regress_chain_app;
SELECT chaincall.call('echo', 'y');
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT :'last'::jsonb #>> '{headers,authorization}';
SELECT try($$ALTER USER MAPPING FOR regress_chain_app SERVER openai OPTIONS (DROP api_key, ADD api_key_file '/etc/hostname')$$);
SELECT try($$ALTER USER MAPPING FOR regress_chain_app SERVER openai OPTIONS (SET api_key 'sk-new')$$);
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'openai' AND usename = 'regress_chain_app';
SELECT chaincall.call('echo', 'y');
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT :'last'::jsonb #>> '{headers,authorization}';
RESET ROLE;
SELECT chaincall.call('echo', 'y');
\set last `curl -s "$CHAINCALL_TEST_URL/last"`
SELECT :'last'::jsonb #>> '{headers,authorization}';

-- EXECUTE on the chain, and on what its steps call, is checked when they run, for the role that runs them
SELECT chaincall.grant_usage('regress_chain_other');
GRANT USAGE ON FOREIGN SERVER openai TO regress_chain_other;
CREATE TABLE secret (what text);
CREATE FUNCTION helper() RETURNS text LANGUAGE sql AS $$ SELECT 'helped' $$;
CREATE FUNCTION who() RETURNS text LANGUAGE chaincall AS '{sql: SELECT current_user, returns: value}';
CREATE FUNCTION reads() RETURNS jsonb LANGUAGE chaincall AS '{sql: SELECT what FROM secret}';
CREATE FUNCTION helps() RETURNS jsonb LANGUAGE chaincall AS '{function: helper}';
CREATE FUNCTION asks() RETURNS jsonb LANGUAGE chaincall AS $chain$
steps:
  a: {function: ask, args: {text: asked}}
$chain$;
CREATE FUNCTION catches() RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{a}}", "{{b}}", "{{c}}"]
steps:
  a: {function: ask, args: {text: asked}, on_error: {value: "{{error.class}}"}}
  b: {function: helper, on_error: {value: "{{error.class}}"}}
  c: {sql: SELECT what FROM secret, on_error: {value: "{{error.class}}"}}
$chain$;
SELECT who() = session_user, reads(), helps(), asks(), catches();
REVOKE EXECUTE ON FUNCTION ask(text), helper() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ask(text) TO regress_chain_app;
SET ROLE regress_chain_app;
SELECT who(), asks();
SELECT try('SELECT reads()');
SELECT try('SELECT helps()');
SELECT catches();
RESET ROLE;
SET ROLE regress_chain_other;
SELECT who();
SELECT try($$SELECT ask('x')$$);
SELECT try($$SELECT chaincall.run('ask', '{"text": "x"}')$$);
SELECT try($$SELECT chaincall.render('ask', 'chain', '{"text": "x"}')$$);
SELECT try('SELECT asks()');
SELECT try($$SELECT chaincall.run('asks', '{}')$$);
SELECT catches();
RESET ROLE;
GRANT EXECUTE ON FUNCTION ask(text) TO regress_chain_other;
GRANT SELECT ON secret TO regress_chain_other;
SET ROLE regress_chain_other;
SELECT ask('x'), asks(), catches();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION ask(text) FROM regress_chain_other;
SET ROLE regress_chain_other;
SELECT try('SELECT asks()');
RESET ROLE;

-- a SECURITY DEFINER function lends its owner's privileges to the chain that it calls
CREATE FUNCTION lends() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = chaincall_regress AS $$ SELECT who() || ' ' || ask('x') $$;
SET ROLE regress_chain_other;
SELECT lends() = session_user || ' x', who();
RESET ROLE;

-- names are those of who runs it: two roles, two search paths, one chain
CREATE SCHEMA chaincall_regress_app AUTHORIZATION regress_chain_app;
CREATE FUNCTION chaincall_regress_app.place() RETURNS text LANGUAGE sql AS $$ SELECT 'app''s' $$;
CREATE FUNCTION place() RETURNS text LANGUAGE sql AS $$ SELECT 'common' $$;
CREATE FUNCTION places() RETURNS text LANGUAGE chaincall AS '{function: place}';
SET search_path = chaincall_regress_app, chaincall_regress;
SET ROLE regress_chain_app;
SELECT places();
RESET ROLE;
SET ROLE regress_chain_other;
SELECT places();
RESET ROLE;
SET search_path = chaincall_regress, public;
SELECT places();
DROP FUNCTION chaincall_regress_app.place();
DROP SCHEMA chaincall_regress_app;

-- the language is trusted: whoever owns nothing else may own chains
SET ROLE regress_chain_other;
CREATE FUNCTION mine() RETURNS text LANGUAGE chaincall AS '{model: echo, prompt: mine}';
SELECT mine();
RESET ROLE;
SELECT mine();

-- revoke_usage takes back what was granted
SELECT chaincall.revoke_usage('regress_chain_app');
SET ROLE regress_chain_app;
SELECT try($$SELECT chaincall.call('echo', 'x')$$);
SELECT try($$SELECT count(*) FROM chaincall.endpoint$$);
SELECT create_chain('value: 1');
RESET ROLE;
-- USAGE on the server too
REVOKE USAGE ON FOREIGN SERVER openai FROM regress_chain_other;
SET ROLE regress_chain_other;
SELECT try('SELECT mine()');
RESET ROLE;

-- what can run as another role, or looks names up when it runs, has a search_path of its own: none is listed
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'chaincall')
  AND (p.prosecdef OR p.prosqlbody IS NULL AND p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c'))
  AND NOT coalesce(array_to_string(p.proconfig, ',') LIKE '%search_path=pg_catalog, pg_temp%', false);

DROP OWNED BY regress_chain_app, regress_chain_other;
DROP ROLE regress_chain_app, regress_chain_other;
