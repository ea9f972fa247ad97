-- Jobs: chains that run later, in the background. Nobody but a worker changes these rows; people INSERT.

CREATE TABLE job (
    id          uuid NOT NULL,
    chain       text NOT NULL,
    definition  bytea NOT NULL,
    input       jsonb NOT NULL DEFAULT '{}',
    state       text COLLATE "C" NOT NULL
                CONSTRAINT job_state_check CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'expired')),
    output      jsonb,
    error       jsonb,
    priority    integer NOT NULL DEFAULT 0,
    run_at      timestamptz NOT NULL,
    rank        timestamptz NOT NULL,
    expires_at  timestamptz,
    dedupe_key  text COLLATE "C",
    labels      jsonb NOT NULL DEFAULT '{}',
    owner       oid NOT NULL,
    traceparent text,
    worker      bigint,
    deaths      integer NOT NULL DEFAULT 0,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    finished_at timestamptz,
    waits_on    text COLLATE "C",
    deadlines   jsonb,
    retried_at  timestamptz,
    CONSTRAINT job_pkey PRIMARY KEY (id)
);
-- What claims walk: an owner's queued jobs in their order.
CREATE INDEX job_queue ON job (owner, rank, id) WHERE state = 'queued';
-- What is not due yet.
CREATE INDEX job_waiting ON job (run_at) WHERE state = 'waiting';
-- What waits for something else than time: an answer, a paused chain or model.
CREATE INDEX job_held ON job (waits_on) WHERE state = 'waiting' AND waits_on IS NOT NULL;
-- Whose worker died?
CREATE INDEX job_running ON job (worker) WHERE state = 'running';
-- What expires before it is claimed.
CREATE INDEX job_expiring ON job (expires_at) WHERE expires_at IS NOT NULL AND state IN ('queued', 'waiting', 'running');
-- What is to be thrown away.
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_labels ON job USING gin (labels jsonb_path_ops) WHERE labels <> '{}';
-- One job not yet started per owner, chain and key.
CREATE UNIQUE INDEX job_dedupe ON job (owner, chain, dedupe_key)
    WHERE state IN ('queued', 'waiting') AND started_at IS NULL AND dedupe_key IS NOT NULL;

-- Bodies of pinned chains. No unique index: enqueues would wait for each other's transactions.
CREATE TABLE definition (
    sha256      bytea NOT NULL,
    body        jsonb NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT pg_catalog.now()
);
CREATE INDEX definition_sha256 ON definition (sha256);
ALTER TABLE definition REPLICA IDENTITY FULL;

-- One attempt at one path; try 0 is the success, whose output is the checkpoint.
CREATE TABLE span (
    job         uuid NOT NULL,
    path        text COLLATE "C" NOT NULL,
    try         integer NOT NULL,
    id          bigint NOT NULL,
    owner       oid NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    model       text,
    version     text,
    server      text,
    started_at  timestamptz NOT NULL,
    sent_at     timestamptz,
    first_byte_at timestamptz,
    ended_at    timestamptz NOT NULL,
    tokens_in   bigint,
    tokens_out  bigint,
    http_status integer,
    attempt     integer NOT NULL DEFAULT 1,
    reask       boolean NOT NULL DEFAULT false,
    class       text COLLATE "C",
    message     text,
    worker      bigint,
    output      jsonb,
    sha256      bytea,
    CONSTRAINT span_pkey PRIMARY KEY (job, path, try)
) PARTITION BY RANGE (job);
CREATE TABLE span_default PARTITION OF span DEFAULT;
-- Who reads a partition goes past the policies of the whole; so none has any, and is nobody's to read.
ALTER TABLE span_default ENABLE ROW LEVEL SECURITY;

