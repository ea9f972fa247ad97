# The background workers come and go with the extension, the database and the server, are in nobody's way, and come
# back whoever of them dies.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $preload = "shared_preload_libraries = 'chaincall'\n";
my $node = new_node('house', conf => "${preload}restart_after_crash = on\nmax_prepared_transactions = 5\nmax_worker_processes = 32\n"
	  . "chaincall.max_databases = 6\nwal_level = replica\nmax_wal_senders = 5\n");

# What runs, as "caller@postgres launcher maintainer@postgres"; executors come and go by themselves.
my $who = q{(SELECT coalesce(string_agg(w, ' ' ORDER BY w COLLATE "C"), '') FROM (SELECT split_part(backend_type, ' ', 2) || coalesce('@' || datname, '')
	AS w FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %' AND backend_type <> 'chaincall executor') AS workers)};

sub expected { return join(' ', sort('launcher', map { ("caller\@$_", "maintainer\@$_") } @_)); }

# Waits until exactly the given databases have one caller and one maintainer.
sub has_workers
{
	my ($on, $what, @databases) = @_;
	my $expected = expected(@databases);

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($on->poll_query_until('postgres', "SELECT $who = '$expected'"), $what)
	  || diag('there are: ' . $on->safe_psql('postgres', "SELECT $who"));
}

# The workers' pids, and with them their incarnations, in a database.
sub pids
{
	my ($kind, $database) = @_;

	return $node->safe_psql('postgres', "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type = 'chaincall $kind'"
		  . ($database ? " AND datname = '$database'" : ''));
}

# Waits until another process than that is the worker of a kind.
sub has_another
{
	my ($kind, $pid) = @_;

	return $node->poll_query_until('postgres', "SELECT count(*) = 1 AND min(pid) <> $pid FROM pg_stat_activity WHERE backend_type = 'chaincall $kind'");
}

sub set
{
	my (%settings) = @_;

	$node->safe_psql('postgres', "ALTER SYSTEM SET $_ = '$settings{$_}'") for keys %settings;
	$node->reload;
	return;
}

# A statement by somebody, in database postgres: '' or its error.
sub error_of
{
	my ($user, $sql) = @_;
	my $session = session($node, $user ? (user => $user) : ());
	my $result = $session->run($sql);

	$session->quit;
	return $result->ok ? '' : $result->{message};
}

has_workers($node, 'CREATE EXTENSION starts workers', 'postgres');
$node->safe_psql('postgres', 'CREATE ROLE owner LOGIN CREATEDB; CREATE ROLE other LOGIN; CREATE ROLE creator LOGIN CREATEDB');

subtest 'what pg_stat_activity shows' => sub {
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %' AND backend_xmin IS NULL
		AND xact_start IS NULL AND (wait_event_type = 'Extension' OR state = 'active')}),
		'3', 'they wait, without a transaction');
};

# --------------------------------------------------------------------------------------------------
# Deaths

for my $kind ('launcher', 'caller', 'maintainer')
{
	subtest "death of the $kind" => sub {
		my $pid = pids($kind);

		is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"), 't', 'asked to leave');
		ok(has_another($kind, $pid), 'another comes');
		has_workers($node, 'all are there, none twice', 'postgres');
		$pid = pids($kind);
		kill('KILL', $pid);
		$node->poll_query_until('postgres', undef, '') or die 'the cluster did not come back';
		ok(has_another($kind, $pid), 'after kill -9 another comes');
		has_workers($node, 'all are there, none twice', 'postgres');
	};
}

subtest 'death of something else' => sub {
	my $pid = $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'");

	kill('KILL', $pid);
	$node->poll_query_until('postgres', undef, '') or die 'the cluster did not come back';
	has_workers($node, 'all come back', 'postgres');
	for my $mode ('fast', 'immediate', 'smart')
	{
		$node->stop($mode);
		$node->start;
		has_workers($node, "and after stop -m $mode", 'postgres');
	}
};

# --------------------------------------------------------------------------------------------------
# The extension

