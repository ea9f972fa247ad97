# Whoever dies, of whatever, leaves queued, running and waiting jobs that go on, at once. Only a job that kills is stopped,
# at its third death, and the thousand beside it end as they should. See 020_jobs.pl for kill -9, and 040_chaos.pl.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant {
	WORK => 600,	# jobs in a window of 500
	WAITS => 5,
};

# A shared object from a file in test/lib.
sub compile
{
	my ($name, @flags) = @_;
	my $library = PostgreSQL::Test::Utils::tempdir() . "/$name.so";

	PostgreSQL::Test::Utils::system_or_bail($ENV{CC} || 'cc', '-shared', '-fPIC', @flags, '-o', $library, "$FindBin::Bin/../lib/$name.c");
	return $library;
}

my $nobody_has_any = PostgreSQL::Test::Utils::tempdir();
my $models = ModelServer->new;
my $node = jobs_node('recovery', <<'EOF', env => { LD_PRELOAD => compile('nomemory'), NOMEMORY => $nobody_has_any });
wal_level = replica
max_wal_senders = 4
chaincall.max_callers = 1
chaincall.caller_window = 500
chaincall.park_after = 20ms
EOF
my $crashed = $node;
my $crashes = 0;
my $starved;
my $s = session($node);

add_server($s, 's', $models, max_in_flight => 500);
add_model($s, 'first', 's', 'fixed', retry => '0');
add_model($s, 'slow', 's', 'delay-700', retry => '0');
add_model($s, 'last', 's', 'echo', retry => '0');
$s->must(<<'SQL');
CREATE TABLE effect (n int, chain text);
CREATE FUNCTION note(n int, chain text) RETURNS int LANGUAGE sql AS $$ INSERT INTO effect VALUES (n, chain) RETURNING n $$;
CREATE FUNCTION work(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "{{n}}"}
  b: {model: slow, prompt: "{{n}} {{a}}"}
  c: {function: note, args: {n: "{{n}}", chain: work}, after: b}
  d: {model: last, prompt: "{{n}} {{c}}"}
output: "{{d}}"
$chain$;
CREATE FUNCTION waits(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "{{n}}"}
  c: {function: note, args: {n: "{{n}}", chain: waits}, after: a}
  w: {wait: 3 s, after: c}
  d: {model: last, prompt: "{{n}} {{c}}", after: w}
output: "{{d}}"
$chain$;
CREATE FUNCTION hangs(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "{{n}}"}
  b: {model: slow, prompt: "{{n}} {{a}}"}
  d: {model: last, prompt: "{{n}} {{b}}"}
output: "{{d}}"
$chain$;
SQL
$s->must('CREATE FUNCTION crash() RETURNS int LANGUAGE c AS ' . sql_literal(compile('crash', '-I' . $node->config_data('--includedir-server'))) . q{, 'crash'});
$s->must(<<'SQL');
CREATE FUNCTION poison_at_once(n int) RETURNS text LANGUAGE chaincall AS '{function: crash, args: {}, on_error: skip}';
CREATE FUNCTION poison_later(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "{{n}}"}
  b: {function: crash, args: {}, after: a, retry: 5}
$chain$;
SQL

sub enqueue
{
	my ($chain, $n, $further) = @_;

	$s->must("INSERT INTO chaincall.job (chain, input, run_at, priority) SELECT '$chain', jsonb_build_object('n', g), $further FROM generate_series(1, $n) g");
	return;
}

sub clear
{
	$models->reset;
	$s->must('TRUNCATE effect; DELETE FROM chaincall.job WHERE finished_at IS NOT NULL; DELETE FROM chaincall.alert');
	return;
}

# Jobs in every state; strike is called when all of them are.
sub survive
{
	my ($what, $strike, %params) = @_;

	return subtest $what => sub {
		my ($struck, $next, $before);

		clear();
		enqueue('waits', WAITS, 'NULL, 9');
		wait_sql($s, q{SELECT count(*) = } . WAITS . q{ FROM chaincall.job WHERE state = 'waiting'});
		enqueue('work', WAITS, q{now() + interval '3 s', 9});
		enqueue('work', WORK, 'NULL, 0');
		$models->wait_for(sub { return ($_[0]->{by_model}{delay} || 0) >= 100; }, 'calls in the air');
		is($s->must(q{SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM chaincall.job WHERE finished_at IS NULL}), 'queued running waiting', 'jobs in every state');
		$before = $models->stats->{requests};
		$struck = now_ms();
		$strike->();
		if ($params{next})
		{
			$models->wait_for(sub { return $_[0]->{requests} > $before; }, 'the next call');
			note(sprintf('the next call after %.0f ms', now_ms() - $struck));
		}
		is(wait_jobs($s), 'succeeded ' . (WORK + 2 * WAITS), 'all have succeeded');
		is($s->must('SELECT count(*) || \' \' || count(DISTINCT (n, chain)) FROM effect'), (WORK + 2 * WAITS) . ' ' . (WORK + WAITS), 'what functions write is written once');
		is($s->must('SELECT count(*) FROM chaincall.span WHERE try = 0 AND job IN (SELECT id FROM chaincall.job)'), 4 * (WORK + 2 * WAITS), 'each step has one checkpoint');
		cmp_ok($s->must('SELECT sum(deaths) FROM chaincall.job'), '<=', $params{deaths} || 0, 'no other is blamed than one that was at work then');
		is($s->must('SELECT count(*) FROM chaincall.alert'), '0', 'no alert');
		is($s->must(q{SELECT count(*) FROM chaincall.job WHERE run_at > created_at AND chain LIKE '%work%' AND NOT started_at - run_at BETWEEN '0' AND '2 s'}), '0', 'what waited went on when it was due');
		cmp_ok($s->must(q{SELECT max(finished_at - created_at) < '20 s' FROM chaincall.job}), 'eq', 't', 'nobody sat out a time');
	};
}

