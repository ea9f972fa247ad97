# Jobs of people who mean harm: as the owner of a database, of a role, of tables, functions and types. Nothing of theirs
# runs as anybody else, nothing of a job is left for the next one, and other people's jobs go on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

use constant KEY => 'sk-key-77c0ffee';

my $model_server = ModelServer->new;
my $node = new_node('hostile_jobs', conf => <<'EOF');
shared_preload_libraries = 'chaincall'
max_worker_processes = 32
max_prepared_transactions = 5
chaincall.max_executors = 1
chaincall.executor_idle = '60s'
EOF
my $super = session($node);

add_server($super, 'service', $model_server);
$super->must('CREATE USER MAPPING FOR PUBLIC SERVER service OPTIONS (api_key ' . sql_literal(KEY) . ')');
add_model($super, 'small', 'service', 'fixed');
$super->must(<<'EOF');
CREATE ROLE hacker LOGIN;
CREATE ROLE victim LOGIN;
CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
ALTER DATABASE postgres OWNER TO hacker;
SELECT chaincall.grant_usage('hacker'), chaincall.grant_usage('victim');
GRANT USAGE ON FOREIGN SERVER service TO hacker, victim;
CREATE SCHEMA victim AUTHORIZATION victim;
GRANT USAGE ON SCHEMA victim TO hacker;
CREATE SCHEMA hacker AUTHORIZATION hacker;
-- as whom hostile code has run
CREATE TABLE public.seen (what text, as_role name DEFAULT current_user);
GRANT INSERT, SELECT ON public.seen TO PUBLIC;
EOF