subtest 'DROP and CREATE EXTENSION' => sub {
	my $session = session($node);
	my $other = session($node);

	is(error_of('other', 'DROP EXTENSION chaincall'), 'must be owner of extension chaincall', 'others may not');
	has_workers($node, 'and stop nothing', 'postgres');
	$session->must('DROP EXTENSION chaincall; CREATE EXTENSION chaincall') for (1 .. 10);
	has_workers($node, 'over and over', 'postgres');
	$session->must('BEGIN; DROP EXTENSION chaincall; CREATE EXTENSION chaincall; COMMIT');
	has_workers($node, 'in one transaction', 'postgres');

	$session->must('BEGIN; DROP EXTENSION chaincall');
	has_workers($node, 'no worker is there while the transaction is open');
	$session->must('ROLLBACK');
	has_workers($node, 'they are back after ROLLBACK', 'postgres');
	$session->must('BEGIN; SAVEPOINT s; DROP EXTENSION chaincall; ROLLBACK TO s');
	has_workers($node, 'as long as the transaction lasts');
	$session->must('COMMIT');
	has_workers($node, 'not longer', 'postgres');
	$session->must('BEGIN; DROP EXTENSION chaincall');
	$other->must('SELECT pg_terminate_backend(' . $session->pid . ')');
	has_workers($node, 'nor longer than the session', 'postgres');
	$session->quit;
	$session = session($node);

	# who waits for a lock leaves too
	$session->must('BEGIN; LOCK TABLE chaincall.job, chaincall.action, chaincall.span IN ACCESS EXCLUSIVE MODE; DROP EXTENSION chaincall; COMMIT');
	has_workers($node, 'with locks held that workers want');
	$session->must('BEGIN; CREATE EXTENSION chaincall; ROLLBACK');
	has_workers($node, 'nothing starts when CREATE EXTENSION is rolled back');
	$session->must('CREATE EXTENSION chaincall');
	has_workers($node, 'it starts when it is committed', 'postgres');

	like($session->run('BEGIN; DROP EXTENSION chaincall; PREPARE TRANSACTION \'p\'')->{message}, qr/^cannot PREPARE a transaction that has .* extension "chaincall"/,
		'PREPARE TRANSACTION is refused');
	has_workers($node, 'and nothing has changed', 'postgres');
	$_->quit for ($session, $other);
};

subtest 'the extension goes with something else' => sub {
	my %ways = (
		'DROP SCHEMA' => [ 'CREATE EXTENSION chaincall', 'DROP SCHEMA chaincall CASCADE' ],
		'DROP OWNED' => [ 'CREATE ROLE r SUPERUSER; SET ROLE r; CREATE EXTENSION chaincall; RESET ROLE', 'DROP OWNED BY r CASCADE; DROP ROLE r' ]);

	for my $way (sort keys %ways)
	{
		my ($create, $drop) = @{ $ways{$way} };
		my $session;

		$node->safe_psql('postgres', 'CREATE DATABASE goes');
		$session = session($node, dbname => 'goes');
		$session->must($create);
		has_workers($node, "$way: workers before", 'goes', 'postgres');
		$session->must($drop);
		has_workers($node, 'none after', 'postgres');
		$session->must('CREATE EXTENSION chaincall');
		has_workers($node, 'and again', 'goes', 'postgres');
		$session->quit;
		$node->safe_psql('postgres', 'DROP DATABASE goes');
	}
};

subtest 'a version that is not the library\'s' => sub {
	my $mark = -s $node->logfile;

	$node->safe_psql('postgres', q{UPDATE pg_extension SET extversion = '0.0' WHERE extname = 'chaincall'});
	$node->restart;
	ok($node->poll_query_until('postgres', qq{SELECT $who = 'launcher'}), 'the workers do nothing');
	wait_until(sub { slurp_file($node->logfile, $mark) =~ /database "postgres" has chaincall 0\.0, but the library is/ }, 'the log says so');
	like(slurp_file($node->logfile, $mark), qr/HINT: .*ALTER EXTENSION chaincall UPDATE/, 'and what to do');
	is($node->safe_psql('postgres', 'SELECT 1'), '1', 'sessions work');
	$node->safe_psql('postgres',
		q{BEGIN; UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'chaincall') WHERE extname = 'chaincall'; }
		  . 'ALTER EXTENSION chaincall UPDATE; COMMIT');
	has_workers($node, 'ALTER EXTENSION UPDATE starts them', 'postgres');
	is(scalar(() = slurp_file($node->logfile, $mark) =~ /but the library is/g), 1, 'it was said once');
};

# --------------------------------------------------------------------------------------------------
# Databases

