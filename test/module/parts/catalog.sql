CREATE FUNCTION model(name text) RETURNS jsonb
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_model';

CREATE FUNCTION route(model text, endpoint int, role regrole) RETURNS jsonb
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_route';

CREATE FUNCTION time_route(model text, n int, role regrole) RETURNS float8
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_time_route';
