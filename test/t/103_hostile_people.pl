# People with no more than grant_usage() who mean harm by what they ask of jobs: nobody else's jobs, questions or actions suffer.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = jobs_node('hostile_people');
my $models = ModelServer->new;
my $s = session($node);
my $log = $node->logfile;

add_server($s, 'stand_in', $models);
add_server($s, 'secret', $models);
add_model($s, 'small', 'stand_in', 'echo', retry => '0');
add_model($s, 'hidden', 'secret', 'echo', retry => '0');
add_model($s, 'bad', 'stand_in', 'echo?status=404', retry => '0');
$s->must(<<'SQL');
CREATE ROLE lawyers;
CREATE ROLE victim LOGIN;
CREATE ROLE mallory LOGIN;
CREATE ROLE lena LOGIN IN ROLE lawyers;
SELECT chaincall.grant_usage(r) FROM unnest('{victim, mallory, lena}'::regrole[]) r;
GRANT CREATE ON SCHEMA public TO victim;
GRANT USAGE ON FOREIGN SERVER stand_in TO victim, mallory, lena;
CREATE SCHEMA AUTHORIZATION mallory;
UPDATE chaincall.model SET fallback = '{hidden}' WHERE name = 'bad';
CREATE USER MAPPING FOR PUBLIC SERVER secret OPTIONS (api_key 'sk-key-5ec2e7');
SQL

my ($victim, $mallory, $lena) = map { session($node, user => $_, dbname => 'postgres') } qw(victim mallory lena);

$victim->must(<<'SQL');
CREATE FUNCTION plain(t text) RETURNS text LANGUAGE chaincall AS $$
value: "{{t}}"
$$;
CREATE FUNCTION asks(n int) RETURNS int[] LANGUAGE chaincall AS $$
steps:
  first: {ask: "May %s be signed'); DROP TABLE x; --", to: lawyers}
  all: {each: n, ask: "{{first}} %n {{item}}?", to: lawyers, returns: int}
  out: {value: "{{all}}"}
$$;
CREATE FUNCTION falls(t text) RETURNS text LANGUAGE chaincall AS $$
model: bad
prompt: "{{t}}"
$$;
SQL

# What came of an action that a statement asks for: "applied", or "refused: why".
sub act
{
	my ($who, $call) = @_;
	my $id = $who->must("SELECT chaincall.$call");

	wait_sql($s, "SELECT state <> 'pending' FROM chaincall.action WHERE id = '$id'");
	return $s->must("SELECT concat_ws(': ', state, reason) FROM chaincall.action WHERE id = '$id'");
}

sub ended { return $victim->must("SELECT chaincall.result('$_[0]', '60 s')"); }

# ---- a chain whose signature no index takes ----

# Of so many bytes; the names of its types do not compress.
sub signature
{
	my ($bytes) = @_;
	my @chars = grep { $_ ne '"' && $_ ne '\'' && $_ ne '\\' && $_ ne '$' } map { chr } 33 .. 122;
	my ($signature, @types) = ('mallory.edge(');

	srand(5);
	while ((my $room = $bytes - length($signature) - 1 - (@types ? 2 : 0) - length('mallory.""')) > 8)
	{
		my $length = $room > 60 && $room < 90 ? 40 : $room > 60 ? 60 : $room;
		my $type = sprintf('%02dZ', scalar @types) . join('', map { $chars[ rand @chars ] } 4 .. $length);

		$signature .= (@types ? ', ' : '') . "mallory.\"$type\"";
		push @types, $type;
	}
	return @types;
}

