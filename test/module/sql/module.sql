CREATE EXTENSION chaincall_test CASCADE;
SELECT chaincall_test.version() = split_part(current_setting('server_version'), ' ', 1) AS same_version;
SELECT chaincall_test.sanitized();
