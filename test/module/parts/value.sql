-- base/value.h
CREATE FUNCTION value_from(value anyelement) RETURNS jsonb
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_from';
CREATE FUNCTION value_from_query(query text) RETURNS jsonb[] STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_from_query';
CREATE FUNCTION value_to(value jsonb, type text) RETURNS text STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_to';
CREATE FUNCTION value_round(value jsonb, type text) RETURNS jsonb STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_round';
CREATE FUNCTION value_to_row(value jsonb) RETURNS record STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_to_row';
CREATE FUNCTION value_text(value jsonb) RETURNS text STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_text';
CREATE FUNCTION value_check(type text) RETURNS bool STRICT
    LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_value_check';
