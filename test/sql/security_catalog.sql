-- What a session has cached of models, servers, keys and rights is forgotten when that changes, and when what it has seen
-- of a change is rolled back.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
CREATE ROLE security_caller;
CREATE ROLE security_group;
SELECT chaincall.grant_usage('security_caller');
CREATE SERVER security FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://127.0.0.1:9/v1');
INSERT INTO chaincall.model (name) VALUES ('security_m');
INSERT INTO chaincall.endpoint (model, server) VALUES ('security_m', 'security');
CREATE FUNCTION security_ask() RETURNS text LANGUAGE chaincall AS 'model: security_m
prompt: hello';
-- what the session would send now
CREATE FUNCTION security_seen() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    request jsonb;
BEGIN
    request := chaincall.render('security_ask', 'chain', '{}');
    RETURN concat_ws(' ', request ->> 'url', request -> 'body' ->> 'model', request -> 'body' ->> 'seed', request -> 'headers' ->> 'Authorization');
EXCEPTION WHEN OTHERS THEN
    RETURN sqlstate || ' ' || sqlerrm;
END
$$;
\pset format unaligned
\pset tuples_only on

-- rights: each way to have them, and to lose them
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
GRANT USAGE ON FOREIGN SERVER security TO security_caller;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER security FROM security_caller;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
GRANT USAGE ON FOREIGN SERVER security TO security_group;
GRANT security_group TO security_caller;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
REVOKE security_group FROM security_caller;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
SELECT quote_ident(current_database()) AS here, quote_ident(current_user) AS me \gset
GRANT USAGE ON FOREIGN SERVER security TO pg_database_owner;
ALTER DATABASE :here OWNER TO security_caller;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
ALTER DATABASE :here OWNER TO :me;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
ALTER ROLE security_caller SUPERUSER;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;
ALTER ROLE security_caller NOSUPERUSER;
SET ROLE security_caller; SELECT security_seen(); RESET ROLE;

-- a change that is rolled back has never been, by subtransaction or whole
SELECT security_seen();
BEGIN;
ALTER SERVER security OPTIONS (SET url 'http://127.0.0.1:10');
SELECT security_seen();
SAVEPOINT s;
UPDATE chaincall.endpoint SET remote_name = 'other' WHERE model = 'security_m';
UPDATE chaincall.model SET params = '{"seed": 7}' WHERE name = 'security_m';
CREATE USER MAPPING FOR PUBLIC SERVER security OPTIONS (api_key 'sk-uncommitted');
SELECT security_seen();
ROLLBACK TO s;
SELECT security_seen();
ROLLBACK;
SELECT security_seen();
-- the extension itself, dropped and made anew
BEGIN;
DROP EXTENSION chaincall CASCADE;
SAVEPOINT s;
CREATE EXTENSION chaincall;
CREATE SERVER security FOREIGN DATA WRAPPER chaincall OPTIONS (api 'anthropic', url 'http://127.0.0.1:11');
INSERT INTO chaincall.model (name) VALUES ('security_m');
INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('security_m', 'security', 'new');
CREATE FUNCTION security_ask() RETURNS text LANGUAGE chaincall AS 'model: security_m
prompt: hello
params: {max_tokens: 5}';
SELECT security_seen();
ROLLBACK TO s;
SELECT security_seen();
ROLLBACK;
SELECT security_seen();

-- triggers of the extension on somebody else's table
CREATE TABLE security_models (kind int, params int);
CREATE TRIGGER t BEFORE INSERT ON security_models FOR EACH ROW EXECUTE FUNCTION chaincall.check_model();
INSERT INTO security_models VALUES (1, 2);
DROP TABLE security_models;
CREATE TABLE security_endpoints (server text, remote_name text);
CREATE TRIGGER t BEFORE INSERT ON security_endpoints FOR EACH ROW EXECUTE FUNCTION chaincall.check_endpoint();
INSERT INTO security_endpoints VALUES ('security', NULL);
DROP TABLE security_endpoints;

SET client_min_messages = warning;
DROP FUNCTION security_ask(), security_seen();
DROP SERVER security CASCADE;
DELETE FROM chaincall.model WHERE name = 'security_m';
SELECT chaincall.revoke_usage('security_caller');
DROP ROLE security_caller, security_group;
