# What a model server can do wrong, and what a session makes of it: the class of the error and its SQLSTATE, what its
# message, detail and hint say, how often the server was asked, that neither key nor prompt gets out, and that nothing
# is left behind.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use IPC::Run ();
use ModelServer;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

use constant KEY => 'sk-key-5f1d0a7c93';
use constant PROMPT => 'prompt-of-somebody-8e2b';

my %sqlstate = (
	transient => 'MC001',
	throttled => 'MC002',
	permanent => 'MC003',
	invalid => 'MC004',
	content => 'MC005',
	limit => 'MC006');

my $release = PostgreSQL::Test::Utils::tempdir() . '/release';
my $models = ModelServer->new(args => [ '--api-key', KEY ]);
my $node = new_node('faults', env => { resolver_env($release) }, conf => "log_min_messages = debug1\n");
my $session = session($node);
my $made = 0;

add_server($session, 'models', $models);
$session->must('CREATE USER MAPPING FOR PUBLIC SERVER models OPTIONS (api_key ' . sql_literal(KEY) . ')');
add_model($session, 'good', 'models', 'fixed');
$session->must('CREATE TABLE prompts AS SELECT ' . sql_literal(PROMPT) . ' AS prompt');

# Makes a server; it has the key, too. Returns its name.
sub make_server
{
	my ($url, %options) = @_;
	my $name = 'server' . ++$made;

	add_server($session, $name, $url, %options);
	$session->must("CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key " . sql_literal(KEY) . ')');
	return $name;
}

# Makes a model that is asked again without delay. Returns its name.
sub make_model
{
	my ($server, $remote_name, %columns) = @_;
	my $name = 'model' . ++$made;

	$columns{retry} //= '{"first": "2 ms"}';
	add_model($session, $name, $server, $remote_name, %columns);
	return $name;
}

sub ask
{
	my ($model) = @_;

	return $session->run("SELECT chaincall.call('$model', prompt) FROM prompts");
}

# Tests what every failure must have.
sub check_error
{
	my ($result, $class, $model, $server, %expected) = @_;
	my $attempts = $expected{attempts} || 1;
	my $status = $expected{status};

	is($result->{state}, $sqlstate{$class}, "SQLSTATE of $class");
	like($result->{message}, qr/model "$model" at server "$server"/, 'message: model and server');
	like($result->{message}, $expected{message}, 'message: what went wrong') if $expected{message};
	like($result->{detail}, qr/\bHTTP $status\b/, 'detail: status') if $status;
	like($result->{detail}, qr/^model $model, server $server, .*class $class, attempts $attempts\b/s, 'detail: model, server, class, attempts')
	  if $attempts ne 'any';
	like($result->{hint}, $expected{hint} || qr/\w+.*\.\z/s, 'hint');
	like($result->{context}, qr/^chain \S+, step \S+, line \d+/m, 'context: chain, step and line');
	unlike($result->{err}, qr/\Q${\KEY}\E/, 'no key');
	unlike($result->{err}, qr/\Q${\PROMPT}\E/, 'no prompt');
	cmp_ok(length $result->{message}, '<', 500, 'message is not long');
	cmp_ok(length $result->{err}, '<', 4000, 'nor is the rest');
	return;
}

# Tests that the session and the server are as before.
sub check_nothing_left
{
	my $stats = $models->wait_in_flight(0);

	is($stats->{in_flight}, 0, 'no request in the air');
	is($session->must("SELECT chaincall.call('good', 'hello')"), 'A fixed answer.', 'the next call works');
	return;
}

# A fault of the model server that fails the call. expected: attempts (how often the server is asked, 1), status, message,
# hint; remote: the model at the server; columns: of the model.
sub fails
{
	my ($fault, $class, %expected) = @_;
	my $remote = $expected{remote} || 'fixed';

	subtest "$fault: $class" => sub {
		my $model = make_model('models', "$remote?$fault", %{ $expected{columns} || {} });
		my $attempts = $expected{attempts} || 1;
		my $keys;

		$models->reset;
		check_error(ask($model), $class, $model, 'models', %expected);
		$keys = $models->keys;
		is(scalar keys %$keys, 1, 'one Idempotency-Key');
		is((values %$keys)[0], $attempts, "the server was asked so often: $attempts") if $attempts ne 'any';
		check_nothing_left();
	};
	return;
}

