# What becomes of calls when services fail: fallback models, shares of one budget, circuit breakers and cool-downs that all
# processes share, endpoints that hang, keys that are refused; in sessions and in jobs.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";
use Chaincall;
use Jobs;
use ModelServer;
use POSIX ();
use RawServer;
use Test::More;

my $node = jobs_node('fallback', "chaincall.breaker_failures = 0\n");
my ($good, $bad, $third) = map { ModelServer->new } 1 .. 3;
my $s = session($node);

add_server($s, 'good', $good);
add_server($s, 'bad', $bad);
add_server($s, 'third', $third);

# A model: its endpoint's server, what that does, its retry policy of short waits, its fallback.
sub model
{
	my ($name, $server, $remote, %columns) = @_;

	$columns{retry} //= '{"first": 5}';
	add_model($s, $name, $server, $remote, %columns);
	return;
}

sub drop_models { $s->must('DELETE FROM chaincall.model'); return; }

sub asked
{
	my ($server, $remote) = @_;
	my $by_model = $server->stats->{by_model};

	return $by_model->{$remote} || 0;
}

sub reset_servers { $_->reset for ($good, $bad, $third); return; }

# Requests that a server has got.
sub requests { return $_[0]->stats->{requests}; }

# A chain of one model step; lines: its further keys.
sub chain
{
	my ($name, $model, @lines) = @_;

	$s->must("CREATE OR REPLACE FUNCTION $name(t text) RETURNS jsonb LANGUAGE chaincall AS " . sql_literal(join("\n", "model: $model", 'prompt: "{{t}}"', @lines) . "\n"));
	return;
}

# The failure of a call as on_error sees it: class, and model and class of each tried.
my $on_error = 'on_error: {value: {class: "{{error.class}}", tried: "{{error.tried}}"}}';

sub failure
{
	my ($session, $call) = @_;

	return $session->must("SELECT r->>'class' || ': ' || (SELECT string_agg((x->>'model') || ' ' || (x->>'class'), ', ' ORDER BY n) FROM jsonb_array_elements(r->'tried') WITH ORDINALITY AS t (x, n)) FROM (SELECT $call AS r) s");
}

#----------------------------------------------------------------------------------------------------------------------
# Order, shares of the attempts

model('a', 'bad', 'echo?status=503', fallback => '{b,c}');
model('b', 'third', 'echo?status=500');
model('c', 'good', 'echo');
is($s->must("SELECT chaincall.call('a', 'one')"), 'one', 'the third model answers');
is(join(' ', map { requests($_) } $bad, $third, $good), '2 2 1', 'five attempts over three models: two, two and one');
like($s->must('SELECT chaincall.last_trace()'), qr/a\@bad .*a\@bad .*b\@third .*b\@third .*c\@good/s, 'the trace says who was asked');

reset_servers();
$s->must(q{UPDATE chaincall.model SET fallback = '{c,a,c}' WHERE name = 'a'});
is($s->must("SELECT chaincall.call('a', 'two')"), 'two', 'with one fallback');
is(join(' ', map { requests($_) } $bad, $good), '3 1', 'three attempts for the first; no model twice');

$s->must(q{UPDATE chaincall.endpoint SET server = 'third', remote_name = 'echo?status=502' WHERE model = 'c'});
reset_servers();
my $r = $s->run("SELECT chaincall.call('a', 'three')");
is($r->{state}, 'MC001', 'all fail: the last one\'s failure');
like($r->{message}, qr/^model "c" at server "third" answered 502/, 'in its words');
like($r->{detail}, qr/models tried: a \(transient: model "a" at server "bad" answered 503[^)]*\), c \(transient: /, 'and the detail names all');
is(join(' ', map { requests($_) } $bad, $third), '3 2', 'five attempts in all');

chain('both_fail', 'a', $on_error);
is(failure($s, "both_fail('x')"), 'transient: a transient, c transient', 'on_error sees which models were tried');

reset_servers();
chain('once', 'a', 'retry: 0', $on_error);
is(failure($s, "once('x')"), 'transient: a transient, c transient', 'retry: 0 still tries each model');
is(join(' ', map { requests($_) } $bad, $third), '1 1', 'once');

