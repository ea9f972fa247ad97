# Time: whatever ends a statement ends a chain within 100 ms, wherever the chain is; steps keep their own timeouts; model
# calls are in the air while statements run.
#
# Times are measured as a client sees them. On a busy machine anything may be late now and then: see Chaincall::within().
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

use constant PROMPT => 100;		# ms in which an interrupt must be heeded

my $release = PostgreSQL::Test::Utils::tempdir() . '/release';
my $models = ModelServer->new;
my $hole = RawServer->black_hole;
my $mute = RawServer->mute;
my $node = new_node('time', env => { resolver_env($release) });
my $admin = session($node);
my $session = session($node);
my $holder = session($node);
my $made = 0;

add_server($admin, 'models', $models);
add_server($admin, 'hole', $hole->url, connect_timeout => '60 s');
add_server($admin, 'mute', 'https://127.0.0.1:' . $mute->port, connect_timeout => '60 s');
add_server($admin, 'unknown', 'http://slow.test', connect_timeout => '60 s');
add_model($admin, 'good', 'models', 'fixed');
add_model($admin, 'hang', 'models', 'fixed?hang=1');
add_model($admin, 'later', 'models', 'fixed?status=429&retry_after=60');
add_model($admin, $_, $_, 'x') for ('hole', 'mute', 'unknown');
$admin->must(<<'SQL');
CREATE TABLE locked (n int);
INSERT INTO locked VALUES (1);
CREATE FUNCTION slow(seconds float8) RETURNS int LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(seconds); RETURN 1; END';
SQL

# Makes a chain of that body; its name.
sub make_chain
{
	my ($body, %params) = @_;
	my $name = 'chain' . ++$made;

	$params{args} //= '';
	$params{returns} //= 'jsonb';
	$admin->must("CREATE FUNCTION $name($params{args}) RETURNS $params{returns} LANGUAGE chaincall AS \$chain\$\n$body\n\$chain\$");
	return $name;
}

# What the backend of a session is waiting for, "" if nothing, undef if it is idle.
sub wait_event
{
	my ($of) = @_;
	my ($state, $event) = split /\|/, $admin->must('SELECT state, wait_event FROM pg_stat_activity WHERE pid = ' . $of->pid), 2;

	return $state eq 'active' ? $event // '' : undef;
}