# A fault that the call survives.
sub survives
{
	my ($fault, $requests, %expected) = @_;

	subtest "$fault: survived" => sub {
		my $model = make_model('models', "fixed?$fault", %{ $expected{columns} || {} });
		my $keys;
		my $result;

		$models->reset;
		$result = ask($model);
		is($result->{out}, 'A fixed answer.', 'answer') or diag($result->{err});
		cmp_ok($result->{ms}, '>=', $expected{least_ms}, 'not before its time') if $expected{least_ms};
		$keys = $models->keys;
		is_deeply([ values %$keys ], [$requests], "$requests requests, with one Idempotency-Key");
		like(join('', keys %$keys), qr/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}-[0-9a-f]+$/, 'made of the run and the request');
		check_nothing_left();
	};
	return;
}

# --------------------------------------------------------------------------------------------------
# Status codes

fails("status=$_", 'permanent', status => $_, message => qr/answered $_\b/) for (400, 401, 403, 404, 405, 413, 418, 422);
fails('status=400&message=' . ('long ' x 45), 'permanent', status => 400, message => qr/answered 400: long long/);
fails("status=$_", 'transient', status => $_, attempts => 5, message => qr/answered $_\b/) for (408, 409, 425, 500, 502, 503, 504, 529);
fails('status=404', 'permanent', status => 404, hint => qr/remote_name/);
fails('status=401&message=wrong+key+' . KEY, 'permanent', status => 401, message => qr/wrong key \*\*\*/, hint => qr/api_key/);
fails('redirect=http://127.0.0.1:1/', 'permanent', status => 302, message => qr/redirect/, hint => qr/url/);
fails('status=307', 'permanent', status => 307);

# The others of a kind, by number of repetitions.
fails('status=500', 'transient', status => 500, attempts => 3, columns => { retry => '{"attempts": 3, "first": "1 ms"}' });
fails('status=500', 'transient', status => 500, attempts => 1, columns => { retry => '0' });
fails('status=500', 'transient', status => 500, attempts => 3, columns => { retry => '{"attempts": 3, "first": 0}' });
survives('status=500&times=4', 5);
survives("$_&times=2", 3) for ('status=503', 'status=408', 'reset=head', 'reset=mid');

# Being throttled uses up time, not attempts; but who wants no repetition gets none.
fails('status=429', 'throttled', status => 429, attempts => 1, columns => { retry => '0' });
subtest 'status=429 without end' => sub {
	my $model = make_model('models', 'fixed?status=429', timeout => '1500 ms', retry => '{"first": "10 ms", "max": "10 ms"}');
	my $result;

	$models->reset;
	$result = ask($model);

	# the time is up in a wait, or while a request is in the air
	like($result->{state}, qr/^MC00[12]$/, 'SQLSTATE');
	like($result->{message}, qr/answered 429|no answer within/, 'message');
	like($result->{hint}, qr/max_in_flight|timeout/, 'hint');
	cmp_ok($models->stats->{by_status}{429}, '>', 5, 'asked more often than there are attempts');
	check_nothing_left();
};
survives('status=429&times=9', 10, columns => { retry => '{"first": "2 ms", "max": "2 ms"}' });
survives('status=429&retry_after=1&times=1', 2, least_ms => 950);
survives('status=503&retry_after=1&times=1', 2, least_ms => 950);
fails("status=$_&retry_after=30", 'throttled', status => $_, attempts => 1, columns => { timeout => '20 s' }) for (429, 503);
fails('status=429&retry_after=Fri%2C+31+Dec+2100+23%3A59%3A59+GMT', 'throttled', status => 429, columns => { timeout => '20 s' });
survives('status=429&retry_after=soon&times=1', 2);
survives('status=429&retry_after=Fri%2C+31+Dec+1999+23%3A59%3A59+GMT&times=1', 2);

# --------------------------------------------------------------------------------------------------
# Broken answers

# libcurl asks once more by itself when a connection that was used before ends without a word: it may have been closed
# long since.
subtest 'reset=head: transient' => sub {
	my $model = make_model('models', 'fixed?reset=head');

	$models->reset;
	check_error(ask($model), 'transient', $model, 'models', attempts => 5, message => qr/broke off/);
	like((values %{ $models->keys })[0], qr/^[56]$/, 'the server was asked so often: 5 or 6');
	check_nothing_left();
};

