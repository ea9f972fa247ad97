# Jobs whose world falls to pieces, that are too many or too large, or wait: each ends with a clear error or goes on when
# it can, and the worker that has them in hand lives on.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

my $models = ModelServer->new;
my $closed = RawServer->closed;
my $mute = RawServer->mute;
# Services fail here all the time: their circuits would open.
my $node = jobs_node('bad', "chaincall.breaker_failures = 0\nchaincall.executor_idle = 2s\nchaincall.max_callers = 1\n");
my $s = session($node);
my $caller;

add_server($s, 's', $models);
add_model($s, 'fixed', 's', 'fixed', retry => '0');
add_model($s, 'echo', 's', 'echo', retry => '0');
add_model($s, 'slow', 's', 'delay-300', retry => '0');
add_model($s, 'hang', 's', 'fixed?hang=1', retry => '0');
$s->must('CREATE ROLE app LOGIN; CREATE ROLE other LOGIN; CREATE ROLE maker LOGIN');
$s->must("SELECT chaincall.grant_usage('$_'); GRANT USAGE ON FOREIGN SERVER s TO $_; GRANT USAGE, CREATE ON SCHEMA public TO $_") for ('app', 'other', 'maker');
$s->must("GRANT CREATE ON DATABASE postgres TO maker");

# Makes a chain; as a role.
sub chain
{
	my ($name, $body, $role) = @_;

	$s->must("SET ROLE $role") if $role;
	$s->must("CREATE OR REPLACE FUNCTION $name LANGUAGE chaincall AS \$chain\$\n$body\n\$chain\$");
	$s->must('RESET ROLE') if $role;
	return;
}

chain('hello(n int) RETURNS text', '{model: fixed, prompt: "{{n}}"}');
chain('hanging(n int) RETURNS text', '{model: hang, prompt: "{{n}}"}');
$caller = pid_of($s, 'caller');

# Tests that jobs run, by the same caller as ever.
sub lives_on
{
	my $id = submit($s, 'hello', '{"n": 1}');

	is(wait_jobs($s, "id = '$id'"), 'succeeded 1', 'the next job runs');
	return is(pid_of($s, 'caller'), $caller, 'in the same worker');
}

# Tests how a job has ended: state, class, message (regex).
sub ends
{
	my ($id, $state, $class, $message, $what) = @_;
	my $how;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_jobs($s, "id = '$id'");
	$how = state_of($s, $id);
	return like($how, qr/^$state $class .*$message/s, $what || $how);
}

# --------------------------------------------------------------------------------------------------
# Gone

