CREATE FUNCTION fuzz_template(seed integer, n integer) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_fuzz_template';
