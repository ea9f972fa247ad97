# A database that has run jobs moves: by dump and restore, by name, by copy, to another tablespace, away; while its workers are busy with calls in the
# air and steps at work.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $models = ModelServer->new;
my $node = jobs_node('moving', "chaincall.max_callers = 1\nchaincall.keep_jobs = -1\nchaincall.keep_spans = -1\nmax_connections = 50\n");
my $dir = PostgreSQL::Test::Utils::tempdir();
my $admin = session($node);

$admin->must('CREATE ROLE app LOGIN; CREATE DATABASE source');

# A chain with a call and a step that take a moment.
sub fill
{
	my ($session) = @_;

	$session->must('CREATE EXTENSION chaincall; CREATE TABLE effect (n int); GRANT ALL ON effect TO app; GRANT CREATE ON SCHEMA public TO app');
	add_server($session, 's', $models);
	add_model($session, 'm', 's', 'echo', retry => '0', params => '{"temperature": 0.5}');
	add_model($session, 'late', 's', 'echo?delay=300', retry => '0');
	$session->must(<<'SQL');
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (api_key 'the key');
SELECT chaincall.grant_usage('app');
GRANT USAGE ON FOREIGN SERVER s TO app;
SET ROLE app;
CREATE FUNCTION work(n int) RETURNS text LANGUAGE chaincall AS $chain$
output: "{{said}} {{step}}"
steps:
  said:
    model: late
    prompt: "{{n}}"
  step:
    after: said
    sql: WITH slow AS MATERIALIZED (SELECT pg_sleep(0.15)) INSERT INTO effect SELECT {{n}} FROM slow RETURNING n
    returns: value
$chain$;
CREATE FUNCTION quick(t text) RETURNS text LANGUAGE chaincall AS '{model: m, prompt: "{{t}}"}';
CREATE FUNCTION fails() RETURNS int LANGUAGE chaincall AS '{sql: SELECT 1 / 0}';
RESET ROLE;
SQL
	return;
}

