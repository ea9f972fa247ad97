# Jobs end as they should whoever dies under them: workers, the cluster, the primary. What is committed is not done
# again, what a step writes is written once, nobody waits for a time-out, and only a job that kills is blamed.
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

use constant N => 8;

my $models = ModelServer->new;
my $node = jobs_node('jobs', "max_prepared_transactions = 5\nwal_level = logical\nmax_wal_senders = 8\nmax_replication_slots = 8\n"
	  . "max_logical_replication_workers = 6\nchaincall.executor_idle = 2s\n");
my $s = session($node);

# Models, a table of effects, chains; in another database or node too.
sub fill
{
	my ($in) = @_;

	add_server($in, 's', $models);
	add_model($in, 'first', 's', 'fixed', retry => '0');
	add_model($in, 'slow', 's', 'delay-500', retry => '0');
	add_model($in, 'last', 's', 'echo', retry => '0');
	add_model($in, 'tick', 's', 'delay-30', retry => '0');
	add_model($in, 'hang', 's', 'fixed?hang=1', retry => '0');
	$in->must(<<'SQL');
CREATE TABLE effect (n int, step text);
CREATE TABLE gate (open bool);
CREATE FUNCTION wait_gate() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM public.gate) LOOP PERFORM pg_sleep(0.005); END LOOP;
END $$;
-- a call that only starts when `before` is committed, with a statement beside it
CREATE FUNCTION work(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  before: {sql: "INSERT INTO effect SELECT {{n}}, 'before' WHERE {{a}} <> '' RETURNING n", returns: value}
  b: {model: slow, prompt: "b {{before}}"}
  beside: {sql: "INSERT INTO effect SELECT {{before}}, 'beside' FROM pg_sleep(0.1) RETURNING n", returns: value}
  after: {sql: "INSERT INTO effect SELECT {{beside}}, 'after' WHERE {{b}} <> '' RETURNING n", returns: value}
  z: {model: last, prompt: "z {{after}}"}
output: "{{z}}"
$chain$;
CREATE FUNCTION quick(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  z: {model: last, prompt: "z {{n}} {{a}}"}
$chain$;
CREATE FUNCTION hanging(n int) RETURNS text LANGUAGE chaincall AS '{model: hang, prompt: "{{n}}"}';
CREATE FUNCTION gated(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  g: {function: public.wait_gate, after: a}
  e: {sql: "INSERT INTO effect VALUES ({{n}}, 'gated')", after: g}
  z: {model: last, prompt: "z {{n}}", after: e}
output: "{{z}}"
$chain$;
SQL
	return;
}

sub enqueue
{
	my ($in, $chain, $n) = @_;

	$in->must("INSERT INTO chaincall.job (chain, input) SELECT '$chain', jsonb_build_object('n', g) FROM generate_series(1, $n) g");
	return;
}

# Forgets what was.
sub clear
{
	$models->reset;
	$s->must('TRUNCATE effect, gate; DELETE FROM chaincall.job WHERE finished_at IS NOT NULL; DELETE FROM chaincall.alert; DELETE FROM chaincall.action');
	return;
}

sub requests
{
	my ($model) = @_;

	return $models->stats->{by_model}{$model} || 0;
}

# Waits until so many calls of the slow model are in the air (all that came before is committed then).
sub wait_slow
{
	my ($n) = @_;

	return $models->wait_for(sub { return ($_[0]->{by_model}{delay} || 0) >= $n; }, "$n slow calls");
}

# Tests that N jobs of chain work have come to their end as if nothing had been.
sub ended_well
{
	my ($in, $lives, $deaths) = @_;
	my $keys;

	is(wait_jobs($in), 'succeeded ' . N, 'every job has succeeded');
	is($in->must("SELECT count(*) || ' ' || count(DISTINCT (n, step)) FROM effect"), 3 * N . ' ' . 3 * N, 'what the statements do is done once');
	is($in->must('SELECT count(*) FROM chaincall.job WHERE output #>> \'{}\' = \'z \' || (input->>\'n\')'), N, 'outputs');
	cmp_ok($in->must('SELECT sum(deaths) FROM chaincall.job'), '<=', $deaths || 0, 'no job is blamed but one whose executor was killed');
	is(requests('fixed'), N, 'no checkpoint was asked for again');
	is(requests('echo'), N, 'nor what came after');
	cmp_ok(requests('delay'), '<=', $lives * N, 'a call in the air is asked again once');
	$keys = $models->keys;
	is(scalar(keys %$keys), 3 * N, 'with the same key');
	is($in->must('SELECT count(*) FROM chaincall.alert'), '0', 'no alert');
	return;
}

# Starts N jobs, strikes when all of them have a call in the air; tests their ends.
sub survives
{
	my ($what, $strike, %params) = @_;

	return subtest $what => sub {
		my $before;

		clear();
		enqueue($s, 'work', N);
		wait_slow(N);
		$before = now_ms();
		$strike->();
		if ($params{again})
		{
			wait_slow(N + 1);
			note(sprintf('the next call after %.0f ms', now_ms() - $before));
		}
		ended_well($s, 2, $params{deaths});
	};
}

fill($s);

# --------------------------------------------------------------------------------------------------
# Deaths

for my $kind ('launcher', 'caller', 'executor', 'maintainer')
{
	survives("SIGTERM of the $kind", sub {
		my $pid = pid_of($s, $kind);

		is($s->must("SELECT pg_terminate_backend($pid)"), 't', 'asked to leave');
		has_pid_but($s, $kind, $pid) unless $kind eq 'executor';
	}, again => $kind eq 'caller');
}

subtest 'recovery does not wait for a time-out' => sub {
	within(2000, 'from the death of a caller to the next call', sub {
		my $died;

		clear();
		enqueue($s, 'work', N);
		wait_slow(N);
		$died = now_ms();
		$s->must('SELECT pg_terminate_backend(' . pid_of($s, 'caller') . ')');
		wait_slow(N + 1);
		$died = now_ms() - $died;
		wait_jobs($s);
		return $died;
	});
	within(2000, 'from a restart to the next call', sub {
		my $started;

		clear();
		enqueue($s, 'work', N);
		wait_slow(N);
		$s->quit;
		$node->stop('immediate');
		$node->start;
		$started = now_ms();
		wait_slow(N + 1);
		$started = now_ms() - $started;
		$s = reconnect($node);
		wait_jobs($s);
		return $started;
	});
	within(2000, 'from the death of an executor to the end of its step', sub {
		my $died;

		clear();
		enqueue($s, 'gated', 1);
		wait_sql($s, q{SELECT count(*) = 1 FROM chaincall.activity WHERE kind = 'step'});
		wait_sql($s, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND wait_event = 'PgSleep'});
		$died = now_ms();
		$s->must("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'chaincall executor'");
		$s->must('INSERT INTO gate VALUES (true)');
		wait_jobs($s);
		is($s->must('SELECT state || deaths FROM chaincall.job'), 'succeeded0', 'who is told to leave accuses no job');
		return now_ms() - $died;
	});
};

for my $kind ('launcher', 'caller', 'executor', 'maintainer', 'walwriter')
{
	survives("kill -9 of the $kind", sub {
		my $pid = $kind eq 'walwriter' ? $s->must("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'") : pid_of($s, $kind);

		$s = crash($node, $s, $pid);
	}, again => 1, deaths => $kind eq 'executor');
}

for my $mode ('immediate', 'fast', 'smart')
{
	survives("stop -m $mode and start", sub {
		$s->quit;
		$node->stop($mode);
		$node->start;
		$s = reconnect($node);
	}, again => 1);
}

survives('kill -9 of the postmaster', sub {
	my @pids = split /\n/, $s->must('SELECT pid FROM pg_stat_activity');

	$s->send('SELECT pg_sleep(600)');
	$node->kill9;
	$s->result;
	$s->quit;
	wait_until(sub { !kill(0, @pids) }, 'all processes have left');
	$node->start;
	$s = reconnect($node);
}, again => 1);

# --------------------------------------------------------------------------------------------------
# Whose fault it is

subtest 'a checkpoint that is not what was stored' => sub {
	my $caller = pid_of($s, 'caller');

	clear();
	$s->must(<<'SQL');
CREATE FUNCTION forged(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  b: {sql: "INSERT INTO effect VALUES ({{n}}, {{a}}) RETURNING n", returns: value}
  h: {model: slow, prompt: "{{b}} {{a}}"}
output: "{{a}}"
$chain$;
SQL
	enqueue($s, 'forged', 2);
	wait_slow(2);
	$s->must(q{UPDATE chaincall.span SET output = '"forged"' WHERE path = 'a' AND job IN (SELECT id FROM chaincall.job WHERE input = '{"n": 1}')});
	$s->must("SELECT pg_terminate_backend($caller)");
	is(wait_jobs($s), 'succeeded 2', 'the jobs go on');
	is($s->must(q{SELECT string_agg(output #>> '{}', ' ') FROM chaincall.job}), 'A fixed answer. A fixed answer.', 'not with what was forged');
	is(requests('fixed'), 3, 'its step is run again, the other one not');
	is($s->must('SELECT count(*) FROM effect'), '2', 'those behind it are not');
	is($s->must(q{SELECT count(*) FROM chaincall.alert a JOIN chaincall.job j ON j.id = a.job WHERE j.input = '{"n": 1}'}), '1', 'an alert');
};

# Waits until the executor is in the gated step; its pid.
sub in_gate
{
	my $pid;

	wait_until(
		sub {
			return $pid = $s->must("SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND wait_event = 'PgSleep'");
		}, 'the step is at work');
	return $pid;
}

subtest 'a long step survives what others do' => sub {
	clear();
	enqueue($s, 'gated', 1);
	in_gate();
	for my $other ('walwriter', 'checkpointer', 'chaincall maintainer', 'chaincall launcher', 'chaincall caller')
	{
		$s = crash($node, $s, $s->must("SELECT pid FROM pg_stat_activity WHERE backend_type = '$other'"));
		in_gate();
		is($s->must('SELECT deaths FROM chaincall.job'), '0', "kill -9 of the $other counts nothing");
	}
	$s->must('INSERT INTO gate VALUES (true)');
	is(wait_jobs($s), 'succeeded 1', 'it comes to its end');
	is($s->must('SELECT count(*) FROM effect'), '1', 'once');
	is(requests('fixed'), 1, 'the checkpoint before it held');
	is($s->must('SELECT deaths FROM chaincall.job'), '0', 'no death');
};

subtest 'a step that kills its executor is stopped at the third death, and only it' => sub {
	my $innocent;

	clear();
	enqueue($s, 'hanging', 2);
	$models->wait_in_flight(2);
	enqueue($s, 'gated', 1);
	for my $death (1 .. 3)
	{
		$s = crash($node, $s, in_gate());
		wait_sql($s, "SELECT deaths = $death FROM chaincall.job WHERE chain ~ 'gated'");
	}
	is(wait_jobs($s, "chain ~ 'gated'"), 'failed 1', 'it has failed');
	is($s->must(q{SELECT error->>'class' FROM chaincall.job WHERE chain ~ 'gated'}), 'crash', 'class');
	like($s->must(q{SELECT error->>'message' FROM chaincall.job WHERE chain ~ 'gated'}), qr/has killed its worker 3 times/, 'message');
	is($s->must(q{SELECT count(*) FROM chaincall.alert a, chaincall.job j WHERE a.kind = 'dead_letter' AND a.job = j.id AND chain ~ 'gated'}), '1', 'an alert');
	is($s->must(q{SELECT sum(deaths) FROM chaincall.job WHERE chain ~ 'hanging'}), '0', 'the others are not blamed');
	$models->wait_in_flight(2);
	$s->must(q{SELECT chaincall.cancel(id) FROM chaincall.job WHERE chain ~ 'hanging'});
	is(wait_jobs($s, "chain ~ 'hanging'"), 'cancelled 2', 'and go on');
};

# By being told to leave, and by a FATAL error of its own.
for my $how ('SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)', q{SELECT set_config('exit_on_error', 'on', true), nothing_there({{n}})})
{
	subtest "a statement that ends its own session: $how" => sub {
		my $caller = pid_of($s, 'caller');

		clear();
		$s->must('CREATE OR REPLACE FUNCTION nothing_there(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1 / (n - n); END $$');
		$s->must("CREATE OR REPLACE FUNCTION suicide(n int) RETURNS text LANGUAGE chaincall AS \$chain\$\nsteps:\n  a: {model: first, prompt: \"a {{n}}\"}\n"
			  . "  k: {sql: \"$how\", after: a}\n  z: {model: last, prompt: \"{{k}}\"}\n\$chain\$");
		enqueue($s, 'suicide', 1);
		enqueue($s, 'quick', 5);
		is(wait_jobs($s, "chain ~ 'quick'"), 'succeeded 5', 'others go on');
		is(wait_jobs($s, "chain ~ 'suicide'"), 'failed 1', 'it fails in the end');
		is($s->must(q{SELECT concat_ws(' ', error->>'class', error->>'step', deaths) FROM chaincall.job WHERE chain ~ 'suicide'}), 'crash k 3', 'class, step, deaths');
		is($s->must(q{SELECT count(*) FROM chaincall.alert a, chaincall.job j WHERE a.kind = 'dead_letter' AND j.id = a.job AND chain ~ 'suicide'}), '1', 'an alert');
		is($s->must(q{SELECT sum(deaths) FROM chaincall.job WHERE chain ~ 'quick'}), '0', 'others are not blamed');
		is(pid_of($s, 'caller'), $caller, 'the caller lives on');
	};
}

# Blows of every kind while n jobs of chain `churn` run in two callers, so that they fall anywhere. A job has so many effects;
# further tests are check's.
sub bears_blows
{
	my ($what, $n, $effects, $check) = @_;
	my @blows = (
		[ 'SIGTERM of a caller', sub { $s->must('SELECT pg_terminate_backend(' . pid_of($s, 'caller') . ')') } ],
		[ 'SIGTERM of all executors', sub { $s->must(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'chaincall executor'}) } ],
		[ 'kill -9 of a caller', sub { $s = crash($node, $s, pid_of($s, 'caller')) } ],
		[ 'SIGTERM of all workers', sub { $s->must(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type ~ '^chaincall'}) } ],
		[ 'stop -m immediate', sub { $s->quit; $node->stop('immediate'); $node->start; $s = reconnect($node) } ],
		[ 'kill -9 of the walwriter', sub { $s = crash($node, $s, $s->must(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'})) } ],
	);

	return subtest "one blow after the other: $what" => sub {
		my $done;

		clear();
		set_conf($s, 'chaincall.min_callers' => 2);
		enqueue($s, 'churn', $n);
		for my $i (0 .. $#blows)
		{
			my ($name, $strike) = @{ $blows[$i] };

			wait_sql($s, 'SELECT count(*) >= ' . int($effects * $n * ($i + 0.3) / @blows) . ' FROM effect');
			$done = $s->must(q{SELECT count(*) FROM chaincall.job WHERE state = 'succeeded'});
			note("$name when $done jobs are done");
			$strike->();
		}
		cmp_ok($done, '<', $n, 'the last one fell while jobs ran');
		is(wait_jobs($s), "succeeded $n", 'every job has succeeded');
		is($s->must('SELECT count(*) || \' \' || count(DISTINCT (n, step)) FROM effect'), $effects * $n . ' ' . $effects * $n, 'what the statements do is done once');
		cmp_ok($s->must('SELECT max(deaths) FROM chaincall.job'), '<', 3, 'no job is given up');
		cmp_ok((sort { $b <=> $a } values %{ $models->keys })[0], '<=', 2 + @blows, 'no call was made more often than there were blows');
		$check->($n);
		set_conf($s, 'chaincall.min_callers' => undef);
	};
}

$s->must(<<'SQL');
CREATE FUNCTION churn(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  b: {sql: "INSERT INTO effect SELECT {{n}}, 'b' WHERE {{a}} <> '' RETURNING n", returns: value}
  c: {each: 3, model: tick, prompt: "c {{item}} {{b}}"}
  d: {each: c, sql: "INSERT INTO effect VALUES ({{n}}, concat('d', {{index}}::int)) RETURNING n", returns: value}
  e: {model: first, prompt: "e {{d}} {{n}}"}
  f: {sql: "INSERT INTO effect SELECT {{n}}, 'f' WHERE {{e}} <> '' RETURNING n", returns: value}
output: "{{e}}"
$chain$;
SQL
bears_blows('calls and statements', 500, 5, sub {
	my ($n) = @_;

	is($s->must('SELECT count(*) FROM chaincall.span WHERE try = 0 AND job IN (SELECT id FROM chaincall.job)'), 10 * $n, 'each step has one checkpoint');
	is(scalar(keys %{ $models->keys }), 5 * $n, 'no call has two keys');
	cmp_ok($models->stats->{requests}, '<', 5 * $n * 2, 'few were made again: ' . ($models->stats->{requests} - 5 * $n));
});

# A chain of all that a job can do; what comes out is what a session gets.
add_model($s, 'flaky', 's', 'echo?status=500&times=1', retry => '{"first": "5 ms", "max": "20 ms"}');
add_model($s, 'refused', 's', 'echo?status=400', retry => '0');
$s->must(<<'SQL');
DROP FUNCTION churn(int);
CREATE FUNCTION add_effect(n int, step text) RETURNS text LANGUAGE sql AS $$ INSERT INTO effect VALUES (n, step) RETURNING step $$;
CREATE FUNCTION nested(t text, at date DEFAULT '2026-01-01') RETURNS date LANGUAGE chaincall AS $chain$
steps:
  x: {model: tick, prompt: "{{t}}"}
  y: {sql: "SELECT {{at}}::date + length({{x}})", returns: value}
$chain$;
CREATE FUNCTION churn(n int) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{m}}", "{{k}}", "{{u}}", "{{o}}", "{{s}}", "{{q}}"]
steps:
  p: {function: chaincall.split_text, args: {text: "One {{n}} is here. Two {{n}} is there. Three {{n}} is nowhere.", by: sentence}}
  m: {each: p, model: flaky, prompt: "{{item}}"}
  k: {each: m, function: public.nested, args: {t: "{{item}}"}}
  w: {wait: 20 ms, after: k}
  u: {until: "round == 3", model: last, prompt: '{{round}} {{u | default("none")}}', after: w}
  o: {model: refused, prompt: "x {{n}}", on_error: {value: "{{error.class}}"}}
  s: {switch: [{when: n > 100, value: big}, {model: last, prompt: "small {{n}}"}]}
  f: {each: 2, function: public.add_effect, args: {n: "{{n}}", step: "f {{item}}"}}
  q: {sql: "INSERT INTO effect SELECT {{n}}, 'q' WHERE {{u}} <> '' AND {{f}} IS NOT NULL RETURNING step", returns: value}
$chain$;
SQL
bears_blows('steps of all kinds', 200, 3, sub {
	my $sample = '(1, 50, 99, 100, 101, 150, 200)';

	is($s->must("SELECT jsonb_agg(output ORDER BY (input->>'n')::int) FROM chaincall.job WHERE (input->>'n')::int IN $sample"),
		$s->must("SELECT jsonb_agg(x ORDER BY n) FROM (SELECT g AS n, churn(g) AS x FROM generate_series(1, 200) g WHERE g IN $sample) y"), 'outputs are those of sessions');
	is($s->must('SELECT count(DISTINCT output) FROM chaincall.job'), '200', 'each of its own job');
});

# --------------------------------------------------------------------------------------------------
# What people do

subtest 'prepared transactions' => sub {
	clear();
	$s->must("BEGIN; INSERT INTO chaincall.job (chain, input) SELECT 'quick', jsonb_build_object('n', g) FROM generate_series(1, 5) g; PREPARE TRANSACTION 'kept'");
	$s->must("BEGIN; INSERT INTO chaincall.job (chain, input) SELECT 'quick', jsonb_build_object('n', g) FROM generate_series(1, 5) g; PREPARE TRANSACTION 'dropped'");
	$s->quit;
	$node->stop('immediate');
	$node->start;
	$s = reconnect($node);
	enqueue($s, 'quick', 1);
	is(wait_jobs($s), 'succeeded 1', 'nobody sees what is prepared');
	$s->must("COMMIT PREPARED 'kept'");
	is(wait_jobs($s), 'succeeded 6', 'what is committed is found');
	$s->must("ROLLBACK PREPARED 'dropped'");
	is($s->must('SELECT count(*) FROM chaincall.job'), '6', 'what is rolled back is not there');
};

subtest 'an open transaction of a person blocks nobody' => sub {
	my ($snapshot, $action, $lock) = map { session($node) } 1 .. 3;
	my ($locked, $before);

	clear();
	enqueue($s, 'hanging', 1);
	$models->wait_in_flight(1);
	$locked = $s->must('SELECT id FROM chaincall.job');
	$snapshot->must('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM chaincall.job, chaincall.span');
	$action->must("BEGIN; SELECT chaincall.cancel('$locked')");
	$lock->must("BEGIN; SELECT FROM chaincall.job WHERE id = '$locked' FOR UPDATE");
	enqueue($s, 'work', N);
	is(wait_jobs($s, "chain ~ 'work'"), 'succeeded ' . N, 'claims, checkpoints and ends go on');
	enqueue($s, 'quick', 5);
	$s->must(q{SELECT chaincall.submit('quick', '{"n": 6}', run_at => clock_timestamp() + '100 ms')});
	is(wait_jobs($s, "chain ~ 'quick'"), 'succeeded 6', 'and the maintainer');
	$before = $s->must(q{SELECT chaincall.submit('hanging', '{"n": 7}')});
	$models->wait_in_flight(2);
	$s->must("SELECT chaincall.cancel('$before')");
	is(wait_jobs($s, "id = '$before'"), 'cancelled 1', 'and actions of others');
	is($s->must(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^chaincall' AND wait_event_type = 'Lock'}), '0', 'no worker waits for a lock');

	# a committed cancel of the locked job is put off, not waited for
	$action->must('COMMIT');
	$models->wait_in_flight(0);
	is(state_of($s, $locked), 'running', 'its end waits for the lock');
	enqueue($s, 'quick', 5);
	is(wait_jobs($s, "chain ~ 'quick'"), 'succeeded 11', 'nobody else does');
	$lock->must('ROLLBACK');
	is(wait_jobs($s, "id = '$locked'"), 'cancelled 1', 'then it is written');
	wait_sql($s, "SELECT bool_and(state = 'applied') FROM chaincall.action");
	pass('the actions are applied');
	$_->quit for ($snapshot, $action, $lock);
};

# --------------------------------------------------------------------------------------------------
# Databases

subtest 'a copy of a busy database' => sub {
	my ($busy, $copy);

	clear();
	$s->must('CREATE ROLE db_owner LOGIN SUPERUSER; CREATE ROLE nobody_special LOGIN CREATEDB; CREATE DATABASE busy OWNER db_owner');
	$busy = session($node, dbname => 'busy', sql => 'CREATE EXTENSION chaincall');
	fill($busy);
	enqueue($busy, 'work', N);
	wait_slow(N);
	$busy->must(q{SELECT chaincall.submit('quick', '{"n": 1}', run_at => now() + '1 day', labels => '{"later": true}')});
	$busy->quit;
	$s->must('CREATE DATABASE copy TEMPLATE busy');
	$copy = session($node, dbname => 'copy');
	wait_sql($copy, q{SELECT bool_and(state = 'cancelled') FROM chaincall.job});
	is($copy->must(q{SELECT DISTINCT error->>'message' FROM chaincall.job}), 'the job was cancelled because its database is a copy', 'its unfinished jobs are cancelled');
	enqueue($copy, 'quick', 2);
	is(wait_jobs($copy), 'cancelled ' . (N + 1) . ' succeeded 2', 'and it works');
	$copy->quit;
	$busy = session($node, dbname => 'busy');
	is(wait_jobs($busy, "labels = '{}'"), 'succeeded ' . N, 'those of the database itself go on');
	is($busy->must('SELECT count(*) || \' \' || count(DISTINCT (n, step)) FROM effect'), 3 * N . ' ' . 3 * N, 'once');
	is($busy->must(q{SELECT state FROM chaincall.job WHERE labels <> '{}'}), 'waiting', 'what waits still waits');
	$busy->quit;
};

subtest 'DROP DATABASE and DROP EXTENSION under load' => sub {
	my $other = session($node, user => 'nobody_special');
	my ($in, $caller);

	for my $database ('busy', 'copy')
	{
		$in = session($node, dbname => $database);
		$models->reset;
		enqueue($in, 'work', 50);
		enqueue($in, 'hanging', 5);
		wait_slow(20);
		$caller = pid_of($in, 'caller');
		if ($database eq 'busy')
		{
			$in->quit;
			is($other->run('DROP DATABASE busy')->{message}, 'must be owner of database busy', 'refused to others');
			$in = session($node, dbname => $database);
			is(pid_of($in, 'caller'), $caller, 'who stop no worker');
			$in->quit;
			ok($s->run('SET ROLE db_owner')->ok, 'the owner');
			ok($s->run('DROP DATABASE busy')->ok, 'drops it');
			$s->must('RESET ROLE');
		}
		else
		{
			my $stranger = session($node, dbname => $database, user => 'nobody_special');

			is($stranger->run('DROP EXTENSION chaincall CASCADE')->{message}, 'must be owner of extension chaincall', 'refused to others');
			$stranger->quit;
			is(pid_of($in, 'caller'), $caller, 'who stop no worker');
			ok($in->run('DROP EXTENSION chaincall CASCADE')->ok, 'its owner drops the extension');
			wait_sql($s, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type ~ '^chaincall' AND datname = 'copy'});
			pass('the workers have left');
			$in->must('DROP TABLE effect, gate; DROP FUNCTION wait_gate; CREATE EXTENSION chaincall');
			fill($in);
			$models->reset;
			enqueue($in, 'work', N);
			ended_well($in, 1);
			$in->quit;
		}
		is($models->wait_in_flight(0)->{in_flight}, 0, 'calls are hung up');
	}
	$other->quit;
	$s->must('DROP DATABASE copy');
};

subtest 'dump and restore after a run' => sub {
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	my $in;

	clear();
	enqueue($s, 'work', N);
	ended_well($s, 1);
	enqueue($s, 'hanging', 1);
	$models->wait_in_flight(1);
	$node->command_ok([ 'pg_dump', '-f', $file, $node->connstr('postgres') ], 'pg_dump while a job runs');
	unlike(slurp_file($file), qr/^COPY chaincall\.(?:job|span|action|definition|origin)/m, 'no runtime table is in it');
	$s->must('CREATE DATABASE restored');
	$node->command_ok([ 'psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $file ], 'restored');
	$in = session($node, dbname => 'restored', sql => 'TRUNCATE effect');
	is($in->must('SELECT count(*) FROM chaincall.job'), '0', 'without jobs');
	$models->reset;
	enqueue($in, 'work', N);
	ended_well($in, 1);
	$in->quit;
	$s->must('DROP DATABASE restored');
	$s->must(q{SELECT chaincall.cancel(id) FROM chaincall.job WHERE chain ~ 'hanging'});
	is(wait_jobs($s), 'cancelled 1 succeeded ' . N, 'all has ended');
};

# --------------------------------------------------------------------------------------------------
# Other nodes

subtest 'logical replication of all tables' => sub {
	my $subscriber = jobs_node('subscriber', "max_logical_replication_workers = 6\n");
	my $there = session($subscriber);
	my $mark;

	clear();
	$there->must('CREATE TABLE effect (n int, step text); CREATE TABLE gate (open bool)');
	$there->must($s->must(q{SELECT format('CREATE SERVER s FOREIGN DATA WRAPPER chaincall OPTIONS (api %L, url %L)', 'openai', '} . $models->url . q{/v1')}));
	$s->must('ALTER TABLE effect REPLICA IDENTITY FULL; ALTER TABLE gate REPLICA IDENTITY FULL');
	wait_sql($there, 'SELECT count(*) = ' . $s->must("SELECT count(*) FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass")
		  . " FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass");
	$s->must('CREATE PUBLICATION everything FOR ALL TABLES');
	$there->must("CREATE SUBSCRIPTION all_of_it CONNECTION '" . $node->connstr . " dbname=postgres' PUBLICATION everything");
	$subscriber->wait_for_subscription_sync($node, 'all_of_it') if $subscriber->can('wait_for_subscription_sync');
	wait_sql($there, q{SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel});
	$mark = -s $subscriber->logfile;

	enqueue($s, 'work', N);
	ended_well($s, 1);
	$s->must(q{SELECT chaincall.cancel(id) FROM chaincall.job LIMIT 1});
	wait_sql($s, q{SELECT count(*) = 0 FROM chaincall.action WHERE state = 'pending'});
	$s->must('DELETE FROM chaincall.job; DELETE FROM chaincall.definition; DELETE FROM chaincall.action');
	$node->wait_for_catchup('all_of_it');
	is($there->must('SELECT count(*) FROM effect'), 3 * N, 'what the jobs wrote has arrived');
	is($there->must("SELECT string_agg(t || ' ' || n, ' ') FROM (SELECT 'job' AS t, count(*) AS n FROM chaincall.job UNION ALL SELECT 'span', count(*) FROM chaincall.span"
			  . " UNION ALL SELECT 'action', count(*) FROM chaincall.action UNION ALL SELECT 'definition', count(*) FROM chaincall.definition) x"),
		'job 0 span 0 action 0 definition 0', 'the jobs themselves have not');
	is($there->must('SELECT count(*) FROM chaincall.model'), '7', 'models have');
	$there->must(q{CREATE FUNCTION quick(n int) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: first, prompt: "a {{n}}"}
  z: {model: last, prompt: "z {{n}} {{a}}"}
$chain$});
	enqueue($there, 'quick', 3);
	is(wait_jobs($there), 'succeeded 3', 'the subscriber has jobs of its own');
	unlike(slurp_file($subscriber->logfile, $mark), qr/ERROR|WARNING/, 'nothing went wrong there');
	$there->must('DROP SUBSCRIPTION all_of_it');
	$there->quit;
	$subscriber->stop;
	$s->must('DROP PUBLICATION everything');
};

subtest 'a standby is promoted with jobs in flight' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	my ($there, $result, $promoted);

	$node->backup('base');
	$standby->init_from_backup($node, 'base', has_streaming => 1);
	$standby->start;
	clear();
	enqueue($s, 'work', N);
	wait_slow(N);
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	$there = session($standby);
	is($there->must(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ '^chaincall'}), '0', 'no worker in recovery');
	is($there->must(q{SELECT chaincall.call('first', 'x')}), 'A fixed answer.', 'a session can call models there');
	is($there->must('SELECT quick(5)'), 'z 5 A fixed answer.', 'and run a chain');
	is($there->run(q{SELECT chaincall.submit('quick', '{"n": 1}')})->{state}, '25006', 'but not enqueue');
	is($there->must(q{SELECT count(*) FROM chaincall.job_status WHERE state = 'running'}), N, 'it sees the jobs');
	$there->quit;
	$s->quit;
	$node->stop('immediate');
	is($models->wait_in_flight(0)->{in_flight}, 0, 'the calls are gone');
	$models->reset;
	$standby->promote;
	$promoted = now_ms();
	wait_slow(1);
	note(sprintf('the next call after %.0f ms', now_ms() - $promoted));
	$there = reconnect($standby);
	is(wait_jobs($there), 'succeeded ' . N, 'every job has succeeded');
	is($there->must("SELECT count(*) || ' ' || count(DISTINCT (n, step)) FROM effect"), 3 * N . ' ' . 3 * N, 'what the statements do is done once');
	is(requests('fixed'), 0, 'no checkpoint was asked for again');
	is($there->must('SELECT max(deaths) FROM chaincall.job'), '0', 'no job is blamed');
	$there->quit;
	$standby->stop;
	unlike(slurp_file($standby->logfile), qr/TRAP|PANIC|terminated by signal/, 'nothing crashed there');
};

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal (?!9\b)\d/, 'nothing else crashed');

# --------------------------------------------------------------------------------------------------
# The disk

subtest 'a full disk' => sub {
	my $flag = PostgreSQL::Test::Utils::tempdir() . '/full';
	my $full = jobs_node('full', '', env => { full_disk_env($flag) });
	my $in = session($full);
	my ($caller, $mark, $states);

	fill($in);
	$in->must(<<'SQL');
CREATE FUNCTION wide(n int, t text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  a: {model: slow, prompt: "{{n}} {{t}}"}
  b: {model: last, prompt: "{{a}} {{n}} {{t}}"}
  c: {sql: "INSERT INTO effect SELECT {{n}}, md5(g::text) FROM generate_series(1, 50) g WHERE {{b}} <> '' RETURNING (SELECT string_agg(md5(g::text || {{n}}), '') FROM generate_series(1, 40) g)", returns: rows}
  z: {model: first, prompt: "z {{n}}", after: c}
output: "{{z}}"
$chain$;
SQL
	$models->reset;
	$caller = pid_of($in, 'caller');
	$mark = -s $full->logfile;
	$in->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'wide', jsonb_build_object('n', g, 't', (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 50) i)) FROM generate_series(1, 40) g});
	wait_slow(40);
	append_to_file($flag, '');
	wait_until(sub { slurp_file($full->logfile, $mark) =~ /No space left on device/ }, 'something finds no room');
	like($in->run(q{CREATE TABLE t AS SELECT 1})->{state}, qr/^53100$/, 'nobody has any');
	wait_until(sub { (() = slurp_file($full->logfile, $mark) =~ /No space left on device/g) >= 6 }, 'and tries again');
	$states = $in->must(q{SELECT string_agg(DISTINCT state, ' ' ORDER BY state) FROM chaincall.job});
	like($states, qr/^(?:queued )?running(?: succeeded)?$/, 'jobs wait');
	is(pid_of($in, 'caller'), $caller, 'their worker too');
	unlink $flag;
	is(wait_jobs($in), 'succeeded 40', 'when there is room they go on');
	is($in->must('SELECT count(*) || \' \' || count(DISTINCT (n, step)) FROM effect'), '2000 2000', 'what the statements do is done once');
	is(pid_of($in, 'caller'), $caller, 'in the same worker');
	cmp_ok(requests('delay'), '==', 40, 'nothing was asked again');
	$in->quit;
	$full->stop;
	unlike(slurp_file($full->logfile), qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
};

done_testing();
