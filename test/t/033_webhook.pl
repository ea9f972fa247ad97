# chaincall.alert_server: each alert is told to it until it has taken it, whatever it does meanwhile, and nothing else waits
# for that.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use File::Temp;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

my $node = jobs_node('webhook', "chaincall.alert_server = 'pager'\n");
my $s = session($node);
my $dir = File::Temp->newdir();
my $models = ModelServer->new;

$s->must(<<'SQL');
CREATE FUNCTION divide(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  quotient: {sql: "SELECT 12 / {{n}}::int", returns: value}
$$;
CREATE FUNCTION said(secret text) RETURNS text LANGUAGE chaincall AS $$
steps:
  said: {sql: "SELECT {{secret}}::int::text", returns: value}
$$;
SQL

sub failed
{
	my ($chain, $input) = @_;
	my $id = submit($s, $chain, $input);

	wait_sql($s, "SELECT state = 'failed' FROM chaincall.job WHERE id = '$id'");
	return $s->must("SELECT id FROM chaincall.alert WHERE job = '$id'");
}

sub told { my ($alert) = @_; return wait_sql($s, "SELECT told_at IS NOT NULL FROM chaincall.alert WHERE id = '$alert'"); }

sub untold { return $s->must('SELECT count(*) FROM chaincall.alert WHERE told_at IS NULL'); }

# ---- no such server ----
my $alert = failed('divide', '{"n": 0}');

wait_until(sub { $node->log_contains(qr/telling of alerts failed.*server "pager" does not exist/) }, 'the log says that the server is not there');
pass('a server that is not there is complained of');
is(untold(), '1', 'and what it should know is kept');

# ---- a server as it should be ----
add_server($s, 'pager', $models->url, api => 'http', path => '/json', headers => '{"X-Token": "token {{api_key}}", "X-Team": "db"}');
$s->must("CREATE USER MAPPING FOR PUBLIC SERVER pager OPTIONS (api_key 'sk-pager')");
told($alert);
{
	my $last = $models->last;
	my $body = $last->{body};

	is($last->{method} . ' ' . $last->{path}, 'POST /json', 'it is told by POST');
	is_deeply([ sort keys %$body ], [ 'alert', 'created_at', 'job', 'kind' ], 'of four things');
	is($s->must("SELECT id = '$body->{alert}', job = '$body->{job}', kind = '$body->{kind}', created_at = '$body->{created_at}' FROM chaincall.alert"), 't|t|t|t', 'which the table has');
	is($last->{headers}{'x-token'}, 'token sk-pager', 'with the server\'s key');
	is($last->{headers}{'idempotency-key'}, $alert, 'and the same Idempotency-Key each time');
	is($last->{headers}{'content-type'}, 'application/json', 'as JSON');
}
$models->reset;
$alert = failed('said', '{"secret": "my secret"}');
told($alert);
unlike($models->last->{body}{kind} . join(' ', values %{ $models->last->{body} }), qr/secret/, 'nothing of what the job works on is told');
$s->must('INSERT INTO chaincall.alert (id, kind, message, created_at) VALUES (gen_random_uuid(), $$partition$$, $$x$$, now())');
wait_until(sub { untold() == 0 }, 'it is told of all');
is($models->last->{body}{job}, undef, 'an alert about no job');

# ---- many ----
$models->reset;
$s->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'divide', '{"n": 0}' FROM generate_series(1, 200)});
wait_sql($s, q{SELECT count(*) = 0 FROM chaincall.alert WHERE told_at IS NULL});
wait_jobs($s);
wait_sql($s, q{SELECT count(*) = 0 FROM chaincall.alert WHERE told_at IS NULL});
is(scalar(keys %{ $models->keys }), 200, 'many alerts are told, each');
is((grep { $_ != 1 } values %{ $models->keys }), 0, 'once');

# ---- servers as they should not be ----
sub point_to { my ($url) = @_; return $s->must("ALTER SERVER pager OPTIONS (SET url '$url')"); }