subtest 'commands that need an empty database' => sub {
	my $before;

	$node->safe_psql('postgres', 'CREATE DATABASE d1 OWNER owner');
	has_workers($node, 'none without the extension', 'postgres');
	$node->safe_psql('d1', 'CREATE EXTENSION chaincall');
	has_workers($node, 'workers', 'd1', 'postgres');

	$before = pids('caller', 'd1') . pids('maintainer', 'd1');
	is(error_of('other', 'DROP DATABASE d1'), 'must be owner of database d1', 'DROP DATABASE by another role');
	is(error_of('creator', 'ALTER DATABASE d1 RENAME TO d2'), 'must be owner of database d1', 'RENAME by another role');
	is(error_of('creator', 'ALTER DATABASE d1 SET TABLESPACE pg_default'), 'must be owner of database d1', 'SET TABLESPACE by another role');
	is(error_of('creator', 'CREATE DATABASE d2 TEMPLATE d1'), 'permission denied to copy database "d1"', 'a copy by another role');
	is(error_of('other', 'CREATE DATABASE d2 TEMPLATE d1'), 'permission denied to create database', 'a copy by one who may create none');
	is(error_of('owner', 'BEGIN; DROP DATABASE d1'), 'DROP DATABASE cannot run inside a transaction block', 'in a transaction');
	is(error_of('owner', 'DROP DATABASE nowhere'), 'database "nowhere" does not exist', 'one that is not there');
	is(pids('caller', 'd1') . pids('maintainer', 'd1'), $before, 'none of them stops a worker');

	is(error_of('owner', 'ALTER DATABASE d1 RENAME TO d2'), '', 'RENAME by its owner');
	has_workers($node, 'workers are back', 'd2', 'postgres');
	is(error_of('owner', 'CREATE DATABASE d3 TEMPLATE d2'), '', 'a copy by its owner');
	has_workers($node, 'the copy has workers too', 'd2', 'd3', 'postgres');
	is($node->safe_psql('d3', 'SELECT oid = (SELECT database FROM chaincall.origin) FROM pg_database WHERE datname = current_database()'), 't', 'and knows itself');
	{
		my $tablespace = PostgreSQL::Test::Utils::tempdir();

		$node->safe_psql('postgres', "CREATE TABLESPACE house LOCATION '$tablespace'");
		$node->safe_psql('postgres', 'GRANT CREATE ON TABLESPACE house TO owner');
		is(error_of('owner', 'ALTER DATABASE d3 SET TABLESPACE house'), '', 'SET TABLESPACE by its owner');
	}
	has_workers($node, 'workers are back', 'd2', 'd3', 'postgres');
	is(error_of('', 'CREATE DATABASE d4 TEMPLATE postgres'), 'source database "postgres" is being accessed by other users', 'a copy that fails')
	  for session($node);
	has_workers($node, 'workers are back', 'd2', 'd3', 'postgres');
	is(error_of('owner', 'DROP DATABASE d3'), '', 'DROP DATABASE by its owner');
	has_workers($node, 'its workers are gone', 'd2', 'postgres');

	$node->safe_psql('postgres', 'ALTER DATABASE d2 WITH IS_TEMPLATE true');
	has_workers($node, 'none in a template', 'postgres');
	is(error_of('creator', 'CREATE DATABASE d3 TEMPLATE d2'), '', 'which anybody may copy');
	has_workers($node, 'the copy has workers', 'd3', 'postgres');
	$node->safe_psql('postgres', 'ALTER DATABASE d2 WITH IS_TEMPLATE false');
	has_workers($node, 'and so has what is no template any more', 'd2', 'd3', 'postgres');
	$node->safe_psql('postgres', 'ALTER DATABASE d2 WITH ALLOW_CONNECTIONS false');
	has_workers($node, 'none where nobody may connect', 'd3', 'postgres');
	is(error_of('owner', 'ALTER DATABASE d2 WITH ALLOW_CONNECTIONS true'), '', 'again');
	has_workers($node, 'workers', 'd2', 'd3', 'postgres');
	$node->safe_psql('postgres', "DROP DATABASE $_") for ('d2', 'd3');
	has_workers($node, 'as it was', 'postgres');
	$node->safe_psql('postgres', 'DROP TABLESPACE house');
};

subtest 'more databases than places' => sub {
	my @databases = map { "many$_" } (1 .. 6);
	my $session = session($node);
	my $result;

	$session->must("CREATE DATABASE $_") for @databases;
	$node->safe_psql($_, 'CREATE EXTENSION chaincall') for @databases[ 0 .. 4 ];
	has_workers($node, 'all places are taken', @databases[ 0 .. 4 ], 'postgres');
	$result = session($node, dbname => $databases[5]);
	like($result->run('CREATE EXTENSION chaincall')->{err}, qr/WARNING: .*no jobs will run in this database.*HINT: +Raise chaincall\.max_databases/s, 'who comes then is told');
	$result->quit;
	$session->must("DROP DATABASE $databases[0]");
	has_workers($node, 'as soon as there is room it has workers', @databases[ 1 .. 5 ], 'postgres');
	$session->must("DROP DATABASE $_") for @databases[ 1 .. 5 ];
	has_workers($node, 'as it was', 'postgres');
	$session->quit;
};

# --------------------------------------------------------------------------------------------------
# Numbers

