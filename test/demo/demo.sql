-- The demo: a long legal text becomes a one-page report, by a plain SELECT and then by a job in the background.
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
    max_parallel: 6
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

-- Prints a line whenever the job has come on, until it has ended. By hand: SELECT … FROM chaincall.job_status \watch
CREATE PROCEDURE pg_temp.show_progress(job uuid) LANGUAGE plpgsql AS $body$
DECLARE
    status chaincall.job_status;
    line text;
    shown text = '';
BEGIN
    LOOP
        SELECT * INTO STRICT status FROM chaincall.job_status WHERE id = job;
        line = format('%s  %s of %s steps  %s', rpad(status.state, 9), lpad(status.steps_done::text, 2),
                      coalesce(status.steps_known::text, '?'), status.waits_for);
        IF line <> shown THEN
            RAISE INFO '%', line;
            shown = line;
        END IF;
        EXIT WHEN status.finished_at IS NOT NULL;
        PERFORM pg_sleep(0.02);
    END LOOP;
END
$body$;

SELECT 'The text is the GNU General Public License 3: ' || length(body) || ' characters.' FROM contract WHERE id = 42;

\echo
\echo '-- a chain is a function: it runs now, in this session'
\echo '=# SELECT left(contract_report(body), 300) FROM contract WHERE id = 42;'
\echo
SELECT left(contract_report(body), 300) || ' …' FROM contract WHERE id = 42;
\echo
\echo '-- or later, as a job in the background: an INSERT, that commits with all else its transaction does'
\echo '=# INSERT INTO chaincall.job (chain, input)'
\echo '-# SELECT \'contract_report\', jsonb_build_object(\'document\', body) FROM contract WHERE id = 42 RETURNING id;'
\echo
INSERT INTO chaincall.job (chain, input)
SELECT 'contract_report', jsonb_build_object('document', body) FROM contract WHERE id = 42 RETURNING id AS job \gset
\echo :job
\echo
\echo '-- how far is it?'
\echo '=# SELECT state, steps_done, steps_known, waits_for FROM chaincall.job_status WHERE id = ':'job'' \\watch'
\echo
CALL pg_temp.show_progress(:'job');
\echo
\echo '-- what came of it?'
\echo '=# SELECT state, finished_at - started_at AS took, output #>> \'{}\' FROM chaincall.job WHERE id = ':'job'';'
\echo
SELECT state, finished_at - started_at AS took, length(output #>> '{}') || ' characters' FROM chaincall.job WHERE id = :'job';
\echo
\echo '-- the same, for a program: it waits until the job has ended, and raises its error if it has failed'
\echo '=# SELECT chaincall.result(':'job'') #>> \'{}\';'
\echo
SELECT chaincall.result(:'job', '1 min') #>> '{}';
\echo
\echo '-- and how it went: stored, for whoever asks later'
\echo '=# SELECT chaincall.trace(':'job'');'
\echo
SELECT chaincall.trace(:'job');
