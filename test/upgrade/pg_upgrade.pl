# pg_upgrade takes a database with jobs along, by copying and by linking files, and no worker runs on the way. Run by test/upgrade/run;
# CHAINCALL_OLD is the installation of the old PostgreSQL, the new one is first in PATH.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Catalog;
use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $models = ModelServer->new;
my $new_bin = (split /\n/, `pg_config --bindir`)[0];
my $old_bin = "$ENV{CHAINCALL_OLD}/bin";
my $started = qr/starting background worker process "chaincall/;
my $partitions = <<'SQL';
SELECT count(*) || ' ' || count(d.objid) FROM pg_inherits i LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.inhrelid AND d.deptype = 'e'
WHERE i.inhparent = 'chaincall.span'::regclass
SQL

sub cluster
{
	my ($name, @where) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name, @where);

	$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ]);
	# debug1 says which background workers are started
	$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'chaincall'
max_worker_processes = 32
log_statement = none
log_min_messages = debug1
chaincall.park_after = 0
chaincall.max_callers = 1
CONF
	return $node;
}

# How two extensions differ, save in what pg_upgrade brings from the old release: how SQL was taken apart there, and that privileges of the owner alone
# are not noted as initial ones.
sub but_for_release
{
	my ($one, $other) = @_;

	return grep { !/: (?:view|body): |: initial privileges: (\S+)=\S+(?: \1=\S+)*$|constraint span_default_pkey/ }
	  differences(extension_catalog($one), extension_catalog($other));
}

sub job_line { return $_[0]->must("SELECT concat_ws(' ', state, output, error->>'message') FROM chaincall.job WHERE id = '$_[1]'"); }

# --------------------------------------------------------------------------------------------------
# Jobs in all states, on the old PostgreSQL

my $old = cluster('old', install_path => $ENV{CHAINCALL_OLD});

$old->start;
$old->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE DATABASE work; CREATE DATABASE older; CREATE DATABASE none');
$old->safe_psql('older', "CREATE EXTENSION chaincall VERSION '0.1.0'; SELECT chaincall.grant_usage('app')");

my $session = session($old, dbname => 'work', sql => 'CREATE EXTENSION chaincall');

add_server($session, 's', $models);
add_model($session, 'm', 's', 'echo');
add_model($session, 'late', 's', 'fixed?hang=1', retry => '0', timeout => '1 h');
$session->must(<<'SQL');
SELECT chaincall.grant_usage('app');
GRANT USAGE ON FOREIGN SERVER s TO app;
CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (api_key 'key');
GRANT CREATE ON SCHEMA public TO app;
SET ROLE app;
CREATE TABLE effect (n int, at text);
CREATE FUNCTION note(n int, at text) RETURNS int LANGUAGE sql AS 'INSERT INTO public.effect VALUES (n, at) RETURNING n';
CREATE FUNCTION say(t text) RETURNS text LANGUAGE chaincall AS $chain$
model: m
prompt: "<{{t}}>"
$chain$;
CREATE FUNCTION work(n int, words text[]) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: {n: "{{n}}", said: "{{said}}", done: "{{done}}"}
steps:
  begun:
    sql: INSERT INTO effect VALUES ({{n}}, 'begun')
  said:
    after: begun
    each: words
    function: say
    args: {t: "{{item}}"}
  done:
    after: said
    function: note
    args: {n: "{{n}}", at: done}
$chain$;
CREATE FUNCTION stuck(n int) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: {first: "{{first}}", late: "{{late}}", n: "{{done}}"}
steps:
  begun:
    sql: INSERT INTO effect VALUES ({{n}}, 'begun')
  first:
    after: begun
    model: m
    prompt: first
  late:
    after: first
    model: late
    prompt: late
  done:
    after: late
    function: note
    args: {n: "{{n}}", at: done}
$chain$;
CREATE FUNCTION pause(n int, long text) RETURNS int LANGUAGE chaincall AS $chain$
output: "{{done}}"
steps:
  begun:
    sql: INSERT INTO effect VALUES ({{n}}, 'begun')
  wait:
    after: begun
    wait: "{{long}}"
  done:
    after: wait
    function: note
    args: {n: "{{n}}", at: done}
