CREATE FUNCTION shape(key text, yaml text) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_shape';

CREATE FUNCTION shape_of_type(type regtype, typmod int DEFAULT -1) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_shape_of_type';

CREATE FUNCTION shape_check(key text, yaml text, answer jsonb) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_shape_check';
