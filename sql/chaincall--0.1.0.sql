\echo Use "CREATE EXTENSION chaincall" to load this file. \quit

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
COMMENT ON COLUMN model.fallback IS 'Models that are tried next when this one fails; the names are not checked here';
COMMENT ON COLUMN model.paused IS 'Calls are refused while this is true';

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

-- LANGUAGE chaincall: a function's body is a chain, in YAML.

CREATE FUNCTION call_handler() RETURNS language_handler
    LANGUAGE c AS 'MODULE_PATHNAME', 'chaincall_call_handler';
COMMENT ON FUNCTION call_handler() IS 'runs a chain as a function';
CREATE FUNCTION inline_handler(internal) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'chaincall_inline_handler';
COMMENT ON FUNCTION inline_handler(internal) IS 'runs a chain as a DO block';
CREATE FUNCTION validator(oid) RETURNS void
    LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'chaincall_validator';
COMMENT ON FUNCTION validator(oid) IS 'compiles a chain when its function is created';

CREATE TRUSTED LANGUAGE chaincall
    HANDLER call_handler INLINE inline_handler VALIDATOR validator;
COMMENT ON LANGUAGE chaincall IS 'chains of model calls';

-- Texts: cutting them into pieces and packing pieces together. Workers call the same code without SQL.

CREATE FUNCTION split_text(text text, by text, size int DEFAULT 0, overlap int DEFAULT 0) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_split_text';

COMMENT ON FUNCTION split_text(text, text, int, int) IS
'cuts a text into pieces, without white space at their ends, losing nothing but white space.
by section: at headings (# of Markdown, underlined, numbered as 1. 1.2 Section 4. Article IV or by a section sign, Roman
numbers and letters with a title, lines alone in capitals or centred); the text before the first is a piece, a title
without a body belongs to what follows; without a heading, at form feeds; without those the whole text is one piece.
by paragraph: at empty lines and form feeds.
by sentence: behind . ! ? before white space and no small letter, behind the full stops of Chinese and Japanese, and at
empty lines; common abbreviations, initials and decimals do not end one.
size, for these three: how many tokens (see estimate_tokens) a piece may have, 0 for any; a longer one is cut at
paragraphs, then sentences, then white space into pieces as full as may be. Short neighbours stay apart: see pack_text.
by tokens: windows of size tokens, cut at white space where possible, that share up to overlap tokens with the one before.
by characters: windows of exactly size characters, white space included, that share overlap characters.';

CREATE FUNCTION join_text(items text[], separator text DEFAULT E'\n\n') RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_join_text';

COMMENT ON FUNCTION join_text(text[], text) IS
'the items as one text with the separator between them; nulls are skipped';

CREATE FUNCTION pack_text(items text[], tokens int) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_pack_text';

COMMENT ON FUNCTION pack_text(text[], int) IS
'packs consecutive items, with an empty line between them, so that no pack has more than so many tokens (see
estimate_tokens) and every pack but the last has at least two items; fails naming the item that is too long for that.
Nulls are skipped.';

CREATE FUNCTION estimate_tokens(text text) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_estimate_tokens';

COMMENT ON FUNCTION estimate_tokens(text) IS
'about how many tokens a model makes of a text, rather too many than too few: one for up to 6 ASCII letters of a word, up
to 3 digits, up to 2 letters of other scripts, each ideograph, kana or hangul syllable, and up to 4 equal punctuation
marks or symbols in a row; white space counts nothing';

-- Running things at once.

CREATE FUNCTION call(model text, prompt text, params jsonb DEFAULT '{}') RETURNS text
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'chaincall_call';
COMMENT ON FUNCTION call(text, text, jsonb) IS
    'asks a model one thing: its answer as text';

CREATE FUNCTION request(model text, request jsonb) RETURNS jsonb
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'chaincall_request';
COMMENT ON FUNCTION request(text, jsonb) IS
    'sends a provider''s own request body: its raw answer';

CREATE FUNCTION embed(model text, texts text[]) RETURNS SETOF real[]
    LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'chaincall_embed';
COMMENT ON FUNCTION embed(text, text[]) IS
    'one vector a text, in their order';

