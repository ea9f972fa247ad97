# Schedules, with a real pg_cron: chains by the clock, and retention at an hour of one's choice. pg_cron's finest clock is the minute, and @reboot,
# which it runs when it starts: with that it is seen to run what it was given; all else is read from cron.job and run as pg_cron would.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $share = (split /\n/, `pg_config --sharedir`)[0];

plan(skip_all => 'pg_cron is not installed') unless -f "$share/extension/pg_cron.control";

my $models = ModelServer->new;
my $node = jobs_node('schedule', <<'CONF');
chaincall.keep_jobs = -1
chaincall.keep_spans = -1
CONF
my $session = session($node);

# What is in cron.job, as one line.
sub cron { return $session->must("SELECT string_agg(concat_ws(' ', jobname, schedule, database, username, active), ';' ORDER BY jobid) FROM cron.job"); }

# A value for a connection string.
sub conninfo { return "'" . ($_[0] =~ s/(['\\])/\\$1/gr) . "'"; }

# Runs what pg_cron would, as whom it would, with the settings that it would find.
sub fire
{
	my ($jobname, %params) = @_;
	my ($user, $command) = split /\|/, $session->must('SELECT username, command FROM cron.job WHERE jobname = ' . sql_literal($jobname)), 2;
	my $as = session($node, user => conninfo($user), %params);
	my $result = $as->run($command);

	$as->quit;
	return $result;
}

$session->must(<<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE "Other ""app""'s" LOGIN;
CREATE ROLE nologin;
SELECT FROM unnest(ARRAY['app', quote_ident('Other "app"''s'), 'nologin']::regrole[]) r, chaincall.grant_usage(r);
CREATE SCHEMA app AUTHORIZATION app;
CREATE SCHEMA "o'dd, ""schema""" AUTHORIZATION app;
GRANT CREATE ON SCHEMA public TO app;
GRANT USAGE ON SCHEMA app TO PUBLIC;
SET ROLE app;
CREATE FUNCTION app.tell(what text, times int DEFAULT 1) RETURNS text LANGUAGE chaincall AS 'value: "{{what}} {{times}}"';
CREATE FUNCTION app.slow() RETURNS text LANGUAGE chaincall AS '{steps: {w: {wait: 1 h}}}';
CREATE FUNCTION app.quick() RETURNS text LANGUAGE chaincall AS 'value: done';
CREATE FUNCTION app.forbidden() RETURNS text LANGUAGE chaincall AS 'value: done';
REVOKE ALL ON FUNCTION app.forbidden() FROM PUBLIC, app;
RESET ROLE;
SQL

my $app = session($node, user => 'app', sql => 'SET search_path = app, public');

subtest 'without pg_cron' => sub {
	my $result = $app->run("SELECT chaincall.schedule('x', '* * * * *', 'quick')");

	is($result->{state}, '42704', 'a schedule is an error');
	like($result->{message}, qr/^a schedule needs pg_cron, which is not installed$/, 'which says why');
	like($result->{hint}, qr/shared_preload_libraries = 'chaincall, pg_cron' and cron\.database_name = 'postgres'/, 'and what to do');
	is($app->run("SELECT chaincall.unschedule('x')")->{state}, '42704', 'to end one too');
	like($session->must('SELECT chaincall.schedule_maintenance()'), qr/^The maintainer goes on doing it, once an hour: a schedule needs pg_cron, which is not installed\. Install/, 'retention is the maintainer\'s');
	is($session->must('SELECT count(*) FROM chaincall.maintenance'), 0, 'as before');
	is($session->must('SELECT chaincall.unschedule_maintenance()'), 'f', 'there is no schedule');
};

# --------------------------------------------------------------------------------------------------
# pg_cron comes; to a socket, as whom it likes

my $socket = $session->must('SHOW unix_socket_directories');

$_->quit for ($session, $app);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'chaincall, pg_cron'\ncron.database_name = 'postgres'\ncron.host = '$socket'\ncron.log_statement = off");
$node->restart;
$session = session($node);
$app = session($node, user => 'app', sql => 'SET search_path = app, public');

subtest 'pg_cron that is not ready' => sub {
	my $result = $app->run("SELECT chaincall.schedule('x', '* * * * *', 'quick')");

	is($result->{state}, '42704', 'no CREATE EXTENSION');
	like($result->{hint}, qr/CREATE EXTENSION pg_cron;$/, 'says so');
	like($session->run("SELECT chaincall.schedule('x', '* * * * *', 'app.quick')")->{hint}, qr/^Have a superuser run: CREATE EXTENSION pg_cron;$/, 'to who may know, more clearly');
	$session->must('CREATE EXTENSION pg_cron');
	$result = $app->run("SELECT chaincall.schedule('x', '* * * * *', 'quick')");
	is($result->{state}, '42501', 'no privilege on it');
	like($result->{hint}, qr/GRANT USAGE ON SCHEMA cron TO app;/, 'says so');
	$session->must('GRANT USAGE ON SCHEMA cron TO app, "Other ""app""\'s", nologin');
};

subtest 'what a schedule is' => sub {
	my $id = $app->must("SELECT chaincall.schedule('tell it', '*/10 * * * *', 'tell', '{\"what\": \"it\"}')");

	is($id, $session->must('SELECT jobid FROM cron.job'), 'a job of pg_cron\'s');
	is(cron(), 'chaincall/tell it */10 * * * * postgres app t', 'of who made it');
	is($app->must("SELECT chaincall.schedule('tell it', '5 4 * * *', 'tell', '{\"what\": \"it\"}', labels => '{\"a\": 1, \"schedule\": \"x\"}', priority => 7, expires_after => '1 hour')"), $id,
		'one of that name is replaced');
	is(cron(), 'chaincall/tell it 5 4 * * * postgres app t', 'by the new one');
	is($session->must('SELECT count(*) FROM chaincall.job'), 0, 'nothing is enqueued yet');

	my $result = fire('chaincall/tell it');

	ok($result->ok, 'it runs') || diag($result->{err});
	is($session->must("SELECT concat_ws(' ', chain, input, priority, expires_at - run_at, dedupe_key, labels, owner::regrole) FROM chaincall.job"),
		'app.tell(text, integer) {"what": "it", "times": 1} 7 01:00:00 schedule tell it {"a": 1, "schedule": "tell it"} app', 'as a job of his');
	wait_jobs($session);
	is($session->must('SELECT output FROM chaincall.job'), '"it 1"', 'that comes to its end');
	is($app->must("SELECT chaincall.unschedule('tell it')"), 't', 'it is ended');
	is($app->must("SELECT chaincall.unschedule('tell it')"), 'f', 'once');
	is(cron(), '', 'and is gone');
	$session->must('DELETE FROM chaincall.job');
};

subtest 'where names are looked for' => sub {
	$app->must("SET search_path = app, \"o'dd, \"\"schema\"\"\"; SELECT chaincall.schedule('path', '* * * * *', 'tell', '{\"what\": \"path\"}')");
	ok(fire('chaincall/path', sql => 'SET search_path = pg_temp')->ok, 'it runs');
	is($session->must("SELECT d.body->>'search_path' FROM chaincall.job j JOIN chaincall.definition d ON d.sha256 = j.definition"), 'app, "o\'dd, ""schema"""', 'with the search_path that it was made with');
	$app->must("SELECT chaincall.unschedule('path'); SET search_path = app, public");
	wait_jobs($session);
	$session->must('DELETE FROM chaincall.job');
};

subtest 'one that is slow' => sub {
	$app->must("SELECT chaincall.schedule('slow', '* * * * *', 'slow()'), chaincall.schedule('pile', '* * * * *', 'slow()', overlap => true)");
	ok(fire('chaincall/slow')->ok, 'the first time') for 1;
	wait_sql($session, "SELECT count(*) = 1 FROM chaincall.job WHERE started_at IS NOT NULL");
	ok(fire('chaincall/slow')->ok, 'again') for 1 .. 3;
	is($session->must("SELECT count(*) FROM chaincall.job"), 1, 'does not pile up');
	ok(fire('chaincall/pile')->ok, 'overlap') for 1 .. 3;
	is($session->must("SELECT count(*) FROM chaincall.job WHERE labels = '{\"schedule\": \"pile\"}'"), 3, 'unless it may');
	$session->must("SELECT chaincall.cancel(id) FROM chaincall.job WHERE labels = '{\"schedule\": \"slow\"}'");
	wait_sql($session, "SELECT count(*) = 1 FROM chaincall.job WHERE state = 'cancelled'");
	ok(fire('chaincall/slow')->ok, 'when it has ended');
	is($session->must("SELECT count(*) FROM chaincall.job WHERE labels = '{\"schedule\": \"slow\"}'"), 2, 'the next one comes');

	# somebody else's of the same name is no reason
	$session->must("SELECT chaincall.schedule('slow', '* * * * *', 'app.slow')");
	is($session->must("SELECT string_agg(username, ' ' ORDER BY username) FROM cron.job WHERE jobname = 'chaincall/slow'"), 'app postgres', 'two of one name');
	$session->must($session->must("SELECT command FROM cron.job WHERE jobname = 'chaincall/slow' AND username = 'postgres'"));
	is($session->must("SELECT count(*) FROM chaincall.job WHERE labels = '{\"schedule\": \"slow\"}' AND owner = 'postgres'::regrole"), 1, 'do not count for each other');
	$session->must("SELECT chaincall.unschedule('slow')");
	is($session->must("SELECT username FROM cron.job WHERE jobname = 'chaincall/slow'"), 'app', 'a superuser ends his own');
	$app->must("SELECT chaincall.unschedule(n) FROM unnest('{slow,pile}'::text[]) n; SELECT chaincall.cancel(id) FROM chaincall.job WHERE finished_at IS NULL");
	$session->must("SELECT chaincall.cancel(id) FROM chaincall.job WHERE finished_at IS NULL");
	wait_jobs($session);
	$session->must('DELETE FROM chaincall.job');
};

subtest 'what cannot be scheduled' => sub {
	my %calls = (
		'no such chain' => [ "'x', '* * * * *', 'nothing'", qr/^42883|^42704/, qr/chain "nothing" does not exist/ ],
		'a missing argument' => [ "'x', '* * * * *', 'tell'", qr/./, qr/what/ ],
		'an argument too many' => [ "'x', '* * * * *', 'quick', '{\"a\": 1}'", qr/./, qr/a/ ],
		'an input of another kind' => [ "'x', '* * * * *', 'quick', '[]'", qr/./, qr/object/ ],
		'a chain that he may not run' => [ "'x', '* * * * *', 'forbidden'", qr/42501/, qr/permission denied for chain "forbidden"/ ],
		'a function that is no chain' => [ "'x', '* * * * *', 'pg_sleep'", qr/./, qr/pg_sleep/ ],
		'labels that are none' => [ "'x', '* * * * *', 'quick', labels => '[]'", qr/22023/, qr/labels/ ],
		'a time in the past' => [ "'x', '* * * * *', 'quick', expires_after => '-1 s'", qr/22023/, qr/expire/ ],
		'an expression that is none' => [ "'x', 'every day', 'quick'", qr/./, qr/invalid schedule/ ],
		'no expression' => [ "'x', NULL, 'quick'", qr/22023/, qr/needs a name/ ],
		'no chain' => [ "'x', '* * * * *', NULL", qr/22004/, qr/needs a chain/ ],
		'no name' => [ "'', '* * * * *', 'quick'", qr/22023/, qr/needs a name/ ],
		'a name without end' => [ "repeat('x', 201), '* * * * *', 'quick'", qr/22023/, qr/needs a name/ ]);

	for my $what (sort keys %calls)
	{
		my ($arguments, $state, $message) = @{ $calls{$what} };
		my $result = $app->run("SELECT chaincall.schedule($arguments)");

		like($result->{state} || 'none', $state, "$what: " . ($result->{message} || ''));
		like($result->{message} || '', $message, $what);
	}
	is(cron(), '', 'none is there');
	is($session->must('SELECT count(*) FROM chaincall.job'), 0, 'nor a job');

	my $nologin = session($node, sql => 'SET ROLE nologin');

	like($nologin->run("SELECT chaincall.schedule('x', '* * * * *', 'app.quick')")->{hint}, qr/ALTER ROLE nologin LOGIN/, 'a role that cannot log in');
	$nologin->quit;
	is($app->run('SELECT chaincall.schedule_maintenance()')->{state}, '42501', 'retention is none of his business') ;
	is($app->run('SELECT chaincall.maintain()')->{state}, '42501', 'nor to have it done');
};

# What somebody puts into names and input must not become SQL.
subtest 'injection' => sub {
	my $other = session($node, user => conninfo(q{Other "app"'s}));
	my $bad = q{'; DROP TABLE victim; --\\' $$ " };

	$session->must('CREATE TABLE victim ()');
	$other->must('CREATE TEMP TABLE t AS SELECT chaincall.schedule(n, \'* * * * *\', \'app.tell\', jsonb_build_object(\'what\', n), labels => jsonb_build_object(n, n))'
		  . ' FROM (VALUES (' . sql_literal($bad) . ')) v (n)');
	for my $conforming ('on', 'off')
	{
		my $result = fire("chaincall/$bad", sql => "SET standard_conforming_strings = $conforming");

		ok($result->ok, "it runs, standard_conforming_strings = $conforming") || diag($result->{err});
		wait_jobs($session);
	}
	is($session->must("SELECT count(*) FROM chaincall.job WHERE output = to_jsonb(" . sql_literal("$bad 1") . "::text) AND labels->>'schedule' = " . sql_literal($bad)), 2, 'what was said is in it');
	is($session->must("SELECT count(*) FROM victim"), 0, 'and nothing else was done');
	is($other->must('SELECT chaincall.unschedule(' . sql_literal($bad) . ')'), 't', 'it is ended by its name');
	is($session->must("SELECT owner::regrole FROM chaincall.job LIMIT 1"), '"Other ""app""\'s"', 'as whom it was made');
	$other->quit;
	$session->must('DELETE FROM chaincall.job');
};

subtest 'pg_cron in another database' => sub {
	my ($there, $result, $statement);

	$session->must('CREATE DATABASE "else\'where"');
	$there = session($node, dbname => "else'where");
	$there->must(q{CREATE EXTENSION chaincall; SELECT chaincall.grant_usage('app'); CREATE FUNCTION quick() RETURNS text LANGUAGE chaincall AS 'value: there'; SET ROLE app});
	$result = $there->run("SELECT chaincall.schedule('x', '1 2 3 4 *', 'quick')");
	like($result->{hint}, qr/^Where it is in another database, have a superuser run there: SELECT .*; Else have one run here: CREATE EXTENSION pg_cron;$/s,
		'is an error, that tells what to do');
	$there->must('RESET ROLE; GRANT pg_read_all_settings TO app; SET ROLE app');
	$result = $there->run("SELECT chaincall.schedule('x', '1 2 3 4 *', 'quick')");
	is($result->{state}, '0A000', 'and to who may know');
	is($result->{detail}, 'cron.database_name is "postgres", this database is "else\'where".', 'which says where it is');
	($statement) = $result->{hint} =~ /^Have a superuser run there: (SELECT .*;)$/s;
	$session->must($statement);
	is(cron(), "chaincall/x\@else'where 1 2 3 4 * else'where app t", 'and what to run there');
	ok(fire("chaincall/x\@else'where", dbname => "else'where")->ok, 'it runs');
	is($there->must("SELECT chain || ' ' || owner::regrole FROM chaincall.job"), 'public.quick() app', 'here');
	($statement) = $there->run("SELECT chaincall.unschedule('x')")->{hint} =~ /^Have a superuser run there: (SELECT .*;)$/s;
	$session->must("SET ROLE app; $statement RESET ROLE");
	is(cron(), '', 'and ends');
	$there->must('RESET ROLE');
	like($there->must("SELECT chaincall.schedule_maintenance('9 9 * * *')"),
		qr/once an hour: a schedule needs pg_cron, which is in another database\. Have a superuser run there: SELECT cron\.schedule_in_database\('chaincall\/maintenance\@else''where', '9 9 \* \* \*', 'SELECT chaincall\.maintain\(scheduled => true\)', 'else''where'\);$/,
		'retention');
	$there->quit;
	$session->must('DROP DATABASE "else\'where"');
};

# --------------------------------------------------------------------------------------------------
# Retention

# Finished jobs that are too old.
sub old_jobs
{
	$session->must(<<'SQL');
ALTER TABLE chaincall.job DISABLE TRIGGER USER;
INSERT INTO chaincall.job (id, chain, definition, state, run_at, rank, owner, created_at, finished_at)
SELECT gen_random_uuid(), 'old', '', 'succeeded', now(), now(), 10, now(), now() - interval '10 days' FROM generate_series(1, 2500);
ALTER TABLE chaincall.job ENABLE ALWAYS TRIGGER job_insert, ENABLE ALWAYS TRIGGER job_inserted;
SQL
	return;
}

sub old_left { return $session->must("SELECT count(*) FROM chaincall.job WHERE chain = 'old'"); }

sub renew
{
	my $pid = pid_of($session, 'maintainer');

	$session->must("SELECT pg_terminate_backend($pid)");
	has_pid_but($session, 'maintainer', $pid);
	return;
}

# A maintainer that has just started does these, one after the other: when the last is done, the ones before were due too.
sub definitions_are_done
{
	$session->must("ALTER TABLE chaincall.definition DISABLE TRIGGER USER; INSERT INTO chaincall.definition (sha256, body, created_at) VALUES ('\\x01', '1', now() - interval '9 days');"
		  . ' ALTER TABLE chaincall.definition ENABLE ALWAYS TRIGGER drop_replicated');
	wait_sql($session, "SELECT count(*) = 0 FROM chaincall.definition WHERE sha256 = '\\x01'");
	return;
}

subtest 'retention when it is asked for' => sub {
	my ($said, $reads);

	set_conf($session, 'chaincall.keep_jobs' => '7d');
	definitions_are_done();
	old_jobs();
	$session->must('BEGIN; SELECT chaincall.maintain(); ROLLBACK');
	is(old_left(), 2500, 'taken back');
	$session->must('SELECT chaincall.maintain()');
	wait_sql($session, "SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'old'");
	pass('maintain() has all of it gone, not only a batch');
	is($session->must('SELECT scheduled_at IS NULL FROM chaincall.maintenance'), 't', 'that is no schedule');

	$said = $session->must("SELECT chaincall.schedule_maintenance('15 3 * * *')");
	is($said, "pg_cron has it done at \"15 3 * * *\" (its job ${\ $session->must('SELECT jobid FROM cron.job')}).", 'a schedule');
	is(cron(), 'chaincall/maintenance 15 3 * * * postgres postgres t', 'is pg_cron\'s');
	$session->must("UPDATE chaincall.maintenance SET asked_at = now() - interval '20 hours'");
	old_jobs();
	renew();
	# it reads that table in each of three turns, and this session may have done so once
	$reads = $session->must("SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'chaincall.maintenance'::regclass");
	wait_sql($session, "SELECT seq_scan >= $reads + 3 FROM pg_stat_user_tables WHERE relid = 'chaincall.maintenance'::regclass");
	is(old_left(), 2500, 'a maintainer that starts waits for it');
	ok(fire('chaincall/maintenance')->ok, 'it comes');
	wait_sql($session, "SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'old'");
	pass('then it is done');

	# asked for just before a maintainer died
	old_jobs();
	$session->must('ALTER TABLE chaincall.maintenance DISABLE TRIGGER USER; UPDATE chaincall.maintenance SET asked_at = clock_timestamp(), scheduled_at = clock_timestamp(); '
		  . 'ALTER TABLE chaincall.maintenance ENABLE ALWAYS TRIGGER drop_replicated, ENABLE ALWAYS TRIGGER maintenance_asked');
	renew();
	wait_sql($session, "SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'old'");
	pass('what a maintainer that died was asked for is done by the next');

	# a schedule that is gone
	old_jobs();
	$session->must("UPDATE chaincall.maintenance SET asked_at = now() - interval '9 days', scheduled_at = now() - interval '9 days'");
	wait_sql($session, "SELECT count(*) = 0 FROM chaincall.job WHERE chain = 'old'");
	pass('a schedule that does not come any more is not waited for');

	is($session->must('SELECT chaincall.unschedule_maintenance()'), 't', 'it is taken back');
	is(cron(), '', 'pg_cron does not know it');
	is($session->must('SELECT scheduled_at IS NULL FROM chaincall.maintenance'), 't', 'nor we');
};

# --------------------------------------------------------------------------------------------------
# pg_cron itself

subtest 'pg_cron runs it' => sub {
	$app->must("SELECT chaincall.schedule('at the start', '\@reboot', 'tell', '{\"what\": \"cron\"}')");
	$session->must("SELECT chaincall.schedule_maintenance('\@reboot')");
	$session->must("UPDATE chaincall.maintenance SET asked_at = '-infinity'");
	$_->quit for ($session, $app);
	$node->restart;
	$session = session($node);
	wait_sql($session, "SELECT count(*) = 1 FROM chaincall.job WHERE state = 'succeeded' AND output = '\"cron 1\"' AND owner = 'app'::regrole");
	pass('a chain');
	wait_sql($session, "SELECT asked_at > now() - interval '1 min' FROM chaincall.maintenance");
	pass('retention');
	is($session->must("SELECT count(*) FROM cron.job_run_details WHERE status NOT IN ('succeeded', 'running', 'sending', 'connecting', 'starting')"), 0, 'and all went well');
};

$session->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
done_testing();
