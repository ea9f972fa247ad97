CREATE FUNCTION executor_offer(role regrole, step jsonb) RETURNS integer LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_executor_offer';
CREATE FUNCTION executor_cancel(step integer) RETURNS void LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_executor_cancel';
CREATE FUNCTION executor_collect(ms integer DEFAULT 10000) RETURNS jsonb LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_executor_collect';
CREATE FUNCTION executor_bench(role regrole, n integer, at_once integer, sql text, per_job integer DEFAULT 1) RETURNS float8 LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_executor_bench';
