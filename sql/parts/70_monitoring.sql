-- What goes on, how far it is, and how well it does: views. Statistics and what is in the air are in shared memory:
-- without shared_preload_libraries those views have no rows.

CREATE FUNCTION activity_entries(OUT kind text, OUT job uuid, OUT owner oid, OUT pid integer, OUT path text, OUT what text,
        OUT server text, OUT since timestamptz, OUT attempts bigint, OUT steps_done bigint, OUT steps_known bigint) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE ROWS 100 AS 'MODULE_PATHNAME', 'chaincall_activity_entries';
COMMENT ON FUNCTION activity_entries() IS 'what the view activity is made of: entries of the caller''s own roles, all for members of pg_monitor';

CREATE FUNCTION stat_entries(by_model boolean, OUT model text, OUT version text, OUT server text, OUT attempts bigint, OUT in_flight bigint,
        OUT rate double precision, OUT succeeded bigint, OUT transient bigint, OUT throttled bigint, OUT permanent bigint, OUT invalid bigint,
        OUT content bigint, OUT too_large bigint, OUT timeout bigint, OUT cancelled bigint, OUT mean_ms double precision, OUT p50_ms double precision,
        OUT p99_ms double precision, OUT first_byte_p50_ms double precision, OUT first_byte_p99_ms double precision, OUT tokens_in bigint,
        OUT tokens_out bigint, OUT last_attempt_at timestamptz, OUT last_failure_at timestamptz, OUT last_failure text, OUT since timestamptz)
        RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'chaincall_stat_entries';
COMMENT ON FUNCTION stat_entries(boolean) IS 'what the views stat_model and stat_endpoint are made of';

CREATE FUNCTION health_entries(OUT model text, OUT version text, OUT server text, OUT breaker text, OUT breaker_since timestamptz,
        OUT cooling_until timestamptz) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'chaincall_health_entries';
COMMENT ON FUNCTION health_entries() IS 'what the view stat_endpoint is made of, too: circuit breakers and cool-downs';

CREATE FUNCTION worker_entries(OUT kind text, OUT pid integer, OUT database oid, OUT role oid, OUT started_at timestamptz, OUT jobs bigint,
        OUT steps bigint, OUT calls bigint, OUT errors bigint, OUT commits bigint, OUT jobs_in_hand bigint, OUT calls_in_flight bigint)
        RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE ROWS 10 AS 'MODULE_PATHNAME', 'chaincall_worker_entries';
COMMENT ON FUNCTION worker_entries() IS 'what the view stat_worker is made of';

CREATE FUNCTION stat_reset() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'chaincall_stat_reset';
COMMENT ON FUNCTION stat_reset() IS 'sets the statistics of this database''s models and endpoints to zero';

CREATE FUNCTION trace(job uuid) RETURNS text
    LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'chaincall_trace';
COMMENT ON FUNCTION trace(uuid) IS 'a job as a waterfall, one line an attempt; of a job that still runs, what is stored so far and what is in the air';

CREATE VIEW activity AS
SELECT kind, job, pg_catalog.pg_get_userbyid(owner) AS owner, pid, path, what, server, since, attempts, steps_done, steps_known
FROM chaincall.activity_entries();
COMMENT ON VIEW activity IS 'jobs in hand and calls and steps in the air just now, in this database; one''s own, all for members of pg_monitor';
COMMENT ON COLUMN activity.kind IS 'job (or a run in a session), call (of a model) or step (a statement or function)';
COMMENT ON COLUMN activity.job IS 'id of the job or run';
COMMENT ON COLUMN activity.owner IS 'role that it runs as';
COMMENT ON COLUMN activity.pid IS 'process that does it';
COMMENT ON COLUMN activity.path IS 'path of the step in its chain; null of a job';
COMMENT ON COLUMN activity.what IS 'chain, model, function, or sql';
COMMENT ON COLUMN activity.server IS 'server of a call, as routed last';
COMMENT ON COLUMN activity.since IS 'when it began';
COMMENT ON COLUMN activity.attempts IS 'attempts of a call so far; 0: it waits for a free slot';
COMMENT ON COLUMN activity.steps_done IS 'steps and items of a job that are done';
COMMENT ON COLUMN activity.steps_known IS 'steps and items of a job that are known so far; what later steps fan out to is not';