# What is broken between enqueuing and running, by: name, things made before (chain f(n int) among them), what breaks
# them, class, message. The job is enqueued as role app.
my $slow_first = "steps:\n  a: {model: slow, prompt: \"{{n}}\"}\n";
my @broken = (
	[ 'the chain is dropped', [ [ 'f(n int) RETURNS text', '{model: fixed, prompt: "{{n}}"}' ] ], 'DROP FUNCTION f(int)', 'sql', 'chain public.f\(integer\) does not exist' ],
	[ 'a chain it calls is dropped', [ [ 'g(n int) RETURNS text', '{model: fixed, prompt: "{{n}}"}' ], [ 'f(n int) RETURNS text', "${slow_first}  b: {function: public.g, args: {n: \"{{n}}\"}, after: a}" ] ],
		'DROP FUNCTION g(int)', 'sql', 'chain public.g\(integer\) does not exist' ],
	[ 'a function it calls is dropped', [ 'CREATE FUNCTION h(n int) RETURNS int LANGUAGE sql AS \'SELECT n\'', [ 'f(n int) RETURNS int', "${slow_first}  b: {function: public.h, args: {n: \"{{n}}\"}, after: a}" ] ],
		'DROP FUNCTION h(int)', 'sql', 'function public.h\(.*\) does not exist' ],
	[ 'a column is dropped', [ 'CREATE TABLE t (x int, y int); GRANT ALL ON t TO app', [ 'f(n int) RETURNS int', "${slow_first}  b: {sql: \"SELECT y FROM t WHERE x = {{n}}\", returns: value, after: a}" ] ],
		'ALTER TABLE t DROP COLUMN y', 'sql', 'column "?y"? does not exist' ],
	[ 'a table is dropped', [ 'CREATE TABLE u (x int); GRANT ALL ON u TO app', [ 'f(n int) RETURNS int', "${slow_first}  b: {sql: \"SELECT x FROM u WHERE x = {{n}}\", returns: value, after: a}" ] ],
		'DROP TABLE u', 'sql', 'relation "u" does not exist' ],
	[ 'a type is dropped', [ 'CREATE DOMAIN positive AS int CHECK (VALUE > 0)', [ 'f(n int) RETURNS positive', "${slow_first}  b: {value: 5, after: a}" ] ],
		'DROP DOMAIN positive CASCADE', '\S+', 'does not exist' ],
	[ 'the model is deleted', [ "INSERT INTO chaincall.model (name) VALUES ('gone'); INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('gone', 's', 'fixed')",
			[ 'f(n int) RETURNS text', "${slow_first}  b: {model: gone, prompt: \"{{n}}\", after: a}" ] ],
		"DELETE FROM chaincall.model WHERE name = 'gone'", '\S+', 'model "gone"' ],
	[ 'the server is dropped', [ "CREATE SERVER gone FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url '" . $models->url . "/v1'); GRANT USAGE ON FOREIGN SERVER gone TO app;"
			  . "INSERT INTO chaincall.model (name) VALUES ('there'); INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('there', 'gone', 'fixed')",
			[ 'f(n int) RETURNS text', "${slow_first}  b: {model: there, prompt: \"{{n}}\", after: a}" ] ],
		'DROP SERVER gone CASCADE', '\S+', '(?:server "gone"|model "there")' ],
	[ 'EXECUTE on the chain is revoked', [ [ 'f(n int) RETURNS text', '{model: fixed, prompt: "{{n}}"}' ] ], 'REVOKE EXECUTE ON FUNCTION f(int) FROM PUBLIC, app', 'denied', 'permission denied for chain public.f' ],
	[ 'EXECUTE on a chain it calls is revoked', [ [ 'g(n int) RETURNS text', '{model: fixed, prompt: "{{n}}"}' ], [ 'f(n int) RETURNS text', "${slow_first}  b: {function: public.g, args: {n: \"{{n}}\"}, after: a}" ] ],
		'REVOKE EXECUTE ON FUNCTION g(int) FROM PUBLIC', 'denied', 'permission denied for chain public.g' ],
	[ 'EXECUTE on a function is revoked', [ 'CREATE FUNCTION h(n int) RETURNS int LANGUAGE sql AS \'SELECT n\'', [ 'f(n int) RETURNS int', "${slow_first}  b: {function: public.h, args: {n: \"{{n}}\"}, after: a}" ] ],
		'REVOKE EXECUTE ON FUNCTION h(int) FROM PUBLIC', '(?:sql|denied)', 'permission denied for function h' ],
	[ 'USAGE of the server is revoked', [ [ 'f(n int) RETURNS text', "${slow_first}  b: {model: fixed, prompt: \"{{n}}\", after: a}" ] ], 'REVOKE USAGE ON FOREIGN SERVER s FROM app', 'denied', 'permission denied for model .*',
		'GRANT USAGE ON FOREIGN SERVER s TO app' ],
	[ 'a table is taken away', [ 'CREATE TABLE w (x int); GRANT ALL ON w TO app', [ 'f(n int) RETURNS int', "${slow_first}  b: {sql: \"SELECT count(*) FROM w\", returns: value, after: a}" ] ],
		'REVOKE ALL ON w FROM app', '\S+', 'permission denied for table w' ],
);