# Takes all memory from a worker, and gives it something to do that needs some; the launcher may go on for a while with what it has.
sub starve
{
	my ($kind) = @_;
	my $pid = $starved = pid_of($s, $kind);

	append_to_file("$nobody_has_any/$pid", '');
	$s->must('SELECT pg_reload_conf()') if $kind eq 'launcher';
	$s->must('SELECT count(chaincall.cancel(gen_random_uuid())) FROM generate_series(1, 2000)') if $kind eq 'maintainer';
	wait_until(sub { return !kill(0, $pid); }, "the $kind leaves") if $kind ne 'launcher';
	return;
}

for my $kind ('launcher', 'maintainer', 'caller', 'executor')
{
	my $mark = -s $node->logfile;

	survive("SIGTERM of the $kind", sub { $s->must('SELECT pg_terminate_backend(' . pid_of($s, $kind) . ')') });
	survive("the $kind has no memory left", sub { starve($kind) }, deaths => $kind eq 'caller');
	is((() = slurp_file($node->logfile, $mark) =~ /\[$starved\] ERROR:  out of memory/g), 1, 'it has not gone on to fail jobs for it') if $kind eq 'caller';
	# of a step's error only PostgreSQL's own account of the memory is in the log
	ok(slurp_file($node->logfile, $mark) =~ /out of memory|^TopMemoryContext: /m, 'it was that') if $kind ne 'launcher';
}
# The cluster goes and comes again; down does it.
sub survive_outage
{
	my ($what, $down) = @_;

	return survive($what, sub {
		$s->quit;
		$down->();
		$s = reconnect($node);
	}, next => 1);
}

survive_outage('stop -m immediate', sub { $node->stop('immediate'); $node->start; });
survive_outage('restart', sub { $node->restart });

# --------------------------------------------------------------------------------------------------
# A job that kills

# Its third death ends it, and the jobs in the window beside it know nothing of it.
sub stops_poison
{
	my ($chain, $what, $calls) = @_;

	return subtest "a job that crashes its executor $what, beside a thousand" => sub {
		my $id;

		set_conf($s, 'chaincall.max_callers' => 2, 'chaincall.min_callers' => 2);
		wait_sql($s, q{SELECT count(*) = 2 FROM pg_stat_activity WHERE backend_type = 'chaincall caller'});
		clear();
		enqueue('hangs', 1000, 'NULL, 0');
		wait_sql($s, q{SELECT sum(jobs_in_hand) = 1000 FROM chaincall.stat_worker});
		$s->send("INSERT INTO chaincall.job (chain, input, priority) VALUES ('$chain', '{\"n\": 1}', 100) RETURNING id; SELECT pg_sleep(600)");
		ok(!$s->result->ok, 'the cluster crashes');
		$s->quit;
		# three times
		wait_until(sub {
			$s = eval { session($node) } or return 0;
			$id = $s->run("SELECT id FROM chaincall.job WHERE chain LIKE '%$chain%' AND finished_at IS NOT NULL");
			$s->quit if !$id->ok || $id->{out} eq '';
			return $id->ok && $id->{out} ne '';
		}, 'the job ends');
		$id = $id->{out};
		like(state_of($s, $id), qr/^failed crash a step of the job has killed its worker 3 times$/, 'it is a dead letter');
		is($s->must("SELECT deaths FROM chaincall.job WHERE id = '$id'"), '3', 'at its third death');
		is($s->must('SELECT kind || \' \' || (job = ' . sql_literal($id) . ') FROM chaincall.alert'), 'dead_letter true', 'and the only alert');
		is(wait_jobs($s, "id <> '$id'"), 'succeeded 1000', 'the others have succeeded');
		is($s->must("SELECT sum(deaths) FROM chaincall.job WHERE id <> '$id'"), '0', 'none of them is blamed');
		is($s->must("SELECT count(*) FROM chaincall.span WHERE try = 0 AND job = '$id'"), $calls, 'its checkpoints');
		is((() = slurp_file($node->logfile) =~ /was terminated by signal 11/g), 3 * ++$crashes, 'the cluster has crashed three times by it');
		set_conf($s, 'chaincall.max_callers' => 1, 'chaincall.min_callers' => undef);
	};
}

stops_poison('poison_at_once', 'as soon as it is claimed', 0);
stops_poison('poison_later', 'behind a call', 1);

# --------------------------------------------------------------------------------------------------
# A standby takes over

my $standby = PostgreSQL::Test::Cluster->new('recovery_standby');

$node->backup('base');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
set_conf($s, synchronous_standby_names => '*');
wait_sql($s, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'});
survive_outage('promotion of a standby', sub {
	$node->stop('immediate');
	$standby->promote;
	$node = $standby;
});
$s->quit;
$node->stop;
unlike(slurp_file($_->logfile), qr/TRAP|PANIC|terminated by signal (?!11\b)\d/, 'nothing else crashed') for ($crashed, $standby);
done_testing();