-- As the caller: row security of job and span decides.
CREATE VIEW job_status WITH (security_invoker = true) AS
SELECT j.id, j.chain, pg_catalog.pg_get_userbyid(j.owner) AS owner, j.state,
    CASE WHEN a.steps_done IS NOT NULL THEN a.steps_done
         WHEN j.started_at IS NULL THEN 0
         ELSE (SELECT pg_catalog.count(*) FROM chaincall.span s WHERE s.job = j.id AND s.try = 0 AND s.ended_at <= pg_catalog.clock_timestamp()) END AS steps_done,
    CASE WHEN a.steps_known IS NOT NULL THEN a.steps_known
         WHEN j.state = 'succeeded' THEN (SELECT pg_catalog.count(*) FROM chaincall.span s WHERE s.job = j.id AND s.try = 0) END AS steps_known,
    CASE WHEN j.state = 'running' AND a.steps_done > 0
         THEN pg_catalog.clock_timestamp()
            + (pg_catalog.clock_timestamp() - a.since) * ((a.steps_known - a.steps_done)::double precision / a.steps_done) END AS expected_finish,
    CASE j.state WHEN 'queued' THEN 'a worker'
         WHEN 'waiting' THEN CASE WHEN j.waits_on = 'answer' THEN 'an answer' ELSE coalesce(j.waits_on COLLATE pg_catalog."default" || ' to be resumed', 'time') END
         WHEN 'running' THEN coalesce(a.doing,
             CASE WHEN a.job IS NULL THEN NULL
                  WHEN EXISTS (SELECT FROM chaincall.question q WHERE q.job = j.id) THEN 'an answer'
                  ELSE 'time' END) END AS waits_for,
    j.priority, j.created_at, j.run_at, j.started_at, j.finished_at, j.deaths,
    j.error ->> 'class' AS error_class, j.error ->> 'message' AS error_message
FROM chaincall.job j
LEFT JOIN (
    SELECT e.job, pg_catalog.max(e.steps_done) AS steps_done, pg_catalog.max(e.steps_known) AS steps_known,
        pg_catalog.min(e.since) FILTER (WHERE e.kind = 'job') AS since,
        pg_catalog.array_to_string((pg_catalog.array_agg(e.path ORDER BY e.since) FILTER (WHERE e.kind <> 'job'))[1:3], ', ')
            || CASE WHEN pg_catalog.count(e.path) > 3 THEN pg_catalog.format(' and %s more', pg_catalog.count(e.path) - 3) ELSE '' END AS doing
    FROM chaincall.activity_entries() e
    GROUP BY e.job
) a ON a.job = j.id;
COMMENT ON VIEW job_status IS 'how far each job is; one''s own jobs';
COMMENT ON COLUMN job_status.id IS 'the job; also its trace id';
COMMENT ON COLUMN job_status.chain IS 'signature of its chain';
COMMENT ON COLUMN job_status.owner IS 'role that it runs as';
COMMENT ON COLUMN job_status.state IS 'queued, running, waiting, succeeded, failed, cancelled or expired';
COMMENT ON COLUMN job_status.steps_done IS 'steps and items that are done: as its caller says while it runs, else stored checkpoints';
COMMENT ON COLUMN job_status.steps_known IS 'steps and items known so far; what later steps fan out to is not';
COMMENT ON COLUMN job_status.expected_finish IS 'when the steps known now would be done at the pace so far';
COMMENT ON COLUMN job_status.waits_for IS 'a worker, time (until run_at), an answer (see question; until run_at at most), a paused model or chain, or the paths of the steps in the air, at most three';
COMMENT ON COLUMN job_status.priority IS 'higher is sooner';
COMMENT ON COLUMN job_status.created_at IS 'when it was inserted';
COMMENT ON COLUMN job_status.run_at IS 'before that it does not run';
COMMENT ON COLUMN job_status.started_at IS 'when it was claimed first';
COMMENT ON COLUMN job_status.finished_at IS 'when it came to its last state';
COMMENT ON COLUMN job_status.deaths IS 'workers that died of it; the third ends it';
COMMENT ON COLUMN job_status.error_class IS 'class of the error that ended it';
COMMENT ON COLUMN job_status.error_message IS 'message of the error that ended it';