# Everybody has the same two functions: one that runs a text, one that tells what the session is like.
my $common = <<'EOF';
CREATE FUNCTION execute(s text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
	EXECUTE s INTO r;
	RETURN r;
EXCEPTION WHEN no_data_found THEN RETURN NULL;
END $$;
CREATE FUNCTION execute_all(s text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN EXECUTE s; RETURN 'done'; END $$;
CREATE FUNCTION session_state() RETURNS text LANGUAGE sql AS $$
SELECT pg_catalog.concat_ws(' ',
	current_user, session_user,
	(SELECT 'settings: ' || pg_catalog.string_agg(name || '=' || setting, ',') FROM pg_catalog.pg_settings WHERE source = 'session'
		AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable')),
	(SELECT 'transaction: ' || pg_catalog.string_agg(name || '=' || setting, ',') FROM pg_catalog.pg_settings
		WHERE (name = 'transaction_read_only' OR name = 'transaction_deferrable') AND setting = 'on'
		OR name = 'transaction_isolation' AND setting <> 'read committed' OR name = 'synchronous_commit' AND setting <> 'on'),
	(SELECT 'temp: ' || pg_catalog.string_agg(relname, ',') FROM pg_catalog.pg_class
		WHERE relpersistence = 't' AND relnamespace = pg_catalog.pg_my_temp_schema()),
	(SELECT 'locks: ' || pg_catalog.count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid() HAVING pg_catalog.count(*) > 0),
	(SELECT 'cursors: ' || pg_catalog.string_agg(name, ',') FROM pg_catalog.pg_cursors WHERE is_holdable),
	(SELECT 'prepared: ' || pg_catalog.string_agg(name, ',') FROM pg_catalog.pg_prepared_statements),
	(SELECT 'listens: ' || pg_catalog.string_agg(c, ',') FROM pg_catalog.pg_listening_channels() c),
	(SELECT 'custom: ' || pg_catalog.current_setting('custom.kept', true) WHERE pg_catalog.current_setting('custom.kept', true) <> ''))
$$;
CREATE FUNCTION run(s text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: execute, args: {s: "{{s}}"}}
output: "{{a}}"
$$;
CREATE FUNCTION run_all(s text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: execute_all, args: {s: "{{s}}"}}
output: "{{a}}"
$$;
CREATE FUNCTION state() RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: session_state}
output: "{{a}}"
$$;
CREATE FUNCTION mixed(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {model: small, prompt: "say {{t}}"}
  b: {sql: "SELECT upper({{t}}) || length({{a}})::text", returns: value}
  c: {model: small, prompt: "say {{b}}"}
output: "{{b}}"
$$;
EOF

sub user_session
{
	my ($user) = @_;

	return session($node, user => $user, sql => "SET search_path = $user, public, pg_catalog");
}

my %of = map { $_ => user_session($_) } ('hacker', 'victim');
$of{$_}->must($common) for ('hacker', 'victim');

# The id of a new job of somebody.
sub submit
{
	my ($user, $chain, $input) = @_;

	return $of{$user}->must('SELECT chaincall.submit(' . sql_literal($chain) . ', ' . sql_literal(JSON::PP->new->encode($input || {})) . ')');
}

# What comes of a job of somebody: a Chaincall::Result.
sub outcome { my ($user, $job) = @_; return $of{$user}->run("SELECT chaincall.result('$job', '50s') #>> '{}'"); }

sub run_job { my ($user, $chain, $input) = @_; return outcome($user, submit($user, $chain, $input)); }

# Waits until a query says true: in a session that is older than all hostile settings.
sub comes_true
{
	my ($sql) = @_;

	wait_until(sub { return $super->must($sql) eq 't'; }, $sql);
	return 1;
}

sub said { my ($result) = @_; return $result->ok ? $result->{out} : "$result->{state} $result->{message}"; }

# The next job of the same role, and one of another role, find nothing of what was before.
sub nothing_left
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(said(run_job('hacker', 'state')), 'hacker hacker', "$what: nothing is left for the next job");
	return is(said(run_job('victim', 'state')), 'victim victim', "$what: nor for another role");
}

sub no_foreign_hands
{
	my ($what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($super->must("SELECT string_agg(DISTINCT what || ' as ' || as_role, ', ') FROM public.seen WHERE as_role <> 'hacker'"), '', $what);
	$super->must('TRUNCATE public.seen');
	return;
}

nothing_left('to begin with');

# --------------------------------------------------------------------------------------------------
# Steps. Each: what it is, the statement, what comes of it.

my @steps = (
	[ 'SET ROLE', 'SET ROLE postgres', qr/^42501 .*cannot set parameter "role" within security-definer function/ ],
	[ 'SET ROLE to oneself', 'SET ROLE hacker', qr/cannot set parameter "role" within security-definer function/ ],
	[ 'a function that sets role', 'SELECT hacker.as_other()', qr/cannot set parameter "role" within security-definer function/ ],
	[ 'temp_buffers', 'SET temp_buffers = 200; CREATE TEMP TABLE t AS SELECT 1; ', 'done' ],
	[ 'client_encoding', q{SET client_encoding = 'LATIN1'; SET TimeZone = 'Pacific/Kiritimati'; SET extra_float_digits = -15}, 'done' ],
	[ 'RESET ROLE', 'RESET ROLE', qr/cannot set parameter "role" within security-definer function/ ],
	[ 'SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION hacker', qr/cannot set parameter "session_authorization" within security-definer function/ ],
	[ 'set_config of role', q{SELECT set_config('role', 'hacker', false)}, qr/cannot set parameter "role" within security-definer function/ ],
	[ 'COMMIT', 'COMMIT', qr/^0A000 / ],
	[ 'ROLLBACK', 'ROLLBACK', qr/^0A000 / ],
	[ 'SAVEPOINT', 'SAVEPOINT s', qr/^0A000 / ],
	[ 'BEGIN', 'BEGIN', qr/^0A000 / ],
	[ 'PREPARE TRANSACTION', q{PREPARE TRANSACTION 'p'}, qr/^0A000 / ],
	[ 'COMMIT in a block', 'DO $$ BEGIN COMMIT; END $$', qr/^2D000 / ],
	[ 'ROLLBACK in a block', 'DO $$ BEGIN ROLLBACK; END $$', qr/^2D000 / ],
	[ 'read only', 'SET transaction_read_only = on', 'done' ],
	[ 'read only by SET TRANSACTION', 'SET TRANSACTION READ ONLY', 'done' ],
	[ 'read only for ever', 'SET default_transaction_read_only = on', 'done' ],
	[ 'serializable for ever', 'SET default_transaction_isolation = serializable', 'done' ],
	[ 'deferrable for ever', q{SET default_transaction_deferrable = on; SET default_transaction_read_only = on; SET default_transaction_isolation = serializable}, 'done' ],
	[ 'isolation', 'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE', qr/^25001 / ],
	[ 'search_path', 'SET search_path = hacker', 'done' ],
	[ 'search_path, local', 'SET LOCAL search_path = hacker', 'done' ],
	[ 'search_path by set_config', q{DO $$ BEGIN PERFORM set_config('search_path', 'hacker', false); END $$}, 'done' ],
	[ 'synchronous_commit', 'SET synchronous_commit = off', 'done' ],
	[ 'synchronous_commit, local', 'SET LOCAL synchronous_commit = remote_apply', 'done' ],
	[ 'time-outs', q{SET statement_timeout = '1ms'; SET lock_timeout = '1ms'; SET idle_in_transaction_session_timeout = '1ms'; SET idle_session_timeout = '1ms'}, 'done' ],
	[ 'row_security', 'SET row_security = off', 'done' ],
	[ 'session_replication_role', 'SET session_replication_role = replica', qr/^42501 / ],
	[ 'settings of chaincall that are a superuser\'s', q{SET chaincall.allowed_networks = '0.0.0.0/0'}, qr/^42501 / ],
	[ 'limits', 'SET chaincall.max_queued = -1', qr/^42501 / ],
	[ 'settings of the server', q{SET chaincall.max_executors = 100}, qr/^55P02 / ],
	[ 'settings of one\'s own', q{SET custom.kept = 'here'; SET chaincall.max_spans = 0; SET application_name = 'psql'}, 'done' ],
	[ 'LISTEN', 'LISTEN c', qr/^0A000 |^55000 / ],
	[ 'NOTIFY', q{NOTIFY c, 'x'}, 'done' ],
	[ 'advisory locks', 'DO $$ BEGIN PERFORM pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_xact_lock(3); END $$', 'done' ],
	[ 'prepared statements', 'PREPARE q AS SELECT 1', 'done' ],
	[ 'a cursor', 'DO $$ DECLARE c refcursor := \'c\'; BEGIN OPEN c FOR SELECT 1; END $$', 'done' ],
	[ 'a holdable cursor', 'DECLARE c CURSOR WITH HOLD FOR SELECT g FROM generate_series(1, 1000) g', 'done' ],
	[ 'a holdable cursor that does harm at commit', q{DECLARE c CURSOR WITH HOLD FOR SELECT hacker.note('at commit'), set_config('transaction_read_only', 'on', false)}, 'done' ],
	[ 'a holdable cursor that becomes another', q{DECLARE c CURSOR WITH HOLD FOR SELECT set_config('role', 'postgres', false)}, qr/cannot set parameter "role" within|permission denied to set role/ ],
	[ 'a holdable cursor that raises', q{DECLARE c CURSOR WITH HOLD FOR SELECT 1 / (g - 1) FROM generate_series(1, 2) g}, qr/^22012 / ],
	[ 'a holdable cursor that inserts into chaincall.span', q{DECLARE c CURSOR WITH HOLD FOR SELECT hacker.execute_all('DELETE FROM chaincall.span')}, qr/^42501 / ],
	[ 'temporary tables', q{CREATE TEMP TABLE job (id int); CREATE TEMP TABLE span (id int); CREATE TEMP TABLE pg_class (oid int); CREATE TEMP TABLE pg_namespace (oid int); INSERT INTO pg_temp.pg_class VALUES (1)}, 'done' ],
	[ 'temporary functions', q{CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT hacker.note(''temp''); SELECT pg_catalog.clock_timestamp()'}, 'done' ],
	[ 'a temporary table that empties itself', q{CREATE TEMP TABLE t (i int) ON COMMIT DELETE ROWS; CREATE INDEX ON t (hacker.noting(i)); INSERT INTO t VALUES (1)}, 'done' ],
	[ 'a temporary table that goes', q{CREATE TEMP TABLE t (i int) ON COMMIT DROP}, 'done' ],
	[ 'DISCARD ALL', 'DISCARD ALL', qr/^25001 / ],
	[ 'DISCARD PLANS', 'DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES', 'done' ],
	[ 'DEALLOCATE ALL', 'DEALLOCATE ALL', 'done' ],
	[ 'RESET ALL', 'RESET ALL', 'done' ],
	[ 'CLOSE ALL', 'CLOSE ALL', 'done' ],
	[ 'a deferred trigger that raises', 'INSERT INTO hacker.deferred VALUES (\'raise\')', qr/^P0001 .*from a deferred trigger/ ],
	[ 'a deferred trigger that sets', 'INSERT INTO hacker.deferred VALUES (\'set\')', 'done' ],
	[ 'a deferred trigger that defers another', 'INSERT INTO hacker.deferred VALUES (\'again\')', qr/^P0001 .*at the very end/ ],
	[ 'a deferred trigger that becomes another', 'INSERT INTO hacker.deferred VALUES (\'role\')', qr/cannot set parameter "role" within security-definer function/ ],
	[ 'COPY TO PROGRAM', q{COPY (SELECT 1) TO PROGRAM 'touch /tmp/x'}, qr/^42501 / ],
	[ 'COPY TO STDOUT', q{COPY (SELECT 1) TO STDOUT}, qr/^0A000 / ],
	[ 'VACUUM', 'VACUUM', qr/^25001 / ],
	[ 'deep recursion', 'DO $$ BEGIN PERFORM hacker.deep(1); END $$', qr/^54001 / ],
	[ 'a huge string', q{SELECT repeat('x', 1100000000)}, qr/^54000 / ],
	[ 'a huge message', q{DO $$ BEGIN RAISE EXCEPTION USING MESSAGE = repeat('x', 50000000), DETAIL = repeat('y', 50000000), HINT = repeat('z', 50000000), ERRCODE = 'MC006'; END $$}, qr/^MC006 step a: x{8000}/ ],
	[ 'a mess of subtransactions', 'DO $$ BEGIN PERFORM hacker.nest(50); END $$', 'done' ],
	[ 'ALTER ROLE itself', q{ALTER ROLE hacker SET work_mem = '64kB'}, 'done' ],
	[ 'ALTER ROLE to superuser', q{ALTER ROLE hacker SUPERUSER}, qr/^42501 / ],
	[ 'writing of jobs', 'UPDATE chaincall.job SET state = \'queued\'', qr/^42501 / ],
	[ 'writing of spans', q{INSERT INTO chaincall.span (job, path, try) VALUES (pg_catalog.gen_random_uuid(), 'a', 0)}, qr/^42501 / ],
	[ 'ending other sessions', 'DO $$ BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IS DISTINCT FROM current_user; END $$', qr/^42501 / ],
	[ 'cancelling itself', 'DO $$ BEGIN PERFORM pg_cancel_backend(pg_backend_pid()); PERFORM pg_sleep(0.01); END $$', 'done' ],
);

$of{hacker}->must(<<'EOF');
CREATE FUNCTION note(t text) RETURNS int LANGUAGE sql VOLATILE AS $$ INSERT INTO public.seen (what) VALUES (t); SELECT 1 $$;
CREATE FUNCTION noting(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM hacker.note('an index'); RETURN i; END $$;
CREATE FUNCTION as_other() RETURNS int LANGUAGE sql SET role = hacker AS $$ SELECT 1 $$;
CREATE FUNCTION deep(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN hacker.deep(i + 1); END $$;
CREATE FUNCTION nest(i int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF i = 0 THEN RAISE division_by_zero; END IF;
	BEGIN
		CREATE TEMP TABLE IF NOT EXISTS nested (i int);
		PERFORM set_config('custom.kept', i::text, i % 2 = 0);
		RETURN hacker.nest(i - 1);
	EXCEPTION WHEN division_by_zero THEN
		IF i % 3 = 0 THEN RAISE; END IF;
		RETURN i;
	END;
END $$;
CREATE TABLE deferred (what text);
CREATE TABLE at_the_end (what text);
CREATE FUNCTION run_deferred() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM hacker.note('a deferred trigger');
	CASE NEW.what
		WHEN 'raise' THEN RAISE 'from a deferred trigger';
		WHEN 'set' THEN
			SET search_path = hacker;
			SET LOCAL synchronous_commit = off;
			SET transaction_read_only = on;
		WHEN 'again' THEN
			SET CONSTRAINTS ALL DEFERRED;
			INSERT INTO hacker.at_the_end VALUES ('raise');
		WHEN 'role' THEN SET ROLE hacker;
		ELSE NULL;
	END CASE;
	RETURN NULL;
END $$;
CREATE FUNCTION run_at_the_end() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'at the very end'; END $$;
CREATE CONSTRAINT TRIGGER d AFTER INSERT ON deferred DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION run_deferred();
CREATE CONSTRAINT TRIGGER d AFTER INSERT ON at_the_end DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION run_at_the_end();
CREATE TABLE effects (job uuid);
EOF

subtest 'steps' => sub {
	for my $step (@steps)
	{
		my ($what, $sql, $expected) = @$step;
		my $said = said(run_job('hacker', 'run_all', { s => "INSERT INTO hacker.effects DEFAULT VALUES; $sql" }));
		my $fails = ref $expected;

		if ($fails) { like($said, $expected, $what); }
		else { is($said, $expected, $what); }
		# effects and the checkpoint are there together or not at all
		is($super->must('SELECT count(*) FROM hacker.effects'), $fails ? '0' : '1', "$what: effects");
		is($super->must(q{SELECT string_agg(s.try || coalesce(s.class, ''), ' ') FROM chaincall.span s
			JOIN (SELECT id FROM chaincall.job WHERE chain = 'hacker.run_all(text)' ORDER BY id DESC LIMIT 1) j ON j.id = s.job}),
			$fails ? $said =~ /^42501/ ? '1denied' : $said =~ /^MC006/ ? '1limit' : '1sql' : '0', "$what: spans");
		$super->must('TRUNCATE hacker.effects; ALTER ROLE hacker RESET ALL');
		nothing_left($what);
	}
	no_foreign_hands('all of it ran as its owner');
};


subtest 'what a job leaves' => sub {
	my $left = q{SELECT count(*) = 0 FROM pg_locks WHERE locktype = 'advisory'};

	is(said(run_job('hacker', 'run_all', { s => 'DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$; CREATE TEMP TABLE job (i int); DECLARE c CURSOR WITH HOLD FOR SELECT 1' })), 'done', 'locks, tables');
	ok(comes_true($left), 'locks go soon');
	ok(comes_true(q{SELECT count(*) = 0 FROM pg_class WHERE relpersistence = 't'}), 'temporary tables too, though no other job comes');

	# in the same job settings may stay, but names mean what they meant when it was enqueued
	$of{hacker}->must(<<'EOF');
CREATE FUNCTION two() RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: execute_all, args: {s: "SET search_path = hostile_path; SET default_transaction_read_only = on; SET synchronous_commit = off; SET custom.kept = here"}}
  b: {sql: "INSERT INTO effects DEFAULT VALUES RETURNING 'inserted'", returns: value, after: a}
output: "{{b}}"
$$;
EOF
	is(said(run_job('hacker', 'two')), '25006 step b: cannot execute INSERT in a read-only transaction', 'a setting of an earlier step');
	$of{hacker}->must(q{CREATE OR REPLACE FUNCTION two() RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: execute_all, args: {s: "SET search_path = hostile_path; SET synchronous_commit = off; SET custom.kept = here"}}
  b: {sql: "INSERT INTO effects DEFAULT VALUES RETURNING 'inserted'", returns: value, after: a}
output: "{{b}}"
$$});
	is(said(run_job('hacker', 'two')), 'inserted', 'but not its search_path');
	$super->must('TRUNCATE hacker.effects');
	nothing_left('two steps');
};

subtest 'errors of every kind' => sub {
	# each is the step's failure, whatever it claims to be; the classes that are retried have no retry here
	$of{hacker}->must(<<'EOF');
CREATE FUNCTION raising(code text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'so to speak' USING ERRCODE = code; END $$;
CREATE FUNCTION raise(code text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: raising, args: {code: "{{code}}"}, retry: 0}
output: "{{a}}"
$$;
CREATE FUNCTION "catch"(code text) RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  a: {function: raising, args: {code: "{{code}}"}, retry: 0, on_error: {value: caught}}
output: "{{a}}"
$$;
EOF
	my @codes = ((map { sprintf('MC%03d', $_) } (1 .. 12)), qw(57014 57P01 57P02 57P03 57P05 XX000 XX001 XX002 53100 53200 53300 40001 40P01 23505 55P03 08006 P0004 25P02 25006 42P01 3F000 F0000 58030 ZZZZZ));
	my %job = map { $_ => submit('hacker', 'raise', { code => $_ }) } @codes;

	for my $code (@codes)
	{
		my $result = outcome('hacker', $job{$code});

		# a result must not look like a cancel of the session that asks for it
		is(said($result), ($code eq '57014' ? '55000' : $code) . ' step a: so to speak', "error $code");
		is($super->must("SELECT state || ' ' || deaths || ' ' || (error ->> 'sqlstate') FROM chaincall.job WHERE id = '$job{$code}'"), "failed 0 $code", "error $code: the job");
	}
	is(said(run_job('hacker', 'catch', { code => $_ })), 'caught', "$_ can be caught") for ('MC006', 'XX000', '53100', '40001');
	nothing_left('errors');
};

subtest 'steps that do not end, or end too much' => sub {
	$of{hacker}->must(<<'EOF');
CREATE FUNCTION swallow(kind text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		BEGIN
			IF kind = 'sleeps' THEN PERFORM pg_sleep(1000); END IF;
			LOOP END LOOP;
		EXCEPTION WHEN query_canceled THEN
			NULL;
		END;
	END LOOP;
END $$;
CREATE FUNCTION swallowing(kind text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: swallow, args: {kind: "{{kind}}"}}
output: "{{a}}"
$$;
CREATE FUNCTION swallowing_timeout(kind text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: swallow, args: {kind: "{{kind}}"}, timeout: 100 ms, retry: 0}
output: "{{a}}"
$$;
CREATE FUNCTION looping(s text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {function: execute_all, args: {s: "{{s}}"}, timeout: 100 ms, retry: 0}
output: "{{a}}"
$$;
EOF
	for my $kind ('sleeps', 'loops')
	{
		my $job = submit('hacker', 'swallowing', { kind => $kind });
		# a cancel that comes before the step is in its loop is no cancel that it swallows
		my $inside = $kind eq 'sleeps' ? "wait_event = 'PgSleep'" : 'true';
		my $pid;

		ok(comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND query ~ 'swallowing' AND $inside"), "$kind: it runs");
		$pid = $super->must(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND query ~ 'swallowing'});
		$of{hacker}->must("SELECT chaincall.cancel('$job')");
		is(said(outcome('hacker', $job)), "55000 job $job was cancelled", "$kind: cancelled");
		# with nothing else to do its caller sleeps
		ok(comes_true("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), "$kind: its executor is gone")
		  if $kind eq 'sleeps';
		is(said(run_job('victim', 'mixed', { t => $kind })), uc($kind) . '15', "$kind: others go on");
		nothing_left("$kind, cancelled");
		like(said(run_job('hacker', 'swallowing_timeout', { kind => $kind })), qr/^MC007 step a: /, "$kind: it runs into its time-out");
		nothing_left("$kind, timed out");
	}
	like(said(run_job('hacker', 'looping', { s => 'SELECT pg_sleep(1000)' })), qr/^MC007 step a: step took longer than /, 'a time-out of a sleep');
	like(said(run_job('hacker', 'looping', { s => 'DO $$ BEGIN LOOP END LOOP; END $$' })), qr/^MC007 step a: step took longer than /, 'of a loop');
	nothing_left('time-outs');

	# a step that is waited for by nobody but the caller's timer
	my $job = submit('hacker', 'run_all', { s => 'DO $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); LOOP END LOOP; END $$' });
	like(said(outcome('hacker', $job)), qr/^MC009 step a: executor died/, 'a step that ends its executor fails in the end');
	nothing_left('a step that ends its executor');

	# who would keep an executor for ever, whatever time-out the chain names
	$super->must(q{ALTER SYSTEM SET chaincall.step_timeout = '1s'; SELECT pg_reload_conf()});
	$job = submit('hacker', 'swallowing', { kind => 'loops' });
	like(said(run_job('victim', 'mixed', { t => 'after all' })), qr/^AFTER ALL15$/, 'another role has its turn in the end');
	like(said(outcome('hacker', $job)), qr/^MC007 step a: step took longer than any step may/, 'chaincall.step_timeout');
	$super->must('ALTER SYSTEM RESET chaincall.step_timeout; SELECT pg_reload_conf()');
	nothing_left('chaincall.step_timeout');
};

subtest 'a role with more steps than there is room for' => sub {
	my ($hog, $job);

	$of{hacker}->must(q{CREATE FUNCTION hog(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  list: {sql: "SELECT g FROM generate_series(1, {{n}}) g"}
  nap: {each: list, sql: "SELECT pg_sleep(0.01)::text", returns: value}
output: "{{nap}}"
$$});
	$hog = submit('hacker', 'hog', { n => 5000 });
	comes_true("SELECT count(*) > 10 FROM chaincall.span WHERE job = '$hog'");
	$job = submit('victim', 'mixed', { t => 'in between' });
	is(said(outcome('victim', $job)), 'IN BETWEEN15', 'another role has its turn');
	cmp_ok($super->must("SELECT count(*) FROM chaincall.span WHERE job = '$hog'"), '<', 1500, 'long before all of them have begun');
	$of{hacker}->must("SELECT chaincall.cancel('$hog')");
	is(said(outcome('hacker', $hog)), "55000 job $hog was cancelled", 'all the others are cancelled');
	nothing_left('many steps');
};

subtest 'chains that grow without bound' => sub {
	my $caller = $super->must(q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'chaincall caller'});

	$of{hacker}->must(<<'EOF');
CREATE FUNCTION bomb(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  list: {sql: "SELECT jsonb_agg(g) FROM generate_series(1, {{n}}) g", returns: value}
  outer:
    each: list
    steps:
      inner:
        each: list
        steps:
          x: {each: list, sql: "SELECT {{item}}::jsonb"}
output: done
$$;
CREATE FUNCTION caught_bomb(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  list: {sql: "SELECT jsonb_agg(g) FROM generate_series(1, {{n}}) g", returns: value}
  outer:
    each: list
    on_error: {value: 1}
    steps:
      inner:
        each: list
        on_error: {value: 1}
        steps:
          x: {each: list, on_error: {value: 1}, sql: "SELECT {{item}}::jsonb"}
output: done
$$;
CREATE FUNCTION deep_json(n int) RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  a: {sql: "SELECT (repeat('[', {{n}}) || repeat(']', {{n}}))::jsonb", returns: value}
  b: {value: "{{a}}"}
  c: {sql: "SELECT {{b}}::jsonb", returns: value}
output: "{{c}}"
$$;
EOF
	like(said(run_job('hacker', 'bomb', { n => 100000 })), qr/^MC006 step .*the job needs too much memory/, 'each in each in each');
	like(said(run_job('hacker', 'caught_bomb', { n => 100000 })), qr/^MC006 .*the job needs too much memory/, 'with errors caught');
	like(said(run_job('hacker', 'deep_json', { n => 5000 })), qr/^\[{5000}\]{5000}$|^54001 /, 'a value of 5000 levels');
	like(said(run_job('hacker', 'deep_json', { n => 500000 })), qr/^54001 /, 'of 500000');
	nothing_left('large chains');
	is($super->must(q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type = 'chaincall caller'}), $caller, 'the caller lives');
};

subtest 'steps that use chaincall' => sub {
	is(said(run_job('hacker', 'run', { s => q{SELECT chaincall.call('small', 'hello') IS NOT NULL} })), 'true', 'call()');
	is(said(run_job('hacker', 'run', { s => q{SELECT hacker.state()} })), 'hacker hacker', 'a chain');
	is(said(run_job('hacker', 'run', { s => q{SELECT hacker.run('SELECT 7')} })), '7', 'a chain in a chain');
	like(said(run_job('hacker', 'run', { s => q{SELECT hacker.raise('53100')} })), qr/^53100 /, 'a chain that claims a full disk');
	{
		my $inner = said(run_job('hacker', 'run', { s => q{SELECT chaincall.submit('hacker.run', '{"s": "SELECT current_user"}')} }));

		like($inner, qr/^[0-9a-f-]{36}$/, 'submit()');
		is(said(outcome('hacker', $inner)), 'hacker', 'whose job runs when the step has committed');
		like(said(run_job('hacker', 'run', { s => qq{SELECT chaincall.result(chaincall.submit('hacker.state'))} })), qr/^55000 .*was enqueued by this transaction/, 'waiting for oneself is refused');
		like(said(run_job('hacker', 'run', { s => qq{SELECT chaincall.submit('hacker.state') FROM generate_series(1, 10) UNION ALL SELECT (1 / 0)::text::uuid} })), qr/^22012 /, 'a step that fails');
		is($super->must(q{SELECT count(*) FROM chaincall.job WHERE chain = 'hacker.state()' AND state NOT IN ('succeeded')}), '0', 'leaves no job');
	}
	# it may drop what it runs
	$of{hacker}->must(q{CREATE FUNCTION dropping() RETURNS text LANGUAGE chaincall AS 'steps: {a: {function: execute_all, args: {s: "DROP FUNCTION hacker.dropping()"}}, b: {sql: "SELECT 1", after: a}}'});
	is(said(run_job('hacker', 'dropping')), '[{"?column?": 1}]', 'a step that drops its chain: the job is pinned');
	is(said(run_job('hacker', 'run_all', { s => 'REVOKE EXECUTE ON FUNCTION hacker.execute_all(text) FROM hacker, PUBLIC' })), 'done', 'a step that revokes its own rights');
	like(said(run_job('hacker', 'run_all', { s => 'SELECT 1' })), qr/^42501 /, 'the next one is refused');
	$super->must('GRANT EXECUTE ON FUNCTION hacker.execute_all(text) TO hacker, PUBLIC');
	# jobs that make jobs that make jobs: bounded by the role's count
	$super->must('ALTER ROLE hacker SET chaincall.max_queued = 50');
	$of{hacker}->must(<<'EOF');
CREATE FUNCTION fork(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {sql: "SELECT chaincall.submit('hacker.fork', jsonb_build_object('n', {{n}} - 1)) FROM generate_series(1, 10) WHERE {{n}} > 0"}
output: "{{a}}"
$$;
EOF
	# a new executor has the new setting
	is(said(run_job('victim', 'state')), 'victim victim', 'a turn of somebody else');
	submit('hacker', 'fork', { n => 4 });
	ok(comes_true(q{SELECT count(*) = 0 FROM chaincall.job WHERE chain LIKE 'hacker.fork%' AND finished_at IS NULL}), 'a fork bomb ends');
	cmp_ok($super->must(q{SELECT count(*) FROM chaincall.job WHERE chain LIKE 'hacker.fork%' AND state = 'failed' AND error ->> 'message' ~ 'too many queued jobs'}), '>', 0, 'by its role\'s limit');
	$super->must('ALTER ROLE hacker RESET ALL');
	no_foreign_hands('all of it ran as its owner');
	nothing_left('use of chaincall');
};


# --------------------------------------------------------------------------------------------------
# Settings

# What non-superusers may set for a database that is theirs, or for themselves.
my @settings = (
	[ 'role' => 'hacker' ],
	[ 'session_authorization' => 'hacker' ],
	[ 'search_path' => 'hostile, pg_catalog, hacker' ],
	[ 'default_transaction_read_only' => 'on' ],
	[ 'default_transaction_isolation' => 'serializable' ],
	[ 'default_transaction_deferrable' => 'on' ],
	[ 'row_security' => 'off' ],
	[ 'statement_timeout' => '1ms' ],
	[ 'lock_timeout' => '1ms' ],
	[ 'idle_in_transaction_session_timeout' => '1ms' ],
	[ 'idle_session_timeout' => '1ms' ],
	[ 'transaction_timeout' => '10ms' ],
	[ 'synchronous_commit' => 'off' ],
	(map { [ $_ => 'off' ] } qw(enable_indexscan enable_indexonlyscan enable_bitmapscan enable_nestloop enable_hashjoin enable_sort enable_partition_pruning)),
	[ 'plan_cache_mode' => 'force_custom_plan' ],
	[ 'constraint_exclusion' => 'on' ],
	[ 'work_mem' => '64kB' ],
	[ 'maintenance_work_mem' => '1MB' ],
	[ 'TimeZone' => 'Pacific/Kiritimati' ],
	[ 'DateStyle' => 'German, DMY' ],
	[ 'IntervalStyle' => 'sql_standard' ],
	[ 'bytea_output' => 'escape' ],
	[ 'extra_float_digits' => '-15' ],
	[ 'quote_all_identifiers' => 'on' ],
	[ 'xmloption' => 'document' ],
	[ 'check_function_bodies' => 'off' ],
	[ 'client_encoding' => 'LATIN1' ],
	[ 'client_min_messages' => 'debug5' ],
	[ 'lc_monetary' => 'C' ],
	[ 'lc_numeric' => 'C' ],
	[ 'lc_time' => 'C' ],
	[ 'standard_conforming_strings' => 'off' ],
	[ 'backslash_quote' => 'on' ],
	[ 'escape_string_warning' => 'on' ],
	[ 'array_nulls' => 'off' ],
	[ 'transform_null_equals' => 'on' ],
	[ 'default_table_access_method' => 'heap' ],
	[ 'default_toast_compression' => 'pglz' ],
	[ 'default_tablespace' => 'nowhere' ],
	[ 'temp_tablespaces' => 'nowhere' ],
	[ 'jit' => 'on' ],
	[ 'jit_above_cost' => '0' ],
	[ 'force_parallel_mode' => 'on' ],
	[ 'debug_parallel_query' => 'on' ],
	[ 'max_parallel_workers_per_gather' => '4' ],
	[ 'min_parallel_table_scan_size' => '0' ],
	[ 'parallel_setup_cost' => '0' ],
	[ 'parallel_tuple_cost' => '0' ],
	[ 'application_name' => 'nobody' ],
	[ 'debug_print_plan' => 'on' ],
	[ 'default_text_search_config' => 'pg_catalog.simple' ],
	[ 'vacuum_cost_delay' => '100ms' ],
	[ 'gin_fuzzy_search_limit' => '1' ],
	[ 'synchronize_seqscans' => 'off' ],
	[ 'tcp_user_timeout' => '1ms' ],
	[ 'chaincall.max_in_flight' => '1' ],
	[ 'chaincall.max_spans' => '0' ]);

# An operator, function or type of the hacker's for all that our SQL could mean if its search_path were theirs.
$of{hacker}->must(<<'EOF');
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
DO $do$
DECLARE
	t text;
	o text;
BEGIN
	FOREACH t IN ARRAY ARRAY['uuid', 'text', 'oid', 'int4', 'int8', 'timestamptz', 'jsonb', 'bytea', 'bool'] LOOP
		FOREACH o IN ARRAY ARRAY['=', '<>', '<', '<=', '>', '>='] LOOP
			EXECUTE format('CREATE FUNCTION hostile.%I(a %s, b %s) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO public.seen VALUES (%L); RETURN NULL; END $f$',
				'f_' || md5(o || t), t, t, o || ' of ' || t);
			EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.%I, LEFTARG = %s, RIGHTARG = %s)', o, 'f_' || md5(o || t), t, t);
		END LOOP;
	END LOOP;
	FOREACH t IN ARRAY ARRAY['now() RETURNS timestamptz', 'clock_timestamp() RETURNS timestamptz', 'current_database() RETURNS name', 'gen_random_uuid() RETURNS uuid',
		'unnest(uuid[]) RETURNS uuid', 'unnest(oid[]) RETURNS oid', 'unnest(timestamptz[]) RETURNS timestamptz', 'unnest(int4[]) RETURNS int4', 'unnest(text[]) RETURNS text',
		'unnest(anyarray) RETURNS anyelement', 'count(uuid) RETURNS int8', 'max(timestamptz) RETURNS timestamptz', 'min(timestamptz) RETURNS timestamptz',
		'coalesce_(int) RETURNS int', 'jsonb_build_object(VARIADIC text[]) RETURNS jsonb', 'pg_has_role(oid, text) RETURNS bool', 'generate_series(int, int) RETURNS int'] LOOP
		EXECUTE format('CREATE FUNCTION hostile.%s LANGUAGE plpgsql AS $f$ BEGIN INSERT INTO public.seen VALUES (%L); RETURN NULL; END $f$', t, t);
	END LOOP;
END $do$;
CREATE TABLE hostile.pg_class (i int);
CREATE TABLE hostile.job (i int);
CREATE TABLE hostile.span (i int);
CREATE DOMAIN hostile.uuid AS text;
CREATE DOMAIN hostile.jsonb AS text;
CREATE DOMAIN hostile.timestamptz AS text;
EOF

# Workers that have started with the settings that there are now.
sub new_workers
{
	$super->must("ALTER SYSTEM SET chaincall.workers = $_; SELECT pg_reload_conf()"),
	  comes_true(q{SELECT count(*) } . ($_ eq 'off' ? '=' : '>') . q{ 0 FROM pg_stat_activity WHERE backend_type = 'chaincall caller'})
	  for ('off', 'on');
	return;
}

subtest 'settings of a database and of a role' => sub {
	my $owner = session($node, user => 'hacker');
	my $log = -s $node->logfile;
	my @taken;

	for my $setting (@settings)
	{
		my $result = $owner->run("ALTER DATABASE postgres SET $setting->[0] = " . ($setting->[0] =~ /search_path/ ? $setting->[1] : sql_literal($setting->[1])));

		# this version may not know it, and some are a superuser's
		next unless $result->ok;
		push @taken, $setting;
		$owner->run("ALTER ROLE hacker SET $setting->[0] = " . ($setting->[0] =~ /search_path/ ? $setting->[1] : sql_literal($setting->[1])));
	}
	cmp_ok(scalar(@taken), '>=', 45, 'settings are taken');
	note(join(' ', map { $_->[0] } @taken));
	for my $name ('session_replication_role', 'log_min_messages', 'log_statement', 'session_preload_libraries', 'zero_damaged_pages', 'chaincall.allowed_networks', 'chaincall.max_queued', 'chaincall.inline_timeout')
	{
		like(said($owner->run("ALTER DATABASE postgres SET $name = " . ($name =~ /log/ ? 'error' : $name =~ /role/ ? 'replica' : $name =~ /max|time/ ? '0' : $name =~ /zero/ ? 'on' : q{''}))), qr/^42501 /, "$name is a superuser's");
	}
	new_workers();
	for my $user ('victim', 'hacker')
	{
		is(said(run_job($user, 'mixed', { t => "as $user" })), 'AS ' . uc($user) . '15', "a job of $user");
		is($super->must(q{SELECT string_agg(s.path || s.kind, ' ' ORDER BY s.path) FROM chaincall.span s WHERE job = (SELECT id FROM chaincall.job ORDER BY id DESC LIMIT 1)}),
			'amodel bsql cmodel', 'with its spans');
	}
	{
		my $job = submit('victim', 'run', { s => 'SELECT pg_sleep(1000)' });

		$of{victim}->must("SELECT chaincall.cancel('$job')");
		is(said(outcome('victim', $job)), "55000 job $job was cancelled", 'a cancel');
	}
	$of{victim}->must(q{INSERT INTO chaincall.job (chain, input, run_at) SELECT 'mixed', '{"t": "later"}', clock_timestamp() + interval '100 ms'});
	ok(comes_true(q{SELECT count(*) = 1 FROM chaincall.job WHERE input ->> 't' = 'later' AND state = 'succeeded'}), 'a job that waits');
	$of{victim}->must(q{INSERT INTO chaincall.job (chain, input, expires_at) SELECT 'run', '{"s": "SELECT pg_sleep(1000)"}', clock_timestamp() + interval '100 ms'});
	ok(comes_true(q{SELECT count(*) = 1 FROM chaincall.job WHERE state = 'expired'}), 'a job that expires');
	is($super->must(q{SELECT string_agg(DISTINCT backend_type, ', ') FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %' AND backend_type <> 'chaincall executor'}),
		'chaincall caller, chaincall launcher, chaincall maintainer', 'all workers are there');
	# whose sessions they seem to be is not who may end them
	like(said($owner->run("SELECT pg_terminate_backend($_)")), qr/^42501 /, 'a worker is not ended')
	  for split(/ /, $super->must(q{SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE backend_type IN ('chaincall caller', 'chaincall maintainer', 'chaincall launcher')}));
	is($super->must(q{SELECT string_agg(DISTINCT as_role, ', ') FROM public.seen WHERE as_role <> 'hacker'}), '', 'hostile operators and functions ran as nobody else');
	is(join("\n", grep { /chaincall (caller|maintainer|launcher)\s/ && /(ERROR|FATAL|PANIC):/ || /exited with exit code 1/ && /chaincall (caller|maintainer)/ } split(/\n/, slurp_file($node->logfile, $log))),
		'', 'no worker has failed');
	$super->must('ALTER DATABASE postgres RESET ALL; ALTER ROLE hacker RESET ALL; TRUNCATE public.seen');
	new_workers();
	$owner->quit;
	nothing_left('settings');
};

# --------------------------------------------------------------------------------------------------
# Whose job it is

subtest 'jobs that others are made to insert' => sub {
	my $by = sub {
		my ($what, $sql, $expected) = @_;
		my $before = $super->must('SELECT count(*) FROM chaincall.job');

		$super->must($sql);
		my $owners = $super->must(q{SELECT string_agg(DISTINCT owner::regrole::text, ',') FROM chaincall.job WHERE chain = 'hacker.made()'});
		is($owners, $expected, $what);
		ok(comes_true(q{SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'hacker.made()' AND finished_at IS NULL}), "$what: they run") if $expected;
		is($super->must(q{SELECT string_agg(DISTINCT as_role, ', ') FROM public.seen}), $expected, "$what: as whom") if $expected;
		$super->must(q{TRUNCATE public.seen; DELETE FROM chaincall.job WHERE chain = 'hacker.made()'});
	};

	$of{hacker}->must(<<'EOF');
CREATE FUNCTION made() RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {sql: "INSERT INTO public.seen (what) VALUES ('a job')"}
$$;
CREATE FUNCTION insert_job_now() RETURNS void LANGUAGE plpgsql VOLATILE AS $$ BEGIN INSERT INTO chaincall.job (chain) VALUES ('hacker.made'); END $$;
CREATE FUNCTION insert_job(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	IF current_setting('hacker.quiet', true) = 'on' THEN RETURN i; END IF;
	PERFORM hacker.insert_job_now();
	RETURN i;
END $$;
SET hacker.quiet = on;
CREATE TABLE indexed AS SELECT g AS i FROM generate_series(1, 3) g;
CREATE INDEX ON indexed (hacker.insert_job(i));
CREATE STATISTICS stat ON (hacker.insert_job(i)), i FROM indexed;
CREATE MATERIALIZED VIEW materialized AS SELECT hacker.insert_job(i) AS i FROM indexed;
CREATE UNIQUE INDEX ON materialized (i);
CREATE VIEW viewed AS SELECT hacker.insert_job(i) AS i FROM indexed;
CREATE DOMAIN checked AS int CHECK (hacker.insert_job(VALUE) > 0);
CREATE TABLE generated (i int, j int GENERATED ALWAYS AS (hacker.insert_job(i)) STORED);
RESET hacker.quiet;
EOF
	$by->('REINDEX by a superuser', 'REINDEX TABLE hacker.indexed', 'hacker');
	$by->('REINDEX CONCURRENTLY', 'REINDEX TABLE CONCURRENTLY hacker.indexed', 'hacker');
	$by->('ANALYZE', 'ANALYZE hacker.indexed', 'hacker');
	$by->('VACUUM FULL', 'VACUUM FULL hacker.indexed', 'hacker');
	$by->('CLUSTER', 'CLUSTER hacker.indexed USING indexed_insert_job_idx', 'hacker');
	$by->('REFRESH', 'REFRESH MATERIALIZED VIEW hacker.materialized', 'hacker');
	$by->('REFRESH CONCURRENTLY', 'REFRESH MATERIALIZED VIEW CONCURRENTLY hacker.materialized', 'hacker');
	# what runs as who writes or reads, as all of PostgreSQL's triggers and views' functions do, makes that role's jobs
	$by->('a generated column', 'INSERT INTO hacker.generated VALUES (1)', 'postgres');
	$by->('a view', 'SELECT * FROM hacker.viewed', 'postgres');
	$by->('a domain', 'SELECT 1::hacker.checked', 'postgres');
	$by->('a function that switches the user', q{
		CREATE FUNCTION hacker.definer() RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS 'INSERT INTO chaincall.job (chain) VALUES (''hacker.made'')';
		ALTER FUNCTION hacker.definer() OWNER TO hacker;
		SELECT hacker.definer()}, 'hacker');
	$by->('rows of another node', q{SET session_replication_role = replica; INSERT INTO chaincall.job (chain) VALUES ('hacker.made'); RESET session_replication_role}, '');
	# a superuser's maintenance of chaincall's own tables
	$super->must('REINDEX SCHEMA chaincall; ANALYZE chaincall.job; VACUUM chaincall.job');
};


# --------------------------------------------------------------------------------------------------
# Two roles

subtest 'what is another\'s' => sub {
	my $secret = 'SESAME';
	my $nowhere = '01234567-0123-7123-8123-0123456789ab';
	my $monitor = session($node, user => 'monitor');
	my $log = -s $node->logfile;
	my $echo = RawServer->new(sub {
		my ($connection) = @_;
		my $body = '{"error": {"message": "key ' . KEY . ' is not known"}}';

		print $connection "HTTP/1.1 401 Unauthorized\r\nX-Request-Id: " . KEY . "\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	});
	my %job;

	add_server($super, 'echo', $echo->url . '/v1');
	$super->must('CREATE USER MAPPING FOR PUBLIC SERVER echo OPTIONS (api_key ' . sql_literal(KEY) . ')');
	add_model($super, 'echo', 'echo', 'remote', retry => '0');
	$super->must('GRANT USAGE ON FOREIGN SERVER echo TO victim');
	$of{victim}->must(q{CREATE FUNCTION echoes(t text) RETURNS text LANGUAGE chaincall AS 'steps: {a: {model: echo, prompt: "{{t}}"}}'});

	# a job in each state
	$job{succeeded} = submit('victim', 'mixed', { t => $secret });
	is(said(outcome('victim', $job{succeeded})), "${secret}15", 'a job that succeeds');
	$job{failed} = submit('victim', 'echoes', { t => $secret });
	like(said(outcome('victim', $job{failed})), qr/^MC003 step a: /, 'one that fails');
	$job{cancelled} = $of{victim}->must("SELECT chaincall.submit('mixed', '{\"t\": \"$secret\"}', run_at => now() + interval '1 day')");
	$of{victim}->must("SELECT chaincall.cancel('$job{cancelled}')");
	outcome('victim', $job{cancelled});
	$job{waiting} = $of{victim}->must("SELECT chaincall.submit('mixed', '{\"t\": \"$secret\"}', run_at => now() + interval '1 day', dedupe_key => 'key')");
	$job{running} = submit('victim', 'run', { s => "SELECT pg_sleep(1000), '$secret'" });
	comes_true("SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND query ~ 'victim.execute|chain victim.run|chain run'");
	$super->must(q{INSERT INTO chaincall.alert (id, kind, job, owner, message, created_at) VALUES (gen_random_uuid(), 'test', NULL, 'victim'::regrole, 'alert', now())});
	is($super->must("SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM chaincall.job WHERE id IN (" . join(', ', map { "'$_'" } values %job) . ')'),
		'cancelled failed running succeeded waiting', 'jobs in each state');
	$super->must('ANALYZE chaincall.job; ANALYZE chaincall.span; ANALYZE chaincall.action; ANALYZE chaincall.alert');

	# reading: nothing, though the database is the hacker's
	for my $table ('job', 'span', 'action', 'alert', 'job_status')
	{
		my $column = { action => 'author', alert => 'owner', job_status => 'owner::text::regrole' }->{$table} || 'owner';

		is($of{hacker}->must("SELECT count(*) FROM chaincall.$table WHERE $column = 'victim'::regrole"), '0', "$table: nothing of another's");
		isnt($of{victim}->must("SELECT count(*) FROM chaincall.$table WHERE $column = 'victim'::regrole"), '0', "$table: one's own");
	}
	is($of{hacker}->must(q{SELECT count(*) FROM chaincall.queue_status WHERE owner = 'victim'}), '0', 'queue_status');
	is($of{hacker}->must(qq{SELECT count(*) FROM chaincall.activity WHERE job = '$job{running}'}), '0', 'activity');
	isnt($of{victim}->must(qq{SELECT count(*) FROM chaincall.activity WHERE job = '$job{running}'}), '0', 'activity, one\'s own');
	is($of{hacker}->must(q{SELECT count(*) FROM pg_stats WHERE schemaname = 'chaincall' AND tablename IN ('job', 'span', 'action', 'alert', 'span_default')}), '0', 'pg_stats');
	$of{hacker}->must(q{CREATE FUNCTION leak(anyelement) RETURNS bool LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN INSERT INTO public.seen VALUES ('leak of ' || $1::text); RETURN true; END $$});
	$of{hacker}->run("SELECT count(*) FROM chaincall.$_ WHERE hacker.leak($_)") for ('job', 'span', 'action', 'alert', 'job_status', 'queue_status', 'activity');
	is($super->must("SELECT count(*) FROM public.seen WHERE what ~ '$secret|victim|$job{succeeded}'"), '0', 'a cheap function in a condition sees nothing of them');
	for my $function ('result', 'trace')
	{
		my %said = map { $_ => said($of{hacker}->run("SELECT chaincall.$function('$_')")) =~ s/$_/JOB/gr } ($nowhere, values %job);

		is(join(' | ', grep { $_ ne $said{$nowhere} } values %said), '', "$function(): another's job is as one that does not exist");
		like($said{$nowhere}, qr/^42704 job JOB does not exist$/, "$function(): in words");
	}

	# acting: refused, in the same words
	$of{hacker}->must("SELECT chaincall.cancel('$_')") for ($nowhere, values %job);
	comes_true(q{SELECT count(*) = 0 FROM chaincall.action WHERE state = 'pending'});
	is($of{hacker}->must(q{SELECT string_agg(DISTINCT state || ': ' || reason, ' | ') FROM chaincall.action WHERE author = 'hacker'::regrole AND job IN (}
			  . join(', ', map { "'$_'" } $nowhere, values %job) . ')'), 'refused: there is no such job', 'actions');
	is($super->must("SELECT state FROM chaincall.job WHERE id = '$job{running}'"), 'running', 'nothing has come of them');
	like($of{hacker}->must("SELECT chaincall.submit('victim.mixed', '{\"t\": \"x\"}', run_at => now() + interval '1 day', dedupe_key => 'key')"), qr/^[0-9a-f-]{36}$/,
		'a dedupe_key is each role\'s own');

	# what is known of workers
	is($of{hacker}->must('SELECT string_agg(DISTINCT query, \' | \') FROM pg_stat_activity WHERE pid IN ('
			  . $super->must(q{SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %'}) . ')'), '<insufficient privilege>', 'pg_stat_activity');
	unlike($super->must(q{SELECT string_agg(query, ' | ') FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %'}), qr/$secret|\Q${\KEY}\E/, 'it shows no inputs');

	# who monitors has statistics
	for my $view ('queue_status', 'activity', 'stat_model', 'stat_endpoint', 'stat_worker')
	{
		my $result = $monitor->run("SELECT * FROM chaincall.$view");

		ok($result->ok && $result->{out} ne '', "pg_monitor: $view");
		unlike($result->{out}, qr/$secret|\Q${\KEY}\E/, "pg_monitor: no inputs in $view");
	}
	like(said($monitor->run("SELECT * FROM chaincall.$_")), qr/^42501 /, "pg_monitor: not $_") for ('job', 'span', 'action', 'alert', 'definition', 'job_status', 'origin');
	like(said($monitor->run("SELECT chaincall.$_")), qr/^42501 /, "pg_monitor: not $_") for ("result('$job{succeeded}')", "trace('$job{succeeded}')", "cancel('$job{running}')", q{submit('x')});

	# members of a role are the role, unless they do not inherit
	$super->must('CREATE ROLE friend LOGIN IN ROLE victim; CREATE ROLE stranger LOGIN NOINHERIT IN ROLE victim; SELECT chaincall.grant_usage(\'stranger\')');
	{
		my ($friend, $stranger) = map { session($node, user => $_) } ('friend', 'stranger');

		is(said($friend->run("SELECT chaincall.result('$job{succeeded}') #>> '{}'")), "${secret}15", 'a member sees it');
		like(said($stranger->run("SELECT chaincall.result('$job{succeeded}')")), qr/does not exist/, 'one that does not inherit does not');
		$stranger->must("SELECT chaincall.cancel('$job{running}')");
		comes_true(q{SELECT count(*) = 0 FROM chaincall.action WHERE state = 'pending'});
		is($super->must("SELECT state FROM chaincall.job WHERE id = '$job{running}'"), 'running', 'nor cancels it');
		$friend->must("SELECT chaincall.cancel('$job{running}')");
		is(said(outcome('victim', $job{running})), "55000 job $job{running} was cancelled", 'a member does');
		$_->quit for ($friend, $stranger);
	}

	# keys and inputs are nowhere to be read
	is($super->must('SELECT count(*) FROM chaincall.job j LEFT JOIN chaincall.span s ON s.job = j.id LEFT JOIN chaincall.alert a ON a.job = j.id WHERE concat(j, s, a) LIKE '
			  . sql_literal('%' . KEY . '%')), '0', 'no key in any table');
	unlike(slurp_file($node->logfile, $log), qr/\Q${\KEY}\E/, 'no key in the log');
	is(join("\n", grep { /\bchaincall (caller|executor|maintainer)\b/ && /$secret/ } split(/\n/, slurp_file($node->logfile, $log))), '', 'no worker logs inputs');
	$monitor->quit;
};

subtest 'privileges' => sub {
	is($super->must(q{
		SELECT string_agg(format('%s %s on %s', r, p, c.oid::regclass), ', ')
		FROM pg_class c, unnest(ARRAY['hacker', 'monitor']) r, unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
		WHERE c.relnamespace = 'chaincall'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_table_privilege(r, c.oid, p)}), '', 'nobody writes tables');
	is($super->must(q{
		SELECT string_agg(format('%s.%s', c.relname, a.attname), ' ' ORDER BY c.relname, a.attname)
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'chaincall'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND (has_column_privilege('hacker', c.oid, a.attnum, 'INSERT') OR has_column_privilege('hacker', c.oid, a.attnum, 'UPDATE'))}),
		join(' ', map({ "action.$_" } qw(action alert input job output step)), map({ "job.$_" } qw(chain dedupe_key expires_at input labels priority run_at traceparent))), 'but by INSERT into these columns');
	is($super->must(q{
		SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c
		WHERE c.relnamespace = 'chaincall'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^(span_|definition|origin)' AND has_any_column_privilege('hacker', c.oid, 'SELECT')}),
		'', 'partitions and definitions are not to be read');
	for my $column ('id', 'state', 'owner', 'output', 'error', 'rank', 'worker', 'deaths', 'definition', 'created_at', 'started_at', 'finished_at')
	{
		like(said($of{hacker}->run("INSERT INTO chaincall.job (chain, $column) VALUES ('hacker.state', NULL)")), qr/^42501 /, "INSERT of job.$column");
	}
	like(said($of{hacker}->run($_)), qr/^42501 /, $_)
	  for ('INSERT INTO chaincall.action (job, action, author) VALUES (gen_random_uuid(), \'cancel\', 10)', 'SELECT * FROM chaincall.job FOR UPDATE', 'SELECT * FROM chaincall.job FOR KEY SHARE',
		'DO $$ BEGIN LOCK TABLE chaincall.job IN SHARE MODE; END $$', 'DO $$ BEGIN LOCK TABLE chaincall.span; END $$', 'INSERT INTO chaincall.job (chain, dedupe_key) VALUES (\'hacker.state\', \'k\') ON CONFLICT (id) DO UPDATE SET state = \'failed\'',
		'MERGE INTO chaincall.job USING (SELECT 1) s ON false WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (chain) VALUES (\'hacker.state\')',
		'DROP TABLE chaincall.job', 'ALTER TABLE chaincall.job DISABLE ROW LEVEL SECURITY', 'CREATE TRIGGER t BEFORE INSERT ON chaincall.job EXECUTE FUNCTION hacker.run_deferred()',
		'CREATE POLICY p ON chaincall.job USING (true)', 'CREATE RULE r AS ON INSERT TO chaincall.job DO INSTEAD NOTHING', 'CREATE TABLE chaincall.span_x (LIKE chaincall.span)',
		'ALTER EXTENSION chaincall ADD TABLE hacker.deferred', 'CREATE TABLE hacker.child () INHERITS (chaincall.job)', 'CREATE TABLE hacker.child (f uuid REFERENCES chaincall.job)',
		'CREATE TABLE hacker.part PARTITION OF chaincall.span FOR VALUES FROM (\'ffffffff-0000-0000-0000-000000000000\') TO (\'ffffffff-ffff-ffff-ffff-ffffffffffff\')',
		'CREATE PUBLICATION p FOR TABLE chaincall.job', 'COMMENT ON TABLE chaincall.job IS \'x\'');
	# triggers are no functions to be called
	unlike(said($of{hacker}->run("CREATE TRIGGER t BEFORE INSERT ON hacker.deferred FOR EACH ROW EXECUTE FUNCTION chaincall.$_()")), qr/^$/, "$_ in a table of one's own") for ('job_insert', 'job_inserted', 'action_insert', 'drop_replicated');

	is($super->must(q{SELECT string_agg(format('%s on %s', tgname, tgrelid::regclass), ', ') FROM pg_trigger
		WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'chaincall'::regnamespace) AND NOT tgisinternal AND tgenabled <> 'A'
		AND tgrelid::regclass::text ~ '^chaincall\.(job|span|action|alert|definition|origin)'}), '', 'triggers fire always');
	is($super->must(q{SELECT string_agg(oid::regclass::text, ', ') FROM pg_class c
		WHERE relnamespace = 'chaincall'::regnamespace AND relkind IN ('r', 'p') AND NOT relrowsecurity AND has_any_column_privilege('hacker', c.oid, 'SELECT')
		AND relname NOT IN ('model', 'endpoint', 'pool', 'chain_policy')}), '', 'what one may read has row security');
	# what runs with rights that its caller does not have: functions of the extension that are SECURITY DEFINER, or that a superuser is meant to run
	is($super->must(q{SELECT string_agg(p.oid::regprocedure::text, ', ') FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
		WHERE p.pronamespace = 'chaincall'::regnamespace AND (p.prosecdef OR l.lanname IN ('sql', 'plpgsql'))
		AND NOT EXISTS (SELECT FROM unnest(p.proconfig) c WHERE c IN ('search_path=pg_catalog, pg_temp', 'search_path=""'))
		AND p.prosqlbody IS NULL}), '', 'functions fix their search_path');
	is($super->must(q{SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c WHERE relnamespace = 'chaincall'::regnamespace AND relkind = 'v'
		AND NOT coalesce(reloptions && ARRAY['security_invoker=true', 'security_barrier=true'], false)
		AND relname NOT IN ('stat_model', 'stat_endpoint', 'stat_worker', 'activity')}), '', 'views are of who reads them, or a barrier');
	nothing_left('privileges');
};

# --------------------------------------------------------------------------------------------------
# Many roles

subtest 'a thousand roles' => sub {
	my $started = now_ms();

	$super->must(<<'EOF');
ALTER SYSTEM SET chaincall.max_executors = 4;
SELECT pg_reload_conf();
CREATE ROLE many;
SELECT chaincall.grant_usage('many');
CREATE FUNCTION public.of_many() RETURNS text LANGUAGE chaincall AS 'steps: {a: {sql: "SELECT current_user::text", returns: value}}
output: "{{a}}"';
DO $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXECUTE format('CREATE ROLE many%s LOGIN IN ROLE many', i);
	END LOOP;
END $$;
DO $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXECUTE format('SET LOCAL SESSION AUTHORIZATION many%s', i);
		INSERT INTO chaincall.job (chain) VALUES ('public.of_many');
	END LOOP;
END $$;
EOF
	ok(comes_true(q{SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'public.of_many()' AND finished_at IS NULL}), 'all jobs end');
	is($super->must(q{SELECT count(*) || ' ' || count(DISTINCT owner) FROM chaincall.job WHERE chain = 'public.of_many()' AND state = 'succeeded' AND output #>> '{}' = owner::regrole::text}),
		'1000 1000', 'each as its owner');
	note(sprintf('they took %.1f s', (now_ms() - $started) / 1000));
};

$node->stop;

subtest 'more roles than there is room for' => sub {
	my $few = new_node('few_owners', conf => "shared_preload_libraries = 'chaincall'\nchaincall.max_owners = 16\n");
	my $session = session($few);
	my @results;

	$session->must(<<'EOF');
CREATE ROLE many;
SELECT chaincall.grant_usage('many');
CREATE FUNCTION public.one() RETURNS int LANGUAGE chaincall AS 'value: 1';
DO $$
BEGIN
	FOR i IN 1 .. 20 LOOP
		EXECUTE format('CREATE ROLE many%s LOGIN IN ROLE many', i);
	END LOOP;
END $$;
EOF
	push @results, said($session->run("SET SESSION AUTHORIZATION many$_; SELECT chaincall.submit('public.one', run_at => now() + interval '1 day') IS NOT NULL")) for (1 .. 20);
	is(scalar(grep { $_ eq 't' } @results), 16, 'as many as there is room for');
	like($results[-1], qr/^(MC006|53400|53200) /, 'then an error') or diag(join("\n", @results));
	note($results[-1]);
	$session->must('RESET SESSION AUTHORIZATION');
	$session->must("SET SESSION AUTHORIZATION many1; SELECT chaincall.submit('public.one'); RESET SESSION AUTHORIZATION");
	wait_until(sub { return $session->must(q{SELECT count(*) = 1 FROM chaincall.job WHERE state = 'succeeded'}) eq 't' }, 'a job of a role that has room');
	pass('who has room goes on');
	$session->quit;
	$few->stop;
};

done_testing();