for my $case (@broken)
{
	my ($what, $made, $break, $class, $message, $mend) = @$case;

	for my $when ('queued', 'running')
	{
		next if $when eq 'running' && $made->[-1][1] !~ /slow/;
		subtest "$what while a job is $when" => sub {
			my $id;

			$s->must('DROP FUNCTION IF EXISTS f(int), g(int), h(int); DROP TABLE IF EXISTS t, u, w; DROP DOMAIN IF EXISTS positive; DROP SERVER IF EXISTS gone CASCADE;'
				  . q{DELETE FROM chaincall.model WHERE name IN ('gone', 'there')});
			ref $_ ? chain(@$_) : $s->must($_) for @$made;
			$models->reset;
			$s->must('BEGIN') if $when eq 'queued';
			$s->must('SET ROLE app');
			$id = submit($s, 'f', '{"n": 1}');
			$s->must('RESET ROLE');
			$models->wait_in_flight(1) if $when eq 'running';
			$s->must($break);
			$s->must('COMMIT') if $when eq 'queued';
			ends($id, 'failed', $class, $message);
			$s->must($mend) if $mend;
			lives_on();
		};
	}
}

subtest 'the owner is dropped' => sub {
	my %jobs;

	chain('calls(n int) RETURNS text', "${slow_first}  b: {model: fixed, prompt: \"{{n}}\", after: a}");
	chain('states(n int) RETURNS int', "${slow_first}  b: {sql: SELECT 1, returns: value, after: a}");
	for my $when ('queued', 'running')
	{
		for my $name ('calls', 'states')
		{
			$s->must("CREATE ROLE leaver LOGIN; SELECT chaincall.grant_usage('leaver'); GRANT USAGE ON FOREIGN SERVER s TO leaver");
			$models->reset;
			$s->must('BEGIN') if $when eq 'queued';
			$s->must('SET ROLE leaver');
			$jobs{$name} = submit($s, $name, '{"n": 1}');
			$s->must('RESET ROLE');
			$models->wait_in_flight(1) if $when eq 'running';
			$s->must('DROP OWNED BY leaver; DROP ROLE leaver');
			$s->must('COMMIT') if $when eq 'queued';
			ends($jobs{$name}, 'failed', 'denied', '(?:permission denied|no longer exists|does not exist)');
		}
	}
	lives_on();
	is($s->must('SELECT owner FROM chaincall.job_status WHERE id = \'' . $jobs{calls} . '\'') =~ /unknown/ ? 1 : 0, 1, 'the views bear it');
};

# --------------------------------------------------------------------------------------------------
# Too much

