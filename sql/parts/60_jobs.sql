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
    CONSTRAINT job_pkey PRIMARY KEY (id)
);
-- What claims walk: an owner's queued jobs in their order.
CREATE INDEX job_queue ON job (owner, rank) WHERE state = 'queued';
-- What is not due yet.
CREATE INDEX job_waiting ON job (run_at) WHERE state = 'waiting';
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

-- What somebody asks of a job; the row is the record of who did what and what came of it.
CREATE TABLE action (
    id          uuid NOT NULL,
    job         uuid NOT NULL,
    action      text COLLATE "C" NOT NULL
                CONSTRAINT action_action_check CHECK (action IN ('cancel', 'retry', 'resolve', 'discard')),
    step        text,
    input       jsonb,
    output      jsonb,
    author      oid NOT NULL,
    created_at  timestamptz NOT NULL,
    state       text COLLATE "C" NOT NULL DEFAULT 'pending'
                CONSTRAINT action_state_check CHECK (state IN ('pending', 'applied', 'refused')),
    reason      text,
    applied_at  timestamptz,
    CONSTRAINT action_pkey PRIMARY KEY (id)
);
CREATE INDEX action_pending ON action (created_at) WHERE state = 'pending';
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
    CONSTRAINT alert_pkey PRIMARY KEY (id)
);
CREATE INDEX alert_open ON alert (created_at) WHERE acknowledged_at IS NULL;

-- The database that the extension was created in: in a copy of it the oid is another.
CREATE TABLE origin (
    database    oid NOT NULL,
    CONSTRAINT origin_pkey PRIMARY KEY (database)
);
INSERT INTO origin SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database();