-- As the view's owner, so that members of pg_monitor see counts without seeing jobs. Each state is counted by its own partial index: finished
-- jobs are not looked at.
CREATE VIEW queue_status WITH (security_barrier = true) AS
SELECT pg_catalog.pg_get_userbyid(u.owner) AS owner, u.chain,
    pg_catalog.sum(u.queued)::bigint AS queued, pg_catalog.sum(u.running)::bigint AS running, pg_catalog.sum(u.waiting)::bigint AS waiting,
    pg_catalog.clock_timestamp() - pg_catalog.min(u.oldest) AS oldest_age
FROM (
    SELECT owner, chain, pg_catalog.count(*) AS queued, 0 AS running, 0 AS waiting,
        pg_catalog.min(run_at) FILTER (WHERE pg_catalog.isfinite(run_at)) AS oldest
    FROM chaincall.job
    WHERE state = 'queued' AND ((SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
        OR owner = ANY (ARRAY(SELECT r.oid FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))))
    GROUP BY owner, chain
    UNION ALL
    SELECT owner, chain, 0, pg_catalog.count(*), 0, NULL
    FROM chaincall.job
    WHERE state = 'running' AND ((SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
        OR owner = ANY (ARRAY(SELECT r.oid FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))))
    GROUP BY owner, chain
    UNION ALL
    SELECT owner, chain, 0, 0, pg_catalog.count(*), NULL
    FROM chaincall.job
    WHERE state = 'waiting' AND ((SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
        OR owner = ANY (ARRAY(SELECT r.oid FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(r.oid, 'USAGE'))))
    GROUP BY owner, chain
) u
GROUP BY u.owner, u.chain;
COMMENT ON VIEW queue_status IS 'unfinished jobs by owner and chain; one''s own, all for members of pg_monitor';
COMMENT ON COLUMN queue_status.owner IS 'role that the jobs run as';
COMMENT ON COLUMN queue_status.chain IS 'signature of their chain';
COMMENT ON COLUMN queue_status.queued IS 'jobs that may run and are not claimed';
COMMENT ON COLUMN queue_status.running IS 'jobs that a worker has in hand';
COMMENT ON COLUMN queue_status.waiting IS 'jobs that wait for a time, a backoff or a person';
COMMENT ON COLUMN queue_status.oldest_age IS 'how long the oldest of the queued ones could have run';

CREATE VIEW stat_model AS
SELECT model, attempts, in_flight, rate, succeeded, transient, throttled, permanent, invalid, content, too_large, timeout, cancelled,
    mean_ms, p50_ms, p99_ms, first_byte_p50_ms, first_byte_p99_ms, tokens_in, tokens_out, last_attempt_at, last_failure_at, last_failure, since
FROM chaincall.stat_entries(true);
COMMENT ON VIEW stat_model IS 'model calls of this database by model, since the server''s start or stat_reset(); sessions and workers alike. Quantiles are off by at most 1/32 (3.2 %)';

CREATE VIEW stat_endpoint AS
SELECT s.model, s.version, s.server, s.attempts, s.in_flight, s.rate, s.succeeded, s.transient, s.throttled, s.permanent, s.invalid, s.content,
    s.too_large, s.timeout, s.cancelled, s.mean_ms, s.p50_ms, s.p99_ms, s.first_byte_p50_ms, s.first_byte_p99_ms, s.tokens_in, s.tokens_out,
    s.last_attempt_at, s.last_failure_at, s.last_failure, s.since, h.breaker, h.breaker_since, h.cooling_until
FROM chaincall.stat_entries(false) s
LEFT JOIN chaincall.health_entries() h ON h.model = s.model AND h.version = s.version AND h.server = s.server;
COMMENT ON VIEW stat_endpoint IS 'model calls of this database by endpoint, since the server''s start or stat_reset(); sessions and workers alike. Quantiles are off by at most 1/32 (3.2 %)';

DO $body$
DECLARE
    view_name text;
    column_name text;
    meaning text;
BEGIN
    FOR view_name, column_name, meaning IN
        SELECT a.attrelid::pg_catalog.regclass, a.attname, c.meaning
        FROM (VALUES
            ('model', 'logical name of the model; "(other)": all beyond chaincall.max_stats, of all databases'),
            ('version', 'version of the model'),
            ('server', 'server that has it'),
            ('attempts', 'attempts begun'),
            ('in_flight', 'attempts in the air now'),
            ('rate', 'attempts ended a second, over the last 60 s'),
            ('succeeded', 'attempts with a good answer'),
            ('transient', 'attempts that failed for the moment: connection, time-out of the service, 408, 409, 425, 5xx'),
            ('throttled', 'attempts that the service refused as too many: 429, 503 with Retry-After'),
            ('permanent', 'attempts that the service refused: other 4xx'),
            ('invalid', 'answers that are not what was asked for, cut-off ones included'),
            ('content', 'answers refused by the model or its provider'),
            ('too_large', 'answers larger than max_answer'),
            ('timeout', 'attempts given up because the step''s time was up'),
            ('cancelled', 'attempts given up because nobody wanted the answer any more'),
            ('mean_ms', 'mean duration of an attempt in ms, failed ones included, cancelled ones not'),
            ('p50_ms', 'median duration of an attempt in ms, off by at most 1/32 (3.2 %)'),
            ('p99_ms', 'duration in ms that 99 of 100 attempts do not exceed, off by at most 1/32 (3.2 %)'),
            ('first_byte_p50_ms', 'median time in ms from the request sent to the first byte of its answer, off by at most 1/32 (3.2 %)'),
            ('first_byte_p99_ms', 'time in ms to the first byte that 99 of 100 answers do not exceed, off by at most 1/32 (3.2 %)'),
            ('tokens_in', 'tokens of requests, as far as services told'),
            ('tokens_out', 'tokens of answers, as far as services told'),
            ('last_attempt_at', 'when an attempt was begun last'),
            ('last_failure_at', 'when an attempt failed last'),
            ('last_failure', 'class of that failure'),
            ('breaker', 'closed; open: the endpoint fails and is not asked; half-open: one call is let pass to see whether it answers again'),
            ('breaker_since', 'since when; of half-open, since when it is not closed'),
            ('cooling_until', 'until when a key is not used there, because the service throttled or refused it; the latest of any key'),
            ('since', 'when counting began')) AS c (name, meaning)
        JOIN pg_catalog.pg_attribute a ON a.attname = c.name
            AND a.attrelid IN ('chaincall.stat_model'::pg_catalog.regclass, 'chaincall.stat_endpoint'::pg_catalog.regclass)
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', view_name, column_name, meaning);
    END LOOP;
END
$body$;

CREATE VIEW stat_worker AS
SELECT w.kind, w.pid, d.datname AS database, CASE WHEN w.role IS NOT NULL THEN pg_catalog.pg_get_userbyid(w.role) END AS role, w.started_at,
    w.jobs, w.steps, w.calls, w.errors, w.commits, w.jobs_in_hand, w.calls_in_flight
FROM chaincall.worker_entries() w
LEFT JOIN pg_catalog.pg_database d ON d.oid = w.database;
COMMENT ON VIEW stat_worker IS 'background workers of all databases, each since its start';
COMMENT ON COLUMN stat_worker.kind IS 'launcher, caller, executor or maintainer';
COMMENT ON COLUMN stat_worker.pid IS 'its process; see pg_stat_activity';
COMMENT ON COLUMN stat_worker.database IS 'database that it works in; null of the launcher';
COMMENT ON COLUMN stat_worker.role IS 'role whose steps an executor runs';
COMMENT ON COLUMN stat_worker.started_at IS 'when it was started';
COMMENT ON COLUMN stat_worker.jobs IS 'jobs that a caller has claimed';
COMMENT ON COLUMN stat_worker.steps IS 'checkpoints written';
COMMENT ON COLUMN stat_worker.calls IS 'model calls started';
COMMENT ON COLUMN stat_worker.errors IS 'steps and attempts that failed';
COMMENT ON COLUMN stat_worker.commits IS 'transactions committed';
COMMENT ON COLUMN stat_worker.jobs_in_hand IS 'jobs that a caller has in its window now';
COMMENT ON COLUMN stat_worker.calls_in_flight IS 'model calls started and not ended now';

GRANT USAGE ON SCHEMA chaincall TO pg_monitor;
GRANT SELECT ON activity, queue_status, stat_model, stat_endpoint, stat_worker TO pg_monitor;
GRANT EXECUTE ON FUNCTION activity_entries(), stat_entries(boolean), health_entries(), worker_entries() TO pg_monitor;