CREATE FUNCTION run(chain text, input jsonb, mock jsonb DEFAULT NULL, stop_after text DEFAULT NULL) RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'chaincall_run';
COMMENT ON FUNCTION run(text, jsonb, jsonb, text) IS
    'runs a chain now; steps in mock, an object of outputs by path, do not run; with stop_after all outputs so far, by path';

CREATE FUNCTION render(chain text, step text, input jsonb, mock jsonb DEFAULT NULL) RETURNS jsonb
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'chaincall_render';
COMMENT ON FUNCTION render(text, text, jsonb, jsonb) IS
    'the exact request of a step, which is not sent; outputs it needs are given in mock';

CREATE FUNCTION last_trace() RETURNS text
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'chaincall_last_trace';
COMMENT ON FUNCTION last_trace() IS
    'the last run of this session as a waterfall, one line an attempt; null when another role ran it';

-- The language as a JSON Schema (draft 2020-12), for editors: they complete and check the YAML of a body with it.
--
-- The body of the function is parsed when it is created, so names in it cannot be captured by anybody's search_path; what
-- is visible and what may be executed is asked as the caller. The keys are those of src/chain/step.c, and a test compares the two.

CREATE FUNCTION json_schema() RETURNS json
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
            "retry": {"$ref": "#/$defs/retry", "description": "Repetitions when a call fails for the moment. Default: the model's."}
         } $json$::jsonb, $json$ {
            "oneOf": [
                {"required": ["prompt"]},
                {"required": ["messages"]},
                {"required": ["input"], "not": {"required": ["system"]}},
                {"required": ["request"], "not": {"anyOf": [{"required": ["system"]}, {"required": ["params"]}, {"required": ["extra"]},
                    {"required": ["returns"]}, {"required": ["schema"]}, {"required": ["reask"]}]}}
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
            'step', jsonb_build_object('description', 'Exactly one kind (model, sql, function, steps, switch, value or wait) and any modifiers.',
                                       'type', 'object', 'oneOf', steps.alternatives),
            'model_name', models.definition,
            'function_name', function_definition.definition))::json
    FROM parts, steps, models, function_definition;
END;
COMMENT ON FUNCTION json_schema() IS
    'the language as a JSON Schema, with this database''s models and the functions that the caller may execute; for editors';

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
CREATE INDEX job_queue ON job (owner, rank, id) WHERE state = 'queued';
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
-- Who reads a partition goes past the policies of the whole; so none has any, and is nobody's to read.
ALTER TABLE span_default ENABLE ROW LEVEL SECURITY;

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

COMMENT ON TABLE job IS 'Chains that run in the background; INSERT chain and input, workers do the rest';
COMMENT ON TABLE definition IS 'Chains as they were when jobs were enqueued, with all that they name';
COMMENT ON TABLE span IS 'Attempts at steps of jobs: the trace, and the outputs that a job goes on from';
COMMENT ON TABLE span_default IS 'Spans of days that have no partition of their own';
COMMENT ON TABLE action IS 'What somebody asks of a job: who, when, and what came of it';
COMMENT ON TABLE alert IS 'Dead letters and notices';
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

-- ---- what people do with jobs ----

CREATE FUNCTION submit(chain text, input jsonb DEFAULT '{}', priority integer DEFAULT 0, run_at timestamptz DEFAULT NULL,
                       expires_at timestamptz DEFAULT NULL, dedupe_key text DEFAULT NULL, labels jsonb DEFAULT '{}',
                       traceparent text DEFAULT NULL, dedupe text DEFAULT NULL) RETURNS uuid
    LANGUAGE c VOLATILE
    AS 'MODULE_PATHNAME', 'chaincall_submit';
COMMENT ON FUNCTION submit(text, jsonb, integer, timestamptz, timestamptz, text, jsonb, text, text) IS
    'enqueues a job: its id; with dedupe => ''skip'' that of the job not yet started that has the same dedupe_key';

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
    CASE j.state WHEN 'queued' THEN 'a worker' WHEN 'waiting' THEN 'time' WHEN 'running' THEN a.doing END AS waits_for,
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
COMMENT ON COLUMN job_status.waits_for IS 'a worker, time (until run_at), or the paths of the steps in the air, at most three';
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
    SELECT owner, chain, pg_catalog.count(*) AS queued, 0 AS running, 0 AS waiting, pg_catalog.min(run_at) AS oldest
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
SELECT model, version, server, attempts, in_flight, rate, succeeded, transient, throttled, permanent, invalid, content, too_large, timeout, cancelled,
    mean_ms, p50_ms, p99_ms, first_byte_p50_ms, first_byte_p99_ms, tokens_in, tokens_out, last_attempt_at, last_failure_at, last_failure, since
