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
