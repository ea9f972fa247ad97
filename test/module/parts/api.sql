CREATE FUNCTION encode(spec jsonb) RETURNS jsonb
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_encode';

CREATE FUNCTION decode(spec jsonb, status int, body bytea, content_type text DEFAULT NULL) RETURNS jsonb
    LANGUAGE c
    AS 'MODULE_PATHNAME', 'chaincall_test_decode';

CREATE FUNCTION status_class(status int, retry_after boolean) RETURNS text
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_status_class';

CREATE FUNCTION time_api(spec jsonb, body text, n int) RETURNS float8
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_time_api';