# The workers of a database: callers and maintainer.
sub has_workers
{
	my ($database, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok(wait_sql($admin, "SELECT count(DISTINCT backend_type) = 2 FROM pg_stat_activity WHERE datname = '$database' AND backend_type IN ('chaincall caller', 'chaincall maintainer')"), $what);
}

# A job of app's runs to its end.
sub works
{
	my ($database, $what) = @_;
	my $app = session($node, dbname => $database, user => 'app');

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($app->must("SELECT chaincall.result('" . submit($app, 'quick', '{"t": "hello"}') . "', '1 min')"), '"hello"', $what);
	$app->quit;
	return;
}

my $session = session($node, dbname => 'source');

fill($session);

# --------------------------------------------------------------------------------------------------
# Dump and restore

submit($session, 'quick', '{"t": "x"}') for 1 .. 3;
submit($session, 'fails');
submit($session, 'quick', '{"t": "x"}', "run_at => 'tomorrow'");
wait_jobs($session, "run_at < now()");
$session->must("SELECT chaincall.cancel(id) FROM chaincall.job; INSERT INTO chaincall.alert (id, kind, message, created_at) VALUES (gen_random_uuid(), 'x', 'x', now())");
submit($session, 'quick', '{"t": "x"}', "run_at => 'tomorrow'");
wait_sql($session, "SELECT count(*) >= 4 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass");
wait_sql($session, "SELECT count(*) = 0 FROM chaincall.action WHERE state = 'pending'");

# What people have configured, and what is the queue's own, by the tables that the extension has dumped.
my $configured = q{SELECT string_agg(format('%s: %s', t, query_to_xml('TABLE ' || t || ' ORDER BY 1, 2', true, false, '')), '' ORDER BY t::text COLLATE "C")
	FROM pg_extension e, unnest(e.extconfig) c, CAST(c AS regclass) t WHERE extname = 'chaincall'};
my $runtime = q{SELECT string_agg(c.oid::regclass || ' ' || (xpath('/row/n/text()', query_to_xml('SELECT count(*) AS n FROM ' || c.oid::regclass, false, true, '')))[1], ' ' ORDER BY c.relname)
	FROM pg_class c, pg_extension e WHERE e.extname = 'chaincall' AND c.relnamespace = 'chaincall'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.oid <> ALL (e.extconfig)};
my $expected = $session->must($configured);

like($expected, qr/chaincall\.endpoint: .*<remote_name>echo<.*chaincall\.model: .*<name>late</s, 'the configuration');
like($session->must($runtime), qr/chaincall\.action [1-9].*chaincall\.alert [1-9].*chaincall\.definition [1-9].*chaincall\.job 6 .*chaincall\.span [1-9]/, 'and what the queue has');

sub restored
{
	my ($how, $database) = @_;
	my $there = session($node, dbname => $database);

	is($there->must($configured), $expected, "$how: models and endpoints are there");
	unlike($there->must($runtime) =~ s/chaincall\.origin 1//r, qr/ [1-9]/, "$how: the queue is empty");
	is($there->must('SELECT database = (SELECT oid FROM pg_database WHERE datname = current_database()) FROM chaincall.origin'), 't', "$how: and this database's");
	has_workers($database, "$how: workers come");
	works($database, "$how: a job runs to its end");
	wait_sql($there, "SELECT count(*) >= 4 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass");
	is($there->must("SELECT count(*) FROM chaincall.span_default"), 0, "$how: in a partition of its day");
	$there->quit;
	$admin->must("DROP DATABASE $database");
	return;
}

subtest 'dump and restore' => sub {
	my $source = $node->connstr('source');
	my $target = $node->connstr('target');

	$node->command_ok([ 'pg_dump', '-d', $source, '-f', "$dir/plain" ], 'pg_dump');
	$node->command_ok([ 'pg_dump', '-Fc', '-d', $source, '-f', "$dir/custom" ], 'pg_dump -Fc');
	$node->command_ok([ 'pg_dump', '-Fd', '-j', '3', '-d', $source, '-f', "$dir/directory" ], 'pg_dump -Fd -j 3');
	unlike(slurp_file("$dir/plain"), qr/span_\d|COPY chaincall\.(?!model|endpoint|chain_policy|pool)/, 'no partition is dumped, nor what the queue has');
	for my $how (
		[ 'plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $target, '-f', "$dir/plain" ],
		[ 'in one transaction', 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', $target, '-f', "$dir/plain" ],
		[ 'custom', 'pg_restore', '--exit-on-error', '-d', $target, "$dir/custom" ],
		(map { [ "custom -j 4 ($_)", 'pg_restore', '--exit-on-error', '-j', '4', '-d', $target, "$dir/custom" ] } 1 .. 4),
		[ 'directory -j 2', 'pg_restore', '--exit-on-error', '-j', '2', '-d', $target, "$dir/directory" ])
	{
		my ($name, @command) = @$how;

		$admin->must('CREATE DATABASE target');
		$node->command_ok(\@command, "restore: $name") ? restored($name, 'target') : $admin->must('DROP DATABASE target');
	}
};

# The jobs of a parallel restore, one of which comes to endpoint before the other has model.
subtest 'an endpoint before its model' => sub {
	my ($one, $other) = map { session($node, dbname => 'source', sql => 'SET application_name = pg_restore; SET check_function_bodies = off; SET search_path = \'\'') } 1 .. 2;
	my $endpoint = "INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('%s', 's', 'echo')";
	my $start;

	$one->must("BEGIN; INSERT INTO chaincall.model (name) VALUES ('early')");
	$other->send(sprintf($endpoint, 'early'));
	wait_sql($session, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND pid = " . $other->pid);
	ok(!$other->done, 'it waits');
	$one->must('COMMIT');
	ok($other->result->ok, 'until it is there');

	# the other job is long at something else
	$one->send('SELECT pg_sleep(4)');
	$other->send(sprintf($endpoint, 'soon'));
	$one->result;
	ok(!$other->done, 'it waits as long as the others are at work');
	$one->must("INSERT INTO chaincall.model (name) VALUES ('soon')");
	ok($other->result->ok, 'until it is there');
	is($other->run(sprintf($endpoint, 'never'))->{state}, '23503', 'not for ever');
	$other->send(sprintf($endpoint, 'never'));
	wait_sql($session, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND pid = " . $other->pid);
	$session->must('SELECT pg_cancel_backend(' . $other->pid . ')');
	is($other->result->{state}, '57014', 'and can be cancelled');
	is($session->run(sprintf($endpoint, 'never'))->{state}, '23503', 'outside of a restore it is an error');
	$session->must("DELETE FROM chaincall.model WHERE name IN ('early', 'soon')");
	$_->quit for ($one, $other);
};

# --------------------------------------------------------------------------------------------------
# Commands that need an empty database, while its workers are busy

# Enqueues jobs and waits until calls are in the air and steps at work.
sub busy
{
	my ($jobs) = @_;

	$models->reset;
	$session->must("TRUNCATE effect; SET ROLE app; SELECT chaincall.submit('work', jsonb_build_object('n', n)) FROM generate_series(1, 3) n");
	wait_sql($admin, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND state = 'active' AND datname = '" . $session->must('SELECT current_database()') . "'");
	$session->must("SELECT chaincall.submit('work', jsonb_build_object('n', n)) FROM generate_series(4, $jobs) n; RESET ROLE");
	$models->wait_for(sub { $_[0]->{in_flight} >= 10 }, 'calls in the air');
	$session->quit;
	return;
}

# What a command does with it, in how many ms.
sub command
{
	my ($sql) = @_;
	my $result;

	wait_sql($admin, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname IN ('source', 'moved')");
	$result = $admin->run($sql);
	ok($result->ok, "$sql (" . int($result->{ms}) . ' ms)') || diag($result->{err});
	return;
}

sub all_done
{
	my ($database, $jobs) = @_;

	has_workers($database, 'workers are back');
	$session = session($node, dbname => $database);
	is(wait_jobs($session, "chain = 'public.work(integer)'"), "succeeded $jobs", 'all jobs come to their end');
	is($session->must('SELECT count(*) || \' \' || count(DISTINCT n) FROM effect'), "$jobs $jobs", 'each step has happened once');
	$session->must("DELETE FROM chaincall.job");
	return;
}

subtest 'ALTER DATABASE RENAME' => sub {
	busy(40);
	command('ALTER DATABASE source RENAME TO moved');
	all_done('moved', 40);
	busy(40);
	command('ALTER DATABASE moved RENAME TO source');
	all_done('source', 40);
};

subtest 'ALTER DATABASE SET TABLESPACE' => sub {
	my $tablespace = PostgreSQL::Test::Utils::tempdir();

	$admin->must("CREATE TABLESPACE aside LOCATION '$tablespace'");
	busy(40);
	command('ALTER DATABASE source SET TABLESPACE aside');
	all_done('source', 40);
	busy(40);
	command('ALTER DATABASE source SET TABLESPACE pg_default');
	all_done('source', 40);
	$admin->must('DROP TABLESPACE aside');
};

subtest 'CREATE DATABASE TEMPLATE' => sub {
	for my $strategy ('wal_log', 'file_copy')
	{
		my $copy;

		busy(40);
		command("CREATE DATABASE copy TEMPLATE source STRATEGY $strategy");
		has_workers('copy', 'the copy has workers');
		all_done('source', 40);
		$copy = session($node, dbname => 'copy');
		wait_jobs($copy);
		like($copy->must("SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM chaincall.job"), qr/^cancelled(?: succeeded)?$/, 'in the copy what had not ended is cancelled');
		is($copy->must("SELECT count(*) = (SELECT count(*) FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job WHERE s.path = 'step' AND s.try = 0) FROM effect"), 't', 'no step has happened there');
		works('copy', 'new jobs run');
		$copy->quit;
		$admin->must('DROP DATABASE copy');
	}
};

subtest 'DROP DATABASE' => sub {
	$admin->must('CREATE DATABASE stays');
	$node->safe_psql('stays', 'CREATE EXTENSION chaincall');
	has_workers('stays', 'another database has workers');
	busy(40);
	command('DROP DATABASE source');
	$models->wait_in_flight(0);
	pass('its calls are hung up');
	has_workers('stays', 'which stay');
	is($admin->must("SELECT count(*) FROM pg_stat_activity WHERE datname = 'source'"), 0, 'nobody is left');
};

$admin->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal|chaincall maintainer: .* failed/, 'nothing went wrong');
done_testing();