fails('reset=mid', 'transient', attempts => 5, message => qr/broke off/, status => 200);
fails('broken=json', 'invalid', status => 200, message => qr/not JSON/);
fails('broken=html', 'invalid', status => 200, message => qr/not JSON/, hint => qr/api and url/);
fails('broken=empty', 'invalid', status => 200, message => qr/is empty/);
fails('broken=nul', 'invalid', status => 200, message => qr/NUL byte/);
fails('broken=unul', 'invalid', status => 200, message => qr/\\u0000/);
fails('broken=utf8', 'invalid', status => 200, message => qr/not valid UTF-8/);
fails('broken=deep', 'invalid', status => 200, message => qr/nested too deep/);
fails('broken=type', 'invalid', status => 200, message => qr/no text/);
fails('broken=html&status=502', 'transient', status => 502, attempts => 5);
fails('broken=html&status=404', 'permanent', status => 404);
fails('broken=utf8&status=400', 'permanent', status => 400);
fails('broken=nul&status=400', 'permanent', status => 400);
fails('refuse=1', 'content', status => 200, message => qr/refused/);
fails('refuse=filter', 'content', status => 200, message => qr/filter/);
fails('delay=0', 'invalid', status => 200, message => qr/cut off after 2 tokens; raise params\.max_tokens/, hint => qr/max_tokens/,
	columns => { params => '{"max_tokens": 2}' });
survives($_, 1) for ('gzip=1', 'delay=20', 'status=200', 'drip=200');

subtest 'JSON nested 100,000 deep in a text' => sub {
	my $model = make_model('models', 'fixed?broken=deeptext');
	my $result;

	is(length ask($model)->{out}, 200_000 + length 'A fixed answer.', 'as text it is a text');
	$session->must(<<"SQL");
CREATE FUNCTION deep() RETURNS jsonb LANGUAGE chaincall AS \$chain\$
model: $model
prompt: hello
returns: {label: text}
\$chain\$
SQL
	$result = $session->run('SELECT deep()');
	is($result->{state}, $sqlstate{invalid}, 'as JSON it is invalid');
	like($result->{message}, qr/nested too deep/, 'message');
	check_nothing_left();
};

# --------------------------------------------------------------------------------------------------
# Slow answers

fails('hang=1', 'transient', message => qr/no answer within 150 ms/, hint => qr/timeout/, columns => { timeout => '150 ms' });
fails('drip=1', 'transient', message => qr/no answer within 150 ms/, hint => qr/timeout/, columns => { timeout => '150 ms' });
fails('delay=60000', 'transient', message => qr/no answer within 150 ms/, columns => { timeout => '150 ms' });

subtest 'attempts and waits are one budget' => sub {
	my $model = make_model('models', 'fixed?status=500&delay=40', timeout => '150 ms', retry => '{"attempts": 100, "first": "1 ms", "factor": 1}');
	my $result;

	$result = ask($model);
	is($result->{state}, $sqlstate{transient}, 'SQLSTATE');
	cmp_ok($result->{ms}, '<', 2000, 'it ends');
	like($result->{detail}, qr/attempts [1-4]\b/, 'after the attempts that there was time for');
	check_nothing_left();
};

# --------------------------------------------------------------------------------------------------
# Large answers

# Peak of the backend's own memory, in kB.
sub peak_memory
{
	my ($status) = slurp_file('/proc/' . $session->pid . '/status');

	return $status =~ /^VmHWM:\s+(\d+) kB/m ? $1 : die 'no VmHWM';
}

subtest '100 MB against the bound' => sub {
	my $model = make_model('models', 'fixed?size=100000000', retry => '{"first": "1 ms"}');
	my $before = peak_memory();

	$models->reset;
	check_error(ask($model), 'limit', $model, 'models', status => 200, message => qr/too large/, hint => qr/max_answer/);
	is((values %{ $models->keys })[0], 1, 'asked once');
	cmp_ok(peak_memory() - $before, '<', 48 * 1024, 'memory of the backend stays small');
	check_nothing_left();
};