$chain$;
CREATE FUNCTION fails() RETURNS int LANGUAGE chaincall AS '{sql: SELECT 1 / 0}';
RESET ROLE;
SQL

my $owner = session($old, dbname => 'work', user => 'app');
my %id = (
	finished => submit($owner, 'work', '{"n": 1, "words": ["a", "b"]}'),
	running => submit($owner, 'stuck', '{"n": 2}'),
	parked => submit($owner, 'pause', '{"n": 3, "long": "40 s"}'),
	asleep => submit($owner, 'pause', '{"n": 4, "long": "1 day"}'),
	failed => submit($owner, 'fails'));

wait_jobs($session, "id IN ('$id{finished}', '$id{failed}')");
wait_sql($session, "SELECT count(*) = 2 FROM chaincall.job WHERE state = 'waiting'");
$models->wait_in_flight(1);
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.span WHERE job = '$id{running}' AND path = 'first'");
set_conf($session, 'chaincall.workers' => 'off');
wait_sql($session, "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type IN ('chaincall caller', 'chaincall maintainer')");
$id{queued} = submit($owner, 'work', '{"n": 5, "words": ["c"]}');
$id{later} = submit($owner, 'work', '{"n": 6, "words": []}', "run_at => now() + interval '1 day'");
$id{cancelled} = submit($owner, 'work', '{"n": 7, "words": []}', "run_at => now() + interval '1 day'");
$session->must("SELECT chaincall.cancel('$id{cancelled}')");
# from a day that has no partition
$session->must("INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at) VALUES ('00000000-0000-7000-8000-000000000000', 'x', 0, 1, 'app'::regrole, 'sql', now(), now())");
is($session->must($partitions), '4 4', 'partitions belong to the extension');
is($session->must("SELECT string_agg(state || ' ' || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM chaincall.job GROUP BY state) s"),
	'failed 1 queued 1 running 1 succeeded 1 waiting 4', 'jobs in all states')
  or diag($session->must('SELECT chain, input, state FROM chaincall.job'));

my $spans = $session->must('SELECT count(*) FROM chaincall.span');
my $oid = $session->must('SELECT oid FROM pg_database WHERE datname = current_database()');

set_conf($session, 'chaincall.workers' => undef);
$_->quit for ($session, $owner);
$old->stop;
like(slurp_file($old->logfile), $started, 'the old server has started workers, and says so in its log');

# --------------------------------------------------------------------------------------------------

