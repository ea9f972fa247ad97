-- Servers, user mappings, models, endpoints, and who may use them.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
CREATE ROLE definitions_admin;
CREATE ROLE definitions_user;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

-- a server needs an api and a url
CREATE SERVER d FOREIGN DATA WRAPPER chaincall;
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai');
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'grpc', url 'http://h');
-- unknown options
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://h', timout '5 s');
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://h', api_key 'sk-oops');
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'http://h', frobnicate 'x');
CREATE FOREIGN DATA WRAPPER other VALIDATOR chaincall.fdw_validator OPTIONS (api 'openai');
ALTER FOREIGN DATA WRAPPER chaincall OPTIONS (url 'http://h');
-- urls
CREATE FUNCTION pg_temp.server(name text, value text, more text DEFAULT $$api 'openai', url 'http://h'$$) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    hint text;
BEGIN
    EXECUTE format('CREATE SERVER probe FOREIGN DATA WRAPPER chaincall OPTIONS (%s)', concat_ws(', ', nullif(more, ''), format('%I %L', name, value)));
    DROP SERVER probe;
    RETURN 'accepted';
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
    RETURN concat_ws(' / ', sqlstate, sqlerrm, nullif(hint, ''));
END
$$;
SELECT url, pg_temp.server('url', url, 'api ''openai''') FROM unnest(ARRAY['https://api.example.com/v1', 'http://127.0.0.1:8080', 'HTTPS://h/a//', 'http://[::1]:80/x',
    '', 'api.example.com', 'ftp://h', 'file:///etc/passwd', 'https://', 'https:///v1', 'https://h:', 'https://h:0', 'https://h:65536', 'https://h:80x', 'https://h:-1',
    'https://user:sk-secret@h/v1', 'https://sk-secret@h', 'https://h/v1?key=sk-secret', 'https://h/v1#x', E'https://h/\nX: y', 'https://h /v1', 'https://h\@evil', 'https://bücher.example', 'http://[::1', 'http://[]:80', 'http://[::1]x']) url;
-- limits
SELECT v, pg_temp.server('timeout', v) FROM unnest(ARRAY['300', '5 s', '1 min 30 s', '00:00:10', 'PT5S', '0', '-1', '-5 s', '5 parsecs', '', '25 days', 'infinity', '99999999999999999999', '1 month']) v;
SELECT v, pg_temp.server('connect_timeout', v) FROM unnest(ARRAY['1500', '2 s', '0 s', 'soon']) v;
SELECT v, pg_temp.server('max_in_flight', v) FROM unnest(ARRAY['1', '5000', '0', '-1', '1.5', 'many', '10 s', '99999999999']) v;
SELECT v, pg_temp.server('max_answer', v) FROM unnest(ARRAY['1', '64kB', '16MB', '1023MB', '1GB', '0', '-5', '1 furlong', '5 s']) v;
SELECT v, pg_temp.server('proxy', v) FROM unnest(ARRAY['http://proxy:3128', 'https://p:3129/', 'socks5h://p:1080/', 'proxy:3128', 'http://u:sk-secret@p', 'http://p/path']) v;
SELECT v, pg_temp.server('ca_file', v) FROM unnest(ARRAY['/etc/ssl/ca.pem', 'ca.pem', '']) v;
-- options of api http only
SELECT n, pg_temp.server(n, v) FROM (VALUES ('path', '/x'), ('headers', '{}'), ('request', '{}'), ('answer', '$')) o(n, v);
\set http 'api ''http'', url ''http://h'''
SELECT v, pg_temp.server('path', v, :'http') FROM unnest(ARRAY['/v2/models/m/infer?x=1', 'v2', '', '/a b', E'/a\r\nX: y', '/a#b']) v;
SELECT v, pg_temp.server('headers', v, :'http') FROM unnest(ARRAY['{}', '{"X-Api-Key": "{{api_key}}", "X-B": "a {{api_key}} b"}', '{"authorization": "Bearer sk-secret"}', '{"Authorization": "Basic {{api_key}}"}', '[]', '"x"', '{"a": 1}', '{"a b": "x"}', '{"": "x"}', '{"a\r\nX-Evil": "x"}', '{"a": "x\r\ny"}',
    '{"a": "{{model}}"}', '{"a": "{{api_key"}', '{"Host": "evil"}', '{"content-length": "5"}', '{"a": "sk-secret"', '']) v;
SELECT v, pg_temp.server('request', v, :'http') FROM unnest(ARRAY['{"inputs": "{{input}}", "n": "{{params.max_tokens}}"}', '"{{input}}"', '{"a": ["{{ messages }}", "{{system}}: {{prompt}}"]}', '{"a": "{{inptu}}"}', '{"a": [{"b": "{{params.max_token}}"}]}',
    '{"k": "{{api_key}}"}', '{"a": "{{input"}', '{"a": sk-secret}', '']) v;