subtest 'the bound itself' => sub {
	my $server = make_server($models, max_answer => '1MB');
	my $model = make_model($server, 'fixed?size=1048576');

	is(substr(ask($model)->{out}, 0, 15), 'A fixed answer.', 'an answer of its size');
	$model = make_model($server, 'fixed?size=1048577');
	check_error(ask($model), 'limit', $model, $server, message => qr/too large/);
	$session->must('SET chaincall.max_answer = 100');
	is(ask($model)->{state}, $sqlstate{limit}, 'the option goes before the setting');
	$model = make_model('models', 'fixed?size=110000');
	is(ask($model)->{state}, $sqlstate{limit}, 'the setting');
	$session->must('RESET chaincall.max_answer');
	is(substr(ask($model)->{out}, 0, 15), 'A fixed answer.', 'without it');
};

my %endless = (
	'without a length' => "Content-Type: application/json\r\n",
	'in chunks' => "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n");
for my $how (sort keys %endless)
{
	subtest "an endless answer $how" => sub {
		my $raw = RawServer->new(
			sub {
				my ($connection) = @_;
				my $piece = 'x' x 65536;

				$piece = "10000\r\n$piece\r\n" if $how eq 'in chunks';
				print $connection "HTTP/1.1 200 OK\r\n$endless{$how}\r\n";
				1 while print $connection $piece;
			});
		my $server = make_server($raw->url);
		my $model = make_model($server, 'x');
		my $before = peak_memory();

		check_error(ask($model), 'limit', $model, $server, message => qr/too large/);
		cmp_ok(peak_memory() - $before, '<', 48 * 1024, 'memory of the backend stays small');
		check_nothing_left();
	};
}

# 100 MB of zeros are 100 kB of gzip.
subtest 'a gzip bomb' => sub {
	my $bomb;
	my $raw;

	IPC::Run::run([ 'sh', '-c', 'head -c 100000000 /dev/zero | gzip -c' ], '>', \$bomb);
	$raw = RawServer->new(
		sub {
			my ($connection) = @_;

			print $connection "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: "
			  . length($bomb) . "\r\n\r\n$bomb";
		});
	my $server = make_server($raw->url);
	my $model = make_model($server, 'x');
	my $before = peak_memory();

	check_error(ask($model), 'limit', $model, $server, message => qr/too large/);
	cmp_ok(peak_memory() - $before, '<', 48 * 1024, 'memory of the backend stays small');
	check_nothing_left();
};

# --------------------------------------------------------------------------------------------------
# What is no HTTP

my %raw = (
	'not a word' => [ '', 'transient', qr/broke off/ ],
	'not HTTP' => [ "220 smtp.example.com ESMTP\r\n", 'permanent', qr/cannot be asked/ ],
	'half a header' => [ "HTTP/1.1 200 OK\r\nContent-Ty", 'transient', qr/broke off/ ],
	'half an answer' => [ "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"choices\": ", 'transient', qr/broke off/ ],
	'half a chunk' => [ "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{\"choices\"", 'transient', qr/broke off/ ],
	'broken gzip' => [ "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 10\r\n\r\n0123456789", 'transient', qr/./ ],
	'a header without end' => [ "HTTP/1.1 200 OK\r\n" . "X-Header: filled with nothing at all\r\n" x 20_000, undef, qr/./ ],
	'status 999' => [ "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}", undef, qr/./ ],
	'status 204' => [ "HTTP/1.1 204 No Content\r\n\r\n", 'invalid', qr/empty/ ],
	'a body of another type' => [ "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 4\r\n\r\n\x89PNG", 'invalid', qr/./ ]);
for my $what (sort keys %raw)
{
	subtest $what => sub {
		my ($bytes, $class, $message) = @{ $raw{$what} };
		my $raw = RawServer->new(sub { my ($connection) = @_; print $connection $bytes; });
		my $server = make_server($raw->url);
		my $model = make_model($server, 'x');
		my $result = ask($model);
		my %classes = reverse %sqlstate;

		check_error($result, $class || $classes{ $result->{state} }, $model, $server, attempts => 'any', message => $message);
		check_nothing_left();
	};
}

# --------------------------------------------------------------------------------------------------
# Ways to a server

