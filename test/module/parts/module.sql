CREATE FUNCTION version() RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_version';

CREATE FUNCTION sanitized() RETURNS boolean
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_sanitized';