SELECT v, pg_temp.server('answer', v, :'http') FROM unnest(ARRAY['$.outputs[0].data', 'strict $.a', 'lax $.a', '$.a[', 'outputs', '']) v;
-- what is changed is checked together with what is there
CREATE SERVER d FOREIGN DATA WRAPPER chaincall OPTIONS (api 'http', url 'http://h', path '/x', timeout '5 s');
ALTER SERVER d OPTIONS (SET api 'openai');
ALTER SERVER d OPTIONS (DROP url);
ALTER SERVER d OPTIONS (SET timeout '-1');
ALTER SERVER d OPTIONS (SET api 'openai', DROP path);
SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'd';
CREATE FOREIGN TABLE t (a int) SERVER d;
CREATE FOREIGN TABLE t (a int OPTIONS (x 'y')) SERVER d;
IMPORT FOREIGN SCHEMA s FROM SERVER d INTO public;

-- user mappings; what is wrong with a key is said without the key
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (key 'sk-secret');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key 'sk-secret', api_key_file '/key');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key E'sk-secret\n');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key '');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key_file 'key');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key_file '/etc/chaincall/key');
DROP USER MAPPING FOR PUBLIC SERVER d;
-- files only by those who may read the server's
GRANT USAGE ON FOREIGN SERVER d TO definitions_user;
GRANT USAGE ON FOREIGN DATA WRAPPER chaincall TO definitions_admin;
SET ROLE definitions_user;
CREATE USER MAPPING FOR definitions_user SERVER d OPTIONS (api_key_file '/etc/passwd');
CREATE USER MAPPING FOR PUBLIC SERVER d OPTIONS (api_key 'sk-mine');
CREATE USER MAPPING FOR definitions_user SERVER d OPTIONS (api_key 'sk-own');
ALTER USER MAPPING FOR definitions_user SERVER d OPTIONS (DROP api_key, ADD api_key_file '/etc/passwd');
DROP USER MAPPING FOR definitions_user SERVER d;
SET ROLE definitions_admin;
CREATE SERVER own FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'https://h', ca_file '/etc/passwd');
CREATE SERVER own FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url 'https://h');
CREATE USER MAPPING FOR PUBLIC SERVER own OPTIONS (api_key 'sk-admin');
GRANT USAGE ON FOREIGN SERVER own TO definitions_user;
RESET ROLE;
-- who may spend a key does not see it
SET ROLE definitions_user;
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'own';
RESET ROLE;
GRANT pg_read_server_files TO definitions_admin;
SET ROLE definitions_admin;
ALTER USER MAPPING FOR PUBLIC SERVER own OPTIONS (DROP api_key, ADD api_key_file '/etc/chaincall/key');
RESET ROLE;

-- models
INSERT INTO chaincall.model (name) VALUES ('d-plain');
SELECT * FROM chaincall.model WHERE name = 'd-plain';
INSERT INTO chaincall.model (name) VALUES ('d-plain');
INSERT INTO chaincall.model (name) VALUES ('');
INSERT INTO chaincall.model (name) VALUES (repeat('x', 256));
INSERT INTO chaincall.model (name, kind) VALUES ('d', 'video');
INSERT INTO chaincall.model (name, params) VALUES ('d', '[]');
INSERT INTO chaincall.model (name, params) VALUES ('d', '{"temprature": 1}');
INSERT INTO chaincall.model (name, params) VALUES ('d', '{"temperature": "hot"}');
INSERT INTO chaincall.model (name, params) VALUES ('d', '{"max_tokens": -1}');
INSERT INTO chaincall.model (name, params) VALUES ('d', '{"max_tokens": 1.5}');
INSERT INTO chaincall.model (name, params) VALUES ('d', '{"reasoning": "extreme"}');
INSERT INTO chaincall.model (name, timeout) VALUES ('d', '-1 s');
INSERT INTO chaincall.model (name, timeout) VALUES ('d', '1 year');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '-1');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '1.5e9');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '1.5');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '"often"');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '{"attempts": 0}');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '{"first": "soon"}');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '{"factor": 0.5}');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '{"max": "-1 s"}');
INSERT INTO chaincall.model (name, retry) VALUES ('d', '{"tries": 3}');
INSERT INTO chaincall.model (name, fallback) VALUES ('d', '{NULL}');
INSERT INTO chaincall.model (name, fallback) VALUES ('d', '{{a,b}}');
INSERT INTO chaincall.model VALUES ('d-full', 'embedding', '{"temperature": null, "top_p": 0.5, "max_tokens": 10, "stop": ["x"], "seed": -1, "reasoning": "none"}', '{"attempts": 3, "first": "500 ms", "factor": 1.5, "max": 60000}', '1 min', '{not-yet-there}', true);
UPDATE chaincall.model SET params = '{"x": 1}' WHERE name = 'd-full';

