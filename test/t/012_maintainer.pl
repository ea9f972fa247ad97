# The maintainer alone, without callers: what time does to jobs, recovery of orphans and deaths, actions, copies of
# databases, partitions, retention. A publication of all tables stands by: none of it may need more than the tables'
# replica identities.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('maintainer', conf => <<'CONF');
shared_preload_libraries = 'chaincall'
chaincall.min_callers = 1
chaincall.max_callers = 1
chaincall.keep_jobs = -1
chaincall.keep_spans = -1
wal_level = logical
autovacuum = off
CONF
my $count = 0;

END { kill 'CONT', $main::caller if $main::caller; }

# A day's UUIDv7, by default of now.
sub new_id
{
	my ($time) = @_;

	return sprintf('%08x-%04x-7%03x-8000-%012x', ($_ = int(($time || time) * 1000)) >> 16, $_ & 0xffff, $count & 0xfff, ++$count);
}

# Rows are written as they are, past the triggers; actions are asked for as people do.
my $session = session($node, sql => <<'SQL');
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE ROLE owner_role;
CREATE ROLE member_role IN ROLE owner_role;
CREATE ROLE stranger;
SELECT FROM unnest('{owner_role,member_role,stranger}'::regrole[]) r, chaincall.grant_usage(r);
ALTER TABLE chaincall.job DISABLE TRIGGER USER;
ALTER TABLE chaincall.span DISABLE TRIGGER USER;
ALTER TABLE chaincall.alert DISABLE TRIGGER USER;
ALTER TABLE chaincall.definition DISABLE TRIGGER USER;
SQL

# A row of job; columns are expressions. Gives its id.
sub job
{
	my (%columns) = @_;
	my %row = (
		id => sql_literal(new_id()),
		chain => "'public.c()'",
		definition => "'\\x00'",
		state => "'queued'",
		run_at => 'now()',
		rank => 'now()',
		owner => "'owner_role'::regrole",
		created_at => 'now()',
		%columns);
	my @names = sort keys %row;

	$session->must('INSERT INTO chaincall.job (' . join(', ', @names) . ') VALUES (' . join(', ', @row{@names}) . ')');
	return $row{id} =~ s/'//gr;
}

sub running
{
	my ($worker, %columns) = @_;

	return job(state => "'running'", worker => $worker, started_at => "'2020-01-01'", %columns);
}

sub row { return $session->must("SELECT $_[1] FROM chaincall.job WHERE id = '$_[0]'"); }

sub becomes
{
	my ($id, $expression, $expected, $what) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_until(sub { row($id, $expression) eq $expected }, 60);
	return is(row($id, $expression), $expected, $what);
}

# Somebody asks something of a job; gives the action's id.
sub action
{
	my ($job, $author) = @_;
	my $id = $session->must("SET ROLE $author; INSERT INTO chaincall.action (job, action) VALUES ('$job', 'cancel') RETURNING id");

	$session->must('RESET ROLE');
	return $id;
}

sub answer
{
	my ($id, $wait) = @_;
	my $sql = "SELECT state || coalesce(': ' || reason, '') FROM chaincall.action WHERE id = '$id'";

	wait_until(sub { $session->must($sql) ne 'pending' }, 60) unless defined $wait;
	return $session->must($sql);
}

# The process of that kind in the session's database, or ''.
sub worker
{
	my ($kind) = @_;

	return $session->must("SELECT pid FROM pg_stat_activity WHERE backend_type = 'chaincall $kind' AND datname = current_database()");
}

sub maintainer { return worker('maintainer'); }

# A new life of the maintainer, which looks at everything.
sub renew
{
	my $pid = maintainer();

	$session->must("SELECT pg_terminate_backend($pid)");
	wait_until(sub { my $now = maintainer(); $now && $now ne $pid }, 60);
	return;
}

# Tells the maintainer that there is something to be looked at.
sub poke { return $session->must('SELECT chaincall.cancel(gen_random_uuid())'); }

sub day { return (split ' ', $session->must("SELECT to_char((now() AT TIME ZONE 'UTC') + interval '$_[0] days', 'YYYYMMDD')"))[0]; }

wait_until(sub { maintainer() && worker('caller') }, 60);
ok(maintainer(), 'a maintainer is there');

# The one caller is there, and does nothing.
our $caller = worker('caller');
kill 'STOP', $caller;

