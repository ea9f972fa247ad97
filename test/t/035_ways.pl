# Where calls go when what they build on changes meanwhile: models that are dropped, circuits that close again, keys that
# one role's policy or another's wrong key must not take from everybody.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";
use Chaincall;
use Jobs;
use ModelServer;
use Test::More;

my $node = jobs_node('ways', "chaincall.breaker_patience = 0\nchaincall.breaker_rest = 300ms\n");
my ($good, $bad) = map { ModelServer->new } 1 .. 2;
my $s = session($node);
my $s2 = session($node);

add_server($s, 'good', $good);
add_server($s, 'bad', $bad);

sub requests { return $_[0]->stats->{requests}; }

# CPU seconds that a session's process has used.
sub cpu_seconds
{
	my ($session) = @_;

	open(my $stat, '<', '/proc/' . $session->pid . '/stat') or die "stat: $!";
	my @fields = split / /, (<$stat> =~ s/^.*\) //sr);
	return ($fields[11] + $fields[12]) / 100;
}

#----------------------------------------------------------------------------------------------------------------------
# A model that is dropped while it is asked

add_model($s, 'gone', 'bad', 'echo?status=401&delay=500');
$s2->send("SELECT chaincall.call('gone', 'x')");
$bad->wait_in_flight(1);
$s->must(q{DELETE FROM chaincall.model WHERE name = 'gone'});
my $r = $s2->result;
is($r->{state}, 'MC003', 'a refused key is the end of a call whose model is gone');
is(requests($bad), 1, 'it is not asked again and again');

add_model($s, 'gone', 'bad', 'echo?status=429&retry_after=2&times=1&delay=300');
$bad->reset;
my $cpu = cpu_seconds($s2);
$s2->send("SELECT chaincall.call('gone', 'waits')");
$bad->wait_in_flight(1);
$s->must(q{DELETE FROM chaincall.model WHERE name = 'gone'});
is($s2->result->{out}, 'waits', 'one that is throttled waits, and is answered');
is(requests($bad), 2, 'when it is asked again');
cmp_ok(cpu_seconds($s2) - $cpu, '<', 0.5, 'having slept meanwhile');

#----------------------------------------------------------------------------------------------------------------------
# A key that many share

$s->must(q{CREATE USER MAPPING FOR PUBLIC SERVER bad OPTIONS (api_key 'all')});
add_model($s, 'm', 'bad', 'echo?status=429');
add_model($s, 'other', 'good', 'echo');
$s->must(q{CREATE FUNCTION greedy() RETURNS jsonb LANGUAGE chaincall AS 'model: m
prompt: x
fallback: other
retry: {attempts: 4, first: 20 h, max: 20 h}'});
is($s->must('SELECT greedy()'), '"x"', 'a step that would wait for hours goes to its fallback');
$r = $s->must(q{SELECT extract(epoch FROM cooling_until - clock_timestamp()) FROM chaincall.stat_endpoint WHERE model = 'm'});
ok($r > 0 && $r <= 31, 'others who share the key do not wait for its hours') or diag($r);

$s->must(q{UPDATE chaincall.endpoint SET remote_name = 'fixed?status=429' WHERE model = 'm'});
$s->must(q{CREATE FUNCTION hasty() RETURNS jsonb LANGUAGE chaincall AS 'model: m
prompt: x
timeout: 1 s
retry: {attempts: 2, first: 1 ms, max: 1 ms}
on_error: {value: "{{error.class}}"}'});
$bad->reset;
like($s->must('SELECT hasty()'), qr/throttled|timeout/, 'one that would not wait at all is throttled all the same');
cmp_ok(requests($bad), '<=', 11, 'the service is not asked more than ten times a second') or diag(requests($bad));

my $keyed = ModelServer->new(args => ['--api-key', 'right']);
add_server($s, 'keyed', $keyed);
add_model($s, 'k', 'keyed', 'echo?status=503', retry => '0');
$s->must("CREATE ROLE $_ LOGIN; SELECT chaincall.grant_usage('$_'); GRANT USAGE ON FOREIGN SERVER keyed TO $_") for qw(ann bob);
$s->must(q{CREATE USER MAPPING FOR ann SERVER keyed OPTIONS (api_key 'right')});
$s->must(q{CREATE USER MAPPING FOR bob SERVER keyed OPTIONS (api_key 'wrong')});
my ($ann, $bob) = map { session($node, user => $_) } qw(ann bob);
for (1 .. 10)
{
	$bob->run("SELECT chaincall.call('k', 'b$_')") for 1 .. 2;
	$ann->run("SELECT chaincall.call('k', 'a$_')");
}
isnt($s->must(q{SELECT breaker FROM chaincall.stat_endpoint WHERE model = 'k'}), 'closed', 'that a wrong key is refused is no sign of health');

#----------------------------------------------------------------------------------------------------------------------
# A circuit that closes

add_model($s, 'back', 'bad', 'echo?delay=200', retry => '{"first": 5}');
$bad->stop;
$s->run(q{SELECT chaincall.call('back', 'x')}) for 1 .. 3;
is($s->must(q{SELECT breaker <> 'closed' FROM chaincall.stat_endpoint WHERE model = 'back'}), 't', 'a circuit is open');
$s->must(q{CREATE FUNCTION eight() RETURNS jsonb LANGUAGE chaincall AS 'each: 8
model: back
prompt: "{{item}}"'});
$bad->start;
$r = $s->run('SELECT jsonb_array_length(eight())');
is($r->{out}, '8', 'calls that wait for it are answered');
cmp_ok($r->{ms}, '<', 10000, 'soon after it has closed, not when the probe would have been given up');

$node->stop;
done_testing();