-- What somebody asks of a job; the row is the record of who did what and what came of it.
CREATE TABLE action (
    id          uuid NOT NULL,
    job         uuid,
    action      text COLLATE "C" NOT NULL
                CONSTRAINT action_action_check CHECK (action IN ('cancel', 'retry', 'resolve', 'discard', 'replace', 'acknowledge')),
    step        text,
    input       jsonb,
    output      jsonb,
    author      oid NOT NULL,
    created_at  timestamptz NOT NULL,
    state       text COLLATE "C" NOT NULL DEFAULT 'pending'
                CONSTRAINT action_state_check CHECK (state IN ('pending', 'applied', 'refused')),
    reason      text,
    applied_at  timestamptz,
    alert       uuid,
    CONSTRAINT action_pkey PRIMARY KEY (id),
    CONSTRAINT action_subject_check CHECK (CASE WHEN action = 'acknowledge' THEN alert IS NOT NULL AND job IS NULL ELSE job IS NOT NULL AND alert IS NULL END)
);
CREATE INDEX action_pending ON action (author, created_at, id) WHERE state = 'pending';
CREATE INDEX action_cancels ON action (author, created_at, id) WHERE state = 'pending' AND action = 'cancel';
CREATE INDEX action_first ON action (job, author, created_at, id) WHERE state = 'pending';
CREATE INDEX action_job ON action (job);

-- Dead letters and notices, to be acknowledged by a person. owner is null where it concerns the installation.
CREATE TABLE alert (
    id          uuid NOT NULL,
    kind        text COLLATE "C" NOT NULL,
    job         uuid,
    owner       oid,
    message     text NOT NULL,
    hint        text,
    created_at  timestamptz NOT NULL,
    acknowledged_by oid,
    acknowledged_at timestamptz,
    step        text COLLATE "C",
    input       jsonb,
    told_at     timestamptz,
    CONSTRAINT alert_pkey PRIMARY KEY (id)
);
-- What chaincall.alert_server has not been told of.
CREATE INDEX alert_untold ON alert (created_at, id) WHERE told_at IS NULL AND acknowledged_at IS NULL;
CREATE INDEX alert_open ON alert (created_at) WHERE acknowledged_at IS NULL;
CREATE INDEX alert_job ON alert (job) WHERE job IS NOT NULL;

-- What an ask step wants to know. The row is there as long as an answer is of use.
CREATE TABLE question (
    id          uuid NOT NULL,
    job         uuid NOT NULL,
    path        text COLLATE "C" NOT NULL,
    owner       oid NOT NULL,
    to_role     oid,
    question    text NOT NULL,
    show        jsonb,
    returns     jsonb,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    CONSTRAINT question_pkey PRIMARY KEY (job, path)
);
CREATE INDEX question_to_role ON question (to_role, created_at);

-- What holds for all jobs of a chain; a chain that has no row has no bound and is not paused.
CREATE TABLE chain_policy (
    chain       text NOT NULL
                CONSTRAINT chain_policy_chain_check CHECK (chain <> ''),
    ttl         interval
                CONSTRAINT chain_policy_ttl_check CHECK (ttl > '0'::pg_catalog.interval),
    paused      boolean NOT NULL DEFAULT false,
    CONSTRAINT chain_policy_pkey PRIMARY KEY (chain)
);
SELECT pg_catalog.pg_extension_config_dump('chain_policy', '');

-- The database that the extension was created in: in a copy of it the oid is another.
CREATE TABLE origin (
    database    oid NOT NULL,
    CONSTRAINT origin_pkey PRIMARY KEY (database)
);
INSERT INTO origin SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database();

