CREATE FUNCTION board_tell(owner oid, rank bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_tell';

CREATE FUNCTION board_take(max int, OUT owner oid, OUT mark bigint, OUT generation bigint) RETURNS SETOF record
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_take';

CREATE FUNCTION board_settle(owner oid, generation bigint, exhausted boolean, last bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_settle';

CREATE FUNCTION board_has_work() RETURNS boolean
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_has_work';

CREATE FUNCTION board_count(owner oid) RETURNS bigint
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_count';

CREATE FUNCTION board_started(owner oid, jobs int) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_started';

CREATE FUNCTION board_recount(owner oid, before bigint, seen bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_recount';

CREATE FUNCTION board_reserve(owner oid) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_reserve';

CREATE FUNCTION board_announce(owner oid, rank bigint) RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_announce';

CREATE FUNCTION board_forget() RETURNS void
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_board_forget';

CREATE FUNCTION waiter(waits uuid, ends uuid) RETURNS boolean
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_waiter';

CREATE FUNCTION pin_load(closure jsonb, at int DEFAULT 0, args jsonb DEFAULT NULL, output jsonb DEFAULT NULL) RETURNS jsonb
LANGUAGE C AS 'MODULE_PATHNAME', 'chaincall_test_pin_load';
