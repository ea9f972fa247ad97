CREATE FUNCTION fuzz_yaml(seed integer, n integer) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_fuzz_yaml';