COMMENT ON TABLE job IS 'Chains that run in the background; INSERT chain and input, workers do the rest';
COMMENT ON TABLE definition IS 'Chains as they were when jobs were enqueued, with all that they name';
COMMENT ON TABLE span IS 'Attempts at steps of jobs: the trace, and the outputs that a job goes on from';
COMMENT ON TABLE span_default IS 'Spans of days that have no partition of their own';
COMMENT ON TABLE action IS 'What somebody asks of a job: who, when, and what came of it';
COMMENT ON TABLE alert IS 'Dead letters and notices';
COMMENT ON COLUMN alert.id IS 'the alert; what NOTIFY chaincall_alert tells';
COMMENT ON COLUMN alert.kind IS 'dead_letter, executor, corrupt_checkpoint or partition';
COMMENT ON COLUMN alert.job IS 'the job that it is about';
COMMENT ON COLUMN alert.owner IS 'role that it concerns; null: the installation';
COMMENT ON COLUMN alert.message IS 'what has happened';
COMMENT ON COLUMN alert.hint IS 'what to do';
COMMENT ON COLUMN alert.created_at IS 'when it was written';
COMMENT ON COLUMN alert.acknowledged_by IS 'who has seen to it';
COMMENT ON COLUMN alert.acknowledged_at IS 'when; null: it is open';
COMMENT ON COLUMN alert.step IS 'path of the step that failed';
COMMENT ON COLUMN alert.input IS 'what that step was asked: a request''s body, a statement''s parameters, a function''s arguments; null: not known, or larger than 256 kB';
COMMENT ON COLUMN alert.told_at IS 'when chaincall.alert_server took it; null: not yet';
COMMENT ON TABLE question IS 'What ask steps of jobs want to know, for the owner of the job and members of to_role; resolve(job, path, answer) answers';
COMMENT ON COLUMN question.id IS 'the question; what NOTIFY chaincall_question tells';
COMMENT ON COLUMN question.job IS 'the job that asks';
COMMENT ON COLUMN question.path IS 'path of the step that asks';
COMMENT ON COLUMN question.owner IS 'role that the job runs as';
COMMENT ON COLUMN question.to_role IS 'role whose members may answer; null: only the owner''s';
COMMENT ON COLUMN question.question IS 'the question';
COMMENT ON COLUMN question.show IS 'what is shown with it';
COMMENT ON COLUMN question.returns IS 'JSON Schema that the answer must fit; null: a text';
COMMENT ON COLUMN question.created_at IS 'when it was put';
COMMENT ON COLUMN question.expires_at IS 'when nobody needs the answer any more; null: never';
COMMENT ON TABLE chain_policy IS 'What holds for all jobs of a chain: how long they may live, whether they are claimed';
COMMENT ON COLUMN chain_policy.chain IS 'signature as in job.chain';
COMMENT ON COLUMN chain_policy.ttl IS 'expires_at of jobs that are enqueued without one: so long after their run_at; null: none';
COMMENT ON COLUMN chain_policy.paused IS 'jobs are not claimed while this is true; those that run go on';
COMMENT ON TABLE origin IS 'The database that the extension was created in';

-- ---- triggers: what a row is when it is inserted, and which rows are none of this node's ----

CREATE FUNCTION job_insert() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_job_insert';
COMMENT ON FUNCTION job_insert() IS 'Makes of what a user gives a whole job, pinned to its chain as it is now';

CREATE FUNCTION job_inserted() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_job_inserted';
COMMENT ON FUNCTION job_inserted() IS 'Counts and announces a job that has a dedupe_key';

CREATE FUNCTION action_insert() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_action_insert';
COMMENT ON FUNCTION action_insert() IS 'Notes who asks for an action, and when';

CREATE FUNCTION drop_replicated() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_drop_replicated';
COMMENT ON FUNCTION drop_replicated() IS 'Drops rows that arrive by logical replication: they are the other node''s work';

CREATE FUNCTION check_chain_policy() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_check_chain_policy';
COMMENT ON FUNCTION check_chain_policy() IS 'Has the chain be named as jobs name it';

CREATE TRIGGER check_chain_policy BEFORE INSERT OR UPDATE ON chain_policy
    FOR EACH ROW EXECUTE FUNCTION check_chain_policy();
CREATE TRIGGER definitions_changed AFTER INSERT OR UPDATE OR DELETE ON chain_policy
    FOR EACH ROW EXECUTE FUNCTION definitions_changed();
CREATE TRIGGER definitions_truncated AFTER TRUNCATE ON chain_policy
    FOR EACH STATEMENT EXECUTE FUNCTION definitions_changed();
ALTER TABLE chain_policy ENABLE ALWAYS TRIGGER definitions_changed, ENABLE ALWAYS TRIGGER definitions_truncated;
COMMENT ON TRIGGER check_chain_policy ON chain_policy IS 'Names the chain as jobs name it';
COMMENT ON TRIGGER definitions_changed ON chain_policy IS 'Tells all sessions';
COMMENT ON TRIGGER definitions_truncated ON chain_policy IS 'Tells all sessions';

-- ENABLE ALWAYS: replication fires no others.
CREATE TRIGGER job_insert BEFORE INSERT ON job
    FOR EACH ROW EXECUTE FUNCTION job_insert();
-- Only these can meet ON CONFLICT DO NOTHING after the trigger above has run.
CREATE TRIGGER job_inserted AFTER INSERT ON job
    FOR EACH ROW WHEN (NEW.dedupe_key IS NOT NULL) EXECUTE FUNCTION job_inserted();
