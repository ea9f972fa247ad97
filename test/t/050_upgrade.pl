# ALTER EXTENSION chaincall UPDATE: from every version that was ever out, with jobs in flight; what was updated equals what is created anew.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Catalog;
use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $models = ModelServer->new;
my $node = jobs_node('upgrade', "chaincall.keep_jobs = -1\nchaincall.keep_spans = -1\nchaincall.max_callers = 1\n");
my $session = session($node);
my $version = $session->must(q{SELECT default_version FROM pg_available_extensions WHERE name = 'chaincall'});
my @versions = grep { $_ ne $version } split /\n/,
  $session->must(q{SELECT version FROM pg_available_extension_versions WHERE name = 'chaincall' ORDER BY string_to_array(version, '.')::int[]});
my $count = 0;
our @made;		# files beside PostgreSQL's own

END { unlink @main::made; }

# A database with the extension in some version, and a session there.
sub database
{
	my ($name, $of) = @_;
	my $there;

	$session->must("CREATE DATABASE $name");
	$there = session($node, dbname => $name);
	$there->must('CREATE EXTENSION chaincall' . ($of ? " VERSION '$of'" : ''));
	return $there;
}

sub new_id
{
	my $ms = int(time * 1000);

	return sprintf('%08x-%04x-7%03x-8000-%012x', $ms >> 16, $ms & 0xffff, ++$count & 0xfff, $count);
}

# How many workers are in a database.
sub workers { return $session->must("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %' AND datname = '$_[0]'"); }

sub said { return scalar(() = slurp_file($node->logfile, $_[0]) =~ /$_[1]/g); }

# What a chain needs that runs before and after, as its owner grandfather.
sub world
{
	my ($there) = @_;

	add_server($there, 's', $models);
	add_model($there, 'm', 's', 'echo', retry => '0');
	$there->must(<<'SQL');
SELECT chaincall.grant_usage('grandfather');
GRANT USAGE ON FOREIGN SERVER s TO grandfather;
GRANT CREATE ON SCHEMA public TO grandfather;
SET ROLE grandfather;
CREATE TABLE public.effect (n int, at text);
CREATE FUNCTION public.note(n int, at text) RETURNS int LANGUAGE sql AS 'INSERT INTO public.effect VALUES (n, at) RETURNING n';
CREATE FUNCTION public.inner_chain(t text) RETURNS text LANGUAGE chaincall AS $chain$
model: m
prompt: "<{{t}}>"
$chain$;
CREATE FUNCTION public.old_chain(n int, words text[]) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: {n: "{{n}}", begun: "{{begun}}", said: "{{said}}", done: "{{done}}"}
steps:
  begun:
    sql: INSERT INTO public.effect VALUES ({{n}}, 'begun') RETURNING n
    returns: value
  said:
    after: begun
    each: words
    function: inner_chain
    args: {t: "{{item}}"}
  pause:
    after: said
    wait: "{{n}} ms"
  done:
    after: pause
    function: note
    args: {n: "{{n}}", at: done}
$chain$;
RESET ROLE;
SQL
	return;
}

