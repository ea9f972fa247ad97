CREATE FUNCTION chaincall_test_http(url text, body text DEFAULT NULL, method text DEFAULT 'POST',
    headers text[] DEFAULT NULL, times int DEFAULT 1, max_answer int DEFAULT 1000000, connect_timeout int DEFAULT 10000,
    ca_file text DEFAULT NULL, proxy text DEFAULT NULL)
RETURNS TABLE (n int, fault text, message text, status int, length bigint, answer text, content_type text, retry_after text,
    request_id text, http_version int, sent_ms float8, first_byte_ms float8, ended_ms float8)
LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_http_cancel(url text, body text, times int, after_ms int, in_callback int)
RETURNS int LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_http_settle(url text, body text, times int, settle_ms int, busy_ms int,
    connect_timeout int DEFAULT 10000, ca_file text DEFAULT NULL, bytes int DEFAULT 0,
    OUT settled bool, OUT settled_ms float8, OUT delivered int, OUT bad int, OUT ended_ms float8)
LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_http_raise(url text, body text, times int, which int)
RETURNS int LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_http_bench(url text, body text, times int, in_flight int,
    OUT seconds float8, OUT rate float8, OUT cpu_us float8, OUT bad int, OUT peak_kb bigint, OUT now_kb bigint)
LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_http_state(OUT in_flight int, OUT lanes int, OUT sockets int, OUT threads int, OUT files int, OUT capacity int)
LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_network_refused(address text, allowed text DEFAULT NULL)
RETURNS bool LANGUAGE C AS 'MODULE_PATHNAME';

CREATE FUNCTION chaincall_test_network_list(list text)
RETURNS bool LANGUAGE C STRICT AS 'MODULE_PATHNAME';