ALTER TABLE job ENABLE ALWAYS TRIGGER job_insert, ENABLE ALWAYS TRIGGER job_inserted;

CREATE TRIGGER action_insert BEFORE INSERT ON action
    FOR EACH ROW EXECUTE FUNCTION action_insert();
ALTER TABLE action ENABLE ALWAYS TRIGGER action_insert;

CREATE TRIGGER drop_replicated BEFORE INSERT ON span
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE span ENABLE ALWAYS TRIGGER drop_replicated;

CREATE TRIGGER drop_replicated BEFORE INSERT ON alert
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE alert ENABLE ALWAYS TRIGGER drop_replicated;

CREATE TRIGGER drop_replicated BEFORE INSERT ON question
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE question ENABLE ALWAYS TRIGGER drop_replicated;

CREATE TRIGGER drop_replicated BEFORE INSERT ON definition
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE definition ENABLE ALWAYS TRIGGER drop_replicated;

-- The other node's database has another oid: with its row this one would be taken for a copy.
CREATE TRIGGER drop_replicated BEFORE INSERT OR UPDATE OR DELETE ON origin
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE origin ENABLE ALWAYS TRIGGER drop_replicated;

-- ---- whose rows these are ----

ALTER TABLE job ENABLE ROW LEVEL SECURITY;
CREATE POLICY job_see ON job FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE'));
CREATE POLICY job_enqueue ON job FOR INSERT
    WITH CHECK (owner OPERATOR(pg_catalog.=) (SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(CURRENT_USER::pg_catalog.text))::pg_catalog.oid));

ALTER TABLE span ENABLE ROW LEVEL SECURITY;
CREATE POLICY span_see ON span FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE'));

ALTER TABLE action ENABLE ROW LEVEL SECURITY;
CREATE POLICY action_see ON action FOR SELECT
    USING (pg_catalog.pg_has_role(author, 'USAGE')
           OR EXISTS (SELECT FROM chaincall.job j WHERE j.id OPERATOR(pg_catalog.=) action.job));
CREATE POLICY action_ask ON action FOR INSERT
    WITH CHECK (author OPERATOR(pg_catalog.=) (SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(CURRENT_USER::pg_catalog.text))::pg_catalog.oid));

ALTER TABLE alert ENABLE ROW LEVEL SECURITY;
CREATE POLICY alert_see ON alert FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE'));

ALTER TABLE question ENABLE ROW LEVEL SECURITY;
CREATE POLICY question_see ON question FOR SELECT
    USING (pg_catalog.pg_has_role(owner, 'USAGE') OR pg_catalog.pg_has_role(to_role, 'USAGE'));

-- As the caller: row security of alert, job and span decides.
CREATE VIEW dead_letter WITH (security_invoker = true) AS
SELECT a.id AS alert, j.id AS job, j.chain, pg_catalog.pg_get_userbyid(j.owner) AS owner, a.step,
    j.error ->> 'class' AS error_class, j.error ->> 'message' AS message, j.error ->> 'detail' AS detail, j.error ->> 'hint' AS hint,
    (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('time', e.ended_at, 'model', e.model, 'server', e.server, 'class', e.class, 'message', e.message)
                                 ORDER BY e.try)
     FROM (SELECT s.ended_at, s.model, s.server, s.class, s.message, s.try
           FROM chaincall.span s WHERE s.job = j.id AND s.path = a.step AND s.try > 0
           ORDER BY s.try DESC LIMIT 5) e) AS last_errors,
    a.input,
    (SELECT s.try FROM chaincall.span s WHERE s.job = j.id AND s.path = a.step ORDER BY s.try DESC LIMIT 1) AS tries,
    j.deaths, a.created_at
