# Jobs as sessions enqueue them, side by side: limits and keys over open transactions, prepared ones, waiting for results,
# logical replication of all tables, a server without the library preloaded. No worker runs here.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = <<'CONF';
shared_preload_libraries = 'chaincall'
chaincall.workers = off
chaincall.max_queued = 3
max_prepared_transactions = 5
wal_level = logical
max_wal_senders = 5
max_replication_slots = 5
CONF
my $node = new_node('enqueue', conf => $conf);
my $admin = session($node);
my $insert = "INSERT INTO chaincall.job (chain, input, run_at) VALUES ('says', '{\"text\": \"x\"}', 'tomorrow')";

$admin->must(<<'SQL');
CREATE ROLE app LOGIN;
GRANT CREATE ON SCHEMA public TO app;
SELECT chaincall.grant_usage('app');
CREATE FUNCTION says(text text) RETURNS text LANGUAGE chaincall AS '{value: "{{text}}"}';
SQL

sub app { return session($node, user => 'app'); }

# How many more jobs the role may enqueue.
sub room
{
	my $session = app();
	my $room = 0;

	$session->must('BEGIN');
	$room++ while $session->run($insert)->ok && $room < 10;
	$session->must('ROLLBACK');
	$session->quit;
	return $room;
}

subtest 'the limit holds over open transactions' => sub
{
	my ($a, $b) = (app(), app());

	is(room(), 3, 'all the room');
	$a->must("BEGIN; $insert; $insert");
	is(room(), 1, 'open jobs count');
	$b->must("BEGIN; $insert");
	is($a->run($insert)->{state}, 'MC006', 'one too many');
	$a->must('ROLLBACK');
	is(room(), 2, 'what is rolled back is given back');
	$b->send("$insert; $insert; SELECT pg_sleep(100)");
	wait_until(sub { room() == 0 });
	$admin->must('SELECT pg_terminate_backend(' . $b->pid . ')');
	is($b->result->{severity}, 'FATAL', 'a session is ended');
	wait_until(sub { room() == 3 });
	pass('its jobs are given back');
	$_->quit for ($a, $b);
};

subtest 'prepared transactions keep their count' => sub
{
	my $session = app();

	$session->must("BEGIN; $insert; $insert; PREPARE TRANSACTION 'one'");
	is(room(), 1, 'prepared');
	$session->must("COMMIT PREPARED 'one'");
	is(room(), 1, 'committed');
	$admin->must('DELETE FROM chaincall.job');
	$session->quit;
	$node->restart;
	$admin = session($node);
	is(room(), 3, 'a restart forgets what is counted');
};

subtest 'equal keys at the same time' => sub
{
	my ($a, $b) = (app(), app());
	my $keyed = 'SELECT chaincall.submit(\'says\', \'{"text": "x"}\', run_at => \'tomorrow\', dedupe_key => \'k\', dedupe => \'skip\')';
	my ($first, $second);

	$first = $a->must("BEGIN; $keyed");
	$b->send($keyed);
	ok(!$b->done, 'the second waits for the first');
	$a->must('COMMIT');
	is($b->result->{out}, $first, 'and gives its job');
	is(room(), 2, 'one job is counted');
	$admin->must('DELETE FROM chaincall.job');

	$first = $a->must("BEGIN; $keyed");
	$b->send($keyed);
	$a->must('ROLLBACK');
	$second = $b->result->{out};
	isnt($second, $first, 'the second is enqueued when the first is rolled back');
	is($admin->must('SELECT id FROM chaincall.job'), $second, 'alone');

	# what is seen of the first is that it is there, not which it is
	$admin->must('DELETE FROM chaincall.job');
	$b->must('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
	$b->must('SELECT count(*) FROM chaincall.job');
	$a->must($keyed);
	is($b->run($keyed)->{state}, '40001', 'a snapshot that does not show the first');
	$b->must('ROLLBACK');
	$admin->must('DELETE FROM chaincall.job');
	$_->quit for ($a, $b);
};

# only workers take from what is counted
$node->append_conf('postgresql.conf', 'chaincall.max_queued = -1');
$node->reload;

subtest 'the same chain at the same time' => sub
{
	my ($a, $b) = (session($node), session($node));

	$admin->must('CREATE FUNCTION fresh() RETURNS int LANGUAGE chaincall AS $$value: 1$$');
	$a->must(q{BEGIN; INSERT INTO chaincall.job (chain) VALUES ('fresh')});
	$b->must(q{SET lock_timeout = '10s'; INSERT INTO chaincall.job (chain) VALUES ('fresh')});
	pass('neither waits for the other');
	$a->must(q{INSERT INTO chaincall.job (chain) VALUES ('fresh'); COMMIT});
	is($admin->must(q{SELECT count(*), count(DISTINCT definition), count(*) FILTER (WHERE definition IN (SELECT sha256 FROM chaincall.definition)) FROM chaincall.job}),
		'3|1|3', 'all have their definition');
	# a definition whose transaction was rolled back is stored again
	$admin->must('CREATE FUNCTION again() RETURNS int LANGUAGE chaincall AS $$value: 1$$');
	$a->must(q{BEGIN; INSERT INTO chaincall.job (chain) VALUES ('again'); ROLLBACK});
	$a->must(q{BEGIN; SAVEPOINT s; INSERT INTO chaincall.job (chain) VALUES ('again'); ROLLBACK TO s; INSERT INTO chaincall.job (chain) VALUES ('again'); COMMIT});
	is($admin->must(q{SELECT count(*) FROM chaincall.job WHERE definition NOT IN (SELECT sha256 FROM chaincall.definition)}), '0', 'after a roll-back too');
	# one that is old may be thrown away any moment
	$admin->must(q{UPDATE chaincall.definition SET created_at = now() - interval '11 hours'});
	$b->quit;
	$b = session($node);
	$b->must(q{INSERT INTO chaincall.job (chain) VALUES ('again')});
	is($admin->must(q{SELECT count(*) FROM chaincall.definition WHERE created_at > now() - interval '1 hour'}), '1', 'an old one is not built upon');
	$admin->must('DELETE FROM chaincall.job');
	$_->quit for ($a, $b);
};

subtest 'waiting for a result' => sub
{
	my $waiter = app();
	my $id = app()->must("$insert RETURNING id");
	my $wait = "SELECT chaincall.result('$id')";
	# not idle: a cancel would be lost then
	my $waits = sub { $admin->must(q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND pid = } . $waiter->pid) eq '1' };

	$waiter->send($wait);
	wait_until($waits);
	$admin->must('SELECT pg_cancel_backend(' . $waiter->pid . ')');
	is($waiter->result->{state}, '57014', 'it can be cancelled');
	$waiter->send("SET statement_timeout = '50ms'; $wait");
	is($waiter->result->{state}, '57014', 'and obeys statement_timeout');
	$waiter->must('SET statement_timeout = 0');
	is($waiter->run("SELECT chaincall.result('$id', '-1 s')")->{state}, 'MC007', 'a timeout that is over');
	$waiter->send($wait);
	wait_until($waits);
	$admin->must('SELECT pg_terminate_backend(' . $waiter->pid . ')');
	is($waiter->result->{severity}, 'FATAL', 'it can be ended');
	$waiter->quit;
	$admin->must('DELETE FROM chaincall.job');
};

