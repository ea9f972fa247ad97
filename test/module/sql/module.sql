SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SELECT chaincall_test.version() = current_setting('server_version') AS same_version;
SELECT chaincall_test.sanitized();
