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