sub waits_for_network
{
	my ($of) = @_;

	return (wait_event($of) // '') =~ /^(Extension|ChaincallHttp)$/;
}

# --------------------------------------------------------------------------------------------------
# Interrupts

my $hang = make_chain("model: hang\nprompt: hello");
my $stubborn = 't like_regex "^(a*)(a*)(a*)(a*)(a*)\\\\1\\\\2\\\\3b?\\\\4\\\\5a$"';

# Where a chain may be when it is interrupted: how to get there, and how to know that it is there.
my @places = (
	{
		name => 'a model that does not answer',
		sql => "SELECT $hang()",
		there => sub { $models->stats->{in_flight} == 1 && waits_for_network($_[0]) },
	},
	{
		name => 'a backoff',
		sql => 'SELECT ' . make_chain("model: later\nprompt: hello") . '()',
		there => sub { $models->stats->{requests} == 1 && $models->stats->{in_flight} == 0 && waits_for_network($_[0]) },
	},
	{
		name => 'a statement beside a model call',
		sql => 'SELECT ' . make_chain("steps:\n  asks: {model: hang, prompt: hello}\n  reads: {sql: SELECT pg_sleep(60)}\noutput: \"{{asks}} {{reads}}\"") . '()',
		there => sub { $models->stats->{in_flight} == 1 && (wait_event($_[0]) // '') eq 'PgSleep' },
	},
	{
		name => 'a statement that on_error and timeout watch',
		sql => 'SELECT ' . make_chain("sql: SELECT pg_sleep(60)\ntimeout: 50 s\non_error: {value: caught}") . '()',
		there => sub { (wait_event($_[0]) // '') eq 'PgSleep' },
	},
	{
		name => 'a lock',
		sql => 'SELECT ' . make_chain("sql: UPDATE locked SET n = n + 1 RETURNING n\nreturns: value\non_error: skip") . '()',
		there => sub { (wait_event($_[0]) // '') eq 'transactionid' },
		before => sub { $holder->must('BEGIN; UPDATE locked SET n = 0') },
		after => sub { $holder->must('ROLLBACK') },
	},
	{
		name => 'a function',
		sql => 'SELECT ' . make_chain("function: slow\nargs: {seconds: 60}\non_error: skip") . '()',
		there => sub { (wait_event($_[0]) // '') eq 'PgSleep' },
	},
	{
		name => 'a chain called by a statement of a chain',
		sql => 'SELECT ' . make_chain("steps:\n  asks: {model: hang, prompt: hello}\n  nested: {sql: SELECT $hang()}\noutput: \"{{asks}} {{nested}}\"") . '()',
		there => sub { $models->stats->{in_flight} == 2 && waits_for_network($_[0]) },
	},
	{
		name => 'a chain called as a function step',
		sql => 'SELECT ' . make_chain("function: $hang\non_error: skip") . '()',
		there => sub { $models->stats->{in_flight} == 1 && waits_for_network($_[0]) },
	},
	{
		name => 'a regular expression',
		sql => 'SELECT ' . make_chain("when: '$stubborn'\nvalue: 1", args => 't text') . "(repeat('a', 100))",
		set => 'SET chaincall.inline_timeout = 0',
		there => sub { (wait_event($_[0]) // '-') eq '' },
	},
	{
		name => 'a regular expression that on_error watches',
		sql => 'SELECT ' . make_chain("steps:\n  a:\n    each: 1\n    steps:\n      b: {when: '$stubborn', value: 1}\n    on_error: skip", args => 't text') . "(repeat('a', 100))",
		set => 'SET chaincall.inline_timeout = 0',
		there => sub { (wait_event($_[0]) // '-') eq '' },
	},
	{
		name => 'rounds without end',
		sql => 'SELECT ' . make_chain("value: 1\nuntil: 1 == 2\nmax: 2000000000") . '()',
		there => sub { (wait_event($_[0]) // '-') eq '' },
	},
	{
		name => 'an address that says nothing',
		sql => "SELECT chaincall.call('hole', 'hello')",
		there => \&waits_for_network,
	},
	{
		name => 'a TLS handshake',
		sql => "SELECT chaincall.call('mute', 'hello')",
		there => \&waits_for_network,
	},
	{
		name => 'a slow look-up of a name',
		sql => "SELECT chaincall.call('unknown', 'hello')",
		there => \&waits_for_network,
	},
	{
		name => 'a fan-out of 500 calls',
		sql => 'SELECT ' . make_chain("each: 500\nmodel: hang\nprompt: \"{{item}}\"\non_error: skip") . '()',
		there => sub { $models->stats->{in_flight} == 500 && waits_for_network($_[0]) },
	});

# Brings the session to a place.
sub go_to
{
	my ($of, $place) = @_;

	$models->reset;
	$of->send($place->{sql});
	wait_until(
		sub {
			die "$place->{name}: " . $of->result->{err} if $of->done;
			return $place->{there}->($of);
		}, "the session is in $place->{name}");
	return;
}

# An interrupt by function: the ms after which the session has heeded it, undef when it ended in another way.
sub interrupt
{
	my ($of, $place, $function, $state) = @_;
	my $result;
	my $start;

	go_to($of, $place);
	$start = now_ms();
	$admin->must("SELECT $function(" . $of->pid . ')');
	$result = $of->result;
	if (($result->{state} // '') ne $state)
	{
		diag("$place->{name}: " . ($result->{err} || $result->{out}));
		return undef;
	}
	return $result->{end_ms} - $start;
}

for my $place (@places)
{
	subtest "in $place->{name}" => sub {
		$place->{before}->() if $place->{before};
		$session->must($place->{set}) if $place->{set};

		within(PROMPT, 'pg_cancel_backend', sub { interrupt($session, $place, 'pg_cancel_backend', '57014') });

		within(
			PROMPT,
			'statement_timeout',
			sub {
				my $result = $session->run("SET statement_timeout = 150;\n$place->{sql};\n");

				$session->must('RESET statement_timeout');
				return undef unless ($result->{state} // '') eq '57014' && $result->{message} =~ /statement timeout/;
				return $result->{ms} - 150;
			});

		within(
			PROMPT,
			'pg_terminate_backend',
			sub {
				my $other = session($node, sql => $place->{set});
				my $ms = interrupt($other, $place, 'pg_terminate_backend', '57P01');

				$other->quit;
				return $ms;
			});

		is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
		is($session->must("SELECT chaincall.call('good', 'hello')"), 'A fixed answer.', 'the next call works');
		$session->must('RESET ALL');
		$place->{after}->() if $place->{after};
	};
}

subtest 'lock_timeout' => sub {
	my $update = make_chain("steps:\n  asks: {model: hang, prompt: hello}\n  writes: {sql: UPDATE locked SET n = n + 1}\noutput: \"{{asks}} {{writes}}\"");
	my $caught = make_chain("sql: UPDATE locked SET n = n + 1\non_error: {value: \"{{error.class}} {{error.sqlstate}}\"}");

	$holder->must('BEGIN; UPDATE locked SET n = 0');
	within(
		PROMPT,
		'beside a model call',
		sub {
			my $result = $session->run("SET lock_timeout = 150;\nSELECT $update()");

			return ($result->{state} // '') eq '55P03' ? $result->{ms} - 150 : undef;
		});
	is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
	is($session->must("SELECT $caught()"), '"sql 55P03"', 'on_error catches it: it is the statement\'s own error');
	$holder->must('ROLLBACK');
	$session->must('RESET lock_timeout');
};

subtest 'a user\'s cancel in a statement that cancels itself later' => sub {
	my $place = { name => 'a statement', sql => 'SELECT ' . make_chain("steps:\n  a:\n    each: 2\n    sql: SELECT pg_sleep(60)\n    timeout: 30 s\n    on_error: skip\n    retry: 3") . '()',
		there => sub { (wait_event($_[0]) // '') eq 'PgSleep' } };

	within(PROMPT, 'pg_cancel_backend', sub { interrupt($session, $place, 'pg_cancel_backend', '57014') });
};

# --------------------------------------------------------------------------------------------------
# A step's own timeout

# Tests that a chain that would take for ever ends soon after its timeout, with this SQLSTATE or this output.
sub times_out
{
	my ($what, $body, $timeout_ms, %expected) = @_;
	my $chain = make_chain($body, %{ $expected{params} || {} });

	subtest "timeout: $what" => sub {
		my $result;

		within(
			PROMPT,
			'ends',
			sub {
				$result = $session->run("SELECT $chain(" . ($expected{input} // '') . ')');
				return undef if $result->{ms} < $timeout_ms - 1;
				return $result->{ms} - $timeout_ms;
			}) || diag($result->{err} || $result->{out});
		if ($expected{state})
		{
			is($result->{state}, $expected{state}, 'SQLSTATE');
			like($result->{message}, qr/timeout|within|longer/, 'message');
			like($result->{hint}, qr/timeout/, 'hint');
			like($result->{context}, qr/^chain $chain, step $expected{step}\b/m, 'context: the step') if $expected{step};
		}
		else
		{
			is($result->{out}, $expected{out}, 'output') or diag($result->{err});
		}
		is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
		is($session->must("SELECT chaincall.call('good', 'hello')"), 'A fixed answer.', 'the next call works');
	};
	return;
}

times_out('of a model', "model: hang\nprompt: hello\ntimeout: 150 ms", 150, state => 'MC007', step => 'chain');
times_out('of a statement', "sql: SELECT pg_sleep(60)\ntimeout: 150 ms", 150, state => 'MC007', step => 'chain');
times_out('of a function', "function: slow\nargs: {seconds: 60}\ntimeout: 150 ms", 150, state => 'MC007', step => 'chain');
times_out('of a statement that waits for a lock', "sql: SELECT pg_advisory_lock(7)\ntimeout: 150 ms", 150, state => 'MC007', step => 'chain')
  if $holder->must('SELECT pg_advisory_lock(7)') eq '';
times_out('of a block around a model', "steps:\n  a: {model: hang, prompt: hello}\ntimeout: 150 ms", 150, state => 'MC007');
times_out('of a block around a statement', "steps:\n  a: {sql: SELECT pg_sleep(60)}\ntimeout: 150 ms", 150, state => 'MC007');
times_out('of a block around a nested chain', "steps:\n  a: {function: $hang}\ntimeout: 150 ms", 150, state => 'MC007');
times_out('of a block around a chain in a statement', "steps:\n  a: {sql: SELECT $hang()}\ntimeout: 150 ms", 150, state => 'MC007');
times_out('of a block, longer than that of a step in it', "steps:\n  a: {sql: SELECT pg_sleep(60), timeout: 150 ms, on_error: {value: \"{{error.class}}\"}}\ntimeout: 30 s",
	150, out => '"timeout"');
times_out('of a block, shorter than that of a step in it', "steps:\n  a: {sql: SELECT pg_sleep(60), timeout: 30 s, on_error: {value: inner}}\ntimeout: 150 ms\non_error: {value: \"outer {{error.class}}\"}",
	150, out => '"outer timeout"');
times_out('with on_error', "model: hang\nprompt: hello\ntimeout: 150 ms\non_error: {value: {class: \"{{error.class}}\", state: \"{{error.sqlstate}}\"}}",
	150, out => '{"class": "timeout", "state": "MC007"}');
times_out('with skip', "sql: SELECT pg_sleep(60)\ntimeout: 150 ms\non_error: skip", 150, out => '');
times_out('with on_error that asks another model', "model: hang\nprompt: hello\ntimeout: 150 ms\non_error: {model: good, prompt: hello}", 150, out => '"A fixed answer."');
times_out('of each item', "each: items\nsql: SELECT 1 FROM pg_sleep({{item}})\ntimeout: 150 ms\non_error: skip\nreturns: value", 150, out => '[1, null, 1]',
	params => { args => 'items jsonb' }, input => "'[0, 60, 0]'");
times_out('of each item that asks', <<'YAML', 150, out => '["A fixed answer.", "timeout", "A fixed answer.", "timeout"]', params => { args => 'items jsonb' }, input => "'[0, 1, 0, 1]'");
each: items
timeout: 150 ms
on_error: {value: "{{error.class}}"}
switch:
  - {when: item == 1, model: hang, prompt: hello}
  - {model: good, prompt: hello}
YAML
times_out('of all rounds', "timeout: 150 ms\nuntil: 1 == 2\nmax: 1000000\nvalue: 1\non_error: {value: \"{{error.class}}\"}", 150, out => '"timeout"');
subtest 'a backoff that would overrun the timeout is not sat out' => sub {
	my $call = make_chain("model: later\nprompt: hello\ntimeout: 20 s");
	my $statement = make_chain("sql: SELECT 1 / 0\ntimeout: 20 s\nretry: {attempts: 3, first: 1 hour, max: 1 hour}");
	my $result;

	$result = $session->run("SELECT $call()");
	is($result->{state}, 'MC002', 'a throttled call fails as such');
	cmp_ok($result->{ms}, '<', 10_000, 'at once');
	$result = $session->run("SELECT $statement()");
	is($result->{state}, '22012', 'a statement fails with its own error');
	cmp_ok($result->{ms}, '<', 10_000, 'at once');
};

subtest 'a slow expression' => sub {
	my $chain = make_chain("when: '$stubborn'\nvalue: 1", args => 't text');
	my $watched = make_chain("steps:\n  a: {when: '$stubborn', value: 1}\non_error: {value: \"{{error.class}}\"}", args => 't text');
	my $result;

	within(
		PROMPT,
		'a regular expression that would run for minutes',
		sub {
			$result = $session->run("SELECT $chain(repeat('a', 100))");
			return ($result->{state} // '') eq 'MC006' ? $result->{ms} - 50 : undef;
		});
	like($result->{message}, qr/too long/, 'message');
	like($result->{hint}, qr/chaincall\.inline_timeout/, 'hint');
	like($result->{context}, qr/^chain $chain, step chain, line 2/m, 'context');
	is($session->must("SELECT $watched(repeat('a', 100))"), '"limit"', 'on_error catches it');
	is($session->must('SELECT 1'), '1', 'the next statement is not cancelled');
};

# --------------------------------------------------------------------------------------------------
# Calls in the air while statements run

subtest 'cold https: a 150 ms model beside a 200 ms query' => sub {
	my ($certificate, $key) = make_certificate('IP:127.0.0.1');
	my $tls = ModelServer->new(tls => [ $certificate, $key ]);
	my $chain;

	add_server($admin, 'tls', $tls, ca_file => $certificate);
	add_model($admin, 'slow', 'tls', 'delay-150');
	$chain = make_chain(<<'YAML');
steps:
  answer: {model: slow, prompt: hello}
  row: {sql: SELECT pg_sleep(0.2)}
output: {answer: "{{answer}}", rows: "{{row}}"}
YAML
	within(
		260,
		'in all',
		sub {
			my $cold = session($node);
			my $result = $cold->run("SELECT $chain()");

			$cold->quit;
			return undef unless $result->{out} =~ /A fixed answer/;
			return $result->{ms};
		});
	is($tls->wait_in_flight(0)->{keys}{repeated}, 0, 'asked once each time');
};

# The answer lies in the socket when the statement ends: it is not late, however late that is.
for my $case ([ 'after 100 ms, timeout 150 ms', 100 ], [ 'after 200 ms, timeout 150 ms', 200 ])
{
	my ($name, $delay) = @$case;

	subtest "what lay in the socket is not late: $name" => sub {
		add_model($admin, "step$delay", 'models', "delay-$delay");
		add_model($admin, "model$delay", 'models', "delay-$delay", timeout => '150 ms');
		my $step = make_chain("steps:\n  a: {model: step$delay, prompt: hello, timeout: 150 ms}\n  b: {sql: SELECT pg_sleep(0.6)}\noutput: \"{{a}}\"");
		my $model = make_chain("steps:\n  a: {model: model$delay, prompt: hello}\n  b: {sql: SELECT pg_sleep(0.6)}\noutput: \"{{a}}\"");
		my $block = make_chain("timeout: 250 ms\nsteps:\n  a: {model: step$delay, prompt: hello}\n  b: {sql: SELECT pg_sleep(0.6)}\noutput: \"{{a}}\"");

		is($session->run("SELECT $step()")->{out}, '"A fixed answer."', 'timeout of the step');
		is($session->run("SELECT $model()")->{out}, '"A fixed answer."', 'timeout of the model');
		is($session->run("SELECT $block()")->{state}, 'MC007', 'but the timeout of a block around both holds for the statement');
		is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
	};
}

subtest 'what did not come is late' => sub {
	my $chain = make_chain("steps:\n  a: {model: hang, prompt: hello, timeout: 150 ms, on_error: {value: \"{{error.class}}\"}}\n  b: {sql: SELECT pg_sleep(0.3)}\noutput: \"{{a}}\"");

	is($session->run("SELECT $chain()")->{out}, '"timeout"', 'timeout');
	is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
};

subtest 'a statement waits at most 50 ms for calls to be sent' => sub {
	my $chain = make_chain("steps:\n  a: {model: hole, prompt: hello, on_error: skip, timeout: 300 ms}\n  b: {sql: SELECT clock_timestamp() - statement_timestamp() AS t}\noutput: \"{{b[0].t}}\"", returns => 'interval');

	within(
		50 + PROMPT,
		'with an address that says nothing',
		sub {
			my $result = $session->run("SELECT extract(epoch FROM $chain()) * 1000");

			return $result->ok ? $result->{out} : undef;
		});
};

subtest 'a large request is sent before the statement runs' => sub {
	my $chain = make_chain(<<'YAML', args => 'text text');
steps:
  a: {model: good, prompt: "{{text}}"}
  b: {sql: SELECT pg_sleep(0.2)}
output: "{{a}}"
YAML
	within(
		300,
		'2 MB beside 200 ms',
		sub {
			my $result = $session->run("SELECT $chain(repeat('many words ', 200000))");

			return $result->{out} eq '"A fixed answer."' ? $result->{ms} : undef;
		});
};

append_to_file($release, 'now');
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'no crash');
$session->quit;
$admin->quit;
$holder->quit;
$node->stop;
done_testing();
