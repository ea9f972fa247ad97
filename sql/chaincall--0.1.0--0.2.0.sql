\echo Use "ALTER EXTENSION chaincall UPDATE" to load this file. \quit

-- From 0.1.0 to 0.2.0. What it leaves must be what CREATE EXTENSION makes of 0.2.0: test/t/050_upgrade.pl compares everything.
--
-- For whoever adds to it:
--   new columns come last, here and in sql/parts, or upgraded and fresh tables would have them in another order; the partitions of span get
--     theirs from span. None is dropped: the library counts them;
--   what is new is revoked from PUBLIC at the end, object by object. GRANT and REVOKE on what 0.1.0 had are not for a script: PostgreSQL would take
--     all privileges that the object has then, those that people have given too, for the extension's own, and pg_dump would leave them out. So
--     grant_usage() is run again after an update, by hand;
--   a function keeps its privileges and its dependants by CREATE OR REPLACE; what the new library has no C function for any more is dropped.

-- ---- models ----

COMMENT ON COLUMN model.fallback IS 'Models that are tried next, in this order, when this one cannot answer; the names are not checked here';
COMMENT ON COLUMN model.paused IS 'While this is true calls go to a fallback; without one they wait in jobs and fail in sessions';

CREATE OR REPLACE FUNCTION json_schema() RETURNS json
    LANGUAGE sql STABLE
