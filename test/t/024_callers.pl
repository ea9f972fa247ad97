# What a caller has in hand does not keep it from what comes: waits, many definitions, wide fan-outs.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('callers', conf => "shared_preload_libraries = 'chaincall'\nmax_worker_processes = 16\nchaincall.max_callers = 1\n");
my $session = session($node);
my $models = ModelServer->new;

add_server($session, 'narrow', $models, max_in_flight => 2);
add_server($session, 'wide', $models);
add_model($session, 'slow', 'narrow', 'delay-1000');
add_model($session, 'quick', 'wide', 'echo');
$session->must(<<'END');
CREATE FUNCTION slow(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  x: {each: n, model: slow, prompt: "{{item}}"}
  out: {value: 1, after: x}
$$;
CREATE FUNCTION quick() RETURNS text LANGUAGE chaincall AS $$
model: quick
prompt: hello
$$;
CREATE FUNCTION nap(pause text) RETURNS text LANGUAGE chaincall AS $$
steps:
  nap: {wait: "{{pause}}"}
$$;
CREATE FUNCTION naps(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  nap: {each: n, wait: "500 ms"}
  out: {value: "{{n}}", after: nap}
$$;
CREATE FUNCTION statements(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  x: {each: n, sql: "SELECT {{item}}::int", returns: value}
  out: {value: "{{n}}", after: x}
$$;
CREATE FUNCTION broken_nap() RETURNS int LANGUAGE chaincall AS $$
steps:
  nap: {wait: "300 ms"}
  out: {value: "no number", after: nap}
$$;
CREATE FUNCTION cancels_naps() RETURNS text LANGUAGE chaincall AS $$
steps:
  all:
    on_error: skip
    output: "{{c}}"
    steps:
      a: {function: broken_nap, args: {}}
      b: {wait: "300 ms"}
      c: {wait: "1 hour"}
  out: {value: "went on", after: all}
$$;
CREATE FUNCTION never() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'again' USING ERRCODE = '40001'; END $$;
CREATE FUNCTION conflicts() RETURNS int LANGUAGE chaincall AS $$
steps:
  x: {sql: "SELECT never()", returns: value}
$$;
CREATE FUNCTION conflicts_inside() RETURNS int LANGUAGE chaincall AS $$
steps:
  y: {function: conflicts, args: {}}
$$;
CREATE FUNCTION bad_split() RETURNS text[] LANGUAGE chaincall AS $$
steps:
  x: {function: chaincall.split_text, args: {text: "a", by: "nonsense"}, retry: {attempts: 3, first: 1 ms}}
$$;
CREATE FUNCTION overlapping(t text) RETURNS text[] LANGUAGE chaincall AS $$
steps:
  x: {function: chaincall.split_text, args: {text: "{{t}}", by: characters, size: 10000, overlap: 9999}}
$$;
DO $do$
BEGIN
	FOR i IN 1..400 LOOP
		EXECUTE format('CREATE FUNCTION c%s() RETURNS int LANGUAGE chaincall AS $c${steps: {a: {value: %s}}}$c$', i, i);
	END LOOP;
END $do$;
END

sub states
{
	my ($which) = @_;

	return $session->must("SELECT string_agg(state || ' ' || n, ',' ORDER BY state) FROM (SELECT state, count(*) AS n FROM chaincall.job WHERE chain ~ '$which' GROUP BY 1) s");
}

sub spans
{
	my ($job) = @_;

	wait_until(sub { $session->must("SELECT state FROM chaincall.job WHERE id = '$job'") eq 'failed' }, 'it fails', 60);
	return $session->must("SELECT string_agg(concat_ws(' ', path, try, attempt), ',' ORDER BY try) FROM chaincall.span WHERE job = '$job'");
}

# more than a caller loads in one claim, the one that was used first among them
$session->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'c' || i, '{}' FROM generate_series(1, 256) i});
wait_until(sub { states('c[0-9]') eq 'succeeded 256' }, 'jobs of 256 definitions', 30);
$session->must(q{INSERT INTO chaincall.job (chain, input, priority) SELECT 'c' || i, '{}'::jsonb, 9 * (i = 1)::int FROM generate_series(1, 400) i WHERE i = 1 OR i > 256});
wait_until(sub { states('c[0-9]') eq 'succeeded 401' }, 'jobs of more definitions than are kept, claimed together', 30);

$session->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'nap', '{"pause": "9 s"}' FROM generate_series(1, 90)});
wait_until(sub { states('nap\\(') eq 'running 90' }, 'jobs that wait are in hand');
$session->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'c' || i, '{}' FROM generate_series(1, 50) i});
wait_until(sub { states('c[0-9]') eq 'succeeded 451' }, 'others go on meanwhile', 5);
is(states('nap\\('), 'running 90', 'while those wait');

$session->must(q{INSERT INTO chaincall.job (chain, input) VALUES ('naps', '{"n": 5000}'), ('statements', '{"n": 3000}'), ('nap', '{"pause": "0001-01-01 BC"}')});
wait_until(sub { states('naps|statements') eq 'succeeded 2' }, 'a job of many waits, one of more statements than it holds at once', 60);

is($session->must('SELECT naps(5000)'), '5000', 'many waits in a session');
is($session->must('SELECT cancels_naps()'), 'went on', 'the end of a wait may cancel others');
my $cancels = $session->must(q{SELECT chaincall.submit('cancels_naps', '{}')});
wait_until(sub { $session->must("SELECT output FROM chaincall.job WHERE id = '$cancels'") eq '"went on"' }, 'in a job too');

is(spans($session->must(q{SELECT chaincall.submit('bad_split', '{}')})), 'x 1 1,x 2 2,x 3 3', 'each attempt of a helper has its span');
is(spans($session->must(q{SELECT chaincall.submit('conflicts_inside', '{}')})), join(',', map { "y/x $_ $_" } 1 .. 10), 'a chain is not run again for a conflict of a statement in it');

my $huge = $session->must(q{SELECT chaincall.submit('overlapping', jsonb_build_object('t', repeat('x ', 1000000)))});
wait_until(sub { $session->must("SELECT error->>'message' FROM chaincall.job WHERE id = '$huge'") eq 'the result is larger than 16384 kB' }, 'pieces that overlap too much are refused before they are made');
is($session->must('SELECT max(deaths) FROM chaincall.job'), '0', 'no caller died');

# a server that is slow keeps its own calls waiting, not those at others, whoever's they are
my $slow = $session->must(q{SELECT chaincall.submit('slow', '{"n": 20000}')});
wait_until(sub { $session->must("SELECT chaincall.submit('quick', '{}') IS NOT NULL AND count(*) > 6000 FROM chaincall.activity WHERE kind = 'call'") eq 't' }, 'thousands of calls wait for a slow server', 60);
wait_until(sub { states('quick') =~ /^succeeded \d+$/ }, 'calls at another go on', 5);
$session->must("SELECT chaincall.cancel('$slow')");
wait_until(sub { states('slow') eq 'cancelled 1' }, 'it is cancelled', 30);

done_testing();
