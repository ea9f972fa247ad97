-- The last trace of a session is for the role that ran it.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
CREATE ROLE security_tracer;
SELECT chaincall.grant_usage('security_tracer');
CREATE FUNCTION security_run() RETURNS text LANGUAGE chaincall AS '{sql: "SELECT current_user::text", returns: value}';
CREATE FUNCTION security_lent() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'SELECT security_run()';
\pset format unaligned
\pset tuples_only on

SELECT security_run() = current_user;
SELECT chaincall.last_trace() LIKE 'trace %';
SET ROLE security_tracer;
SELECT chaincall.last_trace() IS NULL;
SELECT security_run();
SELECT chaincall.last_trace() LIKE 'trace %';
SELECT security_lent() = session_user;
SELECT chaincall.last_trace() IS NULL;
RESET ROLE;
SELECT chaincall.last_trace() LIKE 'trace %';
-- a superuser has everybody's privileges
SET ROLE security_tracer;
SELECT security_run();
RESET ROLE;
SELECT chaincall.last_trace() LIKE 'trace %';

DROP FUNCTION security_lent(), security_run();
SELECT chaincall.revoke_usage('security_tracer');
DROP ROLE security_tracer;