sub upgrade
{
	my ($name, @mode) = @_;
	my $new = cluster($name);
	my $directory = PostgreSQL::Test::Utils::tempdir();
	my @command = ('pg_upgrade', '--no-sync', '--retain', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $old_bin, '-B', $new_bin, '-s', $new->host,
		'-p', $old->port, '-P', $new->port, @mode);
	my ($log, $session, $fresh, @differences);

	chdir $directory or die "$directory: $!\n";
	$new->command_ok([ @command, '--check' ], 'pg_upgrade --check');
	$new->command_ok(\@command, 'pg_upgrade') or do { diag(slurp_file($_)) for glob($new->data_dir . '/pg_upgrade_output.d/*/log/*{work,server}*.log'); };
	$log = join('', map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log'));
	like($log, qr/database system is ready to accept connections/, 'its servers have written a log');
	like($log, qr/DEBUG: /, 'a talkative one');
	unlike($log, $started, 'no worker was started');
	unlike($log, qr/ERROR|FATAL|chaincall (?:caller|maintainer|launcher)/, 'nor did anything go wrong');
	$models->reset;

	# before anything runs
	$new->append_conf('postgresql.conf', 'chaincall.workers = off');
	$new->start;
	$session = session($new, dbname => 'work');
	like($session->must('SELECT version()'), qr/^PostgreSQL 17/, 'the new server');
	is($session->must('SELECT oid FROM pg_database WHERE datname = current_database()'), $oid, 'the database has its oid');
	is($session->must("SELECT string_agg(state || ' ' || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM chaincall.job GROUP BY state) s"),
		'failed 1 queued 1 running 1 succeeded 1 waiting 4', 'all jobs are as they were');
	is($session->must('SELECT count(*) FROM chaincall.span'), $spans, 'and all spans');
	is($session->must($partitions), '4 4', 'partitions belong to the extension');

	# and on it goes
	$session->must("UPDATE chaincall.endpoint SET remote_name = 'echo' WHERE model = 'late'");
	set_conf($session, 'chaincall.workers' => 'on');
	is(wait_jobs($session, "id IN (" . join(', ', map { "'$id{$_}'" } qw(running parked queued cancelled)) . ')'), 'cancelled 1 succeeded 3', 'jobs come to their end');
	is(job_line($session, $id{$_->[0]}), $_->[1], "the one that was $_->[0]")
	  for ([ finished => 'succeeded {"n": 1, "done": 1, "said": ["<a>", "<b>"]}' ], [ running => 'succeeded {"n": 2, "late": "late", "first": "first"}' ],
		[ parked => 'succeeded 3' ], [ queued => 'succeeded {"n": 5, "done": 5, "said": ["<c>"]}' ], [ cancelled => 'cancelled the job was cancelled' ],
		[ failed => 'failed division by zero' ], [ asleep => 'waiting' ], [ later => 'waiting' ]);
	is($session->must("SELECT string_agg(n || ' ' || at, ', ' ORDER BY n, at) FROM effect"),
		'1 begun, 1 done, 2 begun, 2 done, 3 begun, 3 done, 4 begun, 5 begun, 5 done', 'each step has happened once');
	is($models->stats->{requests}, 2, 'no call was made again');
	is($session->must('SELECT kind || message FROM chaincall.alert'), 'dead_letterpublic.fails(): division by zero', 'the alert is there');
	is($session->must("SELECT count(*) FROM chaincall.job WHERE id = '$id{asleep}' AND run_at > now() + interval '12 h'"), 1, 'who sleeps goes on sleeping');

	# as what it is on the new server
	$new->safe_psql('postgres', 'CREATE DATABASE fresh');
	$fresh = session($new, dbname => 'fresh', sql => "CREATE EXTENSION chaincall; SELECT chaincall.grant_usage('app')");
	wait_sql($fresh, "SELECT count(*) = 4 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass");
	@differences = but_for_release($fresh, $session);
	is(scalar(@differences), 0, 'the extension is as a new one') || diag(join("\n", @differences));

	my $app = session($new, dbname => 'work', user => 'app');

	is($app->must("SELECT say('session')"), '<session>', 'a chain in a session');
	is($app->must("SELECT chaincall.result('" . submit($app, 'work', '{"n": 8, "words": ["x"]}') . "', '1 min')"), '{"n": 8, "done": 8, "said": ["<x>"]}', 'a new job');
	$app->quit;

	# the version that was not the library's
	$new->safe_psql('older', 'ALTER EXTENSION chaincall UPDATE');
	$app = session($new, dbname => 'older', sql => "SELECT chaincall.grant_usage('app')");
	wait_sql($app, "SELECT count(*) = 4 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass");
	@differences = but_for_release($fresh, $app);
	is(scalar(@differences), 0, 'an older version is updated on the new server') || diag(join("\n", @differences));

	# the house of the new server is in order: it can be dumped and restored, and days come and go
	$new->command_ok([ 'pg_dump', '-Fc', '-f', "$directory/dump", '-d', $new->connstr('work') ], 'pg_dump');
	$new->safe_psql('postgres', 'CREATE DATABASE restored');
	$new->command_ok([ 'pg_restore', '--exit-on-error', '-d', $new->connstr('restored'), "$directory/dump" ], 'pg_restore');
	$_->quit for ($session, $fresh, $app);
	$new->stop;
	unlike(slurp_file($new->logfile), qr/chaincall maintainer: .* failed|TRAP|PANIC|terminated by signal/, 'nothing went wrong');
	chdir '/';
	return;
}

subtest 'copied' => sub { upgrade('copied'); };
subtest 'linked' => sub { upgrade('linked', '--link'); };
done_testing();
