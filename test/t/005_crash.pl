# Whoever is in a run may go without notice: the backend, the whole cluster, the model server, the client. The server
# is not left working for nobody, who remains gets a clear error, and the next run works.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my ($certificate, $key) = make_certificate('IP:127.0.0.1');
my $models = ModelServer->new;
my $tls = ModelServer->new(tls => [ $certificate, $key ]);
my $node = new_node('crash', conf => "restart_after_crash = on\n");
my $session = session($node);

add_server($session, 's', $models);
add_model($session, 'once', 's', 'fixed', retry => '0');
add_model($session, 'many', 's', 'fixed', retry => '{"first": "2 ms"}');
add_model($session, 'hang', 's', 'fixed?hang=1', retry => '0');
add_model($session, 'hang_many', 's', 'fixed?hang=1', retry => '{"first": "2 ms", "max": "2 ms"}');
add_model($session, 'slow', 's', 'delay-400', retry => '0');

# Makes a chain that fans out to a model.
sub make_fan
{
	my ($name, $model, $modifiers) = @_;

	$session->must("CREATE FUNCTION $name(n int) RETURNS jsonb LANGUAGE chaincall AS \$chain\$\n"
		  . "each: n\nmodel: $model\nprompt: \"{{item}}\"\n" . ($modifiers || '') . "\n\$chain\$");
	return;
}

add_model($session, 'kept', 's', 'delay-50', retry => '0');
add_server($session, 't', $tls, ca_file => $certificate);
add_model($session, 'tls', 't', 'delay-50', retry => '0');
make_fan('fan', 'once');
make_fan('fan_kept', 'kept');
make_fan('fan_tls', 'tls');
make_fan('fan_hang', 'hang');
make_fan('fan_hang_many', 'hang_many');
make_fan('fan_skip', 'hang', 'on_error: skip');

# A statement while calls are in the air, with a subtransaction around it.
$session->must(<<'SQL');
CREATE FUNCTION beside() RETURNS jsonb LANGUAGE chaincall AS $chain$
output: ["{{asked}}", "{{slept}}"]
steps:
  asked:
    each: 5
    model: hang
    prompt: "{{item}}"
    on_error: {value: "{{error.class}}"}
  slept:
    sql: SELECT pg_sleep(600) IS NULL
    on_error: {value: "{{error.class}}"}
$chain$;
CREATE TABLE kept (n int);
SQL

# Tests that a new session gets an answer and that nothing is in the air.
sub next_run_works
{
	my $next = session($node);

	is($models->wait_in_flight(0)->{in_flight}, 0, 'no request is left in the air');
	is($next->must("SELECT chaincall.call('once', 'x')"), 'A fixed answer.', 'a call works');
	is($next->must('SELECT jsonb_array_length(fan(30))'), '30', 'a fan-out, too');
	$next->quit;
	return;
}

