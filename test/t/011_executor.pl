# What hostile steps of jobs can do: each runs as its owner, alone, and leaves nothing to the next.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('executor', conf => "shared_preload_libraries = 'chaincall'\nchaincall.max_executors = 1\n");

$node->safe_psql('postgres', q{
CREATE ROLE app LOGIN;
SELECT chaincall.grant_usage('app');
GRANT CREATE ON SCHEMA public TO app;
ALTER ROLE app SET role = 'pg_monitor';
GRANT pg_monitor TO app;
});
$node->safe_psql('postgres', q{
SET SESSION AUTHORIZATION app;
CREATE TABLE log (what text);
CREATE TABLE late (id integer);
CREATE TABLE later (id integer);
CREATE FUNCTION note(t text) RETURNS integer LANGUAGE plpgsql AS $$BEGIN INSERT INTO public.log VALUES (t || ' as ' || current_user); RETURN 1; END$$;
CREATE FUNCTION run(t text) RETURNS integer LANGUAGE plpgsql AS $$BEGIN EXECUTE t; RETURN 1; END$$;
CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no, says %', current_user; END$$;
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
  SET CONSTRAINTS ALL DEFERRED; IF NEW.id > 3 THEN RAISE EXCEPTION 'at commit as %', current_user; END IF;
  INSERT INTO later VALUES (NEW.id + 1); RETURN NULL; END$$;
CREATE FUNCTION stubborn() RETURNS integer LANGUAGE plpgsql AS $$BEGIN
  LOOP BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP; END$$;
CREATE CONSTRAINT TRIGGER no AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no();
CREATE CONSTRAINT TRIGGER again AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION again();
CREATE FUNCTION make_chain(name text, body text) RETURNS void LANGUAGE plpgsql AS
  $$BEGIN EXECUTE format('CREATE OR REPLACE FUNCTION %I() RETURNS jsonb LANGUAGE chaincall AS %L', name, body); END$$;
});

my $number = 0;

# The end of a job of one step: its output as text, or class and message of its error.
sub run_step
{
	my ($sql, %step) = @_;
	my $name = 'c' . ++$number;
	my $body = "steps:\n  a:\n    sql: |\n      $sql\n" . ($sql =~ /^(SELECT|SET.*SELECT)/s ? "    returns: value\n" : '');

	$body .= "    timeout: $step{timeout}\n" if $step{timeout};
	my $id = $node->safe_psql('postgres', "SET SESSION AUTHORIZATION app; SET check_function_bodies = off;"
		. " SELECT FROM make_chain('$name', \$body\$$body\$body\$);"
		. " INSERT INTO chaincall.job (chain) VALUES ('$name') RETURNING id;");
	($id) = $id =~ /([0-9a-f-]{36})/;
	$node->poll_query_until('postgres', "SELECT finished_at IS NOT NULL FROM chaincall.job WHERE id = '$id'")
		or return 'never ended';
	return $node->safe_psql('postgres',
		"SELECT coalesce(output::text, (error->>'class') || ': ' || (error->>'message')) FROM chaincall.job WHERE id = '$id'");
}

is(run_step('SELECT current_user::text || session_user::text'), '"appapp"', 'a step runs as the owner, whatever ALTER ROLE SET role says');

for my $command ('SET ROLE postgres', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT')
{
	like(run_step("SELECT run('$command')"), qr/^denied: .*within security-definer function/, "$command is refused");
}
for my $command ('COMMIT', 'ROLLBACK', "PREPARE TRANSACTION ''x''")
{
	like(run_step("SELECT run('$command')"), qr/^sql: .*transaction commands/, "$command is refused");
}

is(run_step(q{SET transaction_read_only = on; SELECT 3}), '3', 'a read-only step has its checkpoint');
is(run_step(q{SELECT set_config('default_transaction_read_only', 'on', false)}), '"on"', 'settings for the session');
is(run_step(q{SELECT set_config('search_path', 'nowhere', false)}), '"nowhere"', '... search_path');
is(run_step(q{SELECT count(*) FROM log}), '0', '... do not outlive the job');
is(run_step(q{SELECT current_setting('default_transaction_read_only')}), '"off"', '... any of them');

is(run_step(q{SELECT run('DECLARE c CURSOR WITH HOLD FOR SELECT note(''cursor'')')}), '1', 'a holdable cursor');
is(run_step(q{SELECT string_agg(what, ',') FROM log}), '"cursor as app"', '... runs at commit as the owner');
is(run_step(q{SELECT count(*) FROM pg_cursors}), '0', '... and is closed after the job');
like(run_step(q{SELECT run('DECLARE c CURSOR WITH HOLD FOR SELECT run(''SET ROLE postgres'')')}), qr/^denied: /, '... which it stays');

like(run_step(q{INSERT INTO late VALUES (1)}), qr/^sql: .*no, says app/, 'a deferred trigger that raises fails the step');
like(run_step(q{INSERT INTO later VALUES (1)}), qr/^sql: .*at commit as app/, '... at commit too');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM late) + (SELECT count(*) FROM later)'), '0', '... and undoes it');

is(run_step(q{SELECT run('CREATE TEMP TABLE span (job integer); INSERT INTO span VALUES (1)')}), '1', 'a temporary table named like ours');
is(run_step(q{SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relname = 'span'}), '0', '... goes with its job');
is(run_step(q{SELECT count(*) FROM pg_advisory_lock(5)}), '1', 'an advisory lock');
is(run_step(q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()}), '0', '... too');

like(run_step(q{SELECT pg_sleep(60)}, timeout => '300ms'), qr/^timeout: /, 'a timeout');
like(run_step(q{SELECT stubborn()}, timeout => '300ms'), qr/^timeout: /, '... that the step swallows');
like(run_step(q{SELECT repeat('x', 20000000)}), qr/^limit: /, 'a result that is too large');
like(run_step(q{SELECT pg_terminate_backend(pg_backend_pid())}), qr/^crash: /, 'a step that ends its session');
is(run_step(q{SELECT pg_cancel_backend(pg_backend_pid())}), 'true', 'a cancel that nobody of us sent');
is(run_step(q{SELECT 1}), '1', 'the next step runs');
is($node->safe_psql('postgres', 'SELECT count(*) FROM chaincall.job WHERE deaths > 0'), '1', 'but for that one none of it was a crash');

$node->stop;
done_testing();
