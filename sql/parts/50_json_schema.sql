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
COMMENT ON FUNCTION json_schema() IS
    'the language as a JSON Schema, with this database''s models and the functions that the caller may execute; for editors';
