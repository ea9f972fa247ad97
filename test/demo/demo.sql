-- The demo: a long legal text becomes a one-page report by a plain SELECT.
--
-- psql variables: url, api, model (what the service calls it), and key_file, if the service needs a key: a file on the
-- server, so that the key itself is in no statement, command line or log.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
CREATE EXTENSION chaincall;
RESET client_min_messages;

-- where models live, and who may use them
CREATE SERVER demo FOREIGN DATA WRAPPER chaincall OPTIONS (api :'api', url :'url');
\if :{?key_file}
CREATE USER MAPPING FOR PUBLIC SERVER demo OPTIONS (api_key_file :'key_file');
\endif
INSERT INTO chaincall.model (name, kind) VALUES ('small', 'chat'), ('deepseek-chat', 'chat');
INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('small', 'demo', :'model'), ('deepseek-chat', 'demo', :'model');

CREATE TABLE contract (id int PRIMARY KEY, body text NOT NULL);
INSERT INTO contract VALUES (42, pg_read_file('/usr/share/common-licenses/GPL-3'));

CREATE FUNCTION contract_report(document text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  clauses:
    function: chaincall.split_text
    args: {text: "{{document}}", by: section}
  summary:
    each: clauses
    model: small
    prompt: |
      Summarise this clause in two sentences:
      {{item}}
  points:
    model: deepseek-chat
    prompt: |
      List obligations and deadlines:
      {{summary}}
  report:
    model: deepseek-chat
    prompt: |
      Write a one-page report from these points:
      {{points}}
$chain$;

SELECT 'The text is the GNU General Public License 3: ' || length(body) || ' characters.' FROM contract WHERE id = 42;

\echo
\echo '=# SELECT contract_report(body) FROM contract WHERE id = 42;'
\echo
SELECT contract_report(body) FROM contract WHERE id = 42;
\echo
\echo '=# SELECT chaincall.last_trace();'
\echo
SELECT chaincall.last_trace();