FROM chaincall.alert a
JOIN chaincall.job j ON j.id = a.job
WHERE a.kind = 'dead_letter' AND a.acknowledged_at IS NULL AND j.state = 'failed';
COMMENT ON VIEW dead_letter IS 'failed jobs that nobody has seen to: retry(), resolve(), discard() and acknowledge() take them off; one''s own';
COMMENT ON COLUMN dead_letter.alert IS 'the open alert';
COMMENT ON COLUMN dead_letter.job IS 'the job';
COMMENT ON COLUMN dead_letter.chain IS 'signature of its chain';
COMMENT ON COLUMN dead_letter.owner IS 'role that it runs as';
COMMENT ON COLUMN dead_letter.step IS 'path of the step that failed, as retry() and resolve() take it';
COMMENT ON COLUMN dead_letter.error_class IS 'class of the error';
COMMENT ON COLUMN dead_letter.message IS 'what went wrong';
COMMENT ON COLUMN dead_letter.detail IS 'what was seen';
COMMENT ON COLUMN dead_letter.hint IS 'what to do';
COMMENT ON COLUMN dead_letter.last_errors IS 'the last five failed attempts at that step: time, model, server, class, message';
COMMENT ON COLUMN dead_letter.input IS 'what that step was asked, as render() shows it: the request''s body, the parameters, the arguments';
COMMENT ON COLUMN dead_letter.tries IS 'failed attempts at that step in all';
COMMENT ON COLUMN dead_letter.deaths IS 'workers that died of the job';
COMMENT ON COLUMN dead_letter.created_at IS 'when it failed';

-- ---- what people do with jobs ----

CREATE FUNCTION submit(chain text, input jsonb DEFAULT '{}', priority integer DEFAULT 0, run_at timestamptz DEFAULT NULL,
                       expires_at timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, labels jsonb DEFAULT '{}',
                       traceparent text DEFAULT NULL, dedupe text DEFAULT NULL) RETURNS uuid
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_submit';
COMMENT ON FUNCTION submit(text, jsonb, integer, timestamptz, timestamptz, text, jsonb, text, text) IS
    'enqueues a job: its id; with dedupe that of the job not yet started that has the same dedupe_key, which skip leaves as it is and replace gives the new input';

CREATE FUNCTION result(job uuid, timeout interval DEFAULT NULL) RETURNS jsonb
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_result';
COMMENT ON FUNCTION result(uuid, interval) IS
    'waits until a job has ended: its output, or its error raised';

CREATE FUNCTION cancel(job uuid) RETURNS uuid
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_cancel';
COMMENT ON FUNCTION cancel(uuid) IS
    'asks for a job to be cancelled: the id of the action, which a worker applies';

CREATE FUNCTION pause(kind text, name text) RETURNS void
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_pause';
COMMENT ON FUNCTION pause(text, text) IS
    'pauses a chain (its owner may: jobs of it are not claimed) or a model (who may update chaincall.model: calls of it wait in jobs and fail in sessions)';

CREATE FUNCTION resume(kind text, name text) RETURNS void
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_resume';
COMMENT ON FUNCTION resume(text, text) IS
    'lets a chain or a model that was paused go on';

CREATE FUNCTION set_ttl(chain text, ttl interval) RETURNS void
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_set_ttl';
COMMENT ON FUNCTION set_ttl(text, interval) IS
    'has jobs of a chain (its owner may) that are enqueued without an expires_at expire so long after their run_at; null: never';

-- Each asks for an action: the id of its row, which says what came of it. A worker applies it.
CREATE FUNCTION retry(job uuid) RETURNS uuid
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_retry';
COMMENT ON FUNCTION retry(uuid) IS
    'asks for a failed job to be tried again from the step that failed; the steps before are kept';

CREATE FUNCTION retry(job uuid, step text, input jsonb) RETURNS uuid
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_retry';
COMMENT ON FUNCTION retry(uuid, text, jsonb) IS
    'the same, and the step at that path is asked this input in place of what its chain renders';

CREATE FUNCTION resolve(job uuid, step text, output jsonb) RETURNS uuid
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_resolve';
COMMENT ON FUNCTION resolve(uuid, text, jsonb) IS
    'gives a step that has failed its output, with which the job goes on; or answers what an ask step asks';

CREATE FUNCTION discard(job uuid) RETURNS uuid
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_discard';
COMMENT ON FUNCTION discard(uuid) IS
    'gives a failed job up: it becomes cancelled, its alert acknowledged';

CREATE FUNCTION acknowledge(alert uuid) RETURNS uuid
    LANGUAGE c VOLATILE STRICT
    AS 'MODULE_PATHNAME', 'chaincall_acknowledge';
COMMENT ON FUNCTION acknowledge(uuid) IS
    'notes that the caller has seen an alert';