{
	my @types = signature(2690);
	my $n = 0;

	$mallory->must("CREATE DOMAIN mallory.\"$_\" AS text") for @types;
	$mallory->must('CREATE FUNCTION mallory.edge(' . join(', ', map { 'a' . $n++ . " mallory.\"$_\" DEFAULT NULL" } @types) . ') RETURNS text LANGUAGE chaincall AS $f$value: edge$f$');
	my $edge = submit($mallory, 'mallory.edge');
	cmp_ok($s->must("SELECT octet_length(chain) FROM chaincall.job WHERE id = '$edge'"), '>', 2600, 'a signature that just fits into an index');
	my $result = $mallory->run(q{SELECT chaincall.pause('chain', 'mallory.edge')});
	is($result->{state}, '54000', 'its chain cannot be paused');
	like($result->{hint}, qr/fewer parameters/, 'which says what to do');
	is($mallory->run(q{SELECT chaincall.set_ttl('mallory.edge', '1 day')})->{state}, '54000', 'nor given a time');
	is($s->run("INSERT INTO chaincall.chain_policy (chain, paused) VALUES ('" . 'x' x 2001 . "', true)")->{state}, '54000', 'nor can another of such a length');
	is($mallory->must("SELECT chaincall.result('$edge', '60 s')"), '"edge"', 'its jobs run');
	is(ended(submit($victim, 'plain', '{"t": "1"}')), '"1"', 'as do those of others');
}

# ---- more paused chains than anybody has ----

$s->must(q{INSERT INTO chaincall.chain_policy (chain, paused) SELECT 'mallory.' || repeat('p', 500) || i || '(text)', true FROM generate_series(1, 10000) i});
within(2000, 'jobs are claimed though 10,000 chains are paused', sub {
	my $start = now_ms();

	$victim->must(q{SELECT count(chaincall.submit('plain', '{"t": "x"}')) FROM generate_series(1, 1000)});
	wait_sql($s, q{SELECT NOT EXISTS (SELECT FROM chaincall.job WHERE finished_at IS NULL)});
	return now_ms() - $start;
});
$s->must('DELETE FROM chaincall.chain_policy');

# ---- policies ----

for ([ q{set_ttl('plain', '0')}, '22023', qr/^jobs cannot expire before/ ], [ q{set_ttl('plain', '-1 day')}, '22023', qr/^jobs cannot expire before/ ],
	[ q{pause('chain', repeat('x', 100000))}, '42883', qr/^chain "x{1000}" does not exist$/ ], [ q{pause(repeat('x', 100000), 'plain')}, '22023', qr/^cannot pause or resume a "x{64}"$/ ],
	[ q{render('plain', repeat('x', 100000), '{"t": 1}')}, 'MC008', qr/^chain "plain" has no step "x{1000}"$/ ])
{
	my ($call, $state, $message) = @$_;
	my $result = $victim->run("SELECT chaincall.$call");

	is($result->{state}, $state, "$call: an error");
	like($result->{message}, $message, 'short and plain');
}
is($mallory->run(q{SELECT chaincall.pause('chain', 'public.plain')})->{state}, '42501', 'a chain is paused by its owner');
is($mallory->run(q{SELECT chaincall.pause('model', 'small')})->{state}, '42501', 'a model by who may change it');

# a chain has one name, whatever a session's settings are
$victim->must(q{SELECT chaincall.pause('chain', 'plain')});
{
	my $quoting = session($node, user => 'mallory', dbname => 'postgres', sql => 'SET quote_all_identifiers = on');
	my $job = submit($quoting, 'public.plain', '{"t": "now"}');

	wait_sql($s, "SELECT state = 'waiting' OR finished_at IS NOT NULL FROM chaincall.job WHERE id = '$job'");
	is($s->must("SELECT chain, state, waits_on FROM chaincall.job WHERE id = '$job'"), 'public.plain(text)|waiting|chain public.plain(text)', 'a paused chain is paused for who quotes all names');
	$victim->must(q{SELECT chaincall.resume('chain', 'plain')});
	is($quoting->must("SELECT chaincall.result('$job', '60 s')"), '"now"', 'and resumed');
	$quoting->quit;
}

# ---- who is asked ----