# Its incarnation, from the file of entries; it came after the maintainer, so its entry is behind that one's.
my $touch_file = $node->data_dir . '/pg_stat_tmp/chaincall.touch';
my $database = $session->must('SELECT oid FROM pg_database WHERE datname = current_database()');
my $slots = unpack('x4L', slurp_file($touch_file));
my ($incarnation) = map { $_->[0] } grep { $_->[1] == $database } map { [ unpack('x48x' . 40 * $_ . 'qx8L', slurp_file($touch_file)) ] } reverse 0 .. $slots - 1;

# --------------------------------------------------------------------------------------------------
# Partitions

my $partitions = <<'SQL';
SELECT string_agg(c.relname || CASE WHEN d.objid IS NULL THEN ' stray' ELSE '' END || CASE WHEN c.relrowsecurity THEN '' ELSE ' open' END
	|| coalesce(' ' || array_to_string(NULLIF(c.relacl, acldefault('r', c.relowner)), ','), ''), ' ' ORDER BY c.relname)
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
WHERE i.inhparent = 'chaincall.span'::regclass AND c.relname <> 'span_default'
SQL

wait_until(sub { $session->must($partitions) =~ / .* / }, 60);
is($session->must($partitions), join(' ', map { 'span_' . day($_) } 0, 1, 2), 'three days are there, belong to the extension, and are nobody\'s to read');
is($session->must("SELECT relrowsecurity FROM pg_class WHERE oid = 'chaincall.span_default'::regclass"), 't', 'nor is the default one');
is($session->must('SELECT count(*) FROM chaincall.alert'), 0, 'and nothing was wrong with that');

# A day with rows in the default partition stays there, and says so once.
{
	my $day = day(2);

	$session->must("BEGIN; ALTER EXTENSION chaincall DROP TABLE chaincall.span_$day; DROP TABLE chaincall.span_$day;"
		  . " INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at) VALUES ('"
		  . new_id(time + 2 * 86400) . "', 'a', 0, 1, 10, 'model', now(), now()); COMMIT");
	renew();
	renew();
	wait_until(sub { $session->must('SELECT count(*) FROM chaincall.alert') > 0 }, 60);
	is($session->must("SELECT kind || ' ' || (owner IS NULL) FROM chaincall.alert"), 'partition true', 'a day that came too late: one alert');
	is($session->must("SELECT to_regclass('chaincall.span_$day') IS NULL"), 't', 'and no partition');
	$session->must('DELETE FROM chaincall.span; DELETE FROM chaincall.alert');
	renew();
	wait_until(sub { $session->must($partitions) =~ / .* / }, 60);
	is($session->must($partitions), join(' ', map { 'span_' . day($_) } 0, 1, 2), 'when the rows are gone it is made');
}

# Somebody who holds the table delays it, and nothing else.
{
	my $day = day(2);
	my $other = session($node);

	# a maintainer that has just started may make it again in between
	while ($session->must("SELECT to_regclass('chaincall.span_$day')"))
	{
		$other->must('ROLLBACK');
		$session->must("ALTER EXTENSION chaincall DROP TABLE chaincall.span_$day; DROP TABLE chaincall.span_$day");
		$other->must('BEGIN; LOCK TABLE chaincall.span IN ACCESS EXCLUSIVE MODE');
	}
	renew();
	becomes(job(state => "'waiting'", run_at => 'now()'), 'state', 'queued', 'while the table of spans is locked the rest goes on');
	$other->must('COMMIT');
	wait_until(sub { $session->must($partitions) =~ / .* / }, 60);
	is($session->must($partitions), join(' ', map { 'span_' . day($_) } 0, 1, 2), 'and partitions are made afterwards');
}

# --------------------------------------------------------------------------------------------------
# Promotion and expiry

{
	my $soon = job(state => "'waiting'", run_at => "now() + interval '2 s'");
	my $late = job(state => "'waiting'", run_at => "now() + interval '1 day'");
	my $never = job(state => "'waiting'", run_at => "'infinity'");

	is(row($soon, 'state'), 'waiting', 'a job is not queued before its time');
	becomes($soon, "state || (clock_timestamp() >= run_at)::text", 'queuedtrue', 'but then');
	is(row($late, 'state') . row($never, 'state'), 'waitingwaiting', 'others wait on');

	# one that is locked holds up nobody
	my $other = session($node);
	my $locked = job(state => "'waiting'", run_at => "now() + interval '1 s'");
	my $next = job(state => "'waiting'", run_at => "now() + interval '1100 ms'");

	$other->must("BEGIN; SELECT FROM chaincall.job WHERE id = '$locked' FOR UPDATE");
	becomes($next, 'state', 'queued', 'a job that somebody has locked holds up no other');
	is(row($locked, 'state'), 'waiting', 'it waits itself');
	$other->must('COMMIT');
	becomes($locked, 'state', 'queued', 'until it is let go');
}

