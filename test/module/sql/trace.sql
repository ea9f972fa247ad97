-- The picture of a trace, with fixed times, and which trace is the last one
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on

SELECT chaincall_test.trace_last() IS NULL;

-- a statement, attempts, a question asked again, a failure without an answer, long and deep paths
SELECT chaincall_test.waterfall('steps', 40);

-- twenty like spans are shown one by one; more are summed up
SELECT chaincall_test.waterfall('alike', 20);
SELECT chaincall_test.waterfall('items', 20);

-- the narrowest bar; a call still open when the run ended; a run that did nothing
SELECT chaincall_test.waterfall('steps', -1);
SELECT chaincall_test.waterfall('open', 20);
SELECT chaincall_test.waterfall('empty', 20);

-- what is not kept is counted
SET chaincall.max_spans = 3;
SELECT chaincall_test.waterfall('alike', 20);
SELECT chaincall_test.trace_last();
SET chaincall.max_spans = 0;
SELECT chaincall_test.waterfall('alike', 20);
RESET chaincall.max_spans;

-- nested runs
SELECT chaincall_test.trace_nesting();
SELECT chaincall_test.trace_forget();
SELECT chaincall_test.trace_last();
DO $$
BEGIN
	PERFORM chaincall_test.trace_forget();
EXCEPTION WHEN internal_error THEN
	RAISE NOTICE 'caught';
END
$$;
SELECT chaincall_test.trace_last();