sub unreachable
{
	my ($what, $url, $class, %expected) = @_;

	subtest $what => sub {
		my $server = make_server($url, %{ $expected{options} || {} });
		my $model = make_model($server, 'fixed', %{ $expected{columns} || {} });

		check_error(ask($model), $class, $model, $server, attempts => $class eq 'transient' ? 5 : 1, %expected);
		check_nothing_left();
	};
	return;
}

my $closed = RawServer->closed;
my $hole = RawServer->black_hole;
my $mute = RawServer->mute;

my $late = qr/no connection within 100 ms|time-?out|timed out/i;

unreachable('a server that is not there', $closed->url, 'transient', message => qr/cannot be reached/, hint => qr/url/);
unreachable('a name that does not resolve', 'http://gone.test:80', 'transient', message => qr/does not resolve/, hint => qr/url/);
unreachable('an address that says nothing', $hole->url, 'transient', attempts => 1, message => $late,
	options => { connect_timeout => '100 ms' }, columns => { retry => '0' });
unreachable('a TLS handshake that is not answered', 'https://127.0.0.1:' . $mute->port, 'transient', attempts => 1, message => $late,
	options => { connect_timeout => '100 ms' }, columns => { retry => '0' });
unreachable('https to a server that speaks http', 'https://127.0.0.1:' . $models->port, 'transient', message => qr/cannot be reached/);
unreachable('a link-local address', 'http://169.254.169.254', 'permanent', message => qr/refused/, hint => qr/allowed_networks/);
unreachable('a name for a link-local address', 'http://metadata.test', 'permanent', message => qr/refused/, hint => qr/allowed_networks/);
unreachable('a wrong path', $models->url . '/nowhere', 'permanent', status => 404, hint => qr/url/);

subtest 'a name that resolves slowly' => sub {
	my $server = make_server('http://slow.test:' . $models->port . '/v1', connect_timeout => '100 ms');
	my $model = make_model($server, 'fixed', retry => '0');
	my $other = session($node);

	check_error(ask($model), 'transient', $model, $server, message => qr/not looked up within 100 ms|timed out after \d+ milliseconds/, hint => qr/url/);
	check_nothing_left();

	# a session may leave while its look-up hangs
	$other->run("SELECT chaincall.call('$model', 'hello')");
	$other->quit;
	wait_until(sub { $session->must('SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $other->pid) eq '0' }, 'the session has left');

	$session->must("ALTER SERVER $server OPTIONS (SET connect_timeout '60 s')");
	$session->send("SELECT chaincall.call('$model', 'hello')");
	wait_until(
		sub { $node->safe_psql('postgres', 'SELECT wait_event FROM pg_stat_activity WHERE pid = ' . $session->pid) =~ /^(ChaincallHttp|Extension)$/ },
		'the call waits for the look-up');
	append_to_file($release, 'now');
	is($session->result->{out}, 'A fixed answer.', 'it is waited for');
};

subtest 'certificates' => sub {
	my ($certificate, $key) = make_certificate('IP:127.0.0.1');
	my $tls = ModelServer->new(tls => [ $certificate, $key ]);
	my $url = $tls->url . '/v1';

	unreachable('one that nobody vouches for', $url, 'transient', message => qr/no secure connection/, hint => qr/ca_file/);
	unreachable('one for another name', "https://local.test:" . $tls->port . '/v1', 'transient', message => qr/no secure connection/,
		options => { ca_file => $certificate });
	unreachable('an authority that cannot be read', $url, 'transient', message => qr/no secure connection/, options => { ca_file => '/nonexistent' });
	is($tls->stats->{requests}, 0, 'no request was sent');
	is(ask(make_model(make_server($tls, ca_file => $certificate), 'fixed'))->{out}, 'A fixed answer.', 'with its authority it works');
	is($tls->stats->{requests}, 1, 'the request came');
};

# --------------------------------------------------------------------------------------------------

my $log = slurp_file($node->logfile);
unlike($log, qr/\Q${\KEY}\E/, 'no key in the log of the server');
unlike($log, qr/\Q${\PROMPT}\E/, 'no prompt in the log of the server');
unlike($log, qr/TRAP|PANIC|WARNING|terminated by signal/, 'no warning and no crash either');

$session->quit;
$node->stop;
done_testing();