{
	my $started = job(expires_at => "now() - interval '1 s'", started_at => 'now()');
	my $waiting = job(state => "'waiting'", run_at => "'infinity'", expires_at => "now() + interval '1 s'");
	my $open = job(expires_at => "now() + interval '1 day'");

	becomes($started, "state || ' ' || (finished_at IS NOT NULL) || ' ' || (error->>'class') || ' ' || (error->>'message')",
		'expired true timeout the job has expired', 'a job whose time is over expires');
	becomes($waiting, 'state', 'expired', 'a waiting one too');
	is(row($open, 'state'), 'queued', 'others do not');
}

# --------------------------------------------------------------------------------------------------
# Orphans

{
	my $orphan = running(42);
	my $negative = running(-7);
	my $other = session($node);
	my $locked = running(42);

	$other->must("BEGIN; SELECT FROM chaincall.job WHERE id = '$locked' FOR UPDATE");
	$session->must("INSERT INTO chaincall.job (id, chain, definition, state, run_at, rank, owner, created_at, started_at, worker)"
		  . " SELECT gen_random_uuid(), 'many', '', 'running', now(), now(), 10, now(), now(), 43 FROM generate_series(1, 2500)");
	poke();
	becomes($orphan, "state || ' ' || (worker IS NULL) || ' ' || deaths || ' ' || (started_at = '2020-01-01')", 'queued true 0 true',
		'a dead worker\'s job is queued again, as one that has started');
	becomes($negative, 'state', 'queued', 'whatever its number');
	wait_until(sub { $session->must("SELECT count(*) FROM chaincall.job WHERE chain = 'many' AND state = 'queued'") == 2500 }, 60);
	is($session->must("SELECT count(*) FROM chaincall.job WHERE chain = 'many' AND state = 'queued'"), 2500, 'all of them');
	is(row($locked, 'state'), 'running', 'one that is locked is left');
	$other->must('COMMIT');
	poke();
	becomes($locked, 'state', 'queued', 'until the next time');
	$session->must("DELETE FROM chaincall.job WHERE chain = 'many'");
}

# --------------------------------------------------------------------------------------------------
# Deaths of a job's own making, from the file that outlives a crash

