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
	return all_spans($job);
}

sub all_spans
{
	my ($job) = @_;

	return $session->must("SELECT string_agg(concat_ws(' ', path, try, attempt), ',' ORDER BY path, try) FROM chaincall.span WHERE job = '$job'");
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

# what has succeeded in a called chain is not done again when the chain is
$session->must(<<'END');
CREATE SEQUENCE tries;
CREATE TABLE done (n int);
CREATE FUNCTION once() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO done VALUES (1) RETURNING n';
CREATE FUNCTION third_time(n int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	IF nextval('tries') < 3 THEN RAISE 'not yet'; END IF;
	RETURN n;
 END
$$;
CREATE FUNCTION fragile(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  asked: {model: quick, prompt: "{{t}}"}
  written: {function: once, args: {}}
  nap: {wait: "10 ms"}
  third: {sql: "SELECT third_time(7)", returns: value, after: [asked, written, nap]}
  out: {value: "{{asked}} {{written}} {{third}}"}
$$;
CREATE FUNCTION stubborn(t text) RETURNS text LANGUAGE chaincall AS $$
function: fragile
args: {t: "{{t}}"}
retry: {attempts: 5, first: 1 ms}
$$;
END
my $asked_before = $models->stats->{requests};
my $stubborn = $session->must(q{SELECT chaincall.submit('stubborn', '{"t": "hello"}')});
wait_until(sub { $session->must("SELECT output FROM chaincall.job WHERE id = '$stubborn'") eq '"hello 1 7"' }, 'a called chain is tried again', 30);
is($models->stats->{requests} - $asked_before, 1, 'its model is asked once');
is($session->must('SELECT count(*) FROM done'), '1', 'its function has run once');
is(all_spans($stubborn), 'chain/asked 0 1,chain/nap 0 1,chain/third 0 1,chain/third 1 1,chain/third 2 1,chain/written 0 1', 'each attempt has its span');

my $huge = $session->must(q{SELECT chaincall.submit('overlapping', jsonb_build_object('t', repeat('x ', 1000000)))});
wait_until(sub { $session->must("SELECT error->>'message' FROM chaincall.job WHERE id = '$huge'") eq 'the result is larger than 16384 kB' }, 'pieces that overlap too much are refused before they are made');
is($session->must('SELECT max(deaths) FROM chaincall.job'), '0', 'no caller died');

# a server that is slow keeps its own calls waiting, not those at others, whoever's they are
my $slow = $session->must(q{SELECT chaincall.submit('slow', '{"n": 20000}')});
wait_until(sub { $session->must("SELECT chaincall.submit('quick', '{}') IS NOT NULL AND count(*) > 6000 FROM chaincall.activity WHERE kind = 'call'") eq 't' }, 'thousands of calls wait for a slow server', 60);
wait_until(sub { states('quick') =~ /^succeeded \d+$/ }, 'calls at another go on', 5);
$session->must("SELECT chaincall.cancel('$slow')");
wait_until(sub { states('slow') eq 'cancelled 1' }, 'it is cancelled', 30);

# Settings of the database's owner never hold, not even when the first transaction of a worker fails.
my $locker = session($node);
my $workers = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('chaincall caller', 'chaincall maintainer')};

$session->must(<<'END');
CREATE TABLE seen (what text);
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.same(a uuid, b uuid) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.seen VALUES (current_user); RETURN a OPERATOR(pg_catalog.=) b; END $$;
CREATE OPERATOR hostile.= (FUNCTION = hostile.same, LEFTARG = uuid, RIGHTARG = uuid);
ALTER DATABASE postgres SET search_path = hostile, pg_catalog, public;
ALTER SYSTEM SET chaincall.workers = off;
SELECT pg_reload_conf();
END
wait_until(sub { $session->must($workers) eq '0' }, 'workers are gone', 30);
$session->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'c' || i, '{}' FROM generate_series(1, 5) i});
$locker->must('BEGIN');
$locker->must('LOCK TABLE chaincall.definition');
$session->must('ALTER SYSTEM RESET chaincall.workers');
$session->must('SELECT pg_reload_conf()');
wait_until(sub { slurp_file($node->logfile) =~ /ERROR:  canceling statement due to lock timeout/ }, "a caller's first transaction fails", 30);
$locker->must('COMMIT');
wait_until(sub { states('c[0-9]') eq 'succeeded 456' }, 'jobs go on', 30);
is($session->must('SELECT count(*) FROM seen'), '0', "and nothing of the owner's was run");

done_testing();