FROM chaincall.stat_entries(false);
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
GRANT EXECUTE ON FUNCTION activity_entries(), stat_entries(boolean), worker_entries() TO pg_monitor;

-- Who may use what: nobody, until grant_usage() says so. This part comes last and looks at what the others have made.

CREATE FUNCTION grant_usage(role regrole) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT chaincall.usage_statements('GRANT %s TO ' || replace(role::text, '%', '%%')) LOOP
        EXECUTE statement;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION grant_usage(regrole) IS 'Lets a role write and run chains and look at models; keys and servers are granted by GRANT USAGE ON FOREIGN SERVER';

CREATE FUNCTION revoke_usage(role regrole) RETURNS void
    LANGUAGE plpgsql STRICT
    SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
    statement text;
BEGIN
    FOR statement IN SELECT chaincall.usage_statements('REVOKE %s FROM ' || replace(role::text, '%', '%%')) LOOP
        EXECUTE statement;
    END LOOP;
END
$body$;
COMMENT ON FUNCTION revoke_usage(regrole) IS 'Takes back what grant_usage() granted';

-- Functions that the server calls (language, wrapper, triggers) are no user's; nor are those that administer.
CREATE FUNCTION usage_statements(pattern text) RETURNS SETOF text
    LANGUAGE sql STABLE STRICT
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT format(pattern, privilege)
    FROM (
        SELECT 1, 'USAGE ON SCHEMA chaincall'
        UNION ALL
        SELECT 2, 'USAGE ON LANGUAGE chaincall' FROM pg_language WHERE lanname = 'chaincall'
        UNION ALL
        SELECT 3, 'SELECT ON TABLE ' || t FROM unnest(ARRAY['chaincall.model', 'chaincall.endpoint', 'chaincall.job', 'chaincall.span', 'chaincall.action', 'chaincall.alert', 'chaincall.job_status', 'chaincall.queue_status', 'chaincall.activity']) t
        UNION ALL
        SELECT 3, 'INSERT (chain, input, priority, run_at, expires_at, dedupe_key, labels, traceparent) ON TABLE chaincall.job'
        UNION ALL
        SELECT 3, 'INSERT (job, action, step, input, output) ON TABLE chaincall.action'
        UNION ALL
        SELECT 4, 'EXECUTE ON FUNCTION ' || p.oid::regprocedure
        FROM pg_depend d
        JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
          AND p.prokind = 'f'
          AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'language_handler'::regtype, 'fdw_handler'::regtype)
          AND p.proname NOT IN ('grant_usage', 'revoke_usage', 'usage_statements', 'stat_reset', 'stat_entries', 'worker_entries')
          AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE p.oid = w.fdwvalidator)
          AND NOT EXISTS (SELECT FROM pg_language l WHERE p.oid IN (l.laninline, l.lanvalidator))
    ) AS privileges (place, privilege)
    ORDER BY place, privilege;
END;
COMMENT ON FUNCTION usage_statements(text) IS 'What grant_usage() and revoke_usage() execute';

DO $body$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).*
        FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid AND e.extname = 'chaincall'
        WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
    LOOP
        IF member.type IN ('function', 'procedure', 'aggregate') THEN
            EXECUTE format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', member.identity);
        ELSIF member.type IN ('table', 'view', 'materialized view', 'sequence') THEN
            EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', member.identity);
        ELSIF member.type = 'language' THEN
            EXECUTE format('REVOKE ALL ON LANGUAGE %s FROM PUBLIC', member.identity);
        ELSIF member.type = 'foreign-data wrapper' THEN
            EXECUTE format('REVOKE ALL ON FOREIGN DATA WRAPPER %s FROM PUBLIC', member.identity);
        END IF;
    END LOOP;
END
$body$;