subtest 'an input over the limit' => sub {
	my $result;

	$s->must(q{SET chaincall.max_input = '4kB'});
	chain('long_text(t text) RETURNS text', '{value: "{{t}}"}');
	$result = $s->run(q{INSERT INTO chaincall.job (chain, input) VALUES ('long_text', jsonb_build_object('t', repeat('x', 5000)))});
	is($result->{state} // '', 'MC006', 'class limit') or diag($result->{err});
	like($result->{hint} // '', qr/chaincall\.max_input/, 'what to raise');
	$s->must('RESET chaincall.max_input');
};

subtest 'more queued jobs than a role may have' => sub {
	my $app;
	my $refused = qr/^role "app" has 5 jobs|too many|already has/;
	my $result;
	my $rows = sub { return "INSERT INTO chaincall.job (chain, input, run_at) SELECT 'hanging', jsonb_build_object('n', g), $_[1] FROM generate_series(1, $_[0]) g"; };

	$s->must('ALTER ROLE app SET chaincall.max_queued = 5');
	$app = session($node, user => 'app');
	is($app->run($rows->(6, q{'tomorrow'}))->{state} // '', 'MC006', 'six at once');
	ok($app->run($rows->(5, q{'tomorrow'}))->ok, 'five');
	$result = $app->run($rows->(1, q{'tomorrow'}));
	ok(!$result->ok, 'no more');
	like($result->{hint} // '', qr/chaincall\.max_queued/, 'what to raise');
	ok($s->run(q{SET ROLE other; INSERT INTO chaincall.job (chain, input) VALUES ('hello', '{"n": 1}'); RESET ROLE})->ok, 'others are not bound by that');
	$app->must(q{SELECT chaincall.cancel(id) FROM chaincall.job WHERE state = 'waiting'});
	is(wait_jobs($s, q{owner = 'app'::regrole AND chain ~ 'hanging'}), 'cancelled 5', 'cancelled');
	$app->must('BEGIN; ' . $rows->(5, q{'tomorrow'}) . '; ROLLBACK');
	ok($app->run($rows->(5, 'now()'))->ok, 'there is room again');
	$models->wait_in_flight(5);
	wait_until(sub { $app->run($rows->(5, 'now()'))->ok }, 'room when they have started');
	$models->wait_in_flight(10);
	$app->must(q{SELECT chaincall.cancel(id) FROM chaincall.job WHERE state = 'running'});
	is(wait_jobs($s, q{owner = 'app'::regrole AND chain ~ 'hanging'}), 'cancelled 15', 'cancelled');
	$app->quit;
	$s->must('ALTER ROLE app RESET chaincall.max_queued');
	lives_on();
};

subtest 'a job that needs too much memory' => sub {
	my $id;

	set_conf($s, 'chaincall.job_memory' => '1MB');
	chain('heavy(t text) RETURNS jsonb', "each: 2000\nmodel: echo\nprompt: \"{{item}} {{t}}\"");
	$id = $s->must(q{SELECT chaincall.submit('heavy', jsonb_build_object('t', repeat('x', 5000)))});
	ends($id, 'failed', 'limit', 'too much memory');
	is($s->must("SELECT error->>'hint' FROM chaincall.job WHERE id = '$id'"), 'Raise chaincall.job_memory, or enqueue smaller jobs.', 'what to raise');
	lives_on();
	set_conf($s, 'chaincall.job_memory' => undef);
};

subtest 'a setting that makes errors fatal' => sub {
	my $id;

	chain('missing(n int) RETURNS text', '{value: "{{n.missing}}"}');
	$s->must('ALTER DATABASE postgres SET exit_on_error = on');
	$s->must("SELECT pg_terminate_backend($caller)");
	has_pid_but($s, 'caller', $caller);
	$caller = pid_of($s, 'caller');
	$id = submit($s, 'missing', '{"n": 1}');
	ends($id, 'failed', 'input', '', 'the job fails by its own error');
	is($s->must("SELECT deaths FROM chaincall.job WHERE id = '$id'"), '0', 'it has not killed its worker');
	lives_on();
	$s->must('ALTER DATABASE postgres RESET exit_on_error');
};

subtest 'a slow expression' => sub {
	my @ids;

	chain('stubborn(t text) RETURNS text', qq{steps:\n  a: {model: fixed, prompt: x}\n  b: {when: 't like_regex "^(a*)(a*)(a*)(a*)(a*)\\\\1\\\\2\\\\3b?\\\\4\\\\5a\$"', value: 1, after: a}\n});
	@ids = map { submit($s, 'stubborn', '{"t": "' . ('a' x 400) . '"}') } 1 .. 3;
	$s->must(q{INSERT INTO chaincall.job (chain, input, labels) SELECT 'hello', jsonb_build_object('n', g), '{"beside": true}' FROM generate_series(1, 20) g});
	is(wait_jobs($s, q{labels <> '{}'}), 'succeeded 20', 'others go on');
	ends($_, 'failed', 'limit', 'took too long') for @ids;
	lives_on();
};

# --------------------------------------------------------------------------------------------------
# Model servers

subtest 'bad model servers' => sub {
	my $half = RawServer->new(sub { my $c = shift; print {$c} "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"choices\": [{\"mess"; });
	my %server = (
		closed => [ $closed->url . '/v1', 'fixed', 'transient', 'cannot be reached' ],
		mute => [ $mute->url . '/v1', 'fixed', 'transient', 'no answer within' ],
		broken_off => [ $half->url . '/v1', 'fixed', '\S+', 'server "broken_off"' ],
		hang => [ undef, 'fixed?hang=1', 'transient', 'no answer within' ],
		drip => [ undef, 'fixed?drip=1', 'transient', 'no answer within' ],
		huge => [ undef, 'fixed?size=100000000', '(?:invalid|limit)', 'larger|large' ],
		nul => [ undef, 'fixed?broken=nul', 'invalid', '' ],
		unul => [ undef, 'fixed?broken=unul', 'invalid', '' ],
		utf8 => [ undef, 'fixed?broken=utf8', 'invalid', '' ],
		json => [ undef, 'fixed?broken=json', 'invalid', '' ],
		empty => [ undef, 'fixed?broken=empty', 'invalid', '' ],
		deep => [ undef, 'fixed?broken=deep', 'invalid', '' ],
		reset => [ undef, 'fixed?reset=mid', 'transient', '' ],
		status => [ undef, 'fixed?status=500', 'transient', '500' ],
		refused => [ undef, 'fixed?status=400', 'permanent', '400' ],
	);
	my %ids;

	for my $name (sort keys %server)
	{
		my ($url, $remote) = @{ $server{$name} };

		add_server($s, $name, $url || $models);
		add_model($s, "bad_$name", $name, $remote, retry => '0', timeout => '400 ms') unless $name =~ /huge/;
		add_model($s, "bad_$name", $name, $remote, retry => '0') if $name =~ /huge/;
		chain("bad_$name(n int) RETURNS text", "{model: bad_$name, prompt: \"{{n}}\"}");
	}
	$ids{$_} = submit($s, "bad_$_", '{"n": 1}') for keys %server;
	$s->must(q{INSERT INTO chaincall.job (chain, input, labels) SELECT 'hello', jsonb_build_object('n', g), '{"beside": 2}' FROM generate_series(1, 20) g});
	is(wait_jobs($s, q{labels = '{"beside": 2}'}), 'succeeded 20', 'others go on');
	ends($ids{$_}, 'failed', $server{$_}[2], $server{$_}[3]) for sort keys %server;
	is($s->must("SELECT count(*) FROM chaincall.span WHERE try = 1 AND class IS NOT NULL AND message <> '' AND job IN (" . join(', ', map { "'$_'" } values %ids) . ')'),
		scalar(keys %server), 'each attempt has a span that says why');
	lives_on();
};

# What a call does after its first attempt it does outside transactions.
subtest 'calls that are asked again' => sub {
	my %quick = (retry => '{"first": "5 ms", "max": "5 ms"}');
	my %chains = (
		retried => [ 'text', '{model: retried, prompt: "{{n}}"}' ],
		throttled => [ 'text', '{model: throttled, prompt: "{{n}}"}' ],
		other_error => [ 'text', '{model: other_error, prompt: "{{n}}"}' ],
		reasked => [ 'jsonb', '{model: reasked, prompt: "{{n}}", returns: {n: int, label: [a, b]}}' ],
		narrow => [ 'jsonb', "each: 12\nmodel: narrow\nprompt: \"{{item}}\"" ],
		switched => [ 'text', "model: gives_way\nprompt: \"{{n}}\"\non_error: {value: \"{{error.class}}\"}" ],
	);

	add_server($s, 'narrow', $models, max_in_flight => 2);
	add_model($s, 'retried', 's', 'echo?status=503&times=2', %quick);
	add_model($s, 'throttled', 's', 'echo?status=429&times=1&message=later', %quick);
	add_model($s, 'other_error', 's', 'fixed?status=500&times=1', %quick);
	add_model($s, 'reasked', 's', 'labels?miss=1', %quick);
	add_model($s, 'narrow', 'narrow', 'delay-5', %quick);
	add_model($s, 'gives_way', 's', 'fixed?reset=mid', retry => '{"first": "5 ms", "attempts": 2}');
	chain("$_(n int) RETURNS $chains{$_}[0]", $chains{$_}[1]) for keys %chains;
	$s->must("INSERT INTO chaincall.job (chain, input, labels) SELECT '$_', jsonb_build_object('n', g), '{\"again\": true}' FROM generate_series(1, 5) g") for keys %chains;
	is(wait_jobs($s, q{labels = '{"again": true}'}), 'succeeded ' . 5 * keys %chains, 'all have succeeded')
	  or diag($s->must(q{SELECT DISTINCT chain, error FROM chaincall.job WHERE labels = '{"again": true}' AND state = 'failed'}));
	is($s->must(q{SELECT count(*) FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job WHERE j.labels = '{"again": true}' AND j.chain ~ 'retried' AND s.class = 'transient'}), '10', 'failures have spans');
	lives_on();
};

# --------------------------------------------------------------------------------------------------
# Waiting

subtest 'what waits is out of memory and survives a restart' => sub {
	my ($wait, $later);

	$models->reset;
	add_model($s, 'comes_back', 's', 'echo?status=500&times=2', retry => '{"first": "2 s", "max": "2 s", "factor": 1, "attempts": 6}');
	add_model($s, 'stays_away', 's', 'hash-embedding?status=500', retry => '{"first": "2 s", "max": "2 s", "factor": 1, "attempts": 3}');
	chain('waits(n int) RETURNS text', "steps:\n  a: {model: fixed, prompt: \"{{n}}\"}\n  w: {wait: 1500 ms, after: a}\n  z: {model: slow, prompt: \"{{n}}\", after: w}");
	chain('backs_off(n int) RETURNS text', '{model: comes_back, prompt: "{{n}}"}');
	chain('gives_up(n int) RETURNS text', '{model: stays_away, prompt: "{{n}}"}');
	set_conf($s, 'chaincall.park_after' => '20ms');
	$wait = submit($s, 'waits', '{"n": 1}');
	$later = submit($s, 'hello', '{"n": 1}', q{run_at => now() + '1500 ms'});
	wait_sql($s, "SELECT count(*) = 2 FROM chaincall.job WHERE state = 'waiting' AND id IN ('$wait', '$later')");
	wait_sql($s, 'SELECT sum(jobs_in_hand) = 0 FROM chaincall.stat_worker');
	pass('no worker has them in hand');
	is($s->must("SELECT waits_for FROM chaincall.job_status WHERE id = '$wait'"), 'time', 'job_status says what they wait for');
	$s->quit;
	$node->stop('immediate');
	$node->start;
	$s = reconnect($node);
	is($s->must("SELECT string_agg(state, ' ') FROM chaincall.job WHERE id IN ('$wait', '$later')"), 'waiting waiting', 'after a restart they still wait');
	is(wait_jobs($s, "id IN ('$wait', '$later')"), 'succeeded 2', 'and go on in time');
	is($models->stats->{by_model}{delay}, 1, 'behind the wait, once');
	is($s->must("SELECT finished_at - created_at BETWEEN '1500 ms' AND '30 s' FROM chaincall.job WHERE id = '$wait'"), 't', 'not before');

	# waits are drawn by lot: of many jobs some are parked
	$models->reset;
	$s->must(q{INSERT INTO chaincall.job (chain, input, labels) SELECT c, jsonb_build_object('n', g), '{"backoff": true}' FROM generate_series(1, 6) g, unnest('{backs_off,gives_up}'::text[]) c});
	wait_sql($s, q{SELECT count(DISTINCT chain) = 2 FROM chaincall.job WHERE state = 'waiting' AND labels = '{"backoff": true}'});
	pass('a long backoff leaves the caller too');
	is(wait_jobs($s, q{labels = '{"backoff": true}'}), 'failed 6 succeeded 6', 'and goes on');
	is($s->must(q{SELECT DISTINCT string_agg(try || coalesce(class, ''), ' ' ORDER BY try) FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job WHERE chain ~ 'backs_off' GROUP BY job}),
		'0 1transient 2transient', 'with the attempts that it took');
	is($s->must(q{SELECT DISTINCT string_agg(try || coalesce(class, ''), ' ' ORDER BY try) FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job WHERE chain ~ 'gives_up' GROUP BY job}),
		'1transient 2transient 3transient', 'and no more than it may');
	is(join(' ', sort values %{ $models->keys }), join(' ', (3) x 12), 'under one key each');
	set_conf($s, 'chaincall.park_after' => undef);
	$caller = pid_of($s, 'caller');
	lives_on();
};

subtest 'cancel' => sub {
	my ($queued, $waiting, $parked, $running, $step, $locker);

	chain('sleeps(n int) RETURNS text', '{sql: "SELECT pg_sleep(600)", returns: value}');
	chain('pauses(n int) RETURNS text', '{wait: 1 h}');
	chain('fan(n int) RETURNS jsonb', "each: \"n\"\nmodel: hang\nprompt: \"{{item}}\"");
	$models->reset;
	$running = submit($s, 'fan', '{"n": 20}');
	$step = submit($s, 'sleeps', '{"n": 1}');
	$parked = submit($s, 'pauses', '{"n": 1}');
	$waiting = submit($s, 'hello', '{"n": 1}', q{run_at => now() + '1 h'});
	$queued = $s->must(q{BEGIN; SELECT chaincall.submit('hello', '{"n": 1}')});
	is($s->must("SELECT count(*) FROM (SELECT chaincall.cancel('$queued')) c; COMMIT"), '1', 'in the transaction that enqueues');
	$models->wait_in_flight(20);
	wait_sql($s, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND wait_event = 'PgSleep'});
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$parked'");
	$s->must("SELECT chaincall.cancel('$_')") for ($running, $step, $parked, $waiting);
	for my $id ($running, $step, $parked, $waiting)
	{
		wait_jobs($s, "id = '$id'");
		like(state_of($s, $id), qr/^cancelled cancelled the job was cancelled/, 'cancelled');
	}
	$models->wait_in_flight(0);
	pass('the calls are hung up');
	wait_sql($s, q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'chaincall executor' AND wait_event = 'PgSleep'});
	pass('the statement has stopped');
	like(state_of($s, $queued), qr/^(?:cancelled|succeeded)/, 'what was queued is one or the other');
	wait_sql($s, q{SELECT count(*) = 0 FROM chaincall.action WHERE state = 'pending'});
	is($s->must(q{SELECT count(*) FROM chaincall.action WHERE state = 'refused' AND job <> '} . $queued . q{'}), '0', 'no action was refused');
	$s->must("SELECT chaincall.cancel('$running')");
	wait_sql($s, qq{SELECT count(*) = 1 FROM chaincall.action WHERE job = '$running' AND state = 'refused' AND reason ~ 'already ended'});
	pass('a second cancel is refused');
	lives_on();
};

subtest 'result' => sub {
	my $id = submit($s, 'hanging', '{"n": 1}');
	my $waits = session($node);
	my $result;

	$result = $waits->run("SELECT chaincall.result('$id', '100 ms')");
	ok(!$result->ok, 'a time-out') or diag($result->{out});
	like($result->{message} // '', qr/has not ended/, 'message');
	$result = $waits->run("SET statement_timeout = '100 ms'; SELECT chaincall.result('$id')");
	is($result->{state}, '57014', 'statement_timeout');
	$waits->must('RESET statement_timeout');
	$waits->send("SELECT chaincall.result('$id')");
	wait_sql($s, 'SELECT wait_event_type = \'Extension\' FROM pg_stat_activity WHERE pid = ' . $waits->pid);
	$s->must('SELECT pg_cancel_backend(' . $waits->pid . ')');
	is($waits->result->{state}, '57014', 'a cancel of the statement');
	is(state_of($s, $id), 'running', 'is none of the job');
	$waits->send("SELECT chaincall.result('$id')");
	wait_sql($s, 'SELECT wait_event_type = \'Extension\' FROM pg_stat_activity WHERE pid = ' . $waits->pid);
	$s->must("SELECT chaincall.cancel('$id')");
	like($waits->result->{message}, qr/was cancelled/, 'a cancel of the job is told');
	$id = submit($s, 'hello', '{"n": 1}');
	is($waits->must("SELECT chaincall.result('$id')"), '"A fixed answer."', 'an output');
	$id = submit($s, 'bad_refused', '{"n": 1}');
	$result = $waits->run("SELECT chaincall.result('$id')");
	is($result->{state}, 'MC003', 'an error, as the call itself raises it') or diag($result->{err});
	like($waits->run("SELECT chaincall.result('00000000-0000-7000-8000-000000000000')")->{message}, qr/does not exist|no such job/, 'no such job');
	$waits->quit;
	lives_on();
};

$s->quit;
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');

# --------------------------------------------------------------------------------------------------
# The server's settings

subtest 'too few worker slots' => sub {
	my $few = new_node('few', conf => "shared_preload_libraries = 'chaincall'\nmax_worker_processes = 3\nmax_logical_replication_workers = 0\n");
	my $in = session($few);

	add_server($in, 's', $models);
	add_model($in, 'fixed', 's', 'fixed', retry => '0');
	$in->must(q{CREATE FUNCTION hello(n int) RETURNS text LANGUAGE chaincall AS '{model: fixed, prompt: "{{n}}"}'});
	$in->must(q{CREATE FUNCTION states(n int) RETURNS int LANGUAGE chaincall AS '{sql: "SELECT {{n}} + 1", returns: value}'});
	$in->must(q{INSERT INTO chaincall.job (chain, input) VALUES ('states', '{"n": 1}'), ('hello', '{"n": 1}')});
	is(wait_jobs($in, q{chain ~ 'hello'}), 'succeeded 1', 'what needs no executor runs');
	wait_until(sub { slurp_file($few->logfile) =~ /chaincall executor.*all background worker slots are taken/ }, 'the log says what is missing');
	like(slurp_file($few->logfile), qr/HINT: +Raise max_worker_processes \(3 now\)/, 'and what to do');
	wait_sql($in, q{SELECT count(*) = 1 FROM chaincall.alert WHERE kind = 'executor' AND hint ~ 'max_worker_processes'});
	pass('so does an alert');
	is($in->must(q{SELECT state FROM chaincall.job WHERE chain ~ 'states'}), 'running', 'the job waits');
	$in->quit;
	$few->append_conf('postgresql.conf', "max_worker_processes = 16\n");
	$few->restart;
	$in = reconnect($few);
	is(wait_jobs($in), 'succeeded 2', 'and goes on when there are some');
	$in->quit;
	$few->stop;
};

subtest 'not preloaded' => sub {
	my $plain = new_node('plain');
	my $in = session($plain);
	my $result;

	add_server($in, 's', $models);
	add_model($in, 'fixed', 's', 'fixed', retry => '0');
	$in->must(q{CREATE FUNCTION hello(n int) RETURNS text LANGUAGE chaincall AS '{model: fixed, prompt: "{{n}}"}'});
	is($in->must('SELECT hello(1)'), 'A fixed answer.', 'sessions work');
	for my $sql (q{INSERT INTO chaincall.job (chain, input) VALUES ('hello', '{"n": 1}')}, q{SELECT chaincall.submit('hello', '{"n": 1}')})
	{
		$result = $in->run($sql);
		is($result->{state}, '55000', "$sql: refused");
		like($result->{message}, qr/background workers, which are not running/, 'message') or diag($result->{err});
		like($result->{hint}, qr/shared_preload_libraries = 'chaincall'/, 'the line to add');
	}
	is($in->must('SELECT count(*) FROM chaincall.stat_model, chaincall.activity, chaincall.job_status'), '0', 'views are there');
	$in->quit;
	$plain->stop;
};

done_testing();
