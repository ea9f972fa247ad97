-- Where models live and what they are called.
--
-- Servers and keys are PostgreSQL's own objects (CREATE SERVER, CREATE USER MAPPING, GRANT USAGE); what PostgreSQL
-- has no object for are the two tables below. pg_dump takes their rows along.

-- All names below are looked up in this schema too, as the superuser who runs this: where somebody else can create
-- functions or operators in it, one with better fitting arguments would be taken for PostgreSQL's own. In the check itself
-- and in constraints every name is qualified or has an exact match in pg_catalog, which comes first.
DO $body$
BEGIN
    IF EXISTS (
        SELECT FROM pg_catalog.pg_namespace n, pg_catalog.pg_roles r
        WHERE n.nspname = 'chaincall' AND NOT r.rolsuper
          AND (n.nspowner = r.oid
               OR pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
                  AND NOT pg_catalog.pg_has_role(r.oid, n.nspowner, 'MEMBER')
               OR EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.pronamespace = n.oid AND p.proowner = r.oid)
               OR EXISTS (SELECT FROM pg_catalog.pg_operator o WHERE o.oprnamespace = n.oid AND o.oprowner = r.oid))
    ) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = 'schema "chaincall" is not safe to install the extension into',
            DETAIL = 'A role that is no superuser owns it, may create objects in it, or owns functions or operators in it.',
            HINT = 'Look at what it holds and rename or drop it; CREATE EXTENSION makes a new one.';
    END IF;
END
$body$;

COMMENT ON SCHEMA chaincall IS 'Chains of model calls as SQL functions';

CREATE FUNCTION fdw_validator(text[], oid) RETURNS void
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_fdw_validator';
COMMENT ON FUNCTION fdw_validator(text[], oid) IS 'Checks the options of servers and user mappings';

CREATE FOREIGN DATA WRAPPER chaincall NO HANDLER VALIDATOR fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER chaincall IS 'Model services: a server has an api, a url and limits, a user mapping the key';

CREATE TABLE model (
    name        text NOT NULL
                CONSTRAINT model_name_check CHECK (name <> '' AND octet_length(name) <= 255),
    kind        text NOT NULL DEFAULT 'chat'
                CONSTRAINT model_kind_check CHECK (kind IN ('chat', 'embedding', 'rerank', 'image', 'audio', 'json')),
    params      jsonb NOT NULL DEFAULT '{}',
    retry       jsonb,
    timeout     interval,
    fallback    text[] NOT NULL DEFAULT '{}'
                CONSTRAINT model_fallback_check CHECK (CASE WHEN coalesce(pg_catalog.array_ndims(fallback), 1) = 1 THEN pg_catalog.array_position(fallback, NULL) IS NULL ELSE false END),
    paused      boolean NOT NULL DEFAULT false,
    CONSTRAINT model_pkey PRIMARY KEY (name)
);
COMMENT ON TABLE model IS 'Logical models, which chains name';
COMMENT ON COLUMN model.name IS 'What chains call it';
COMMENT ON COLUMN model.kind IS 'chat, embedding, rerank, image, audio or json: what goes in and what comes out';
COMMENT ON COLUMN model.params IS 'Defaults of a step''s params: temperature, top_p, max_tokens, stop, seed, reasoning';
COMMENT ON COLUMN model.retry IS 'Number of repetitions, or {attempts, first, factor, max}; null: five attempts, 1 s, 2, 30 s';
COMMENT ON COLUMN model.timeout IS 'Of a call with all its attempts; null: the server''s';
COMMENT ON COLUMN model.fallback IS 'Models that are tried next, in this order, when this one cannot answer; the names are not checked here';
COMMENT ON COLUMN model.paused IS 'While this is true calls go to a fallback; without one they wait in jobs and fail in sessions';

CREATE TABLE endpoint (
    model       text NOT NULL
                CONSTRAINT endpoint_model_fkey REFERENCES model ON UPDATE CASCADE ON DELETE CASCADE,
    version     text NOT NULL DEFAULT '1'
                CONSTRAINT endpoint_version_check CHECK (version <> ''),
    server      text NOT NULL,
    remote_name text NOT NULL
                CONSTRAINT endpoint_remote_name_check CHECK (remote_name <> ''),
    weight      float8 NOT NULL DEFAULT 1
                CONSTRAINT endpoint_weight_check CHECK (weight >= 0::float8 AND weight < 'Infinity'::float8),
    CONSTRAINT endpoint_pkey PRIMARY KEY (model, version, server, remote_name)
);
COMMENT ON TABLE endpoint IS 'Ways to reach a model';
COMMENT ON COLUMN endpoint.model IS 'The logical model';
COMMENT ON COLUMN endpoint.version IS 'The version of the model that this endpoint serves';
COMMENT ON COLUMN endpoint.server IS 'Foreign server of the wrapper chaincall';
COMMENT ON COLUMN endpoint.remote_name IS 'What the service calls the model; left out: the model''s own name';
COMMENT ON COLUMN endpoint.weight IS 'Share of the calls, relative to the other endpoints; 0: none';

SELECT pg_catalog.pg_extension_config_dump('model', '');
SELECT pg_catalog.pg_extension_config_dump('endpoint', '');

CREATE FUNCTION check_model() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_check_model';
COMMENT ON FUNCTION check_model() IS 'Checks kind, params, retry and timeout of a model';

CREATE FUNCTION check_endpoint() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_check_endpoint';
COMMENT ON FUNCTION check_endpoint() IS 'Checks the server of an endpoint and fills in its remote name';

CREATE FUNCTION definitions_changed() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_definitions_changed';
COMMENT ON FUNCTION definitions_changed() IS 'Tells all sessions that models or endpoints have changed';

CREATE TRIGGER check_model BEFORE INSERT OR UPDATE ON model
    FOR EACH ROW EXECUTE FUNCTION check_model();
COMMENT ON TRIGGER check_model ON model IS 'Checks kind, params, retry and timeout';

CREATE TRIGGER check_endpoint BEFORE INSERT OR UPDATE ON endpoint
    FOR EACH ROW EXECUTE FUNCTION check_endpoint();
COMMENT ON TRIGGER check_endpoint ON endpoint IS 'Checks the server and fills in the remote name';

-- A row each: logical replication fires no statement triggers.
CREATE TRIGGER definitions_changed AFTER INSERT OR UPDATE OR DELETE ON model
    FOR EACH ROW EXECUTE FUNCTION definitions_changed();
CREATE TRIGGER definitions_truncated AFTER TRUNCATE ON model
    FOR EACH STATEMENT EXECUTE FUNCTION definitions_changed();
ALTER TABLE model ENABLE ALWAYS TRIGGER definitions_changed, ENABLE ALWAYS TRIGGER definitions_truncated;
COMMENT ON TRIGGER definitions_changed ON model IS 'Tells all sessions';
COMMENT ON TRIGGER definitions_truncated ON model IS 'Tells all sessions';

CREATE TRIGGER definitions_changed AFTER INSERT OR UPDATE OR DELETE ON endpoint
    FOR EACH ROW EXECUTE FUNCTION definitions_changed();
CREATE TRIGGER definitions_truncated AFTER TRUNCATE ON endpoint
    FOR EACH STATEMENT EXECUTE FUNCTION definitions_changed();
ALTER TABLE endpoint ENABLE ALWAYS TRIGGER definitions_changed, ENABLE ALWAYS TRIGGER definitions_truncated;
COMMENT ON TRIGGER definitions_changed ON endpoint IS 'Tells all sessions';
COMMENT ON TRIGGER definitions_truncated ON endpoint IS 'Tells all sessions';
