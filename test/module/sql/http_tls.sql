-- TLS and HTTP/2
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\set servers `exec ./http-servers $PPID`
\set tls `cat :'servers'/tls`
\set h2 `cat :'servers'/h2`
\set h1 https://localhost: :tls /v1/chat/completions
\set h2 https://localhost: :h2 /v1/chat/completions
\set ca :servers /ca.pem
\set other :servers /other.pem
\set fixed '{"model": "fixed", "messages": [{"role": "user", "content": "Hello"}]}'
\set slow '{"model": "delay-400", "messages": [{"role": "user", "content": "Hello"}]}'
\pset format unaligned
\pset tuples_only on

-- who is trusted
SELECT fault, status, http_version FROM chaincall_test_http(:'h1', :'fixed', ca_file => :'ca');
SELECT fault, status, http_version FROM chaincall_test_http(:'h1', :'fixed', ca_file => :'other');
SELECT fault, status, http_version FROM chaincall_test_http(:'h1', :'fixed');
SELECT fault, status, http_version FROM chaincall_test_http(:'h1', :'fixed', ca_file => '/nowhere');
SELECT fault, status, http_version FROM chaincall_test_http(replace(:'h1', 'localhost', 'other.localhost'), :'fixed', ca_file => :'ca');
SELECT fault, status, http_version FROM chaincall_test_http(:'h1', :'fixed', ca_file => :'ca');
SELECT sockets FROM chaincall_test_http_state();

-- without HTTP/2: a connection for each of those in flight
\c -
SET search_path = public, chaincall_test;
SELECT fault, status, http_version, count(*), max(ended_ms) < 8000 FROM chaincall_test_http(:'h1', :'slow', ca_file => :'ca', times => 40) GROUP BY fault, status, http_version;
SELECT sockets, threads FROM chaincall_test_http_state();
-- with it: one for all, also for the first
SELECT fault, status, http_version, count(*), max(ended_ms) < 8000 FROM chaincall_test_http(:'h2', :'slow', ca_file => :'ca', times => 64) GROUP BY fault, status, http_version;
SELECT sockets - 40 FROM chaincall_test_http_state();
SELECT fault, status, http_version, count(*), max(ended_ms) < 8000 FROM chaincall_test_http(:'h2', :'slow', ca_file => :'ca', times => 300) GROUP BY fault, status, http_version;
SELECT sockets - 40 <= 4 FROM chaincall_test_http_state();

-- many large answers on one connection: all of each comes, and without a pause
SELECT fault, status, http_version, length, count(*), max(ended_ms) < 9000
FROM chaincall_test_http(:'h2', :'fixed', ca_file => :'ca', times => 20, headers => '{X-Fault: size=3000000}', max_answer => 3000000) GROUP BY 1, 2, 3, 4;
SELECT fault, status, http_version, length, count(*), max(ended_ms) < 9000
FROM chaincall_test_http(:'h1', :'fixed', ca_file => :'ca', times => 20, headers => '{X-Fault: size=3000000}', max_answer => 3000000) GROUP BY 1, 2, 3, 4;
-- large requests
SELECT settled, delivered, bad FROM chaincall_test_http_settle(:'h2', :'fixed', 10, 8000, 0, ca_file => :'ca', bytes => 1000000);
SELECT settled, delivered, bad FROM chaincall_test_http_settle(:'h1', :'fixed', 10, 8000, 0, ca_file => :'ca', bytes => 1000000);

-- one stream breaks or is broken off: the others live
SELECT fault, count(*) FROM chaincall_test_http(:'h2', :'fixed', ca_file => :'ca', times => 5, headers => '{X-Fault: size=200000&reset=mid}') GROUP BY fault;
SELECT fault, message, count(*) FROM chaincall_test_http(:'h2', :'fixed', ca_file => :'ca', times => 5, headers => '{X-Fault: size=200000}', max_answer => 10000) GROUP BY fault, message;
SELECT fault, status, http_version FROM chaincall_test_http(:'h2', :'fixed', ca_file => :'ca');
SELECT sockets - 40 <= 4, in_flight FROM chaincall_test_http_state();
SET statement_timeout = 200;
SELECT * FROM chaincall_test_http(:'h2', :'slow', ca_file => :'ca', times => 64);
RESET statement_timeout;
SELECT fault, status, http_version FROM chaincall_test_http(:'h2', :'fixed', ca_file => :'ca');
SELECT in_flight FROM chaincall_test_http_state();

-- from the first byte of the handshake to the last of the request while we look, the rest while we do not
\c -
SET search_path = public, chaincall_test;
SELECT settled, delivered, bad, ended_ms < 900 FROM chaincall_test_http_settle(:'h1', :'slow', 1, 300, 420, ca_file => :'ca');
SELECT settled, delivered, bad, ended_ms < 900 FROM chaincall_test_http_settle(:'h2', :'slow', 1, 300, 420, ca_file => :'ca');