# The maintainer goes on meanwhile: a job that is cancelled ends at once.
sub nothing_waits
{
	my ($what) = @_;
	my $id = submit($s, 'divide', '{"n": 1}', q{run_at => now() + interval '1 hour'});

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	within(500, "$what: a job is cancelled", sub {
		my $job = submit($s, 'divide', '{"n": 1}', q{run_at => now() + interval '1 hour'});
		my $from = now_ms();

		$s->must("SELECT chaincall.cancel('$job')");
		wait_sql($s, "SELECT state = 'cancelled' FROM chaincall.job WHERE id = '$job'");
		return now_ms() - $from;
	});
	is($s->must(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'chaincall maintainer' AND (backend_xmin IS NOT NULL OR state LIKE 'idle in%')}), '0', "$what: no transaction is open");
	$s->must("SELECT chaincall.cancel('$id')");
	return;
}

{
	my $mute = RawServer->mute;

	point_to($mute->url);
	$alert = failed('divide', '{"n": 0}');
	wait_until(sub { $s->must(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'chaincall maintainer'}) == 1 }, 'there is a maintainer');
	nothing_waits('a server that hangs');
	is(untold(), '1', 'it has not taken it');
}
{
	my $closed = RawServer->closed;

	# with a timeout the one before is given up; a restart forgets how long to wait
	point_to($closed->url);
	$s->quit;
	$node->restart;
	$s = session($node);
	wait_until(sub { $node->log_contains(qr/server "pager" cannot be told of alerts, and is tried again/) }, 'the log says that nobody is there');
	nothing_waits('a server that refuses connections');
	is(untold(), '1', 'it has not taken it either');
}
{
	my $count = "$dir/count";
	my $server = RawServer->new(sub {
		my ($connection) = @_;

		open(my $file, '>>', $count) or die "$count: $!";
		print $file "x";
		close $file;
		my $n = -s $count;

		return if $n == 1;
		print $connection $n == 2 ? "HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n" : $n == 3 ? "HTTP/1.1 429 Slowly\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n" :
		  $n == 4 ? "HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n" : $n == 5 ? "HTTP/1.1 302 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" : "HTTP/1.1 204 Fine\r\n\r\n";
	});

	point_to($server->url);
	$s->must('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = $$chaincall maintainer$$');
	told($alert);
	is(-s $count, 6, 'a server that fails in five ways is asked until it has taken it');
}
{
	my $server = RawServer->new(sub {
		my ($connection) = @_;

		print $connection "HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n";
	});

	point_to($server->url);
	$alert = failed('divide', '{"n": 0}');
	is($s->must(qq{SELECT chaincall.acknowledge('$alert') IS NOT NULL}), 't', 'what somebody acknowledges');
	wait_sql($s, "SELECT acknowledged_at IS NOT NULL FROM chaincall.alert WHERE id = '$alert'");
	$models->reset;
	$s->must("ALTER SERVER pager OPTIONS (SET url '" . $models->url . "')");
	my $next = failed('divide', '{"n": 0}');

	$s->must('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = $$chaincall maintainer$$');
	told($next);
	is(untold(), '1', 'is told to nobody any more');
}

# one that somebody has locked is told again, and holds up no other
{
	my $super = session($node);

	set_conf($s, 'chaincall.alert_server' => '');
	my ($locked, $free) = (failed('divide', '{"n": 0}'), failed('divide', '{"n": 0}'));

	$super->must("BEGIN; SELECT FROM chaincall.alert WHERE id = '$locked' FOR UPDATE");
	set_conf($s, 'chaincall.alert_server' => 'pager');
	told($free);
	$super->must('COMMIT');
	told($locked);
	cmp_ok($models->count($locked), '>=', 1, 'a locked alert is told at least once');
	$super->quit;
}

# a server of another api
set_conf($s, 'chaincall.alert_server' => 'model_server');
add_server($s, 'model_server', $models);
failed('divide', '{"n": 0}');
wait_until(sub { $node->log_contains(qr/server "model_server" of chaincall.alert_server has api openai/) }, 'the log says that it is no server for alerts');
pass('a server of another api is complained of');

$s->quit;
$node->stop;
done_testing();
