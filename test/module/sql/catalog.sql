SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never
CREATE ROLE catalog_user;
CREATE ROLE catalog_owner;

CREATE SERVER catalog_one FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'https://one.example/v1///');
CREATE SERVER catalog_two FOREIGN DATA WRAPPER chaincall OPTIONS (api 'http', url 'http://[::1]:8080', timeout '1 min 30 s', connect_timeout '1500',
    max_in_flight '7', max_answer '2MB', proxy 'http://proxy:3128', path '/score', headers '{"X-Key": "{{api_key}}"}', request '{"in": "{{input}}"}', answer '$.score');

-- a model with its endpoints
INSERT INTO chaincall.model (name, kind, params, retry, timeout) VALUES ('catalog-a', 'chat', '{"temperature": 0}', '{"attempts": 3, "first": "2 s", "factor": 1.5, "max": 60000}', '90 s');
SELECT model('catalog-a');
INSERT INTO chaincall.endpoint (model, server) VALUES ('catalog-a', 'catalog_one');
INSERT INTO chaincall.endpoint VALUES ('catalog-a', '2', 'catalog_two', 'remote', 0.5);
SELECT model('catalog-a');
SELECT route('catalog-a', 0, 'catalog_owner');
SELECT route('catalog-a', 0, current_user::regrole);
SELECT route('catalog-a', 1, current_user::regrole);

-- what is not there
SELECT model('catalog-b');
SELECT model('catalog_a');
SELECT model('nothing like any of them');
SELECT model('it''s');
SELECT model(repeat('x', 300));
INSERT INTO chaincall.model (name) VALUES ('catalog-b');
SELECT route('catalog-b', 0, current_user::regrole);

-- a key is the role's own, else everybody's; USAGE is needed for both
CREATE USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (api_key 'sk-public');
SELECT route('catalog-a', 0, 'catalog_user');
GRANT USAGE ON FOREIGN SERVER catalog_one TO catalog_user;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
CREATE USER MAPPING FOR catalog_user SERVER catalog_one OPTIONS (api_key 'sk-own');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
ALTER USER MAPPING FOR catalog_user SERVER catalog_one OPTIONS (DROP api_key);
SELECT route('catalog-a', 0, 'catalog_user') -> 'key', route('catalog-a', 0, 'catalog_user') -> 'mapped';
DROP USER MAPPING FOR catalog_user SERVER catalog_one;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
ALTER USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (SET api_key 'sk-new');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
REVOKE USAGE ON FOREIGN SERVER catalog_one FROM catalog_user;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
GRANT USAGE ON FOREIGN SERVER catalog_one TO catalog_owner;
GRANT catalog_owner TO catalog_user;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
REVOKE catalog_owner FROM catalog_user;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
DROP USER MAPPING FOR PUBLIC SERVER catalog_one;

-- a key in a file: whoever makes the server read it must be allowed to
CREATE FUNCTION pg_temp.key_file(content text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('COPY (SELECT %L) TO %L', content, current_setting('data_directory') || '/catalog_key');
END
$$;
SELECT pg_temp.key_file('  sk-file  ');
SELECT current_setting('data_directory') || '/catalog_key' AS file \gset
CREATE USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (api_key_file :'file');
SELECT route('catalog-a', 0, 'catalog_owner') ->> 'key';
ALTER SERVER catalog_one OWNER TO catalog_owner;
SELECT route('catalog-a', 0, 'catalog_owner') ->> 'key';
GRANT pg_read_server_files TO catalog_owner;
SELECT route('catalog-a', 0, 'catalog_owner') ->> 'key';
REVOKE pg_read_server_files FROM catalog_owner;
SELECT route('catalog-a', 0, 'catalog_owner') ->> 'key';
ALTER SERVER catalog_one OWNER TO current_user;
CREATE USER MAPPING FOR catalog_user SERVER catalog_one OPTIONS (api_key_file :'file');
GRANT USAGE ON FOREIGN SERVER catalog_one TO catalog_user;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
DROP USER MAPPING FOR catalog_user SERVER catalog_one;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
-- each of these is another file to the cache
ALTER USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (SET api_key_file '/nowhere/key');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
ALTER USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (SET api_key_file '/');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
SELECT pg_temp.key_file('   ');
ALTER USER MAPPING FOR PUBLIC SERVER catalog_one OPTIONS (SET api_key_file :'file');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
SELECT pg_temp.key_file(repeat('x', 20000));
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
SELECT pg_temp.key_file(E'a\u0007b');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
-- a key that is changed in its file is noticed
SELECT pg_temp.key_file('sk-before');
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
SELECT pg_temp.key_file('sk-afterwards');
DO $$
BEGIN
    FOR i IN 1 .. 1000 LOOP
        EXIT WHEN route('catalog-a', 0, 'catalog_user') ->> 'key' = 'sk-afterwards';
        PERFORM pg_sleep(0.01);
    END LOOP;
END
$$;
SELECT route('catalog-a', 0, 'catalog_user') ->> 'key';
DROP USER MAPPING FOR PUBLIC SERVER catalog_one;

-- what changes is seen at once, also what is taken back
BEGIN;
UPDATE chaincall.model SET paused = true WHERE name = 'catalog-a';
SELECT model('catalog-a') -> 'paused';
SAVEPOINT s;
DELETE FROM chaincall.endpoint WHERE model = 'catalog-a';
SELECT model('catalog-a') -> 'endpoints';
ROLLBACK TO s;
SELECT model('catalog-a') -> 'endpoints';
ROLLBACK;
SELECT model('catalog-a') -> 'paused';
ALTER SERVER catalog_one OPTIONS (SET url 'https://changed.example');
SELECT route('catalog-a', 0, current_user::regrole) ->> 'url';
ALTER SERVER catalog_one RENAME TO catalog_gone;
SELECT route('catalog-a', 0, current_user::regrole) ->> 'url';
ALTER SERVER catalog_gone RENAME TO catalog_one;
UPDATE chaincall.model SET name = 'catalog-c' WHERE name = 'catalog-a';
SELECT model('catalog-c') -> 'endpoints';
SELECT model('catalog-a');
BEGIN;
TRUNCATE chaincall.endpoint;
SELECT model('catalog-c') -> 'endpoints';
ROLLBACK;
SELECT model('catalog-c') -> 'endpoints';

-- of another session too
CREATE EXTENSION IF NOT EXISTS dblink;
SELECT dblink_exec('host=' || split_part(current_setting('unix_socket_directories'), ',', 1) || ' port=' || current_setting('port') || ' user=' || current_user || ' dbname=' || current_database(),
    $$UPDATE chaincall.model SET params = '{"seed": 5}' WHERE name = 'catalog-c'$$);
SELECT model('catalog-c') -> 'params';
DROP EXTENSION dblink;

DELETE FROM chaincall.model WHERE name LIKE 'catalog%';
SELECT count(*) FROM chaincall.endpoint WHERE model LIKE 'catalog%';
DROP SERVER catalog_one;
DROP SERVER catalog_two;
DROP ROLE catalog_user;
DROP ROLE catalog_owner;
