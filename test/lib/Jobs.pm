# Jobs in TAP tests: a node whose workers run them, sessions that outlive it, waiting for what workers do.
package Jobs;

use strict;
use warnings;

use Chaincall;
use Exporter 'import';
use FindBin;
use ModelServer;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(jobs_node full_disk_env reconnect crash wait_sql wait_jobs submit pid_of has_pid_but set_conf state_of);

# A node that preloads the library; conf: further lines; further parameters are new_node's.
sub jobs_node
{
	my ($name, $conf, %params) = @_;

	return new_node($name, %params, conf => "shared_preload_libraries = 'chaincall'\nrestart_after_crash = on\nmax_worker_processes = 32\n" . ($conf || ''));
}

# The environment of a server whose disk is full while a file exists (test/lib/fulldisk.c).
sub full_disk_env
{
	my ($flag) = @_;
	my $library = PostgreSQL::Test::Utils::tempdir() . '/fulldisk.so';

	PostgreSQL::Test::Utils::system_or_bail($ENV{CC} || 'cc', '-shared', '-fPIC', '-o', $library, "$FindBin::Bin/../lib/fulldisk.c", '-ldl');
	return (LD_PRELOAD => $library, FULLDISK => $flag);
}

# A session as soon as the server takes one.
sub reconnect
{
	my ($node, %params) = @_;
	my $session;

	wait_until(sub { return $session = eval { session($node, %params) }; }, 'the server takes connections');
	return $session;
}

# Kills a process as a crash would and waits until the cluster has restarted; a new session. The old one must be idle.
sub crash
{
	my ($node, $session, $pid) = @_;

	$session->send('SELECT pg_catalog.pg_sleep(600)');
	kill('KILL', $pid);
	$session->result;
	$session->quit;
	return reconnect($node);
}

# Waits until a query gives true.
sub wait_sql
{
	my ($session, $sql) = @_;
	my $result;

	eval {
		wait_until(sub { $result = $session->run($sql); return $result->ok && $result->{out} eq 't'; }, $sql);
		1;
	} or die "$@\nlast: $result->{out} $result->{err}\n"
	  . $session->must('SELECT id, state, worker, deaths, run_at, error FROM chaincall.job WHERE state <> \'succeeded\' LIMIT 20')
	  . "\n" . $session->must('SELECT pid, backend_type, wait_event, state, query FROM pg_stat_activity WHERE backend_type ~ \'chaincall\'');
	return 1;
}

# Waits until no job is unfinished; counts by state, as "failed 1 succeeded 7".
sub wait_jobs
{
	my ($session, $where) = @_;

	$where = $where ? " WHERE $where" : '';
	wait_sql($session, "SELECT coalesce(bool_and(finished_at IS NOT NULL), false) FROM chaincall.job$where");
	return $session->must("SELECT string_agg(state || ' ' || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM chaincall.job$where GROUP BY state) s");
}

# Enqueues a job; its id.
sub submit
{
	my ($session, $chain, $input, $further) = @_;

	return $session->must('SELECT chaincall.submit(' . sql_literal($chain) . ', ' . sql_literal($input || '{}') . ($further ? ", $further" : '') . ')');
}

# "state class message" of a job.
sub state_of
{
	my ($session, $id) = @_;

	return $session->must("SELECT concat_ws(' ', state, error->>'class', error->>'message') FROM chaincall.job WHERE id = '$id'");
}

# The pid of a worker of that kind in the session's database, or of the launcher; of several, the first.
sub pid_of
{
	my ($session, $kind) = @_;
	my $pid = '';

	wait_until(
		sub {
			return $pid = $session->must("SELECT min(pid) FROM pg_stat_activity WHERE backend_type = 'chaincall $kind' AND "
				  . "(datname = current_database() OR datname IS NULL)");
		}, "there is a $kind");
	return $pid;
}

# Waits until there is a worker of that kind other than that process.
sub has_pid_but
{
	my ($session, $kind, $pid) = @_;

	return wait_sql($session, "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'chaincall $kind' AND pid <> $pid AND (datname = current_database() OR datname IS NULL)");
}

# ALTER SYSTEM and reload; undef resets.
sub set_conf
{
	my ($session, %settings) = @_;

	for my $name (sort keys %settings)
	{
		$session->must(defined $settings{$name} ? "ALTER SYSTEM SET $name = " . sql_literal($settings{$name}) : "ALTER SYSTEM RESET $name");
	}
	$session->must('SELECT pg_reload_conf()');
	for my $name (sort keys %settings)
	{
		wait_sql($session, "SELECT current_setting('$name') = " . sql_literal($settings{$name})) if defined $settings{$name};
	}
	return;
}

1;