# Waits until the backend of a session is no more.
sub wait_gone
{
	my ($gone, $by) = @_;

	wait_until(sub { $by->must('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $gone->pid) eq '0' }, 'the backend has left');
	return pass('the backend has left');
}

# Waits until a session is in its statement beside the calls.
sub wait_sleeping
{
	my ($sleeping) = @_;

	wait_until(sub { $session->must('SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $sleeping->pid) eq 'PgSleep' }, 'the statement runs');
	return;
}

# --------------------------------------------------------------------------------------------------
# Backends

subtest 'kill -9 of a backend' => sub {
	for my $round ([ 'SELECT fan_hang(40)', 40 ], [ 'SELECT beside()', 5 ])
	{
		my ($statement, $calls) = @$round;
		my $killed = session($node);
		my $other = session($node);
		my $idle = session($node);

		$models->reset;
		$killed->send("BEGIN; INSERT INTO kept VALUES (1); $statement");
		$models->wait_in_flight($calls);
		wait_sleeping($killed) if $statement =~ /beside/;
		$other->send('SELECT fan_hang(7)');
		$models->wait_in_flight($calls + 7);
		$idle->send('SELECT pg_sleep(600)');
		kill('KILL', $killed->pid);
		ok(!$killed->result->ok, "$statement: the run is over");
		ok(!$other->result->ok, 'so is the one beside it, as always when a backend crashes');
		ok(!$idle->result->ok, 'and every other');
		$node->poll_query_until('postgres', undef, '') or die 'the cluster did not come back';
		next_run_works();
		is($node->safe_psql('postgres', 'SELECT count(*) FROM kept'), '0', 'the transaction is gone');
		$_->quit for ($killed, $other, $idle, $session);
		$session = session($node);
	}
};

subtest 'pg_terminate_backend' => sub {
	for my $statement ('SELECT fan_hang(40)', 'SELECT fan_skip(40)', 'SELECT fan_hang_many(40)', 'SELECT beside()')
	{
		my $terminated = session($node);
		my $calls = $statement =~ /40/ ? 40 : 5;
		my $result;

		$models->reset;
		$terminated->send($statement);
		$models->wait_in_flight($calls);
		wait_sleeping($terminated) if $statement =~ /beside/;
		is($session->must('SELECT pg_terminate_backend(' . $terminated->pid . ')'), 't', "$statement: asked to go");
		$result = $terminated->result;
		is($result->{severity}, 'FATAL', 'it goes');
		is($result->{state}, '57P01', 'and says why');
		wait_gone($terminated, $session);
		is($models->stats->{requests}, $calls, 'nothing was asked again');
		$terminated->quit;
		next_run_works();
	}
};

subtest 'the client leaves' => sub {
	my $client = session($node, sql => "SET client_connection_check_interval = '20 ms'");

	$client->send('SELECT fan_hang(40)');
	$models->wait_in_flight(40);
	kill('KILL', $client->{psql});
	$client->quit;
	wait_gone($client, $session);
	next_run_works();

	# who is not told to look finds out at the end
	$models->reset;
	$client = session($node);
	$client->send("INSERT INTO kept SELECT length(chaincall.call('slow', 'x'))");
	$models->wait_in_flight(1);
	kill('KILL', $client->{psql});
	$client->quit;
	wait_gone($client, $session);
	is($models->stats->{answered}, 1, 'the call had its answer');
	is($session->must('SELECT * FROM kept'), length 'A fixed answer.', 'the statement was run to its end');
	$session->must('TRUNCATE kept');
	next_run_works();
};

# --------------------------------------------------------------------------------------------------
# The cluster

for my $mode ('immediate', 'fast')
{
	subtest "stop -m $mode and start" => sub {
		my @running = map { session($node) } 1 .. 3;

		$running[0]->send('BEGIN; INSERT INTO kept VALUES (2); SELECT fan_hang(40)');
		$running[1]->send('SELECT fan_skip(10)');
		$running[2]->send('SELECT beside()');
		$models->wait_in_flight(55);
		wait_sleeping($running[2]);
		$node->stop($mode);
		ok(!$_->result->ok, 'a run is over') for @running;
		is($models->wait_in_flight(0)->{in_flight}, 0, 'no request is left in the air');
		$node->start;
		next_run_works();
		is($node->safe_psql('postgres', 'SELECT count(*) FROM kept'), '0', 'the transaction is gone');
		$_->quit for (@running, $session);
		$session = session($node);
	};
}

subtest 'kill -9 of the postmaster' => sub {
	my @running = map { session($node) } 1 .. 2;
	my ($postmaster) = slurp_file($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
	my @pids = ($postmaster, split /\n/, $session->must('SELECT pid FROM pg_stat_activity'));

	$running[0]->send('SELECT fan_hang(40)');
	$running[1]->send('SELECT fan_skip(10)');
	$models->wait_in_flight(50);
	$node->kill9;
	ok(!$_->result->ok, 'a run is over') for @running;
	is($models->wait_in_flight(0)->{in_flight}, 0, 'no request is left in the air');
	wait_until(sub { !kill(0, @pids) }, 'all processes have left');
	$node->start;
	next_run_works();
	$_->quit for (@running, $session);
	$session = session($node);
};

# --------------------------------------------------------------------------------------------------
# The model server

# Tests that a statement fails as transient, and soon; stop_server is called when its requests have arrived.
sub fails_when_stopped
{
	my ($statement, $calls, $signal) = @_;
	my $stopped_ms;
	my $result;

	$session->send($statement);
	$models->wait_in_flight($calls);
	$models->stop($signal);
	$stopped_ms = now_ms();
	$result = $session->result;
	is($result->{state}, 'MC001', "$statement: transient") or diag("$result->{out} $result->{err}");
	like($result->{message}, qr/model "hang\w*" at server "s"/, 'message: model and server');
	like($result->{message}, qr/broke off|cannot be reached/, 'message: what happened');
	cmp_ok($result->{end_ms} - $stopped_ms, '<', 5000, 'and soon');
	$models->start;
	return;
}

for my $how ([ crashes => 'KILL' ], [ 'is stopped' => undef ])
{
	my ($what, $signal) = @$how;

	subtest "the model server $what in mid-run" => sub {
		fails_when_stopped(@$_, $signal)
		  for (["SELECT chaincall.call('hang', 'x')", 1 ], [ "SELECT chaincall.call('hang_many', 'x')", 1 ], [ 'SELECT fan_hang(40)', 40 ], [ 'SELECT fan_hang_many(40)', 40 ]);
		is($session->must("SELECT chaincall.call('once', 'x')"), 'A fixed answer.', 'the same session has the next answer');

		$session->send('SELECT fan_skip(40)');
		$models->wait_in_flight(40);
		$models->stop($signal);
		is($session->result->{out}, '[' . join(', ', ('null') x 40) . ']', 'what is skipped is null');
		$models->start;
		next_run_works();
	};

	# what was kept open is closed now; whoever finds that out pays for it with nothing
	for my $server ([ http => $models, 'fan_kept' ], [ https => $tls, 'fan_tls' ])
	{
		my ($scheme, $stopped, $fan) = @$server;

		subtest "the model server $what between two runs, $scheme" => sub {
			for my $n (1, 40)
			{
				my $statement = "SELECT jsonb_array_length($fan($n))";
				my $connections;

				is($session->must($statement), $n, "calls: $n");
				$connections = $stopped->stats->{connections_total};
				is($session->must($statement), $n, 'once more');
				is($stopped->stats->{connections_total}, $connections + 1, 'over connections that were kept; one is that of this question');
				$stopped->stop($signal);
				$stopped->start;
				is($session->run($statement)->{out}, $n, 'they are closed now; the answers come all the same');
				is($stopped->stats->{requests}, $n, 'each was asked for once');
				unlike($session->must('SELECT chaincall.last_trace()'), qr/transient/, 'and no attempt was spent');
			}
		};
	}

	subtest "the model server $what and stays away" => sub {
		my $result;

		is($session->must("SELECT chaincall.call('once', 'x')"), 'A fixed answer.', 'before');
		$models->stop($signal);
		for my $model ('once', 'many')
		{
			$result = $session->run("SELECT chaincall.call('$model', 'x')");
			is($result->{state}, 'MC001', "$model: transient");
			like($result->{message}, qr/model "$model" at server "s".*cannot be reached/, 'message');
			cmp_ok($result->{ms}, '<', 5000, 'and soon');
		}
		$models->start;
		is($session->must("SELECT chaincall.call('once', 'x')"), 'A fixed answer.', 'and when it is back');
	};
}

# A connection that is closed at the very moment at which it is used again, so that nobody can see it coming.
subtest 'a connection that ends under the next request' => sub {
	add_model($session, 'cut', 's', 'fixed?reset=head&times=1', retry => '0');
	$models->reset;
	is($session->must("SELECT chaincall.call('once', 'x')"), 'A fixed answer.', 'a call that leaves a connection');
	is($session->run("SELECT chaincall.call('cut', 'x')")->{out}, 'A fixed answer.', 'the next is sent again');
	is_deeply([ sort { $a <=> $b } values %{ $models->keys } ], [ 1, 2 ], 'with the same Idempotency-Key');
	unlike($session->must('SELECT chaincall.last_trace()'), qr/transient/, 'and no attempt was spent');

	my $fresh = session($node);

	is($fresh->run("SELECT chaincall.call('cut', 'y')")->{state}, 'MC001', 'a new connection has no such excuse');
	like($fresh->must('SELECT chaincall.last_trace()'), qr/transient/, 'its attempt was spent');
	$fresh->quit;
	next_run_works();
};

$session->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal (?!9\b)\d/, 'nothing else crashed');
done_testing();