subtest 'settings' => sub {
	my $callers = q{SELECT count(*) = %d FROM pg_stat_activity WHERE backend_type = 'chaincall caller'};

	set('chaincall.min_callers' => 3, 'chaincall.max_callers' => 4);
	ok($node->poll_query_until('postgres', sprintf($callers, 3)), 'more callers');
	set('chaincall.min_callers' => 1);
	set('chaincall.max_callers' => 1);
	ok($node->poll_query_until('postgres', sprintf($callers, 1)), 'fewer callers');
	set('chaincall.workers' => 'off');
	has_workers($node, 'none at all');
	$node->safe_psql('postgres', 'CREATE DATABASE idle');
	$node->safe_psql('idle', 'CREATE EXTENSION chaincall');
	has_workers($node, 'nor where the extension is new');
	set('chaincall.workers' => 'on');
	has_workers($node, 'on again', 'idle', 'postgres');
	$node->safe_psql('postgres', 'DROP DATABASE idle');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET ALL');
	$node->reload;
	has_workers($node, 'as it was', 'postgres');
};

subtest 'too few worker slots' => sub {
	my $few = new_node('few', conf => "${preload}max_worker_processes = 2\nmax_logical_replication_workers = 0\n");

	ok($few->poll_query_until('postgres', qq{SELECT $who = 'launcher maintainer\@postgres'}), 'what there is room for runs');
	wait_until(sub { slurp_file($few->logfile) =~ /could not start a chaincall caller: all background worker slots are taken/ }, 'the log says what is missing');
	like(slurp_file($few->logfile), qr/HINT: +Raise max_worker_processes \(2 now\)/, 'and what to do');
	is($few->safe_psql('postgres', 'SELECT 1'), '1', 'the server works');
	$few->stop;
};

subtest 'an executor that cannot start' => sub {
	my $session = session($node);
	my $jobs = q{SELECT count(*) = %d FROM chaincall.job WHERE owner = 'other'::regrole AND state = 'succeeded'};

	$session->must("CREATE FUNCTION one() RETURNS jsonb LANGUAGE chaincall AS \$\$ {sql: SELECT 1} \$\$; SELECT chaincall.grant_usage('other')");
	$session->must("SET ROLE other; INSERT INTO chaincall.job (chain) VALUES ('public.one()'); RESET ROLE");
	ok($node->poll_query_until('postgres', sprintf($jobs, 1)), 'one that can');
	$session->must("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'chaincall executor'");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'chaincall executor'}), 'it is gone');
	$session->must("SET ROLE other; INSERT INTO chaincall.job (chain) SELECT 'public.one()' FROM generate_series(1, 20); RESET ROLE");
	ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM chaincall.alert WHERE message ~ 'no executor can start for role "other"'}), 'an alert says so');
	is($session->must(sprintf($jobs, 1)), 't', 'the jobs wait');
	$session->must('GRANT CONNECT ON DATABASE postgres TO PUBLIC');
	ok($node->poll_query_until('postgres', sprintf($jobs, 21)), 'no longer than needed');
	$session->must('DELETE FROM chaincall.alert');
	$session->quit;
};

# --------------------------------------------------------------------------------------------------
# Where no worker may run

subtest 'standby and promotion' => sub {
	my $standby = PostgreSQL::Test::Cluster->new('standby');

	$node->backup('b');
	ok(!-e $node->backup_dir . '/b/pg_stat_tmp/chaincall.touch', 'whose data workers touched is not in a base backup');
	$standby->init_from_backup($node, 'b', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby, 'replay');
	is($standby->safe_psql('postgres', "SELECT $who"), '', 'no worker in recovery');
	$standby->promote;
	has_workers($standby, 'they come with promotion', 'postgres');
	$standby->stop;
};

subtest 'pg_upgrade' => sub {
	my @start = ('pg_ctl', '-w', '-D', $node->data_dir, '-l', $node->logfile, '-o', '-b', 'start');

	$node->stop;
	PostgreSQL::Test::Utils::system_or_bail(@start);
	is($node->safe_psql('postgres', "SELECT $who"), '', 'no worker in binary upgrade mode');
	PostgreSQL::Test::Utils::system_or_bail('pg_ctl', '-w', '-D', $node->data_dir, '-m', 'fast', 'stop');
	$node->start;
	has_workers($node, 'then again', 'postgres');
};

subtest 'the file of touched jobs' => sub {
	my $file = $node->data_dir . '/pg_stat_tmp/chaincall.touch';

	for my $content (undef, '', "garbage\n" x 1000)
	{
		$node->stop;
		unlink $file;
		append_to_file($file, $content) if defined $content;
		$node->start;
		has_workers($node, 'workers start whatever is in it', 'postgres');
		is((stat $file)[2] & 0777, 0600, 'it is nobody else\'s');
	}
};

$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal (?!9\b)\d/, 'nothing else crashed');
done_testing();
