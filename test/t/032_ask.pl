# Asks of jobs: questions are rows that leave no trace in memory, answers are checked checkpoints, whenever they come; a
# timeout ends at its first time though the job is parked and the cluster restarts meanwhile.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# long waits only: that asks are parked at once is what is tested
my $node = jobs_node('ask', "synchronous_commit = local\nchaincall.park_after = '1min'\nwal_level = replica\nmax_wal_senders = 2\n");
my $models = ModelServer->new;
my $session = session($node);

add_server($session, 'stand_in', $models);
add_model($session, 'small', 'stand_in', 'echo');
add_model($session, 'slow', 'stand_in', 'delay-60000');
$session->must(<<'END');
CREATE ROLE lawyers;
CREATE ROLE lena LOGIN IN ROLE lawyers;
CREATE ROLE other LOGIN;
CREATE ROLE owner LOGIN;
SELECT chaincall.grant_usage('lena'), chaincall.grant_usage('other'), chaincall.grant_usage('owner');
GRANT USAGE ON FOREIGN SERVER stand_in TO owner;
-- what stores an output, and so its sha256
CREATE FUNCTION stored(given jsonb) RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  v: {sql: "SELECT {{given}}::jsonb", returns: value}
$$;
CREATE FUNCTION approve(name text) RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  before: {model: small, prompt: "{{name}}"}
  ok:
    ask: "May {{name}} be signed?"
    show: {text: "{{before}}", names: ["{{name}}"]}
    to: lawyers
    returns: {yes: boolean, note?: text}
  out: {value: {signed: "{{ok.yes}}", note: "{{ok.note}}"}}
