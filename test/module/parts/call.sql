CREATE FUNCTION call(options jsonb) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call';

CREATE FUNCTION call_leave(options jsonb, how text) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call_leave';

CREATE FUNCTION call_nested(outer_options jsonb, inner_options jsonb) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call_nested';

CREATE FUNCTION call_late(options jsonb) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call_late';

CREATE FUNCTION call_render(options jsonb) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call_render';

CREATE FUNCTION call_speed(options jsonb) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_call_speed';