reset_servers();
chain('own', 'a', 'fallback: [b]', 'retry: {attempts: 2, first: 5 ms}', $on_error);
is(failure($s, "own('x')"), 'transient: a transient, b transient', 'a step\'s own list takes the place of the model\'s');
chain('alone', 'a', 'fallback: []', 'retry: 0', $on_error);
is(failure($s, "alone('x')"), 'transient: a transient', 'an empty one too');
is($s->must("SELECT chaincall.render('own', 'chain', '{\"t\": \"x\"}')->'fallback'"), '["b"]', 'render shows it');

drop_models();
model('a', 'bad', 'echo?status=503', fallback => '{b}', params => '{"temperature": 0.1, "seed": 1}');
model('b', 'good', 'echo', params => '{"temperature": 0.9, "top_p": 0.5}');
chain('merged', 'a', 'params: {seed: 7}', 'retry: 0');
$s->must("SELECT merged('x')");
my $body = $good->last->{body};
$body = JSON::PP->new->decode($body) unless ref $body;
is("$body->{temperature} $body->{top_p} $body->{seed}", '0.9 0.5 7', 'the fallback has its own params under the step\'s');

#----------------------------------------------------------------------------------------------------------------------
# What leads to a fallback and what does not

for my $case (
	['status=401', 'yes'], ['status=402', 'yes'], ['status=403', 'yes'], ['status=404', 'yes'], ['status=405', 'yes'],
	['status=500', 'yes'], ['reset=head', 'yes'], ['broken=json', 'yes'], ['broken=html', 'yes'], ['status=429', 'yes'],
	['redirect=http://127.0.0.1/', 'yes'],
	['status=400', 'permanent: a permanent'], ['status=413', 'permanent: a permanent'], ['status=422', 'permanent: a permanent'],
	['refuse=1', 'content: a content'], ['size=200000', 'limit: a limit'])
{
	my ($fault, $expected) = @$case;

	drop_models();
	model('a', 'bad', "echo?$fault", fallback => '{b}');
	model('b', 'good', 'echo');
	chain('try', 'a', 'retry: 0', $on_error);
	$s->must("ALTER SERVER bad OPTIONS (ADD max_answer '100kB')");
	is($s->must("SELECT CASE WHEN jsonb_typeof(r) = 'string' THEN 'yes' ELSE r->>'class' || ': ' || (r->'tried'->0->>'model') || ' ' || (r->'tried'->0->>'class') END FROM try('x') r"),
		$expected, "fallback after $fault");
	$s->must('ALTER SERVER bad OPTIONS (DROP max_answer)');
}

drop_models();
model('a', 'bad', 'labels?miss=9', fallback => '{b}');
model('b', 'good', 'labels?miss=9', fallback => '{}');
model('c', 'good', 'labels');
chain('shaped', 'a', 'returns: {kind: [rent, loan]}', 'reask: 2', 'fallback: [b, c]', 'retry: 0');
reset_servers();
like($s->must("SELECT shaped('a loan')"), qr/"kind"/, 'an answer that does not fit leads to a fallback');
is(join(' ', asked($bad, 'labels'), asked($good, 'labels')), '3 2', 'to ask again is one budget too');
is(scalar(@{ ref $good->last->{body} ? $good->last->{body}{messages} : JSON::PP->new->decode($good->last->{body})->{messages} }), 1, 'each model is asked the first question');

drop_models();
$s->must("CREATE SERVER locked FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url '" . $third->url . "/v1')");
$s->must("CREATE SERVER claude FOREIGN DATA WRAPPER chaincall OPTIONS (api 'anthropic', url '" . $third->url . "/v1')");
$s->must('CREATE ROLE app LOGIN; SELECT chaincall.grant_usage(\'app\'); GRANT USAGE ON FOREIGN SERVER good, bad, claude TO app; GRANT ALL ON SCHEMA public TO app');
model('stopped', 'good', 'echo', paused => 'true');
$s->must(q{INSERT INTO chaincall.model (name) VALUES ('nowhere')});
model('vectors', 'good', 'hash-embedding', kind => 'embedding');
model('denied', 'locked', 'echo');
model('c', 'good', 'echo');
model('a', 'good', 'echo?status=404', fallback => '{stopped,nowhere,vectors,gone,denied}');
chain('skips', 'a', $on_error);
my $app = session($node, user => 'app');
reset_servers();
is(failure($app, "skips('x')"), 'permanent: a permanent, stopped permanent, nowhere permanent, vectors permanent, gone permanent, denied denied',
	'models that cannot take the call are passed over, with the reason; the failure is of the last that was asked');