$$;
CREATE FUNCTION plain(name text) RETURNS text LANGUAGE chaincall AS $$
ask: "{{name}}?"
$$;
CREATE FUNCTION later(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  nap: {wait: 2 s}
  a: {ask: "{{name}}?", after: nap}
$$;
CREATE FUNCTION limited(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  before: {model: small, prompt: "{{name}}"}
  both:
    timeout: 3 s
    on_error: {value: "{{error.class}}"}
    steps:
      a: {ask: "{{before}}?"}
      b: {value: "{{a}}!"}
  out: {value: "{{both}}"}
$$;
CREATE FUNCTION rested(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  both:
    timeout: 4 s
    on_error: {value: "{{error.class}}"}
    steps:
      nap: {wait: 200 ms}
      a: {ask: "{{name}}?", after: nap}
      b: {value: "{{a}}!"}
  out: {value: "{{both}}"}
$$;
CREATE FUNCTION two(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  nap: {wait: 3 s}
  a: {ask: "{{name}}?", to: temps, on_error: {value: gone}}
  b: {ask: "and now?", after: [a, nap]}
  out: {value: "{{a}} {{b}}"}
$$;
CREATE FUNCTION skipped(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {ask: "{{name}}?", timeout: 1 s, on_error: skip}
  b: {ask: "and now?", after: a}
  out: {value: '{{a | default("nobody")}} {{b}}'}
$$;
CREATE FUNCTION many(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  a: {each: n, ask: "What is {{item}}?", returns: int}
  c: {sql: "SELECT sum(v::int)::int FROM jsonb_array_elements_text({{a}}) v", returns: value}
$$;
CREATE FUNCTION to_whom(name text) RETURNS text LANGUAGE chaincall AS $$
ask: "Yes?"
to: "{{name}}"
on_error: {value: "{{error.class}}: {{error.message}}"}
$$;
CREATE FUNCTION busy(name text) RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  a: {ask: "{{name}}?"}
  slow: {model: slow, prompt: "x", timeout: 20 s, on_error: skip}
  out: {value: "{{a}}", after: slow}
$$;
CREATE TABLE fuse (n int);
GRANT ALL ON fuse TO owner;
CREATE FUNCTION twice(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {ask: "{{name}}?"}
  b: {sql: "SELECT 1 / count(*) FROM fuse", after: a}
output: "{{a}}"
$$;
CREATE FUNCTION asks_once(name text) RETURNS text LANGUAGE chaincall AS $$
steps:
  f: {function: public.twice, args: {name: "{{name}}"}, retry: {attempts: 50, first: 50 ms, factor: 1}}
$$;
CREATE FUNCTION naps(name text) RETURNS text LANGUAGE chaincall AS $$
wait: 20 s
$$;
END

# What people do.
sub answer
{
	my ($job, $where, $value, $as) = @_;

	$where = 'path = ' . sql_literal($where) unless $where =~ /=/;
	return ($as || $session)->must("SELECT count(chaincall.resolve('$job', path, " . sql_literal($value) . "::jsonb)) FROM chaincall.question WHERE job = '$job' AND $where");
}

# The checkpoint that an answer is, but nobody is told: neither the question nor the job knows. The value has been stored by keep().
sub slip_in
{
	my ($job, $path, $kept) = @_;

	$session->must(<<"ENDSQL");
INSERT INTO chaincall.span (job, path, try, id, owner, kind, started_at, ended_at, output, sha256)
SELECT '$job', '$path', 0, (random() * 1e15)::bigint, s.owner, 'ask', now(), now(), s.output, s.sha256
FROM chaincall.span s WHERE s.job = '$kept' AND s.path = 'v' AND s.try = 0
ENDSQL
	return;
}

# A job whose step v has stored the value, and its sha256.
sub keep
{
	my ($value) = @_;
	my $kept = submit($session, 'stored', '{"given": ' . $value . '}');

	$session->must("SELECT chaincall.result('$kept', '60 s')");
	return $kept;
}

sub column
{
	my ($job, $columns) = @_;

	return $session->must("SELECT $columns FROM chaincall.job WHERE id = '$job'");
}

sub questions
{
	my ($job) = @_;

	return $session->must("SELECT count(*) FROM chaincall.question WHERE job = '$job'");
}

# Waits until the job is parked.
sub parked
{
	my ($job) = @_;

	return wait_sql($session, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$job'");
}

sub result
{
	my ($job) = @_;

	return $session->must("SELECT chaincall.result('$job', '60 s')");
}

# ---- in a session ----

my $refused = $session->run("SELECT plain('what')");

is($refused->{state}, '0A000', 'a session can ask nobody');
like($refused->{hint}, qr/chaincall\.submit/, 'and says what can');
is($session->run(q{SELECT chaincall.run('limited', '{"name": "what"}')})->{state}, '0A000', '"on_error" does not take that for an answer');
is($session->must(q{SELECT chaincall.run('plain', '{"name": "what"}', mock => '{"chain": "me"}')}), '"me"', 'a mock answers');
is($session->must(q{SELECT chaincall.render('approve', 'ok', '{"name": "it"}', '{"before": "b"}') - 'returns'}),
	'{"to": "lawyers", "ask": "May it be signed?", "show": {"text": "b", "names": ["it"]}}', 'render shows what is asked of whom');

# ---- a question, and its answer ----

my $listener = session($node, user => 'other', sql => 'LISTEN chaincall_question');
my $owner = session($node, user => 'owner');
my $job = submit($owner, 'approve', '{"name": "it"}');

parked($job);
is($session->must("SELECT path, owner::regrole, to_role::regrole, question, show, returns->'properties'->'yes', expires_at IS NULL FROM chaincall.question WHERE job = '$job'"),
	'ok|owner|lawyers|May it be signed?|{"text": "it", "names": ["it"]}|{"type": "boolean"}|t', 'a question is a row');
is(column($job, 'waits_on, run_at, worker IS NULL'), 'answer|infinity|t', 'whose job is parked at once, until an answer comes');
is($owner->must("SELECT waits_for FROM chaincall.job_status WHERE id = '$job'"), 'an answer', 'job_status says what it waits for');
is($session->must('SELECT max(jobs_in_hand) FROM chaincall.stat_worker'), '0', 'no worker has it in hand');

my $id = $session->must("SELECT id FROM chaincall.question WHERE job = '$job'");
my $told = '';

wait_until(sub { return ($told .= $listener->run('SELECT 1')->{out}) =~ /Asynchronous/; }, 'who listens is told');
like($told, qr/notification "chaincall_question" with payload "\Q$id\E" received/, 'by the id of the question alone');

for my $see (
	[ 'lena', '1|0|0|0', 'a member of the role in "to" sees the question, and nothing else of the job' ],
	[ 'other', '0|0|0|0', 'any other role sees nothing' ],
	[ 'owner', '1|1|1|1', 'the owner sees all' ])
{
	my ($role, $counts, $what) = @$see;
	my $as = session($node, user => $role);

	is($as->must("SELECT (SELECT count(*) FROM chaincall.question), (SELECT count(*) FROM chaincall.job WHERE id = '$job'), "
		  . "(SELECT count(*) FROM chaincall.span WHERE job = '$job'), (SELECT count(*) FROM chaincall.job_status WHERE id = '$job')"), $counts, $what);
	is($as->run('DELETE FROM chaincall.question')->{state}, '42501', "$role cannot take it away");
	$as->quit;
}
unlike($node->safe_psql('postgres', "SELECT string_agg(extconfig::text, ' ') FROM (SELECT unnest(extconfig)::regclass AS extconfig FROM pg_extension WHERE extname = 'chaincall') c"),
	qr/question/, 'a dump does not take questions');

$_->quit for $session, $owner, $listener;
$node->stop('immediate');
$node->start;
$session = session($node);
is($session->must("SELECT id FROM chaincall.question WHERE job = '$job'"), $id, 'a crash leaves the question as it is');
my $lena = session($node, user => 'lena');
answer($job, 'ok', '{"yes": true}', $lena);
$lena->quit;
is(result($job), '{"note": null, "signed": true}', 'the job goes on with the answer; what was left out of it is null');
is(questions($job), 0, 'the question is gone');
is($session->must("SELECT string_agg(path || ' ' || kind || ' ' || try, ', ' ORDER BY path) FROM chaincall.span WHERE job = '$job'"),
	'before model 0, ok ask 0', 'nothing was done twice');
like($session->must("SELECT chaincall.trace('$job')"), qr/^ok +ask /m, 'its trace has the answer');

# ---- answers that do not fit, and such that come early ----

$job = submit($session, 'approve', '{"name": "it"}');
parked($job);
answer($job, 'ok', '{"yes": "perhaps"}');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.action WHERE job = '$job' AND state = 'refused' AND reason LIKE '%yes%'");
is(questions($job), 1, 'an answer that does not fit is refused');
slip_in($job, 'ok', keep('{"yes": "perhaps"}'));
$session->must("UPDATE chaincall.job SET state = 'queued', waits_on = NULL, run_at = now() WHERE id = '$job'");
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.span WHERE job = '$job' AND path = 'ok' AND try = 1 AND class = 'invalid' AND message LIKE '%yes%'");
parked($job);
is(questions($job), 1, 'one that comes in another way is put aside, and the question put again');
answer($job, 'ok', '{"yes": false, "note": "no"}');
is(result($job), '{"note": "no", "signed": false}', 'until one fits');

$job = submit($session, 'plain', '{"name": "what"}');
parked($job);
answer($job, 'chain', '5');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.action WHERE job = '$job' AND state = 'refused' AND reason LIKE '%text, not number'");
answer($job, 'chain', '"five"');
is(result($job), '"five"', 'without "returns" an answer is a text');

$listener = session($node, sql => 'LISTEN chaincall_question');
$job = submit($session, 'later', '{"name": "what"}');
$session->must("SELECT chaincall.resolve('$job', 'a', '\"early\"')");
is(result($job), '"early"', 'an answer may come before its step does');
unlike($listener->must('SELECT 1'), qr/Asynchronous/, 'which asks nobody then');
$listener->quit;

my $lost = keep('"lost"');

$job = submit($session, 'busy', '{"name": "what"}');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$job'");
wait_sql($session, "SELECT steps_done = 0 AND waits_for = 'slow' FROM chaincall.job_status WHERE id = '$job'");
slip_in($job, 'a', $lost);
wait_sql($session, "SELECT steps_done = 1 FROM chaincall.job_status WHERE id = '$job'");
pass('an answer to a job in hand is found though its message got lost');
wait_sql($session, "SELECT state = 'running' AND NOT EXISTS (SELECT FROM chaincall.question q WHERE q.job = j.id) FROM chaincall.job j WHERE id = '$job'");
pass('and its question is gone, though it was written after the answer');
$session->must("SELECT chaincall.cancel('$job')");
wait_jobs($session);
$job = submit($session, 'busy', '{"name": "what"}');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$job'");
wait_sql($session, "SELECT steps_done = 0 AND waits_for = 'slow' FROM chaincall.job_status WHERE id = '$job'");
my $asked_ms = Chaincall::now_ms();
answer($job, 'a', '"told"');
wait_sql($session, "SELECT steps_done = 1 FROM chaincall.job_status WHERE id = '$job'");
ok(Chaincall::now_ms() - $asked_ms < 3000, 'and at once where it did not');
$session->must("SELECT chaincall.cancel('$job')");
wait_jobs($session);

$job = submit($session, 'asks_once', '{"name": "what"}');
parked($job);
answer($job, 'f/a', '"once"');
wait_sql($session, "SELECT count(*) > 1 FROM chaincall.span WHERE job = '$job' AND path = 'f/b' AND try > 0");
$session->must('INSERT INTO fuse VALUES (1)');
is(result($job), '"once"', 'what is tried again asks nobody again');
is($session->must("SELECT count(*) FROM chaincall.span WHERE job = '$job' AND path = 'f/a'"), 1, 'since it has its answer');

$session->must('CREATE ROLE temps');
$job = submit($session, 'two', '{"name": "what"}');
parked($job);
is(questions($job), 1, 'a role is asked');
$session->must('DROP ROLE temps');
wait_sql($session, "SELECT string_agg(path, ' ') = 'b' FROM chaincall.question WHERE job = '$job'");
pass('where the job comes back and the role is gone, the step fails and its question goes');
answer($job, 'b', '"later"');
is(result($job), '"gone later"', 'and the job goes on');

$session->must('CREATE ROLE temps');
$job = submit($session, 'two', '{"name": "what"}');
parked($job);
answer($job, 'a', '"yes"');
wait_sql($session, "SELECT string_agg(path, ' ') = 'b' FROM chaincall.question WHERE job = '$job'");
parked($job);
# as a caller leaves it that dies between an early answer, its own commit and the end of the step
$session->must("INSERT INTO chaincall.question (id, job, path, owner, question, created_at) SELECT gen_random_uuid(), job, 'a', owner, 'what?', now() FROM chaincall.question WHERE job = '$job'");
answer($job, 'a', '"no"');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.action WHERE job = '$job' AND state = 'refused' AND reason LIKE '%answered already'");
is($session->must("SELECT string_agg(path, ' ') FROM chaincall.question WHERE job = '$job'"), 'b', 'a question that was left behind goes with the next answer');
answer($job, 'b', '"no"');
is(result($job), '"yes no"', 'which changes nothing');

my $locked = submit($session, 'plain', '{"name": "what"}');
$job = submit($session, 'plain', '{"name": "what"}');
parked($_) for $locked, $job;
my $locker = session($node);
$locker->must("BEGIN; SELECT 1 FROM chaincall.question WHERE job = '$locked' FOR UPDATE");
answer($locked, 'chain', '"one"');
answer($job, 'chain', '"two"');
is(result($_), $_ eq $job ? '"two"' : '"one"', 'nobody waits for a question that somebody has locked') for $job, $locked;
is(questions($locked), 1, 'which is left');
$locker->must('COMMIT');
$locker->quit;
$session->must('SELECT chaincall.maintain()');
wait_sql($session, "SELECT NOT EXISTS (SELECT FROM chaincall.question WHERE job = '$locked')");
pass('until old rows are deleted');

# ---- timeouts ----

$job = submit($session, 'limited', '{"name": "what"}');
parked($job);
is(column($job, "waits_on, run_at - started_at BETWEEN '2.5 s' AND '3.5 s', (deadlines->>'both')::timestamptz BETWEEN run_at - interval '10 ms' AND run_at + interval '10 ms'"),
	'answer|t|t', 'a job is parked in the midst of a timeout, until that ends');
is($session->must("SELECT expires_at - created_at BETWEEN '2.5 s' AND '3.1 s' FROM chaincall.question WHERE job = '$job'"), 't', 'the question says when it is too late');
$session->quit;
$node->stop('immediate');
$node->start;
$session = session($node);
is(result($job), '"timeout"', 'the step ends at that time, and "on_error" runs');
is(column($job, "finished_at - started_at BETWEEN '2.9 s' AND '4.5 s'"), 't', 'its timeout has not begun anew');
is(questions($job), 0, 'nobody is asked any more');

my $in_time = keep('"in time"');

$job = submit($session, 'limited', '{"name": "what"}');
parked($job);
slip_in($job, 'both/a', $in_time);
is(result($job), '"in time!"', 'an answer in time counts though the job comes back when its time is up');

$job = submit($session, 'rested', '{"name": "what"}');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$job'");
parked($job);
slip_in($job, 'both/a', $in_time);
is(result($job), '"in time!"', 'behind a wait in the same timeout too');

$job = submit($session, 'skipped', '{"name": "what"}');
wait_sql($session, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$job' AND path = 'b'");
parked($job);
is(column($job, "deadlines"), '{"a": "-infinity"}', 'that a step was late is remembered');
$session->quit;
$node->stop('immediate');
$node->start;
$session = session($node);
answer($job, 'b', '"later"');
is(result($job), '"nobody later"', 'it is not asked again when the job comes back');

# ---- many ----

$job = submit($session, 'many', '{"n": 1000}');
parked($job);
is(questions($job), 1000, 'a thousand questions');
$session->quit;
$node->stop('immediate');
$node->start;
$session = session($node);
answer($job, 'a[7]', '7');
wait_sql($session, "SELECT state = 'waiting' AND count(*) = 999 FROM chaincall.job j, chaincall.question q WHERE q.job = j.id AND j.id = '$job' GROUP BY state");
answer($job, "job = '$job'", '1');
is(result($job), '1006', 'and their answers');

# Each question is answered as soon as it is there: while its job is being parked, in hand, or queued; and a crash in between.
$session->must(<<'END');
CREATE FUNCTION chat(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  a: {ask: "a {{n}}?"}
  b: {ask: "b {{a}}?"}
  c: {each: 3, ask: "c {{b}}?"}
output: "{{a}} {{b}} {{c}}"
$$;
CREATE PROCEDURE answer_all() LANGUAGE plpgsql AS $$
BEGIN
	WHILE EXISTS (SELECT FROM chaincall.job WHERE finished_at IS NULL) LOOP
		PERFORM chaincall.resolve(q.job, q.path, '"x"') FROM chaincall.question q
		WHERE NOT EXISTS (SELECT FROM chaincall.action a WHERE a.job = q.job AND a.step = q.path);
		COMMIT;
		PERFORM pg_sleep(0.002);
	END LOOP;
END $$;
INSERT INTO chaincall.job (chain, input) SELECT 'chat', jsonb_build_object('n', g) FROM generate_series(1, 200) g;
END
my $person = session($node);
$person->send('CALL answer_all()');
wait_sql($session, "SELECT count(*) > 100 FROM chaincall.job WHERE chain ~ 'chat' AND started_at IS NOT NULL");
wait_sql($session, "SELECT count(*) > 300 FROM chaincall.span s, chaincall.job j WHERE j.id = s.job AND chain ~ 'chat'");
$session->quit;
$node->stop('immediate');
$person->result;
$person->quit;
$node->start;
$session = session($node);
$session->must('CALL answer_all()');
is($session->must(q{SELECT state, count(*), count(DISTINCT output) FROM chaincall.job WHERE chain ~ 'chat' GROUP BY state}), 'succeeded|200|1', 'no answer is overlooked');
is($session->must(q{SELECT count(*), count(*) FILTER (WHERE try = 0) FROM chaincall.span s, chaincall.job j WHERE j.id = s.job AND chain ~ 'chat'}), '1000|1000', 'none is asked for twice');

# ---- roles ----

is(result(submit($session, 'to_whom', '{"name": "nobody at all"}')), '"input: role \"nobody at all\" does not exist"', 'a role that does not exist');
like(result(submit($session, 'to_whom', '{"name": "' . 'x' x 5000 . '"}')), qr/^"input: role \\"x{63}\\" does not exist"$/, 'a name that no role can have');

# ---- ends ----

for my $end (
	[ 'approve', '', sub { $session->must("SELECT chaincall.cancel('$_[0]')") }, 'cancelled' ],
	[ 'approve', "expires_at => clock_timestamp() + interval '2 s'", sub { }, 'expired' ],
	[ 'busy', '', sub { $session->must("SELECT chaincall.cancel('$_[0]')") }, 'cancelled' ],
	[ 'busy', "expires_at => clock_timestamp() + interval '2 s'", sub { }, 'expired' ])
{
	my ($chain, $further, $act, $state) = @$end;
	my $ending = submit($session, $chain, '{"name": "it"}', $further);

	wait_sql($session, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$ending'");
	$act->($ending);
	is(wait_jobs($session, "id = '$ending'"), "$state 1", "a job of $chain that asks is $state");
	is(questions($ending), 0, 'and its question goes');
}

$job = submit($session, 'naps', '{"name": "it"}');
wait_sql($session, "SELECT state = 'running' AND waits_for = 'time' FROM chaincall.job_status WHERE id = '$job'");
pass('job_status knows of waits that are not parked');
$session->must("SELECT chaincall.cancel('$job')");
wait_jobs($session);

# ---- who notifies waits for nobody ----

# its NOTIFY holds the lock of all notifications until a standby that is not there has it
set_conf($session, synchronous_standby_names => 'nobody');
my $blocker = session($node);
$blocker->send("SET synchronous_commit = 'on'; BEGIN; CREATE TABLE written (); NOTIFY x; COMMIT");
wait_sql($session, "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$listener = session($node, sql => 'LISTEN chaincall_question');
$job = submit($session, 'plain', '{"name": "what"}');
parked($job);
$id = $session->must("SELECT id FROM chaincall.question WHERE job = '$job'");
pass('a question is put though nobody can be notified');
set_conf($session, synchronous_standby_names => '');
$blocker->result;
$told = '';
wait_until(sub { return ($told .= $listener->run('SELECT 1')->{out}) =~ /payload "\Q$id\E"/; }, 'who listens is told later');
answer($job, 'chain', '"yes"');
is(result($job), '"yes"', 'and the job goes on');
is($session->must('SELECT count(*) FROM chaincall.question'), 0, 'no question is left');
is($session->must('SELECT count(*) FROM chaincall.queue_status'), 0, 'nor a job');

$_->quit for $session, $blocker, $listener;
done_testing();