BEGIN ATOMIC
    WITH
    -- what every step may have
    modifiers AS (
        SELECT $json$ {
            "when": {"$ref": "#/$defs/condition",
                "description": "Runs only if this holds; else the output is null. Decided once, before each."},
            "each": {"$ref": "#/$defs/expression",
                "description": "An array: one run per element, in parallel; the output is an array in the same order. A number n: runs 1 to n. Null: no run."},
            "as": {"$ref": "#/$defs/name",
                "description": "The element's name inside. Default: item. Goes with each."},
            "max_parallel": {"type": "integer", "minimum": 1,
                "description": "At most so many elements at once. Goes with each."},
            "until": {"$ref": "#/$defs/condition",
                "description": "Repeats the step until this holds. Inside, the step's own name is the last round's output, null in the first; round counts from 1."},
            "max": {"type": "integer", "minimum": 1, "default": 10,
                "description": "Rounds at most; when they are used up the step fails (class limit). Goes with until."},
            "after": {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}],
                "description": "Steps to wait for, though nothing of theirs is used."},
            "timeout": {"$ref": "#/$defs/interval",
                "description": "Longest time of one element with all its attempts and rounds, such as 300 ms. Default: the server's."},
            "on_error": {"description": "What happens when the step has failed: fail, skip (the output is null), or a step that runs instead and sees error.class, .message, .step, .sqlstate, .tried.",
                "anyOf": [{"enum": ["fail", "skip"]}, {"$ref": "#/$defs/step"}], "default": "fail"}
        } $json$::jsonb AS properties
    ),
    -- what each kind has beside them: its key, title, own keys, further rules
    kinds (key, title, own, rules) AS (VALUES
        ('model', 'A call of a model', $json$ {
            "model": {"$ref": "#/$defs/model_name", "description": "Calls this model; the output is its answer."},
            "prompt": {"$ref": "#/$defs/text", "description": "One message of the user."},
            "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/message"},
                "description": "A conversation: a list of {role, content}. An entry that is a template is an array of such, spliced in."},
            "input": {"$ref": "#/$defs/json", "description": "For embeddings (a text or an array of texts), rerank ({query, documents}) and any JSON service."},
            "request": {"$ref": "#/$defs/json", "description": "The provider's own body; the output is its raw answer."},
            "system": {"$ref": "#/$defs/text", "description": "System text, put where the api wants it."},
            "params": {"$ref": "#/$defs/params", "description": "Parameters by neutral names. Default: the model's. Null: not sent."},
            "extra": {"type": "object", "additionalProperties": false,
                "properties": {"openai": {"type": "object"}, "anthropic": {"type": "object"}, "http": {"type": "object"}},
                "description": "The provider's own fields, by api."},
            "returns": {"$ref": "#/$defs/returns",
                "description": "What the answer must be: an SQL type, a map of fields, or a list of labels. Asked for by the api's own means, always checked."},
            "schema": {"type": ["object", "boolean"],
                "description": "The same as a JSON Schema, draft 2020-12."},
            "reask": {"type": "integer", "minimum": 0, "default": 1,
                "description": "How often an answer that does not fit goes back to the model. Goes with returns or schema."},
            "retry": {"$ref": "#/$defs/retry", "description": "Repetitions when a call fails for the moment. Default: the model's."},
            "fallback": {"anyOf": [{"$ref": "#/$defs/model_name"}, {"type": "array", "uniqueItems": true, "items": {"$ref": "#/$defs/model_name"}}],
                "description": "Models that are tried next, in this order, when this one cannot answer. Default: the model's."}
         } $json$::jsonb, $json$ {
            "oneOf": [
                {"required": ["prompt"]},
                {"required": ["messages"]},
                {"required": ["input"], "not": {"required": ["system"]}},
                {"required": ["request"], "not": {"anyOf": [{"required": ["system"]}, {"required": ["params"]}, {"required": ["extra"]},
                    {"required": ["returns"]}, {"required": ["schema"]}, {"required": ["reask"]}, {"required": ["fallback"]}]}}
            ],
            "not": {"required": ["returns", "schema"]},
            "if": {"required": ["reask"]},
            "then": {"anyOf": [{"required": ["returns"]}, {"required": ["schema"]}]}
         } $json$::jsonb),
        ('sql', 'SQL', $json$ {
            "sql": {"$ref": "#/$defs/text",
                "description": "One or more statements; the output is what the last one gives. A template is a bind parameter, whose type PostgreSQL infers: no quotes around it."},
            "returns": {"enum": ["rows", "row", "value"], "default": "rows",
                "description": "rows: an array of objects; row: one object or null; value: one value or null."},
            "retry": {"$ref": "#/$defs/retry", "description": "Repetitions when the statement fails. Default: none."}
         } $json$::jsonb, '{}'::jsonb),
        ('function', 'A function or another chain', $json$ {
            "function": {"$ref": "#/$defs/function_name",
                "description": "Calls this function: its name, or its signature where the name is overloaded."},
            "args": {"type": ["object", "null"], "additionalProperties": {"$ref": "#/$defs/json"},
                "description": "The arguments by name; those with a default may be left out."},
            "retry": {"$ref": "#/$defs/retry", "description": "Repetitions when the function fails. Default: none."}
         } $json$::jsonb, '{}'::jsonb),
        ('steps', 'A block of steps', $json$ {
            "steps": {"type": "object", "minProperties": 1, "propertyNames": {"$ref": "#/$defs/name"}, "additionalProperties": {"$ref": "#/$defs/step"},
                "description": "Steps by name. Each starts as soon as the steps it names have ended; their order does not matter."},
            "output": {"$ref": "#/$defs/json",
                "description": "The block's output. Default: that of the only step which no other names."}
         } $json$::jsonb, '{}'::jsonb),
        ('switch', 'A choice', $json$ {
            "switch": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"},
                "description": "The first of these steps whose when holds runs; one without when, the last, is the else. None: null."}
         } $json$::jsonb, '{}'::jsonb),
        ('value', 'A value', $json$ {
            "value": {"$ref": "#/$defs/json", "description": "The output: any JSON, with templates."}
         } $json$::jsonb, '{}'::jsonb),
        ('wait', 'A wait', $json$ {
            "wait": {"$ref": "#/$defs/interval",
                "description": "Waits so long, such as 2 hours; or a template that gives an interval or a time. The output is the time at which it ends."}
         } $json$::jsonb, '{}'::jsonb),
        ('ask', 'A question', $json$ {
            "ask": {"$ref": "#/$defs/text",
                "description": "Asks a person or another system; the output is what resolve() answers. In jobs only."},
            "show": {"$ref": "#/$defs/json", "description": "What is shown with the question."},
            "to": {"$ref": "#/$defs/text",
                "description": "A role whose members may see the question and answer it. Default: only who has the privileges of the job's owner."},
            "returns": {"$ref": "#/$defs/returns",
                "description": "What the answer must be: an SQL type, a map of fields, or a list of labels. Default: a text."}
         } $json$::jsonb, '{}'::jsonb)
    ),
    steps AS (
        SELECT jsonb_object_agg(key || '_step', rules || jsonb_build_object(
            'title', title,
            'type', 'object',
            'properties', own || modifiers.properties,
            'required', jsonb_build_array(key),
            'additionalProperties', false,
            'dependentRequired', '{"as": ["each"], "max_parallel": ["each"], "max": ["until"]}'::jsonb)) AS definitions,
            jsonb_agg(jsonb_build_object('$ref', '#/$defs/' || key || '_step')) AS alternatives
        FROM kinds, modifiers
    ),
    parts AS (
        SELECT $json$ {
            "text": {"type": ["string", "number", "boolean"],
                "description": "A text; {{expression}} in it is replaced."},
            "expression": {"type": ["string", "number"],
                "description": "An expression, bare: a jsonpath that begins with the name of an input or a step, such as kind.label or hits[*].body."},
            "condition": {"type": ["string", "boolean"],
                "description": "A condition, bare, such as review.score >= 8 || round == 3."},
            "json": {"description": "Any JSON; a text that is nothing but one {{expression}} takes its value with its type."},
            "name": {"type": "string", "pattern": "^[a-z_][a-z0-9_]*$",
                "not": {"enum": ["true", "false", "null", "exists", "is", "last", "to", "strict", "lax", "like_regex", "starts", "with", "flag",
                    "unknown", "item", "index", "round", "error"]},
                "description": "Lower-case letters, digits and _; no reserved word."},
            "interval": {"type": "string", "description": "An interval with its unit, such as 300 ms or 2 min."},
            "retry": {"anyOf": [
                {"type": "integer", "minimum": 0, "description": "So many repetitions; 0: none."},
                {"type": "object", "additionalProperties": false, "properties": {
                    "attempts": {"type": "integer", "minimum": 1, "default": 5, "description": "Attempts, the first one counted."},
                    "first": {"$ref": "#/$defs/interval", "description": "The first wait. Default: 1 s."},
                    "factor": {"type": "number", "minimum": 1, "maximum": 1000, "default": 2, "description": "By what each wait is longer than the one before."},
                    "max": {"$ref": "#/$defs/interval", "description": "The longest wait. Default: 30 s."}}}]},
            "message": {"anyOf": [
                {"type": "string", "description": "A template that gives an array of messages."},
                {"type": "object", "additionalProperties": false, "required": ["role", "content"], "properties": {
                    "role": {"enum": ["user", "assistant", "system", "tool"]},
                    "content": {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "minItems": 1, "items": {"anyOf": [{"$ref": "#/$defs/text"},
                        {"type": "object", "additionalProperties": false, "required": ["text"], "properties": {"text": {"$ref": "#/$defs/text"}}}]}}],
                        "description": "A text, or a list of {text}."}}}]},
            "template": {"type": "string", "pattern": "[{][{]"},
            "params": {"type": "object", "additionalProperties": false, "properties": {
                "temperature": {"anyOf": [{"type": ["number", "null"]}, {"$ref": "#/$defs/template"}]},
                "top_p": {"anyOf": [{"type": ["number", "null"]}, {"$ref": "#/$defs/template"}]},
                "max_tokens": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}, {"$ref": "#/$defs/template"}],
                    "description": "An answer that is cut off here fails (class invalid)."},
                "stop": {"anyOf": [{"type": ["string", "null"]}, {"type": "array", "items": {"type": "string"}}],
                    "description": "A text or a list of texts at which the answer ends."},
                "seed": {"anyOf": [{"type": ["integer", "null"]}, {"$ref": "#/$defs/template"}]},
                "reasoning": {"anyOf": [{"enum": ["none", "minimal", "low", "medium", "high", null]}, {"$ref": "#/$defs/template"}]}}},
            "returns": {"anyOf": [
                {"type": "string", "minLength": 1, "description": "An SQL type, such as int or text[]; what follows a comma is its description for the model."},
                {"$ref": "#/$defs/fields"},
                {"type": "array", "minItems": 1, "maxItems": 1, "items": {"$ref": "#/$defs/fields"}, "description": "An array of objects."},
                {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean", "null"]}, "description": "One of these labels."}]},
            "fields": {"type": "object", "minProperties": 1, "additionalProperties": {"$ref": "#/$defs/returns"},
                "description": "Fields by name; one whose name ends in ? may be missing."}
        } $json$::jsonb AS definitions
    ),
    -- of this database
    models AS (
        SELECT CASE WHEN count(*) = 0 THEN '{"type": "string"}'::jsonb
                    ELSE jsonb_build_object('enum', jsonb_agg(name ORDER BY name)) END AS definition
        FROM chaincall.model
        WHERE kind NOT IN ('image', 'audio')
    ),
    functions AS (
        SELECT p.oid, quote_ident(p.proname) AS name, quote_ident(n.nspname) || '.' || quote_ident(p.proname) AS qualified,
               n.nspname = 'pg_catalog' AS builtin
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE p.prokind = 'f'
          AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')
          AND n.nspname NOT LIKE 'pg\_temp\_%' AND n.nspname <> 'pg_toast'
          -- arguments are given by name
          AND NOT EXISTS (SELECT FROM (SELECT a.name, row_number() OVER (ORDER BY a.place) AS number
                                       FROM unnest(p.proargnames, p.proargmodes) WITH ORDINALITY AS a (name, mode, place)
                                       WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v')) AS named
                          RIGHT JOIN generate_series(1, p.pronargs - p.pronargdefaults) AS needed (number) USING (number)
                          WHERE coalesce(named.name, '') = '')
          -- of types that JSON has
          AND NOT EXISTS (SELECT FROM pg_type t
                          WHERE t.oid = ANY (p.proargtypes || p.prorettype)
                            AND (t.typtype = 'p' AND t.typname NOT IN ('void', 'record') OR t.typname = 'bytea'))
          AND (p.prorettype <> 'record'::regtype OR p.proargmodes && '{o,b,t}')
    ),
    function_names AS (
        SELECT name FROM functions WHERE pg_function_is_visible(oid)
        UNION
        SELECT qualified FROM functions WHERE NOT builtin OR NOT pg_function_is_visible(oid)
    ),
    function_definition AS (
        SELECT jsonb_build_object('anyOf', jsonb_build_array(
            jsonb_build_object('enum', jsonb_agg(name ORDER BY name)),
            '{"type": "string", "pattern": "[(]|^pg_catalog[.]", "description": "A signature, such as f(integer, text)."}'::jsonb)) AS definition
        FROM function_names
    )
    SELECT jsonb_build_object(
        '$schema', 'https://json-schema.org/draft/2020-12/schema',
        'title', 'A chain',
        'description', 'The body of a function in LANGUAGE chaincall: one step.',
        'type', 'object',
        '$ref', '#/$defs/step',
        '$defs', parts.definitions || steps.definitions || jsonb_build_object(
            'step', jsonb_build_object('description', 'Exactly one kind (model, sql, function, steps, switch, value, wait or ask) and any modifiers.',
                                       'type', 'object', 'oneOf', steps.alternatives),
            'model_name', models.definition,
            'function_name', function_definition.definition))::json
    FROM parts, steps, models, function_definition;
END;

-- ---- what people do about jobs ----

ALTER TABLE job
    ADD COLUMN waits_on text COLLATE "C",
    ADD COLUMN deadlines jsonb,
    ADD COLUMN retried_at timestamptz;
-- What waits for something else than time: an answer, a paused chain or model.
CREATE INDEX job_held ON job (waits_on) WHERE state = 'waiting' AND waits_on IS NOT NULL;

ALTER TABLE action
    ALTER COLUMN job DROP NOT NULL,
    ADD COLUMN alert uuid,
    DROP CONSTRAINT action_action_check,
    ADD CONSTRAINT action_action_check CHECK (action IN ('cancel', 'retry', 'resolve', 'discard', 'replace', 'acknowledge')),
    ADD CONSTRAINT action_subject_check CHECK (CASE WHEN action = 'acknowledge' THEN alert IS NOT NULL AND job IS NULL ELSE job IS NOT NULL AND alert IS NULL END);

DROP INDEX action_pending;
CREATE INDEX action_pending ON action (author, created_at, id) WHERE state = 'pending';
CREATE INDEX action_cancels ON action (author, created_at, id) WHERE state = 'pending' AND action = 'cancel';
CREATE INDEX action_first ON action (job, author, created_at, id) WHERE state = 'pending';

ALTER TABLE alert
    ADD COLUMN step text COLLATE "C",
    ADD COLUMN input jsonb,
    ADD COLUMN told_at timestamptz;
-- What stands there is old news to chaincall.alert_server.
UPDATE alert SET told_at = created_at;
-- What chaincall.alert_server has not been told of.
CREATE INDEX alert_untold ON alert (created_at, id) WHERE told_at IS NULL AND acknowledged_at IS NULL;
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

CREATE TRIGGER drop_replicated BEFORE INSERT ON question
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
ALTER TABLE question ENABLE ALWAYS TRIGGER drop_replicated;

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

COMMENT ON FUNCTION submit(text, jsonb, integer, timestamptz, timestamptz, text, jsonb, text, text) IS
    'enqueues a job: its id; with dedupe that of the job not yet started that has the same dedupe_key, which skip leaves as it is and replace gives the new input';

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

-- ---- monitoring ----

CREATE FUNCTION health_entries(OUT model text, OUT version text, OUT server text, OUT breaker text, OUT breaker_since timestamptz,
        OUT cooling_until timestamptz) RETURNS SETOF record
    LANGUAGE c STRICT VOLATILE ROWS 20 AS 'MODULE_PATHNAME', 'chaincall_health_entries';
COMMENT ON FUNCTION health_entries() IS 'what the view stat_endpoint is made of, too: circuit breakers and cool-downs';

CREATE OR REPLACE VIEW job_status WITH (security_invoker = true) AS
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
COMMENT ON COLUMN job_status.waits_for IS 'a worker, time (until run_at), an answer (see question; until run_at at most), a paused model or chain, or the paths of the steps in the air, at most three';

CREATE OR REPLACE VIEW queue_status WITH (security_barrier = true) AS
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

CREATE OR REPLACE VIEW stat_endpoint AS
SELECT s.model, s.version, s.server, s.attempts, s.in_flight, s.rate, s.succeeded, s.transient, s.throttled, s.permanent, s.invalid, s.content,
    s.too_large, s.timeout, s.cancelled, s.mean_ms, s.p50_ms, s.p99_ms, s.first_byte_p50_ms, s.first_byte_p99_ms, s.tokens_in, s.tokens_out,
    s.last_attempt_at, s.last_failure_at, s.last_failure, s.since, h.breaker, h.breaker_since, h.cooling_until
FROM chaincall.stat_entries(false) s
LEFT JOIN chaincall.health_entries() h ON h.model = s.model AND h.version = s.version AND h.server = s.server;
COMMENT ON COLUMN stat_endpoint.breaker IS 'closed; open: the endpoint fails and is not asked; half-open: one call is let pass to see whether it answers again';
COMMENT ON COLUMN stat_endpoint.breaker_since IS 'since when; of half-open, since when it is not closed';
COMMENT ON COLUMN stat_endpoint.cooling_until IS 'until when a key is not used there, because the service throttled or refused it; the latest of any key';
GRANT EXECUTE ON FUNCTION health_entries() TO pg_monitor;

-- What runs by the clock, through pg_cron where that is installed. Nothing here depends on it: its functions are named in statements that are put
-- together when they are needed.

-- ---- retention at an hour of one's choice ----

CREATE TABLE maintenance (
    here        boolean NOT NULL DEFAULT true
                CONSTRAINT maintenance_here_check CHECK (here),
    asked_at    timestamptz NOT NULL,
    scheduled_at timestamptz,
    CONSTRAINT maintenance_pkey PRIMARY KEY (here)
);
COMMENT ON TABLE maintenance IS 'When maintain() was called last, at all and by a schedule; one row or none';

CREATE FUNCTION maintenance_asked() RETURNS trigger
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_maintenance_asked';
COMMENT ON FUNCTION maintenance_asked() IS 'Tells the maintainer at commit';

CREATE TRIGGER drop_replicated BEFORE INSERT OR UPDATE OR DELETE ON maintenance
    FOR EACH ROW EXECUTE FUNCTION drop_replicated();
CREATE TRIGGER maintenance_asked AFTER INSERT OR UPDATE OR DELETE ON maintenance
    FOR EACH ROW EXECUTE FUNCTION maintenance_asked();
ALTER TABLE maintenance ENABLE ALWAYS TRIGGER drop_replicated, ENABLE ALWAYS TRIGGER maintenance_asked;

CREATE FUNCTION maintain(scheduled boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
    INSERT INTO chaincall.maintenance AS m (asked_at, scheduled_at)
    VALUES (clock_timestamp(), CASE WHEN scheduled THEN clock_timestamp() END)
    ON CONFLICT (here) DO UPDATE SET asked_at = excluded.asked_at, scheduled_at = coalesce(excluded.scheduled_at, m.scheduled_at);
END
$body$;
COMMENT ON FUNCTION maintain(boolean) IS
    'has the maintainer drop and delete at once what is older than keep_jobs and keep_spans; scheduled: from now on only when it is called, not every hour';

-- ---- pg_cron ----

-- Raises, with what is to be done, unless pg_cron is in this database; elsewhere: the statement to run where it is.
CREATE FUNCTION require_cron(what text, elsewhere text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    cron_database text;
BEGIN
    BEGIN
        cron_database := nullif(current_setting('cron.database_name', true), '');
    EXCEPTION WHEN insufficient_privilege THEN
        cron_database := '';        -- somewhere; where is shown to few
    END;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        IF NOT has_schema_privilege('cron', 'USAGE') THEN
            RAISE EXCEPTION USING
                ERRCODE = 'insufficient_privilege',
                MESSAGE = format('role "%s" may not use pg_cron', current_user),
                HINT = format('Have a superuser run: GRANT USAGE ON SCHEMA cron TO %I;', current_user);
        END IF;
    ELSIF cron_database IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs pg_cron, which is not installed', what),
            HINT = format('Install its package, add to postgresql.conf shared_preload_libraries = ''chaincall, pg_cron'' and cron.database_name = %L, restart the server, and run: CREATE EXTENSION pg_cron;', current_database());
    ELSIF cron_database = current_database() THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs the extension pg_cron', what),
            HINT = 'Have a superuser run: CREATE EXTENSION pg_cron;';
    ELSIF cron_database = '' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('%s needs pg_cron, which is not in this database', what),
            HINT = format('Where it is in another database, have a superuser run there: %s Else have one run here: CREATE EXTENSION pg_cron;', elsewhere);
    ELSE
        RAISE EXCEPTION USING
            ERRCODE = 'feature_not_supported',
            MESSAGE = format('%s needs pg_cron, which is in another database', what),
            DETAIL = format('cron.database_name is "%s", this database is "%s".', cron_database, current_database()),
            HINT = format('Have a superuser run there: %s', elsewhere);
    END IF;
END
$body$;
COMMENT ON FUNCTION require_cron(text, text) IS 'raises unless pg_cron can be used here';

CREATE FUNCTION schedule_maintenance(cron text DEFAULT '30 3 * * *') RETURNS text
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    command CONSTANT text := 'SELECT chaincall.maintain(scheduled => true)';
    job bigint;
    message text;
    hint text;
BEGIN
    BEGIN
        PERFORM chaincall.require_cron('a schedule', format('SELECT cron.schedule_in_database(%L, %L, %L, %L);',
            'chaincall/maintenance@' || current_database(), cron, command, current_database()));
    EXCEPTION WHEN undefined_object OR feature_not_supported THEN
        GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, hint = PG_EXCEPTION_HINT;
        RETURN format('The maintainer goes on doing it, once an hour: %s. %s', message, hint);
    END;
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING 'chaincall/maintenance', cron, command;
    -- from now on, not from the first time on
    INSERT INTO chaincall.maintenance AS m (asked_at, scheduled_at) VALUES ('-infinity', clock_timestamp())
    ON CONFLICT (here) DO UPDATE SET scheduled_at = excluded.scheduled_at;
    RETURN format('pg_cron has it done at "%s" (its job %s).', cron, job);
END
$body$;
COMMENT ON FUNCTION schedule_maintenance(text) IS
    'drops and deletes what is too old at the times of a cron expression, by pg_cron, instead of once an hour; says so, or why not';

CREATE FUNCTION unschedule_maintenance() RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    jobs bigint := 0;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_cron') THEN
        EXECUTE 'SELECT count(cron.unschedule(jobid)) FROM cron.job WHERE jobname = $1 AND username = current_user' INTO jobs
        USING 'chaincall/maintenance';
    END IF;
    UPDATE chaincall.maintenance SET scheduled_at = NULL WHERE scheduled_at IS NOT NULL;
    RETURN FOUND OR jobs > 0;
END
$body$;
COMMENT ON FUNCTION unschedule_maintenance() IS 'takes schedule_maintenance() back: the maintainer does it once an hour; false: there was no schedule';

-- ---- chains ----

-- A job that is made as the schedule will make it, and taken back: the qualified name of its chain, or what is wrong with it. The chain is looked for by
-- the search_path given.
CREATE FUNCTION try_job(path text, chain text, input jsonb, priority integer, expires_after interval, labels jsonb) RETURNS text
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    signature text;
BEGIN
    BEGIN
        PERFORM set_config('search_path', path, true);
        INSERT INTO chaincall.job (chain, input, priority, expires_at, labels)
        VALUES (chain, input, priority, pg_catalog.now() OPERATOR(pg_catalog.+) expires_after, labels)
        RETURNING job.chain INTO signature;
        RAISE EXCEPTION USING ERRCODE = 'MCTRY';
    EXCEPTION WHEN SQLSTATE 'MCTRY' THEN
        NULL;
    END;
    RETURN signature;
END
$body$;
COMMENT ON FUNCTION try_job(text, text, jsonb, integer, interval, jsonb) IS 'what submit() would say to a job';

-- What pg_cron runs: one statement, so one transaction.
CREATE FUNCTION schedule_command(path text, name text, signature text, input jsonb, priority integer, expires_after interval, labels jsonb,
                                 overlap boolean) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format('SELECT chaincall.submit(chain => %L, input => %L, priority => %L, ', signature, input, priority)
        || CASE WHEN expires_after IS NULL THEN ''
           ELSE format('expires_at => pg_catalog.now() OPERATOR(pg_catalog.+) %L::pg_catalog.interval, ', expires_after) END
        || CASE WHEN overlap THEN '' ELSE format('dedupe_key => %L, dedupe => ''skip'', ', 'schedule ' || name) END
        || format('labels => %L) FROM pg_catalog.set_config(''search_path'', %L, true)', labels, path)
        || CASE WHEN overlap THEN ''
           ELSE format(' WHERE NOT EXISTS (SELECT FROM chaincall.job j WHERE j.labels OPERATOR(pg_catalog.@>) %L AND j.finished_at IS NULL'
               || ' AND j.owner OPERATOR(pg_catalog.=) pg_catalog.to_regrole(pg_catalog.quote_ident(CURRENT_USER::pg_catalog.text))::pg_catalog.oid)',
               jsonb_build_object('schedule', name)) END;
END;
COMMENT ON FUNCTION schedule_command(text, text, text, jsonb, integer, interval, jsonb, boolean) IS 'the statement that a schedule runs';

CREATE FUNCTION make_schedule(path text, name text, cron text, chain text, input jsonb, priority integer, expires_after interval, labels jsonb,
                              overlap boolean) RETURNS bigint
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    command text;
    job bigint;
BEGIN
    IF name IS NULL OR cron IS NULL OR overlap IS NULL OR octet_length(name) NOT BETWEEN 1 AND 200 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a schedule needs a name of at most 200 bytes, and a cron expression',
            HINT = 'Write chaincall.schedule(''headlines'', ''*/10 * * * *'', ''refresh_headlines'').';
    END IF;
    IF NOT (SELECT rolcanlogin FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = format('role "%s" cannot have schedules', current_user),
            DETAIL = 'pg_cron connects as the role that has made a schedule, and this one has no LOGIN.',
            HINT = format('ALTER ROLE %I LOGIN, or make the schedule as another role.', current_user);
    END IF;
    command := chaincall.schedule_command(path, name, chaincall.try_job(path, chain, input, priority, expires_after, labels),
        coalesce(input, '{}'), coalesce(priority, 0), expires_after, coalesce(labels, '{}') || jsonb_build_object('schedule', name), overlap);
    PERFORM chaincall.require_cron('a schedule', format('SELECT cron.schedule_in_database(%L, %L, %L, %L, %L);',
        'chaincall/' || name || '@' || current_database(), cron, command, current_database(), current_user));
    EXECUTE 'SELECT cron.schedule($1, $2, $3)' INTO job USING 'chaincall/' || name, cron, command;
    -- not everybody may see that setting
    IF (SELECT setting FROM pg_settings s WHERE s.name = 'cron.use_background_workers') = 'off' THEN
        RAISE NOTICE USING
            MESSAGE = format('pg_cron connects to this server for it as role "%s", which pg_hba.conf must allow without a password', current_user),
            HINT = 'Where it does not, cron.job_run_details says "connection failed"; with cron.use_background_workers = on no connection is needed.';
    END IF;
    RETURN job;
END
$body$;
COMMENT ON FUNCTION make_schedule(text, text, text, text, jsonb, integer, interval, jsonb, boolean) IS
    'what schedule() calls, with the search_path of its caller';

CREATE FUNCTION schedule(name text, cron text, chain text, input jsonb DEFAULT '{}', priority integer DEFAULT 0, expires_after interval DEFAULT NULL,
                         labels jsonb DEFAULT '{}', overlap boolean DEFAULT false) RETURNS bigint
    LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT chaincall.make_schedule(pg_catalog.current_setting('search_path'), name, cron, chain, input, priority, expires_after, labels, overlap);
END;
COMMENT ON FUNCTION schedule(text, text, text, jsonb, integer, interval, jsonb, boolean) IS
    'enqueues a chain as a job, as the current role, at the times of a cron expression, by pg_cron; not as long as a job of it has not ended, save with overlap. Gives pg_cron''s number; a schedule of that name is replaced';

CREATE FUNCTION unschedule(name text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    jobs bigint;
BEGIN
    PERFORM chaincall.require_cron('a schedule', format('SELECT cron.unschedule(%L);', 'chaincall/' || name || '@' || current_database()));
    EXECUTE 'SELECT count(cron.unschedule(jobid)) FROM cron.job WHERE jobname = $1 AND username = current_user' INTO jobs
    USING 'chaincall/' || name;
    RETURN jobs > 0;
END
$body$;
COMMENT ON FUNCTION unschedule(text) IS 'ends one of the current role''s schedules; false: there is none of that name. Jobs that it has made go on';

-- ---- who may use what: nobody what is new, until grant_usage() says so ----

CREATE OR REPLACE FUNCTION usage_statements(pattern text) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format(pattern, privilege)
    FROM (
        SELECT 1, 'USAGE ON SCHEMA chaincall'
        UNION ALL
        SELECT 2, 'USAGE ON LANGUAGE chaincall' FROM pg_language WHERE lanname = 'chaincall'
        UNION ALL
        SELECT 3, 'SELECT ON TABLE ' || t FROM unnest(ARRAY['chaincall.model', 'chaincall.endpoint', 'chaincall.job', 'chaincall.span', 'chaincall.action', 'chaincall.alert', 'chaincall.question', 'chaincall.chain_policy', 'chaincall.dead_letter', 'chaincall.job_status', 'chaincall.queue_status', 'chaincall.activity']) t
        UNION ALL
        SELECT 3, 'INSERT (chain, input, priority, run_at, expires_at, dedupe_key, labels, traceparent) ON TABLE chaincall.job'
        UNION ALL
        SELECT 3, 'INSERT (job, action, step, input, output, alert) ON TABLE chaincall.action'
        UNION ALL
        SELECT 4, 'EXECUTE ON FUNCTION ' || p.oid::regprocedure
        FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.prokind = 'f'
          AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype, 'fdw_handler'::regtype)
          AND p.proname NOT IN ('grant_usage', 'revoke_usage', 'usage_statements', 'stat_reset', 'stat_entries', 'health_entries', 'worker_entries', 'maintain', 'schedule_maintenance', 'unschedule_maintenance')
          AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE p.oid = w.fdwvalidator)
          AND NOT EXISTS (SELECT FROM pg_language l WHERE p.oid IN (l.laninline, l.lanvalidator))
    ) AS privileges (place, privilege)
    ORDER BY place, privilege;
END;

-- What is new is the extension's owner's, whichever superuser runs this.
DO $body$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT CASE WHEN d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass THEN 'ROUTINE' ELSE pg_catalog.upper(i.type) END AS type, i.identity,
            e.extowner::pg_catalog.regrole AS owner
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid AND d.deptype = 'e'
        LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid AND NOT c.relispartition
        LEFT JOIN pg_catalog.pg_proc p ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = d.objid
        CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) i
        WHERE e.extname = 'chaincall' AND coalesce(c.relowner, p.proowner) <> e.extowner
    LOOP
        EXECUTE pg_catalog.format('ALTER %s %s OWNER TO %s', member.type, member.identity, member.owner);
    END LOOP;
END
$body$;

DO $body$
DECLARE
    made text;
BEGIN
    FOREACH made IN ARRAY ARRAY[
        'TABLE chaincall.question',
        'TABLE chaincall.chain_policy',
        'TABLE chaincall.dead_letter',
        'FUNCTION chaincall.check_chain_policy()',
        'FUNCTION chaincall.pause(text, text)',
        'FUNCTION chaincall.resume(text, text)',
        'FUNCTION chaincall.set_ttl(text, interval)',
        'FUNCTION chaincall.retry(uuid)',
        'FUNCTION chaincall.retry(uuid, text, jsonb)',
        'FUNCTION chaincall.resolve(uuid, text, jsonb)',
        'FUNCTION chaincall.discard(uuid)',
        'FUNCTION chaincall.acknowledge(uuid)',
        'FUNCTION chaincall.health_entries()',
        'TABLE chaincall.maintenance',
        'FUNCTION chaincall.maintenance_asked()',
        'FUNCTION chaincall.maintain(boolean)',
        'FUNCTION chaincall.require_cron(text, text)',
        'FUNCTION chaincall.schedule_maintenance(text)',
        'FUNCTION chaincall.unschedule_maintenance()',
        'FUNCTION chaincall.try_job(text, text, jsonb, integer, interval, jsonb)',
        'FUNCTION chaincall.schedule_command(text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.make_schedule(text, text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.schedule(text, text, text, jsonb, integer, interval, jsonb, boolean)',
        'FUNCTION chaincall.unschedule(text)'
    ] LOOP
        EXECUTE 'REVOKE ALL ON ' || made || ' FROM PUBLIC';
    END LOOP;
END
$body$;

DO $body$
DECLARE
    roles text := (SELECT pg_catalog.string_agg(DISTINCT a.grantee::pg_catalog.regrole::text, ', ')
                   FROM pg_catalog.pg_language l, pg_catalog.aclexplode(l.lanacl) a
                   WHERE l.lanname = 'chaincall' AND a.grantee <> l.lanowner AND a.grantee <> 0);
BEGIN
    IF roles IS NOT NULL THEN
        RAISE WARNING USING
            MESSAGE = 'roles have no privileges yet on what is new in chaincall: ' || roles,
            HINT = 'Run chaincall.grant_usage() again for those that shall have them.';
    END IF;
END
$body$;