{
	my $job = submit($victim, 'asks', '{"n": 2}');
	my $early = submit($victim, 'asks', '{"n": 1}', q{run_at => now() + interval '1 hour'});

	wait_sql($s, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$job'");
	is($lena->must('SELECT question FROM chaincall.question'), q{May %s be signed'); DROP TABLE x; --}, 'a question is a text');
	is(act($lena, "resolve('$early', 'first', '\"yes\"')"), 'applied', 'one that is named outright may be answered early');
	is(act($lena, "resolve('$early', 'all[0]', '1')"), 'refused: there is no such job', 'not that of an item: a stranger could fill the job with answers');
	is(act($lena, "resolve('$job', 'all[77777]', '1')"), 'refused: there is no such job', 'that will never ask');
	is(act($victim, "resolve('$early', 'all[0]', '1')"), 'applied', 'its owner may');
	for my $call ("cancel('$job')", "retry('$job')", "discard('$job')", "retry('$job', 'first', '{}')", "resolve('$job', 'out', '[]')", "resolve('$job', 'first/on_error', '1')", "resolve('$job', '', '1')")
	{
		is(act($lena, $call), 'refused: there is no such job', "who is asked may not $call");
	}
	is($lena->must('SELECT count(*) FROM chaincall.job') . $lena->must('SELECT count(*) FROM chaincall.span') . $lena->must('SELECT count(*) FROM chaincall.dead_letter'), '000', 'nor see anything of it');
	is(act($lena, "resolve('$job', 'first', '\"%s\"')"), 'applied', 'but answer');
	wait_sql($s, "SELECT count(*) = 2 FROM chaincall.question WHERE job = '$job'");
	for my $answer ('1e30', '2147483648', '-2147483649', '1.5', '"1"', '[1]', 'null')
	{
		like(act($lena, "resolve('$job', 'all[0]', '$answer')"), qr/^refused: the answer does not fit: expected /, "$answer is no int");
	}
	is(act($lena, "resolve('$job', 'all[0]', '2147483647')"), 'applied', 'an item that asks is answered');
	is(act($lena, "resolve('$job', 'all[1]', '-2147483648')"), 'applied', 'each');
	is(ended($job), '[2147483647, -2147483648]', 'and the job goes on');
	$s->must("SELECT chaincall.cancel('$early')");
}

# ---- other people's jobs and ones that never were, in the same words ----

{
	my $failed = submit($victim, 'falls', '{"t": "a prompt of mine"}');
	my %reasons;

	wait_sql($s, "SELECT state = 'failed' FROM chaincall.job WHERE id = '$failed'");
	unlike($victim->must("SELECT error::text FROM chaincall.job WHERE id = '$failed'"), qr/sk-key/, 'no key in the error');
	like($victim->must("SELECT error->>'tried' FROM chaincall.job WHERE id = '$failed'"), qr/permission denied for model \\"hidden\\"/, 'a fallback whose server the owner may not use is not asked');
	is(scalar(grep { ($_->{model} || '') eq 'echo' } @{ $models->get('/last?n=100') || [] }), 0, 'really not') if $models->can('get');
	for my $job ($failed, '00000000-0000-7000-8000-000000000000')
	{
		$reasons{ act($mallory, $_) }++ for ("cancel('$job')", "retry('$job')", "retry('$job', 'chain', '{}')", "resolve('$job', 'chain', '1')", "discard('$job')");
	}
	$mallory->must("INSERT INTO chaincall.action (job, action, input) VALUES ('$failed', 'replace', '{}')");
	$mallory->must("INSERT INTO chaincall.action (alert, action) SELECT unnest(ARRAY['" . $s->must("SELECT id FROM chaincall.alert WHERE job = '$failed'") . "'::uuid, gen_random_uuid()]), 'acknowledge'");
	wait_sql($s, q{SELECT NOT EXISTS (SELECT FROM chaincall.action WHERE state = 'pending')});
	is_deeply(\%reasons, { 'refused: there is no such job' => 10 }, 'all are refused in the same words');
	is($s->must(q{SELECT string_agg(DISTINCT reason, ', ') FROM chaincall.action WHERE action IN ('replace', 'acknowledge')}), 'there is no such alert, there is no such job', 'these too');
	is($mallory->must('SELECT count(*) FROM chaincall.alert'), 0, 'alerts of others are not shown');
	is($mallory->run("INSERT INTO chaincall.action (job, action, $_) VALUES ('$failed', 'retry', DEFAULT)")->{state}, '42501', "nobody says $_ himself") for qw(id author state reason created_at applied_at);
}

# ---- one who asks for more than there is time for ----

$mallory->must(q{INSERT INTO chaincall.action (job, action) SELECT gen_random_uuid(), 'cancel' FROM generate_series(1, 50000)});
{
	my $later = submit($victim, 'plain', '{"t": "soon"}', q{run_at => clock_timestamp() + interval '300 ms'});
	my $id = submit($victim, 'plain', '{"t": "never"}', q{run_at => now() + interval '1 hour'});

	within(1000, 'a cancel does not wait for 50,000 of another', sub {
		my $cancelled = submit($victim, 'plain', '{"t": "never"}', q{run_at => now() + interval '1 hour'});
		my $start = now_ms();

		is(act($victim, "cancel('$cancelled')"), 'applied', 'it is applied');
		return now_ms() - $start;
	});
	is(ended($later), '"soon"', 'nor does what is due');
	cmp_ok($s->must(q{SELECT count(*) FROM chaincall.action WHERE state = 'pending'}), '>', 0, 'though they are not done');
	$s->must("SELECT chaincall.cancel('$id')");
}
$s->must(q{DELETE FROM chaincall.action WHERE state = 'pending' AND author = 'mallory'::regrole});

# what they ask of a job of somebody else is not before what its owner asks
{
	my $job = submit($victim, 'plain', '{"t": "x"}', q{run_at => now() + interval '1 hour'});

	$mallory->must("INSERT INTO chaincall.action (job, action) SELECT '$job', CASE i % 2 WHEN 0 THEN 'cancel' ELSE 'retry' END FROM generate_series(1, 20000) i");
	within(1000, 'nor is one in the way that the owner of the job gives', sub {
		my $start = now_ms();

		$job = submit($victim, 'plain', '{"t": "x"}', q{run_at => now() + interval '1 hour'}) if $s->must("SELECT finished_at IS NOT NULL FROM chaincall.job WHERE id = '$job'") eq 't';
		return undef unless act($victim, "cancel('$job')") eq 'applied';
		return now_ms() - $start;
	});
	$s->must(q{DELETE FROM chaincall.action WHERE state = 'pending' AND author = 'mallory'::regrole});
}

# in their order, whoever else asks
{
	my $job = submit($victim, 'plain', '{"t": "x"}', q{run_at => now() + interval '1 hour'});

	$victim->must("INSERT INTO chaincall.action (job, action) SELECT '$job', CASE i WHEN 150 THEN 'cancel' ELSE 'retry' END FROM generate_series(1, 300) i");
	wait_sql($s, "SELECT bool_and(state <> 'pending') FROM chaincall.action WHERE job = '$job'");
	is($s->must("SELECT string_agg(n || ' ' || reason, ', ' ORDER BY n) FROM (SELECT count(*) AS n, coalesce(reason, 'applied') AS reason FROM chaincall.action WHERE job = '$job' GROUP BY 2) r"),
		'1 applied, 149 the job has not failed: it is waiting, 150 the job has already ended: cancelled', 'what one asks for is applied in its order');
}

unlike(slurp_file($log), qr/chaincall (?:caller|maintainer|executor) .*(?:ERROR|FATAL|PANIC)|was terminated by signal|invalid memory alloc/, 'no worker has met an error');
is($s->must(q{SELECT count(*) FROM chaincall.job WHERE finished_at IS NULL}), 0, 'nothing is left');

$_->quit for $s, $victim, $mallory, $lena;
done_testing();