-- endpoints
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-plain', 'd') RETURNING *;
INSERT INTO chaincall.endpoint VALUES ('d-plain', '2', 'own', 'theirs', 0) RETURNING *;
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-plain', 'd');
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-none', 'd');
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-plain', 'nowhere');
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-plain', NULL);
INSERT INTO chaincall.endpoint (model, server, weight) VALUES ('d-plain', 'own', -1);
INSERT INTO chaincall.endpoint (model, server, weight) VALUES ('d-plain', 'own', 'NaN');
INSERT INTO chaincall.endpoint (model, server, weight) VALUES ('d-plain', 'own', 'Infinity');
INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('d-plain', 'own', '');
INSERT INTO chaincall.endpoint (model, server, version) VALUES ('d-plain', 'own', '');
CREATE FOREIGN DATA WRAPPER definitions_other;
CREATE SERVER foreign_one FOREIGN DATA WRAPPER definitions_other;
INSERT INTO chaincall.endpoint (model, server) VALUES ('d-plain', 'foreign_one');
UPDATE chaincall.endpoint SET server = 'nowhere' WHERE model = 'd-plain';
UPDATE chaincall.model SET name = 'd-renamed' WHERE name = 'd-plain';
SELECT * FROM chaincall.endpoint WHERE model = 'd-renamed' ORDER BY version;
DELETE FROM chaincall.model WHERE name LIKE 'd-%';
SELECT count(*) FROM chaincall.endpoint WHERE model LIKE 'd-%';
SELECT chaincall.check_model();

-- privileges: PUBLIC has none on anything of the extension
SELECT pg_describe_object(d.classid, d.objid, 0)
    FROM pg_depend d
    JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
    LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_language l ON d.classid = 'pg_language'::regclass AND l.oid = d.objid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND EXISTS (SELECT FROM aclexplode(CASE
              WHEN p.oid IS NOT NULL THEN coalesce(p.proacl, acldefault('f', p.proowner))
              WHEN l.oid IS NOT NULL THEN coalesce(l.lanacl, acldefault('l', l.lanowner))
              WHEN c.oid IS NOT NULL THEN coalesce(c.relacl, acldefault('r', c.relowner)) END)
          WHERE grantee = 0);
SELECT has_schema_privilege('definitions_user', 'chaincall', 'USAGE');
SELECT chaincall.grant_usage('definitions_user');
SELECT has_schema_privilege('definitions_user', 'chaincall', 'USAGE'), has_language_privilege('definitions_user', 'chaincall', 'USAGE'),
    has_table_privilege('definitions_user', 'chaincall.model', 'SELECT'), has_table_privilege('definitions_user', 'chaincall.endpoint', 'SELECT'),
    has_table_privilege('definitions_user', 'chaincall.model', 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER'),
    has_function_privilege('definitions_user', 'chaincall.call(text, text, jsonb)', 'EXECUTE');
-- what is for administrators, or for PostgreSQL alone
SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
    WHERE NOT has_function_privilege('definitions_user', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
SET ROLE definitions_user;
SELECT count(*) FROM chaincall.model WHERE name LIKE 'd-%';
INSERT INTO chaincall.model (name) VALUES ('d-mine');
SELECT chaincall.grant_usage('definitions_admin');
RESET ROLE;
SELECT chaincall.revoke_usage('definitions_user');
SELECT has_schema_privilege('definitions_user', 'chaincall', 'USAGE'), has_language_privilege('definitions_user', 'chaincall', 'USAGE'),
    has_table_privilege('definitions_user', 'chaincall.model', 'SELECT'), has_function_privilege('definitions_user', 'chaincall.call(text, text, jsonb)', 'EXECUTE');
CREATE ROLE "definitions 100%s ""odd""";
SELECT chaincall.grant_usage('"definitions 100%s ""odd"""');
SELECT has_table_privilege('definitions 100%s "odd"', 'chaincall.model', 'SELECT');
SELECT chaincall.revoke_usage('"definitions 100%s ""odd"""');
DROP ROLE "definitions 100%s ""odd""";

-- every object and column has a comment
SELECT pg_describe_object(d.classid, d.objid, 0)
    FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.classid <> 'pg_type'::regclass
      AND obj_description(d.objid, d.classid::regclass::name) IS NULL;
SELECT attrelid::regclass, attname FROM pg_attribute
    WHERE attrelid IN ('chaincall.model'::regclass, 'chaincall.endpoint'::regclass) AND attnum > 0 AND col_description(attrelid, attnum) IS NULL;

DROP SERVER foreign_one;
DROP FOREIGN DATA WRAPPER definitions_other;
DROP USER MAPPING FOR PUBLIC SERVER own;
DROP SERVER own;
DROP SERVER d;
REVOKE USAGE ON FOREIGN DATA WRAPPER chaincall FROM definitions_admin;
REVOKE pg_read_server_files FROM definitions_admin;
DROP ROLE definitions_user;
DROP ROLE definitions_admin;
