CREATE FUNCTION fuzz_api(seed bigint, n int) RETURNS bigint
    LANGUAGE c STRICT
    AS 'MODULE_PATHNAME', 'chaincall_test_fuzz_api';