# What 0.1.0 had pinned of that chain, and stored of its steps.
my $definition = '0cd2ea2d335bd9942e306ef08bdf0f16190d1df3b21c254fa6430adac5ecba6b';
my $closure = <<'JSON';
{"chains": [{"set": false, "args": [{"name": "n", "type": "integer", "default": false}, {"name": "words", "type": "pg_catalog.text[]", "default": false}], "body": "\noutput: {n: \"{{n}}\", begun: \"{{begun}}\", said: \"{{said}}\", done: \"{{done}}\"}\nsteps:\n  begun:\n    sql: INSERT INTO public.effect VALUES ({{n}}, 'begun') RETURNING n\n    returns: value\n  said:\n    after: begun\n    each: words\n    function: inner_chain\n    args: {t: \"{{item}}\"}\n  pause:\n    after: said\n    wait: \"{{n}} ms\"\n  done:\n    after: pause\n    function: note\n    args: {n: \"{{n}}\", at: done}\n", "name": "old_chain", "column": null, "result": "pg_catalog.jsonb", "shapes": [], "strict": false, "columns": [], "functions": [{"set": false, "sql": "SELECT chaincall_result FROM public.inner_chain(t => $1) AS chaincall_result", "chain": true, "types": ["pg_catalog.text"], "helper": null, "result": "pg_catalog.text", "function": "public.inner_chain(text)"}, {"set": false, "sql": "SELECT chaincall_result FROM public.note(n => $1, at => $2) AS chaincall_result", "chain": false, "types": ["integer", "pg_catalog.text"], "helper": null, "result": "integer", "function": "public.note(integer, text)"}], "signature": "public.old_chain(integer, text[])"}, {"set": false, "args": [{"name": "t", "type": "pg_catalog.text", "default": false}], "body": "\nmodel: m\nprompt: \"<{{t}}>\"\n", "name": "inner_chain", "column": null, "result": "pg_catalog.text", "shapes": [], "strict": false, "columns": [], "functions": [], "signature": "public.inner_chain(text)"}], "format": 1, "search_path": "public"}
JSON
my %checkpoint = (
	begun => [ 'sql', '5', 'ddc286bc8e9283578d597651c46ab91cca77eeb529367430ae4c5edea40100f4' ],
	'said[0]/chain' => [ 'model', '"<a>"', '14c871dc7c6c42f0f2407bd1f9082e21ca151eaf45cdf1bf30cf583727fd8f4a' ],
	'said[1]/chain' => [ 'model', '"<b>"', 'eb29c9e7028b58cf95fdf56ed7171e8c412400aa844f78256844c5667c35dfdd' ]);

sub old_job
{
	my ($there, %columns) = @_;
	my %row = (
		id => sql_literal(new_id()),
		chain => "'public.old_chain(integer, text[])'",
		definition => "'\\x$definition'",
		input => q('{"n": 5, "words": ["a", "b"]}'),
		run_at => 'now()',
		rank => 'now()',
		owner => "'grandfather'::regrole",
		created_at => 'now()',
		%columns);

	$there->must('INSERT INTO chaincall.job (' . join(', ', sort keys %row) . ') VALUES (' . join(', ', map { $row{$_} } sort keys %row) . ')');
	return $row{id} =~ s/'//gr;
}

sub old_span
{
	my ($there, $job, $path) = @_;
	my ($kind, $output, $sha256) = @{ $checkpoint{$path} };

	$there->must('INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at, worker, output, sha256) VALUES '
		  . "('$job', '$path', 0, ${\ ++$count}, 'grandfather'::regrole, '$kind', now(), now(), 42, '$output', '\\x$sha256')");
	return;
}

# The rows and the partition that 0.1.0 leaves behind when it is stopped in the midst of its work.
sub leave_behind
{
	my ($there) = @_;
	my ($day, $from, $to) = split /\|/, $there->must(<<'SQL');
SELECT to_char(d, 'YYYYMMDD'), left(f, 8) || '-' || right(f, 4) || '-0000-0000-000000000000', left(t, 8) || '-' || right(t, 4) || '-0000-0000-000000000000'
FROM date_trunc('day', now() AT TIME ZONE 'UTC') d, lpad(to_hex((extract(epoch FROM d) * 1000)::bigint), 12, '0') f, lpad(to_hex((extract(epoch FROM d) * 1000 + 86400000)::bigint), 12, '0') t
SQL
	my %id;

	$there->must(<<"SQL");
CREATE TABLE chaincall.span_$day (LIKE chaincall.span INCLUDING ALL);
REVOKE ALL ON TABLE chaincall.span_$day FROM PUBLIC;
ALTER TABLE chaincall.span_$day ENABLE ROW LEVEL SECURITY;
ALTER TABLE chaincall.span ATTACH PARTITION chaincall.span_$day FOR VALUES FROM ('$from') TO ('$to');
COMMENT ON TABLE chaincall.span_$day IS 'Spans of the jobs that were enqueued on a day (UTC)';
ALTER EXTENSION chaincall ADD TABLE chaincall.span_$day;
ALTER TABLE chaincall.job DISABLE TRIGGER USER;
ALTER TABLE chaincall.action DISABLE TRIGGER USER;
SQL
	$there->must("INSERT INTO chaincall.definition (sha256, body) VALUES ('\\x$definition', " . sql_literal($closure) . '::jsonb)');
	$id{queued} = old_job($there, state => "'queued'");
	$id{waiting} = old_job($there, state => "'waiting'", run_at => "now() + interval '1 s'");
	$id{far} = old_job($there, state => "'waiting'", run_at => "now() + interval '1 day'");
	$id{running} = old_job($there, state => "'running'", worker => 42, started_at => 'now()');
	$id{most} = old_job($there, state => "'running'", worker => 42, started_at => 'now()');
	$id{succeeded} = old_job($there, state => "'succeeded'", started_at => 'now()', finished_at => 'now()', output => q('{"n": 5}'));
	$id{dead} = old_job($there, state => "'failed'", deaths => 3, started_at => 'now()', finished_at => 'now()', error => q('{"class": "crash", "message": "it crashed"}'));
	old_span($there, $id{$_->[0]}, $_->[1]) for ([ running => 'begun' ], [ most => 'begun' ], [ most => 'said[1]/chain' ], [ succeeded => 'begun' ]);
	# what these steps did in the database
	$there->must("INSERT INTO public.effect VALUES (5, 'begun'), (5, 'begun')");
	$there->must("INSERT INTO chaincall.alert (id, kind, job, owner, message, created_at) VALUES ('" . new_id() . "', 'dead_letter', '$id{dead}', 'grandfather'::regrole, 'it crashed', now())");
	$there->must("INSERT INTO chaincall.action (id, job, action, author, created_at) VALUES ('" . new_id() . "', '$id{far}', 'cancel', 'grandfather'::regrole, now())");
	$there->must('ALTER TABLE chaincall.job ENABLE TRIGGER USER; ALTER TABLE chaincall.action ENABLE TRIGGER USER; '
		  . 'ALTER TABLE chaincall.job ENABLE ALWAYS TRIGGER job_insert, ENABLE ALWAYS TRIGGER job_inserted; ALTER TABLE chaincall.action ENABLE ALWAYS TRIGGER action_insert');
	return %id;
}