# Accuses a job as a dead worker does: an entry in the file's second half.
sub accuse
{
	my ($worker, $job) = @_;
	open(my $handle, '+<:raw', $touch_file) or die "$touch_file: $!\n";
	seek($handle, 48 + 40 * $slots, 0);
	print $handle pack('qqLH32L', $worker, $worker, $database, $job =~ s/-//gr, 1);
	close $handle;
	poke();
	wait_until(sub { !unpack('x48x' . 40 * $slots . 'x36L', slurp_file($touch_file)) }, 60);
	return;
}

{
	my $poison = running(101);
	my $window = running(101);
	my $facts = "state || ' ' || deaths || ' ' || (finished_at IS NOT NULL)";

	accuse(101, $poison);
	becomes($poison, $facts, 'queued 1 false', 'a job that its worker died at has one death');
	becomes($window, $facts, 'queued 0 false', 'others of that worker have none');
	accuse(101, $poison);
	is(row($poison, $facts), 'queued 1 false', 'a death is not counted twice');
	$session->must("UPDATE chaincall.job SET state = 'running', worker = 102 WHERE id = '$poison'");
	accuse(101, $poison);
	becomes($poison, $facts, 'queued 1 false', 'nor when another worker has the job');
	accuse(103, $poison);
	is(row($poison, $facts), 'queued 2 false', 'a worker that died before its claim was committed counts');
	$session->must("UPDATE chaincall.job SET state = 'running', worker = 104 WHERE id = '$poison'");
	accuse(104, $poison);
	becomes($poison, "$facts || ' ' || (error->>'class') || ' ' || (error->>'sqlstate')", 'failed 3 true crash MC009', 'the third death is the last');
	is($session->must("SELECT kind || ' ' || owner::regrole || ' ' || (message ~ 'public.c.*3 times') FROM chaincall.alert WHERE job = '$poison'"),
		'dead_letter owner_role true', 'and somebody is told');
	accuse(105, $poison);
	is(row($poison, 'deaths'), 3, 'the dead do not die again');

	my $done = job(state => "'succeeded'", finished_at => 'now()');

	accuse(106, $done);
	is(row($done, $facts), 'succeeded 0 true', 'a job that has ended meanwhile is let alone');
	accuse(107, new_id());
	pass('an entry of a job that is gone is forgotten');
}

# --------------------------------------------------------------------------------------------------
# Actions

{
	my $one = job();
	my $two = job(state => "'waiting'", run_at => "'infinity'", started_at => 'now()');
	my $three = job();
	my $done = job(state => "'succeeded'", finished_at => 'now()');
	my $cancelled = job(state => "'cancelled'", finished_at => "now() - interval '1 hour'");

	is(answer(action($one, 'owner_role')), 'applied', 'an owner cancels his job');
	is(row($one, "state || ' ' || (error->>'class') || ' ' || (error->>'detail') || ' ' || (finished_at IS NOT NULL)"),
		'cancelled cancelled By role "owner_role". true', 'it is cancelled, and says who did it');
	is(answer(action($two, 'member_role')), 'applied', 'a member of the owner\'s role may, and a waiting job is cancelled, too');
	is(answer(action($three, 'stranger')), answer(action(new_id(), 'stranger')), 'a stranger is told the same of a job as of none');
	is(answer(action($three, 'stranger')), 'refused: there is no such job', 'that there is none');
	is(row($three, 'state'), 'queued', 'and the job goes on');
	is(answer(action($done, 'owner_role')), 'refused: the job has already ended: succeeded', 'what has ended cannot be cancelled');
	is(answer(action($cancelled, 'owner_role')), 'refused: the job has already ended: cancelled', 'not twice either');

	within(300, 'an action is applied as soon as it is committed',
		sub {
			my $job = job();
			my $start = now_ms();
			my $id = action($job, 'owner_role');

			while (now_ms() - $start < 1000)
			{
				return now_ms() - $start if answer($id, 0) eq 'applied';
			}
			return undef;
		});

	# what counts is who the author is when it is applied
	my $other = session($node);

	$other->must("BEGIN; SELECT FROM chaincall.job WHERE id = '$three' FOR UPDATE");

	my $put_off = action($three, 'member_role');
	my $four = job();

	is(answer(action($four, 'owner_role')), 'applied', 'a job that is locked holds up no other\'s cancel');
	is(answer($put_off, 0), 'pending', 'its own is put off');
	$session->must('REVOKE owner_role FROM member_role');
	$other->must('COMMIT');
	is(answer($put_off), 'refused: there is no such job', 'a membership that has ended meanwhile does not count');

	# a lock on the table
	my $five = job();

	$other->must('BEGIN; LOCK TABLE chaincall.job IN SHARE MODE');
	$put_off = action($five, 'owner_role');
	select(undef, undef, undef, 1.5);
	is(answer($put_off, 0), 'pending', 'a locked table puts actions off');
	$other->must('COMMIT');
	is(answer($put_off), 'applied', 'and does not lose them');

	# a caller that dies between being told and ending the job
	my $six = running($incarnation);

	$put_off = action($six, 'owner_role');
	select(undef, undef, undef, 1.5);
	is(answer($put_off, 0) . ' ' . row($six, 'state'), 'pending running', 'while a job runs the action stays pending');
	$session->must("UPDATE chaincall.job SET worker = 201 WHERE id = '$six'");
	poke();
	is(answer($put_off), 'applied', 'when its worker turns out dead');
	is(row($six, 'state'), 'cancelled', 'the recovered job is cancelled');

	# a caller that has ended it as it was told
	my $seven = running(202);

	$put_off = action($seven, 'owner_role');
	$session->must("UPDATE chaincall.job SET state = 'cancelled', finished_at = clock_timestamp(), worker = NULL WHERE id = '$seven'");
	is(answer($put_off), 'applied', 'a job that was cancelled after the action has been cancelled by it');
}

# --------------------------------------------------------------------------------------------------
# Retention

my $span_columns = '(job, path, try, id, owner, kind, started_at, ended_at)';

# A partition as it was made so many days ago.
sub old_partition
{
	my ($days) = @_;
	my $name = 'span_' . day(-$days);
	my $start = int((time - $days * 86400) / 86400) * 86400;
	my ($from, $to) = map { sprintf('%08x-%04x-0000-0000-000000000000', ($_ * 1000) >> 16, ($_ * 1000) & 0xffff) } $start, $start + 86400;

	$session->must("CREATE TABLE chaincall.$name (LIKE chaincall.span INCLUDING ALL);"
		  . " ALTER TABLE chaincall.span ATTACH PARTITION chaincall.$name FOR VALUES FROM ('$from') TO ('$to');"
		  . " ALTER EXTENSION chaincall ADD TABLE chaincall.$name");
	return ($name, $start + 100);
}

{
	my ($old, $old_time) = old_partition(10);
	my ($full, $full_time) = old_partition(9);
	my ($young) = old_partition(5);
	my $done = job(id => sql_literal(new_id($old_time)), state => "'succeeded'", finished_at => "now() - interval '10 days'", definition => "'\\x01'");
	my $kept = job(id => sql_literal(new_id($old_time)), state => "'waiting'", run_at => "'infinity'", definition => "'\\x02'");
	my $large = job(id => sql_literal(new_id($full_time)), state => "'waiting'", run_at => "'infinity'");
	my $failed = job(id => sql_literal(new_id($old_time)), state => "'failed'", finished_at => "now() - interval '1 day'", definition => "'\\x02'");
	my $recent = job(id => sql_literal(new_id($old_time)), state => "'succeeded'", finished_at => "now() - interval '1 day'");
	my $odd = job(id => sql_literal(new_id(time - 20 * 86400)), state => "'succeeded'", finished_at => "now() - interval '20 days'");
	my $odd_kept = job(id => sql_literal(new_id(time - 20 * 86400)), state => "'waiting'", run_at => "'infinity'");
	my $seen_to = job(id => sql_literal(new_id(time - 20 * 86400)), state => "'failed'", finished_at => "now() - interval '20 days'");
	my $unseen = job(id => sql_literal(new_id(time - 20 * 86400)), state => "'failed'", finished_at => "now() - interval '20 days'");
	my $ask = action($done, 'stranger');

	answer($ask);
	$session->must("INSERT INTO chaincall.span $span_columns SELECT j::uuid, 'a[' || n || ']', 0, n, 10, 'model', now(), now()"
		  . " FROM unnest('{$done,$kept,$failed,$recent,$odd,$odd_kept}'::text[]) j, generate_series(1, 3) n");
	$session->must("INSERT INTO chaincall.span $span_columns SELECT '$large', 'a[' || n || ']', 0, n, 10, 'model', now(), now() FROM generate_series(1, 10001) n");
	$session->must(<<SQL);
INSERT INTO chaincall.definition (sha256, body, created_at) VALUES
	('\\x01', '1', now() - interval '3 days'), ('\\x02', '2', now() - interval '3 days'), ('\\x03', '3', now() - interval '3 days'),
	('\\x04', '4', now()), ('\\x02', '2', now() - interval '4 days');
INSERT INTO chaincall.alert (id, kind, message, created_at, acknowledged_at) VALUES
	('@{[ new_id() ]}', 'old', '', now(), now() - interval '8 days'), ('@{[ new_id() ]}', 'recent', '', now(), now()), ('@{[ new_id() ]}', 'open', '', now(), NULL),
	('@{[ new_id() ]}', 'forgotten', '', now() - interval '91 days', NULL);
INSERT INTO chaincall.alert (id, kind, job, owner, message, created_at, acknowledged_at) VALUES
	('@{[ new_id() ]}', 'dead_letter', '$seen_to', 10, '', now() - interval '20 days', now()),
	('@{[ new_id() ]}', 'dead_letter', '$unseen', 10, '', now() - interval '20 days', NULL);
SQL
	$node->append_conf('postgresql.conf', "chaincall.keep_jobs = 7d\nchaincall.keep_spans = 7d");
	$node->reload;
	renew();
	wait_until(sub { $session->must("SELECT count(*) FROM chaincall.definition WHERE sha256 = '\\x03'") == 0 }, 60);

	my $spans = 'SELECT count(*) FROM chaincall.span WHERE job = ';

	is($session->must("SELECT to_regclass('chaincall.$old') IS NULL"), 't', 'a partition leaves when its day is old enough');
	is($session->must("SELECT to_regclass('chaincall.$young') IS NULL"), 'f', 'not before');
	is($session->must("$spans '$kept'"), 3, 'what an unfinished job needs of it is kept');
	is($session->must("SELECT count(*) FROM chaincall.span_default WHERE job = '$kept'"), 3, 'in the default partition');
	is($session->must("SELECT count(*) FROM chaincall.span_default WHERE job = '$failed'"), 3, 'and those of a failed job, which somebody may have tried again');
	is($session->must("$spans '$done' OR job = '$recent'"), 0, 'the rest goes');
	is($session->must("SELECT count(*) || ' ' || (SELECT count(*) FROM chaincall.$full) FROM chaincall.span WHERE job = '$large'"), '10001 10001',
		'a partition with too many rows that are needed stays');
	is($session->must("SELECT count(*) FROM chaincall.job WHERE id IN ('$done', '$odd', '$seen_to')"), 0, 'finished jobs leave');
	is($session->must("SELECT count(*) FROM chaincall.job WHERE id = '$unseen'"), 1, 'but for those that failed and that nobody has seen to');
	is($session->must("SELECT count(*) FROM chaincall.job WHERE id IN ('$kept', '$recent', '$odd_kept', '$large')"), 4, 'younger and unfinished ones stay');
	is($session->must("$spans '$odd'"), 0, 'spans in the default partition leave with their job');
	is($session->must("$spans '$odd_kept'"), 3, 'or stay with it');
	is($session->must("SELECT count(*) FROM chaincall.action WHERE id = '$ask'"), 0, 'actions leave with their job');
	is($session->must("SELECT string_agg(kind, ' ' ORDER BY kind) FROM chaincall.alert WHERE kind IN ('old', 'recent', 'open', 'forgotten')"), 'open recent',
		'acknowledged alerts leave in time, others much later');
	is($session->must("SELECT string_agg(body::text, ' ' ORDER BY body) FROM chaincall.definition"), '2 4',
		'so do definitions that no job names, and older copies of others');
	$session->must("DELETE FROM chaincall.span WHERE job = '$large'");
}

# --------------------------------------------------------------------------------------------------
# A copy of the database

my $unfinished = job(state => "'waiting'", run_at => "'infinity'");
my $orphan = running(301);
my $done = job(state => "'succeeded'", finished_at => 'now()');
my $oid = $session->must('SELECT database FROM chaincall.origin');

$node->append_conf('postgresql.conf', 'chaincall.workers = off');
$node->reload;
wait_until(sub { !maintainer() }, 60);
kill 'CONT', $caller;
wait_until(sub { !worker('caller') }, 60);
is(maintainer(), '', 'chaincall.workers = off stops the maintainer');

my $asked = action($unfinished, 'owner_role');

$session->quit;
$node->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
$node->safe_psql('template1', 'ALTER DATABASE postgres ALLOW_CONNECTIONS false');
$session = session($node, dbname => 'copy');

my $fresh = job(state => "'waiting'", run_at => "'infinity'", created_at => 'clock_timestamp()');

$node->append_conf('postgresql.conf', 'chaincall.workers = on');
$node->reload;
becomes($unfinished, "state || ' ' || (error->>'class') || ' ' || (error->>'message')", 'cancelled cancelled the job was cancelled because its database is a copy',
	'in a copy unfinished jobs are cancelled');
is(row($orphan, 'state'), 'cancelled', 'those that ran, too');
is(row($done, 'state'), 'succeeded', 'others stay as they were');
is(row($fresh, 'state'), 'waiting', 'so do jobs that were enqueued in the copy itself');
is(answer($asked), 'refused: the database is a copy', 'what was asked is refused');
isnt($session->must('SELECT database FROM chaincall.origin'), $oid, 'the copy\'s oid is noted');
is($session->must("SELECT database = (SELECT oid FROM pg_database WHERE datname = 'copy') FROM chaincall.origin"), 't', 'and no other');

# --------------------------------------------------------------------------------------------------
# Dump and restore

wait_until(sub { $session->must($partitions) =~ / .* / }, 60);
for my $options ([], ['--schema-only'])
{
	my $name = @$options ? 'schema' : 'whole';
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name.sql";

	$node->command_ok([ 'pg_dump', @$options, '-f', $file, 'copy' ], "pg_dump ($name)");
	unlike(slurp_file($file), qr/span_\d|COPY chaincall\.(?:job|span|action|definition)/, 'it says nothing of partitions and jobs');
	$node->safe_psql('template1', "CREATE DATABASE $name");
	$node->command_ok([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($name), '-f', $file ], 'and can be restored');
	is($node->safe_psql($name, "SELECT count(*) FROM chaincall.job"), 0, 'without jobs');
}

$session->quit;
$node->stop;
done_testing();
