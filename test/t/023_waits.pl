# Waits of jobs: long ones leave memory and survive a restart with the time that they had, timeouts around them hold, and
# nobody takes a wait that is under way for a step that is done.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('waits', conf => "shared_preload_libraries = 'chaincall'\nmax_worker_processes = 16\nchaincall.park_after = '200ms'\n");
my $models = ModelServer->new;
my $session = session($node);

add_server($session, 'stand_in', $models);
add_model($session, 'small', 'stand_in', 'echo');
$session->must(<<'END');
CREATE FUNCTION pause(pause text) RETURNS text LANGUAGE chaincall AS $$
steps:
  before: {model: small, prompt: "before"}
  nap: {wait: "{{pause}}", after: before}
  behind: {model: small, prompt: "{{nap}}"}
$$;
CREATE FUNCTION hurried(pause text) RETURNS text LANGUAGE chaincall AS $$
steps:
  before: {model: small, prompt: "before"}
  nap: {wait: "{{pause}}", timeout: 600 ms, after: before}
  behind: {model: small, prompt: "{{nap}}"}
$$;
END

sub enqueue
{
	my ($chain, $pause) = @_;

	return $session->must("SELECT chaincall.submit('$chain', jsonb_build_object('pause', '$pause'))");
}

sub status
{
	my ($job, $columns) = @_;

	return $session->must("SELECT $columns FROM chaincall.job_status WHERE id = '$job'");
}

my $long = enqueue('pause', '1 hour');

wait_until(sub { status($long, 'state') eq 'waiting' }, 'a job that only waits leaves its caller');
is(status($long, q{waits_for, steps_done, run_at - created_at BETWEEN '59 min' AND '61 min'}), 'time|1|t', 'until the wait is over, which is not done yet');
is($session->must(q{SELECT max(jobs_in_hand) FROM chaincall.stat_worker}), '0', 'nobody has it in hand');
like($session->must("SELECT chaincall.trace('$long')"), qr/^nap +wait .* open /m, 'its trace says that it is under way');

my $run_at = status($long, 'run_at');

$session->quit;
$node->restart;
$session = session($node);
is(status($long, 'state, run_at'), "waiting|$run_at", 'a restart changes nothing');

my $short = enqueue('pause', '500 ms');

like($session->must("SELECT chaincall.result('$short', '60 s')"), qr/^"\d{4}-\d\d-\d\dT/, 'a job comes back when its wait is over');
is($session->must(qq{SELECT count(*), count(*) FILTER (WHERE try > 0), max(ended_at - started_at) FILTER (WHERE path = 'nap') >= '490 ms'
	FROM chaincall.span WHERE job = '$short'}), '3|0|t', 'nothing was done twice, and it waited as long as it should');

my $late = enqueue('hurried', '1 hour');
my $result = $session->run("SELECT chaincall.result('$late', '60 s')");

is($result->{state}, 'MC007', 'a timeout around a wait ends it');
is(status($late, 'state'), 'failed', 'and the job');

$session->must("SELECT chaincall.cancel('$long')");
is($session->run("SELECT chaincall.result('$long', '60 s')")->{state}, '55000', 'a job that waits can be cancelled');
like($session->must("SELECT chaincall.trace('$long')"), qr/^nap +wait .* cancelled /m, 'and its trace says so');

$session->quit;
$node->stop;
done_testing();
