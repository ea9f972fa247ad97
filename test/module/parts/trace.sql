CREATE FUNCTION waterfall(scene text, width int) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_waterfall';

CREATE FUNCTION trace_nesting() RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_trace_nesting';

CREATE FUNCTION trace_forget() RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_trace_forget';

CREATE FUNCTION trace_last() RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_trace_last';