subtest 'logical replication of all tables' => sub
{
	my $other = new_node('subscriber', conf => $conf);
	my $there = session($other);
	my $settled = sub { $there->must('SELECT count(*) FROM mark') eq $admin->must('SELECT count(*) FROM mark') };
	my $rows = q{SELECT (SELECT count(*) FROM chaincall.job) + (SELECT count(*) FROM chaincall.action) + (SELECT count(*) FROM chaincall.span)
		+ (SELECT count(*) FROM chaincall.definition) + (SELECT count(*) FROM chaincall.alert)};
	my $change = <<'SQL';
INSERT INTO chaincall.job (chain) VALUES ('fresh');
SELECT chaincall.cancel(id) FROM chaincall.job;
INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at) SELECT id, 'x', 0, 1, 10, 'model', now(), now() FROM chaincall.job ON CONFLICT DO NOTHING;
INSERT INTO chaincall.alert SELECT id, 'x', id, 10, 'x', NULL, now() FROM chaincall.job ON CONFLICT DO NOTHING;
UPDATE chaincall.job SET state = 'running';
UPDATE chaincall.span SET try = try + 1;
UPDATE chaincall.definition SET created_at = now();
INSERT INTO mark VALUES (1);
SQL

	$_->must('CREATE TABLE mark (n int)') for ($admin, $there);
	$admin->must('DELETE FROM chaincall.definition');
	$admin->must($change);
	$admin->must('CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = \'insert, update, delete\')');
	$there->must('CREATE SUBSCRIPTION everything CONNECTION ' . sql_literal($node->connstr('postgres')) . ' PUBLICATION everything');
	wait_until($settled);
	is($there->must($rows), '0', 'the first copy brings none');
	$admin->must($change);
	wait_until($settled);
	is($there->must($rows), '0', 'nor do changes');
	is($there->must('SELECT count(*) FROM chaincall.origin'), '1', 'the database stays what it is');
	$admin->must('DELETE FROM chaincall.job; DELETE FROM chaincall.span; DELETE FROM chaincall.action; DELETE FROM chaincall.definition; INSERT INTO mark VALUES (1)');
	wait_until($settled);
	$there->must('CREATE FUNCTION fresh() RETURNS int LANGUAGE chaincall AS $$value: 1$$');
	$there->must(q{INSERT INTO chaincall.job (chain) VALUES ('fresh')});
	is($there->must('SELECT count(*) FROM chaincall.job'), '1', 'its own jobs are its own');
	is($there->must('SELECT subenabled FROM pg_subscription'), 't', 'and replication goes on');
	$there->must('DROP SUBSCRIPTION everything');
	$there->quit;
	$other->stop;
};

subtest 'a library that is not preloaded' => sub
{
	my $plain = new_node('plain');
	my $session = session($plain);
	my $result;

	$session->must('CREATE FUNCTION says(text text) RETURNS text LANGUAGE chaincall AS $$value: "{{text}}"$$');
	is($session->must(q{SELECT says('x')}), 'x', 'sessions work');
	$result = $session->run(q{INSERT INTO chaincall.job (chain, input) VALUES ('says', '{"text": "x"}')});
	is($result->{state}, '55000', 'a job is refused');
	like($result->{hint}, qr/shared_preload_libraries = 'chaincall'/, 'with the line to add');
	is($session->run('SELECT chaincall.result(gen_random_uuid())')->{state}, '55000', 'result() too');
	is($session->run('SELECT chaincall.cancel(gen_random_uuid())')->{state}, '55000', 'cancel() too');
	$session->quit;
	$plain->stop;
};

$admin->quit;
$node->stop;
done_testing();
