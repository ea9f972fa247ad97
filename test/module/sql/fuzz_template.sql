SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on
-- the same seed does the same, another one something else
SELECT fuzz_template(1, 3000) = fuzz_template(1, 3000), fuzz_template(1, 3000) <> fuzz_template(2, 3000);
-- it does get through the compiler, and to values and to errors
SELECT (m[1])::int > 500 AS compiled, (m[2])::int > 200 AS evaluated, (m[3])::int > 100 AS refused, (m[4])::int > 100 AS compared
FROM regexp_match(fuzz_template(3, 5000), '(\d+) compiled, (\d+) evaluated, (\d+) refused, (\d+) compared') m;
