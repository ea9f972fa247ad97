-- What somebody prepares in a schema named chaincall must not run as the superuser who installs the extension.
SET client_min_messages = warning;
CREATE ROLE security_squatter;
CREATE DATABASE chaincall_squat OWNER security_squatter;
\set here :DBNAME
\set SHOW_CONTEXT never
\c chaincall_squat
SET client_min_messages = warning;
\pset format unaligned
\pset tuples_only on

-- his schema, and in it what fits the script's calls better than PostgreSQL's own
SET ROLE security_squatter;
CREATE SCHEMA chaincall;
CREATE FUNCTION chaincall.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'his code runs as %', current_user; END $$;
RESET ROLE;
CREATE EXTENSION chaincall;
-- the schema alone
DROP FUNCTION chaincall.format;
CREATE EXTENSION chaincall;
-- a superuser's schema in which he may create
ALTER SCHEMA chaincall OWNER TO CURRENT_USER;
GRANT CREATE ON SCHEMA chaincall TO security_squatter;
CREATE EXTENSION chaincall;
REVOKE CREATE ON SCHEMA chaincall FROM security_squatter;
GRANT ALL ON SCHEMA chaincall TO PUBLIC;
CREATE EXTENSION chaincall;
-- or in which he has created before
SET ROLE security_squatter;
CREATE FUNCTION chaincall.better(float8, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR chaincall.>= (LEFTARG = float8, RIGHTARG = int, FUNCTION = chaincall.better);
RESET ROLE;
REVOKE ALL ON SCHEMA chaincall FROM PUBLIC;
CREATE EXTENSION chaincall;
ALTER FUNCTION chaincall.better OWNER TO CURRENT_USER;
CREATE EXTENSION chaincall;
DROP OPERATOR chaincall.>= (float8, int);
-- now it is as a dump restores it
CREATE EXTENSION chaincall;
-- a member of the owner's role is no stranger
DROP EXTENSION chaincall;
CREATE ROLE security_dba SUPERUSER;
CREATE ROLE security_deputy IN ROLE security_dba;
ALTER SCHEMA chaincall OWNER TO security_dba;
CREATE EXTENSION chaincall;

-- whose names are looked up when they run (not when they are created) fix the search_path
SELECT p.oid::regprocedure FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_proc p ON p.oid = d.objid JOIN pg_language l ON l.oid = p.prolang
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'chaincall' AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL
  AND 'search_path=pg_catalog, pg_temp' <> ALL (coalesce(p.proconfig, '{}'));
-- no function of it runs with its owner's rights
SELECT p.oid::regprocedure FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid JOIN pg_proc p ON p.oid = d.objid
WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'chaincall' AND p.prosecdef;
-- nothing of it is anybody's
SELECT pg_describe_object(d.classid, d.objid, 0)
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
LEFT JOIN pg_language l ON d.classid = 'pg_language'::regclass AND l.oid = d.objid
LEFT JOIN pg_foreign_data_wrapper w ON d.classid = 'pg_foreign_data_wrapper'::regclass AND w.oid = d.objid
WHERE d.refclassid = 'pg_extension'::regclass
  AND coalesce(has_function_privilege('security_squatter', p.oid, 'EXECUTE'), has_table_privilege('security_squatter', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE'),
               has_language_privilege('security_squatter', l.oid, 'USAGE'), has_foreign_data_wrapper_privilege('security_squatter', w.oid, 'USAGE'), false);

\c :here
SET client_min_messages = warning;
DROP DATABASE chaincall_squat;
DROP ROLE security_deputy, security_dba, security_squatter;
