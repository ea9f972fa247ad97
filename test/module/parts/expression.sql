CREATE FUNCTION expr_value(source text, vars jsonb) RETURNS jsonb LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_expr';
CREATE FUNCTION expr_or_missing(source text, vars jsonb) RETURNS jsonb LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_expr_or_missing';
CREATE FUNCTION expr_condition(source text, vars jsonb) RETURNS boolean LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_condition';
CREATE FUNCTION expr_info(source text) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_expr_info';
CREATE FUNCTION expr_name(name text) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_name';
CREATE FUNCTION template_text(source text, vars jsonb) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_template';
CREATE FUNCTION template_json(source text, vars jsonb) RETURNS jsonb LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_template_json';
CREATE FUNCTION template_names(source text) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_template_names';
CREATE FUNCTION json_template(source text, vars jsonb) RETURNS jsonb LANGUAGE C
	AS 'MODULE_PATHNAME', 'chaincall_test_json_template';
CREATE FUNCTION sql_template(source text) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_sql_template';
CREATE FUNCTION sql_param(source text, vars jsonb) RETURNS jsonb LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_sql_param';
CREATE FUNCTION scalar_form(value jsonb) RETURNS boolean LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_scalar_form';
CREATE FUNCTION bench_expression(n integer) RETURNS text LANGUAGE C STRICT
	AS 'MODULE_PATHNAME', 'chaincall_test_bench_expression';