$session->must('CREATE ROLE grandfather LOGIN; CREATE ROLE updater SUPERUSER');
ok(@versions > 0, "there are upgrades to $version, from @versions");

# --------------------------------------------------------------------------------------------------
# Fresh, to compare with

my $fresh = database('fresh');

$fresh->must("SELECT chaincall.grant_usage('grandfather')");
wait_sql($fresh, "SELECT count(*) >= 3 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass AND inhrelid <> 'chaincall.span_default'::regclass");

my $expected = extension_catalog($fresh);

cmp_ok(scalar(@$expected), '>', 1000, 'a catalog has many lines');

subtest 'the comparison sees differences' => sub {
	my %changes = (
		'ALTER TABLE chaincall.job ALTER COLUMN priority SET DEFAULT 1' => qr/^- table column chaincall\.job\.priority: default: 0$|^. column chaincall\.job\.priority: default: [01]$/m,
		'ALTER TABLE chaincall.job DISABLE TRIGGER job_insert' => qr/trigger job_insert on chaincall\.job: definition: .* D$/m,
		'GRANT SELECT ON chaincall.model TO PUBLIC' => qr/^\+ table chaincall\.model: privileges: .*PUBLIC=SELECT/m,
		'DROP INDEX chaincall.job_labels' => qr/^- index chaincall\.job_labels: is: there$/m,
		'ALTER TABLE chaincall.alert NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY' => qr/chaincall\.alert: row security/,
		'ALTER FUNCTION chaincall.cancel(uuid) COST 7' => qr/^\+ function chaincall\.cancel\(.*attributes: .* 7 /m,
		'COMMENT ON COLUMN chaincall.model.name IS NULL' => qr/column chaincall\.model\.name: comment/,
		'ALTER TABLE chaincall.model ADD COLUMN x int' => qr/^\+ table chaincall\.model: order of columns: .*, x$/m,
		'ALTER POLICY job_see ON chaincall.job USING (true)' => qr/policy job_see on chaincall\.job: definition/,
		'ALTER TABLE chaincall.definition REPLICA IDENTITY DEFAULT' => qr/chaincall\.definition: replica identity/,
		'ALTER EXTENSION chaincall DROP FUNCTION chaincall.submit(text, jsonb, int, timestamptz, timestamptz, text, jsonb, text, text)' => qr/^- function chaincall\.submit\(.*: is: there$/m,
		'ALTER TABLE chaincall.model DROP CONSTRAINT model_kind_check' => qr/^- table constraint model_kind_check on chaincall\.model: definition/m);

	for my $change (sort keys %changes)
	{
		$fresh->must("BEGIN; $change");
		like(join("\n", differences($expected, extension_catalog($fresh))), $changes{$change}, $change);
		$fresh->must('ROLLBACK');
	}
	is_deeply([ differences($expected, extension_catalog($fresh)) ], [], 'and none where there is none');
};

# --------------------------------------------------------------------------------------------------
# From each version

for my $old (@versions)
{
	my $name = "from_$old" =~ s/\W/_/gr;

	subtest "from $old" => sub {
		my $mark = -s $node->logfile;
		my $there = database($name, $old);
		my (%id, $result);

		wait_until(sub { said($mark, qr/database "$name" has chaincall \Q$old\E, but the library is \Q$version\E/) }, 'the log says that the extension is older');
		world($there);
		%id = leave_behind($there);
		is($there->must("SELECT public.inner_chain('x'), chaincall.call('m', 'y')"), '<x>|y', 'before: a chain and a call in a session');
		is($there->must(q{SELECT public.old_chain(1, '{a}')}), '{"n": 1, "done": 1, "said": ["<a>"], "begun": 1}', 'and one with all kinds of steps');
		$result = $there->run("SELECT chaincall.submit('inner_chain', '{\"t\": \"new\"}')");
		ok($result->ok || $result->{hint} =~ /ALTER EXTENSION chaincall UPDATE/, 'a job can be enqueued, or it is said what to do') || diag($result->{err});
		is(workers($name), 0, 'no worker is there');

		# another superuser than the one who has created it
		$there->must('BEGIN; SET LOCAL ROLE updater; ALTER EXTENSION chaincall UPDATE; ROLLBACK');
		is($there->must("SELECT extversion FROM pg_extension WHERE extname = 'chaincall'"), $old, 'an update that is rolled back');
		is($there->must("SELECT count(*) FROM chaincall.job WHERE state IN ('queued', 'running')"), $result->ok ? 4 : 3, 'nothing has begun');

		$models->reset;
		$result = $there->run('SET ROLE updater; ALTER EXTENSION chaincall UPDATE; RESET ROLE');
		ok($result->ok, 'the update') || diag($result->{err});
		like($result->{err}, qr/WARNING: .*grandfather.*HINT: +Run chaincall\.grant_usage\(\) again/s, 'it says whose privileges must be granted anew');
		wait_sql($there, "SELECT count(*) = 0 FROM chaincall.job WHERE finished_at IS NULL");
		is($there->must("SELECT state || ' ' || coalesce(output::text, error->>'message', '') FROM chaincall.job WHERE id = '$id{$_->[0]}'"), $_->[1], "the job that was $_->[0]")
		  for ((map { [ $_ => 'succeeded {"n": 5, "done": 5, "said": ["<a>", "<b>"], "begun": 5}' ] } qw(queued waiting running most)),
			[ far => 'cancelled the job was cancelled' ], [ succeeded => 'succeeded {"n": 5}' ], [ dead => 'failed it crashed' ]);
		is($there->must("SELECT string_agg(at || ' ' || c, ' ' ORDER BY at) FROM (SELECT at, count(*) AS c FROM public.effect WHERE n = 5 GROUP BY at) s"), 'begun 4 done 4',
			'no step has happened twice');
		is($models->stats->{requests}, 7 + ($there->must("SELECT count(*) FROM chaincall.job WHERE chain = 'public.inner_chain(text)'")), 'and no call was made again');
		is($there->must("SELECT kind || ' ' || (acknowledged_at IS NULL) FROM chaincall.alert"), 'dead_letter true', 'the alert is there');
		wait_until(sub { workers($name) >= 2 }, 'workers are there');
		is(said($mark, qr/database "$name" has chaincall/), 1, 'it was said once that the extension is older');

		$there->must("SELECT chaincall.grant_usage('grandfather')");
		wait_sql($there, "SELECT count(*) >= 3 FROM pg_inherits WHERE inhparent = 'chaincall.span'::regclass AND inhrelid <> 'chaincall.span_default'::regclass");
		my @differences = differences($expected, extension_catalog($there));
		is(scalar(@differences), 0, 'what was updated equals what is created anew') || diag(join("\n", 'only fresh (-), only updated (+):', @differences));

		my $app = session($node, dbname => $name, user => 'grandfather');
		is($app->must("SELECT chaincall.result('" . submit($app, 'old_chain', '{"n": 7, "words": []}') . "', '1 min')"), '{"n": 7, "done": 7, "said": [], "begun": 7}', 'new jobs run');
		$app->quit;
		$there->must("DROP EXTENSION chaincall CASCADE");
		is($there->must(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'chaincall'::regnamespace}), 0, 'DROP EXTENSION takes all of it');
		$there->quit;
	};
}

# --------------------------------------------------------------------------------------------------
# While workers are busy

# Calls that wait in the air, and steps that are at work, when the update comes.
sub busy
{
	my ($there, $jobs) = @_;

	$there->must(<<"SQL");
SELECT chaincall.submit('old_chain', jsonb_build_object('n', n, 'words', '["a", "b"]'::jsonb)) FROM generate_series(1, $jobs) n;
SQL
	wait_sql($there, "SELECT count(*) > $jobs / 4 FROM chaincall.span");
	return;
}

sub all_done
{
	my ($there, $jobs) = @_;

	is(wait_jobs($there), "succeeded $jobs", 'all jobs come to their end');
	is($there->must("SELECT count(*) || ' ' || count(DISTINCT (n, at)) FROM public.effect"), 2 * $jobs . ' ' . 2 * $jobs, 'each step has happened once');
	$there->must('TRUNCATE public.effect; DELETE FROM chaincall.job');
	return;
}

subtest 'while workers are busy' => sub {
	world($fresh);
	for my $round (1 .. 3)
	{
		busy($fresh, 200);
		like($fresh->run('ALTER EXTENSION chaincall UPDATE')->{err}, qr/already installed/, 'an update to what is there');
		all_done($fresh, 200);
	}
};

# Rows are taken apart by the columns that the library knows.
subtest 'tables that are not as the library knows them' => sub {
	submit($fresh, 'inner_chain', '{"t": "x"}');
	wait_jobs($fresh);
	$fresh->must('BEGIN; ALTER TABLE chaincall.job ADD COLUMN later int; ALTER TABLE chaincall.span ADD COLUMN later int; SAVEPOINT s');
	is($fresh->must(q{SELECT count(*) FROM pg_inherits i LEFT JOIN pg_attribute a ON a.attrelid = i.inhrelid AND a.attname = 'later'
		WHERE i.inhparent = 'chaincall.span'::regclass AND a.attname IS NULL}), 0, 'partitions get new columns from their parent');
	like($fresh->run("SELECT chaincall.submit('inner_chain', '{\"t\": \"new\"}')")->{hint}, qr/ALTER EXTENSION chaincall UPDATE/, 'to enqueue a job is an error');
	$fresh->must('ROLLBACK; DELETE FROM chaincall.job');
};

# The next version, made here: one that the library is not of.
SKIP:
{
	my $directory = (split /\n/, `pg_config --sharedir`)[0] . '/extension';

	skip("$directory cannot be written to", 1) unless -w $directory;
	subtest 'to a version that the library is not of, and back' => sub {
		my $mark = -s $node->logfile;
		my @files = @made = map { "$directory/chaincall--$_.sql" } ("$version--999.0.0", "999.0.0--$version");

		append_to_file($files[0], 'CREATE TABLE later (a int);');
		append_to_file($files[1], 'DROP TABLE later;');
		busy($fresh, 200);
		$fresh->must("ALTER EXTENSION chaincall UPDATE TO '999.0.0'");
		wait_until(sub { said($mark, qr/has chaincall 999\.0\.0, but the library is/) }, 'the log says so');
		is(workers('fresh'), 0, 'the workers have left');
		is($fresh->must("SELECT count(*) > 0 FROM chaincall.job WHERE finished_at IS NULL"), 't', 'jobs wait');
		is($fresh->must("SELECT public.inner_chain('x')"), '<x>', 'chains in sessions work');
		submit($fresh, 'old_chain', '{"n": 201, "words": []}');
		$fresh->must("ALTER EXTENSION chaincall UPDATE TO '$version'");
		all_done($fresh, 201);
	};
}

$_->quit for ($fresh, $session);
$node->stop;
unlike(slurp_file($node->logfile), qr/TRAP|PANIC|terminated by signal/, 'nothing crashed');
done_testing();