is(requests($good) + requests($third), 1, 'and are not asked');
model('first', 'locked', 'echo', fallback => '{c}');
is($app->must("SELECT chaincall.call('first', 'hi')"), 'hi', 'a first model that the role may not use');
is($app->run("SELECT chaincall.call('denied', 'hi')")->{state}, '42501', 'without a fallback it is denied');
$s->must(q{INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('denied', 'good', 'echo')});
is($app->must("SELECT string_agg(chaincall.call('denied', 'hi ' || n), ',') FROM generate_series(1, 4) n"), 'hi 1,hi 2,hi 3,hi 4', 'of two servers the one that it may use is used');

model('raw', 'good', 'echo?status=404', fallback => '{other_api,same_api}');
model('other_api', 'claude', 'echo');
model('same_api', 'good', 'echo');
$s->must(q{CREATE FUNCTION raw_request() RETURNS jsonb LANGUAGE chaincall AS 'model: raw
request: {messages: [{role: user, content: hi}]}'});
reset_servers();
like($s->must('SELECT raw_request()'), qr/"hi"/, 'a request in the provider\'s own form goes to a fallback of the same api');
is(requests($third), 0, 'not to one of another');

#----------------------------------------------------------------------------------------------------------------------
# Time

drop_models();
model('a', 'bad', 'echo?hang=1', fallback => '{b}', timeout => '2 s');
model('b', 'good', 'echo');
reset_servers();
$r = $s->run("SELECT chaincall.call('a', 'hello')");
is($r->{out}, 'hello', 'a model that hangs is given up when its share of the time is up');
ok($r->{ms} >= 900 && $r->{ms} < 1900, 'half of it') or diag($r->{ms});
chain('hurried', 'a', 'timeout: 800 ms', 'fallback: [b]');
$r = $s->run("SELECT hurried('x')");
ok($r->ok && $r->{ms} >= 350 && $r->{ms} < 790, 'a step\'s timeout is shared as well') or diag($r->{ms});
$s->must(q{UPDATE chaincall.endpoint SET server = 'bad', remote_name = 'fixed?hang=1' WHERE model = 'b'});
$r = $s->run("SELECT hurried('x')");
is($r->{state}, 'MC007', 'when all hang it is the step\'s timeout');
like($r->{detail}, qr/models tried: a \(transient.*b \(timeout/, 'that names both');

drop_models();
model('a', 'bad', 'echo?status=503', fallback => '{b}', retry => '{"first": "10 min", "max": "10 min"}', timeout => '20 s');
model('b', 'good', 'echo');
$r = $s->run("SELECT chaincall.call('a', 'hello')");
ok($r->ok && $r->{ms} < 5000, 'a backoff that takes more than half of the share is not sat out') or diag($r->{ms});

drop_models();
$s->must("ALTER SERVER bad OPTIONS (ADD attempt_timeout '300 ms')");
model('a', 'bad', 'echo?hang=1', retry => '{"attempts": 2, "first": 5}');
$r = $s->run("SELECT chaincall.call('a', 'hello')");
like($r->{message}, qr/^model "a" at server "bad" gave no answer within 300 ms/, 'attempt_timeout');
ok($r->{ms} >= 590 && $r->{ms} < 2000, 'twice') or diag($r->{ms});
like($s->must('SELECT chaincall.last_trace()'), qr/transient.*no answer within 300 ms.*#2.*transient/s, 'the trace has both attempts');
$bad->wait_in_flight(0);
pass('what was given up is hung up');
$s->must(q{INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('a', 'good', 'echo')});
is($s->must(q{SELECT string_agg(chaincall.call('a', 'n ' || n), ',') FROM generate_series(1, 4) n}), 'n 1,n 2,n 3,n 4', 'it is tried elsewhere then');
$s->must('ALTER SERVER bad OPTIONS (DROP attempt_timeout)');
is($s->run("ALTER SERVER bad OPTIONS (ADD attempt_timeout '0')")->{state}, 'HV024', 'attempt_timeout is no nonsense');

#----------------------------------------------------------------------------------------------------------------------
# Cool-down: a key that is throttled is not used by anybody, and only that one

my $s2 = session($node);
drop_models();
model('a', 'bad', 'echo?status=429&retry_after=3&times=1');
reset_servers();
$s->send("SELECT chaincall.call('a', 'hello')");
$bad->wait_for(sub { $_[0]->{answered} >= 1 });
wait_sql($s2, q{SELECT cooling_until > clock_timestamp() + interval '1 s' FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a'});
$r = $s2->run("SELECT chaincall.call('a', 'other')");
ok($r->ok && $r->{ms} > 500, 'another session waits until then') or diag($r->{ms});
ok($s->result->ok, 'and so does the first, which has used up no attempt');
is(requests($bad), 4, 'nobody has asked meanwhile');

drop_models();
model('a', 'bad', 'echo?status=429&retry_after=1000');
$s->must(q{INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('a', 'good', 'echo')});
reset_servers();
is($s->must(q{SELECT count(chaincall.call('a', 'n ' || n)) FROM generate_series(1, 10) n}), '10', 'a cooled endpoint is passed over');
is($s2->must(q{SELECT count(chaincall.call('a', 'm ' || n)) FROM generate_series(1, 10) n}), '10', 'by other processes too');
is(requests($bad), 1, 'it was asked once');
$s->must(q{DELETE FROM chaincall.endpoint WHERE server = 'good'; UPDATE chaincall.model SET timeout = '5 s'});
$r = $s2->run("SELECT chaincall.call('a', 'hello')");
is($r->{state}, 'MC002', 'what would wait for too long fails at once');
like($r->{message}, qr/^model "a" at server "bad" is not asked before \d/, 'and says until when');
ok($r->{ms} < 1000, 'at once');
model('b', 'good', 'echo');
$s->must(q{UPDATE chaincall.model SET fallback = '{b}' WHERE name = 'a'});
is($s2->must("SELECT chaincall.call('a', 'hello')"), 'hello', 'or goes to the fallback');

# the times that services name: seconds that a key is kept from them
my $in_a_minute = POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(time + 60));
my $n = 0;
for my $case (
	[ 60, 'Retry-After: 60' ],
	[ 60, 'Retry-After: ' . POSIX::strftime('%a, %d %b %Y %H:%M:%S GMT', gmtime(time + 60)) ],
	[ 60, 'retry-after-ms: 60000' ],
	[ 360, "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 6m0s\r\nx-ratelimit-remaining-tokens: 10\r\nx-ratelimit-reset-tokens: 50m" ],
	[ 60, "anthropic-ratelimit-requests-remaining: 0\r\nanthropic-ratelimit-requests-reset: $in_a_minute" ],
	[ 60, 'RateLimit-Reset: 60' ],
	[ 60, 'x-ratelimit-reset: ' . (time + 60) ],
	[ 3600, 'Retry-After: 31536000' ],
	[ 1, "x-ratelimit-reset: \xff\xfe\r\nretry-after-ms: -1\r\nRetry-After: soon" ])
{
	my ($seconds, $text) = @$case;

	my $bytes = "HTTP/1.1 429 Too Many Requests\r\n$text\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
	my $raw = RawServer->new(sub { my ($connection) = @_; print $connection $bytes; });

	add_server($s, 'raw' . ++$n, 'http://127.0.0.1:' . $raw->port . '/v1');
	drop_models();
	model('t', "raw$n", 'm', retry => '0');
	$s->run("SELECT chaincall.call('t', 'x')");
	$text =~ s/[^ -~]+/ /g;
	my $cooling = $s->must(q{SELECT coalesce(extract(epoch FROM cooling_until - clock_timestamp()), 0) FROM chaincall.stat_endpoint WHERE server = 'raw} . $n . q{'});
	ok($cooling <= $seconds && $cooling > $seconds - 10 && $cooling > 0, "$seconds s after $text") or diag($cooling);
}

# each role has a key of its own, one has none
my $keyed = ModelServer->new(args => ['--api-key', 'right']);
add_server($s, 'keyed', $keyed);
drop_models();
model('k', 'keyed', 'echo', retry => '0');
$s->must("CREATE ROLE $_ LOGIN; SELECT chaincall.grant_usage('$_'); GRANT USAGE ON FOREIGN SERVER keyed, good TO $_") for qw(ann bob eve);
$s->must(q{CREATE USER MAPPING FOR ann SERVER keyed OPTIONS (api_key 'right')});
$s->must(q{CREATE USER MAPPING FOR bob SERVER keyed OPTIONS (api_key 'wrong')});
my %who = map { $_ => session($node, user => $_) } qw(ann bob eve);
is($who{bob}->run("SELECT chaincall.call('k', 'x')")->{state}, 'MC003', 'a wrong key is refused');
ok($s->must(q{SELECT cooling_until > clock_timestamp() FROM chaincall.stat_endpoint WHERE model = 'k'}) eq 't', 'and cools down');
is($who{ann}->must("SELECT chaincall.call('k', 'x')"), 'x', 'which is nobody else\'s problem');
my $before = requests($keyed);
is($who{eve}->run("SELECT chaincall.call('k', 'x')")->{state}, 'MC003', 'without a key');
is($who{bob}->run("SELECT chaincall.call('k', 'x')")->{state}, 'MC003', 'the wrong one again');
is(requests($keyed), $before + 2, 'is asked all the same where there is no other way');
$s->must(q{ALTER USER MAPPING FOR bob SERVER keyed OPTIONS (SET api_key 'right')});
is($who{bob}->must("SELECT chaincall.call('k', 'x')"), 'x', 'a mended key works at once');
$s->must(q{INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('k', 'good', 'echo')});
$s->must(q{ALTER USER MAPPING FOR bob SERVER keyed OPTIONS (SET api_key 'wrong')});
$before = requests($keyed);
is($who{bob}->must(q{SELECT count(chaincall.call('k', 'n ' || n)) FROM generate_series(1, 10) n}), '10', 'with another server the calls go there');
ok(requests($keyed) - $before <= 1, 'the key is tried once in some seconds');
$before = requests($keyed);
$who{ann}->must(q{SELECT count(chaincall.call('k', 'n ' || n)) FROM generate_series(1, 10) n});
is(requests($keyed) - $before, 5, 'while the right one is used as ever');

#----------------------------------------------------------------------------------------------------------------------
# The circuit

set_conf($s, 'chaincall.breaker_failures' => '50', 'chaincall.breaker_patience' => 0, 'chaincall.breaker_rest' => '300ms');
drop_models();
model('a', 'bad', 'echo?status=503');
chain('quick', 'a', 'retry: 0', 'on_error: skip');
reset_servers();
$s->must(q{SELECT count(quick('n ' || n)) FROM generate_series(1, 10) n});
is(requests($bad), 10, 'ten failures');
like($s2->must(q{SELECT breaker || ' ' || (breaker_since > now() - interval '1 min') FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a'}), qr/^(open|half-open) t/, 'open the circuit');
set_conf($s, 'chaincall.breaker_rest' => '1h');
wait_sql($s, "SELECT quick('x') IS NULL AND breaker = 'open' FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a'");
# its next rest was doubled from 300 ms: wait until a probe has begun the long one
$before = requests($bad);
chain('patient', 'a', 'timeout: 20 s', 'retry: 0');
$r = $s2->run("SELECT patient('x')");
like($r->{message}, qr/model "a" at server "bad" (is not asked: its circuit is open since \d+-\d+-\d+ .* \(last failure: answered 503\)|answered 503)/, 'a call says since when it is open and why');
set_conf($s, 'chaincall.breaker_rest' => '300ms');
model('b', 'good', 'echo');
$s->must(q{UPDATE chaincall.model SET fallback = '{b}' WHERE name = 'a'});
$before = requests($bad);
is($s2->must(q{SELECT count(chaincall.call('a', 'n ' || n)) FROM generate_series(1, 50) n}), '50', 'all go to the fallback at once');
ok(requests($bad) - $before <= 3, 'but for a probe') or diag(requests($bad) - $before);

# the service comes back
$s->must(q{UPDATE chaincall.model SET fallback = '{}' WHERE name = 'a'; DELETE FROM chaincall.endpoint WHERE model = 'a'; INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('a', 'bad', 'echo')});
my $port = $bad->port;
$bad->stop;
$s->must(q{SELECT count(quick('n ' || n)) FROM generate_series(1, 10) n});
is($s->must(q{SELECT string_agg(DISTINCT breaker, ',') FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a'}), 'open', 'no connection is a failure too');
$s2->send(q{SELECT chaincall.call('a', 'hello')});
$bad->start;
is($s2->result->{out}, 'hello', 'a call waits for the probe and gets its answer');
wait_sql($s, q{SELECT bool_or(breaker = 'closed') FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a'});

# one probe in the whole cluster
drop_models();
model('h', 'bad', 'echo?hang=1');
$s->must("ALTER SERVER bad OPTIONS (ADD attempt_timeout '200 ms')");
chain('hung', 'h', 'retry: 0', 'on_error: skip');
$s->must(q{CREATE FUNCTION hang_all(n int) RETURNS jsonb LANGUAGE chaincall AS 'each: n
model: h
prompt: "{{item}}"
retry: {attempts: 2, first: 5 ms}
on_error: skip'});
$s->must('SELECT hang_all(12)');
is($s->must(q{SELECT breaker FROM chaincall.stat_endpoint WHERE model = 'h'}), 'open', 'no answer in time opens it');
$s->must("ALTER SERVER bad OPTIONS (SET attempt_timeout '1 s')");
reset_servers();
my @sessions = map { session($node) } 1 .. 4;
$_->send(q{SELECT hang_all(10)}) for @sessions;
$bad->wait_for(sub { $_[0]->{requests} >= 1 });
is($s->must(q{SELECT breaker FROM chaincall.stat_endpoint WHERE model = 'h'}), 'half-open', 'half-open while the probe is in the air');
$_->result for @sessions;
is($bad->stats->{max_in_flight}, 1, 'forty calls of four sessions: one probe at a time');
$s->must('ALTER SERVER bad OPTIONS (DROP attempt_timeout)');

# of three endpoints a broken one is passed over
drop_models();
model('m', 'bad', 'echo?reset=head');
$s->must(q{INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('m', 'good', 'echo'), ('m', 'third', 'echo')});
$s->must(q{CREATE FUNCTION many(n int) RETURNS jsonb LANGUAGE chaincall AS 'each: n
model: m
prompt: "{{item}}"'});
set_conf($s, 'chaincall.breaker_rest' => '1h');
$s->must('SELECT many(60)');
reset_servers();
is($s2->must('SELECT jsonb_array_length(many(300))'), '300', 'one of three endpoints is broken');
is(requests($bad), 0, 'it is not asked');
is(requests($good) + requests($third), 300, 'each call was sent once');

# and one that hangs does not collect the calls
set_conf($s, 'chaincall.breaker_failures' => '0');
$s->must("ALTER SERVER bad OPTIONS (ADD attempt_timeout '2 s'); UPDATE chaincall.endpoint SET remote_name = 'fixed?hang=1' WHERE server = 'bad'");
$s->must("UPDATE chaincall.endpoint SET remote_name = 'delay-20' WHERE server <> 'bad'");
$s->must(q{CREATE FUNCTION wide(n int) RETURNS jsonb LANGUAGE chaincall AS 'each: n
max_parallel: 300
model: m
prompt: "{{item}}"'});
reset_servers();
is($s->must('SELECT jsonb_array_length(wide(1200))'), '1200', 'one of three endpoints hangs');
ok($bad->stats->{max_in_flight} < 220, 'it gets hardly more calls than its share at first') or diag($bad->stats->{max_in_flight});
$s->must('ALTER SERVER bad OPTIONS (DROP attempt_timeout)');
set_conf($s, 'chaincall.breaker_failures' => '50');

#----------------------------------------------------------------------------------------------------------------------
# Jobs

set_conf($s, 'chaincall.breaker_rest' => '300ms', 'chaincall.park_after' => '300ms');
drop_models();
model('a', 'bad', 'fixed?status=503', fallback => '{b}');
model('b', 'good', 'echo');
chain('work', 'a');
reset_servers();
my $id = submit($s, 'work', '{"t": "job"}');
is(wait_jobs($s, "id = '$id'"), 'succeeded 1', 'a job\'s call goes to the fallback');
is($s->must("SELECT string_agg(model || ' ' || server || ' ' || coalesce(class, 'ok'), ', ' ORDER BY started_at) FROM chaincall.span WHERE job = '$id'"),
	'a bad transient, a bad transient, a bad transient, b good ok', 'its spans say who was asked');
like($s->must("SELECT chaincall.trace('$id')"), qr/a\@bad .*b\@good /s, 'trace() too');

$s->must(q{UPDATE chaincall.endpoint SET remote_name = 'fixed?status=404' WHERE model = 'b'});
$id = submit($s, 'work', '{"t": "job"}');
is(wait_jobs($s, "id = '$id'"), 'failed 1', 'all fail');
is($s->must("SELECT (error->>'class') || ' ' || (error->'tried'->0->>'model') || ' ' || (error->'tried'->1->>'model') FROM chaincall.job WHERE id = '$id'"), 'permanent a b', 'the job\'s error names them');

# parked by a long cool-down, it goes on with what is left of its attempts
drop_models();
model('p', 'bad', 'echo?status=503&times=2', retry => '{"first": 5, "attempts": 3}');
$s->must(q{CREATE FUNCTION parked() RETURNS jsonb LANGUAGE chaincall AS 'model: p
prompt: hello'});
set_conf($s, 'chaincall.breaker_failures' => '0');
$id = submit($s, 'parked');
is(wait_jobs($s, "id = '$id'"), 'succeeded 1', 'two failures, three attempts');
drop_models();
model('p', 'bad', 'fixed?status=429&retry_after=5&times=1');
$id = submit($s, 'parked');
wait_sql($s, "SELECT state = 'waiting' AND run_at > now() FROM chaincall.job WHERE id = '$id'");
is(wait_jobs($s, "id = '$id'"), 'succeeded 1', 'a long cool-down parks the job, which goes on then');
is($s->must("SELECT count(*) || ' ' || max(class) FROM chaincall.span WHERE job = '$id'"), '2 throttled', 'having asked twice');

# an outage is waited for
set_conf($s, 'chaincall.breaker_failures' => '50', 'chaincall.breaker_rest' => '200ms', 'chaincall.park_after' => undef);
drop_models();
model('a', 'bad', 'echo');
chain('work', 'a', 'retry: {attempts: 2, first: 5 ms}');
$bad->stop;
$s->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'work', jsonb_build_object('t', 'n ' || g) FROM generate_series(1, 40) g});
wait_sql($s, q{SELECT count(*) = 1 FROM chaincall.stat_endpoint WHERE server = 'bad' AND model = 'a' AND breaker = 'open'});
$bad->start;
wait_jobs($s);
my $failed = $s->must(q{SELECT count(*) FROM chaincall.job WHERE chain LIKE '%work%' AND input->>'t' LIKE 'n %' AND state = 'failed'});
ok($failed <= 25, 'jobs wait for a service whose circuit is open') or diag("$failed have failed");

# a crash forgets all of it, and nothing is broken by it
$s2->quit;
$app->quit;
$_->quit for @sessions, values %who;
$s = crash($node, $s, pid_of($s, 'maintainer'));
is($s->must(q{SELECT count(*) FROM chaincall.stat_endpoint WHERE breaker <> 'closed'}), '0', 'after a crash all begins anew');
is($s->must("SELECT chaincall.call('a', 'hello')"), 'hello', 'and works');
is($s->must('SELECT chaincall.stat_reset()'), '', 'stat_reset() leaves no harm');
is($s->must("SELECT chaincall.call('a', 'hello')"), 'hello', 'none');
$node->stop;

#----------------------------------------------------------------------------------------------------------------------
# Without shared_preload_libraries a process has its own

my $plain = new_node('plain', conf => "chaincall.breaker_patience = 0\n");
$s = session($plain);
add_server($s, 'bad', $bad);
add_server($s, 'good', $good);
model('a', 'bad', 'echo?status=503', fallback => '{b}', retry => '0');
model('b', 'good', 'echo');
reset_servers();
is($s->must(q{SELECT count(chaincall.call('a', 'n ' || n)) FROM generate_series(1, 50) n}), '50', 'without the library preloaded');
ok(requests($bad) < 15, 'a session remembers what it has seen itself') or diag(requests($bad));
$plain->stop;
done_testing();
