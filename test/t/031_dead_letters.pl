# Dead letters, and what people do about them: every job that fails has its alert; retry(), resolve(), discard(),
# acknowledge() and submit(dedupe => 'replace') are rows that a worker applies, whoever holds what open meanwhile.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use Jobs;
use ModelServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = jobs_node('dead_letters', <<'CONF');
max_prepared_transactions = 5
wal_level = replica
max_wal_senders = 2
chaincall.park_after = '200ms'
chaincall.max_executors = 4
chaincall.breaker_failures = 0
CONF
my $models = ModelServer->new;
my $s = session($node);

$s->must(<<'SQL');
CREATE ROLE app LOGIN;
CREATE ROLE clerk LOGIN IN ROLE app;
CREATE ROLE stranger LOGIN;
SELECT FROM unnest('{app,clerk,stranger}'::regrole[]) r, chaincall.grant_usage(r);
GRANT CREATE ON SCHEMA public TO app;
CREATE TABLE effect (n int, what text);
CREATE TABLE gate (open boolean);
INSERT INTO gate VALUES (true);
GRANT ALL ON effect, gate TO app;
SQL
add_server($s, 'stand_in', $models);
$s->must('GRANT USAGE ON FOREIGN SERVER stand_in TO app');
$s->must('CREATE USER MAPPING FOR PUBLIC SERVER stand_in OPTIONS (api_key $$sk-secret-key$$)');
add_model($s, 'echo', 'stand_in', 'echo', retry => '{"attempts": 2, "first": "10 ms"}');
add_model($s, 'broken', 'stand_in', 'echo?status=500', retry => '{"attempts": 2, "first": "10 ms"}');
add_model($s, 'picky', 'stand_in', 'labels', retry => '{"attempts": 2, "first": "10 ms"}');

my $app = session($node, user => 'app');
my $clerk = session($node, user => 'clerk');
my $stranger = session($node, user => 'stranger');

$app->must(<<'SQL');
CREATE FUNCTION flaky(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  first: {model: echo, prompt: "first {{t}}"}
  second: {model: broken, prompt: "second {{first}}"}
  third: {model: echo, prompt: "third {{second}}"}
$$;
CREATE FUNCTION divide(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  noted: {sql: "INSERT INTO effect VALUES ({{n}}, 'divide') RETURNING n", returns: value}
  quotient: {sql: "SELECT 12 / {{n}}::int", returns: value, after: noted}
$$;
CREATE FUNCTION check_number(n int, word text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    IF n < 0 THEN RAISE EXCEPTION 'negative: %', n USING HINT = 'Give another one.'; END IF;
    RETURN word || n;
END $$;
CREATE FUNCTION checked(n int) RETURNS text LANGUAGE chaincall AS $$
steps:
  checked: {function: check_number, args: {n: "{{n}}", word: "number "}}
$$;
CREATE FUNCTION labelled(t text, items text[]) RETURNS text LANGUAGE chaincall AS $$
steps:
  each_one:
    each: items
    model: broken
    prompt: "label {{item}} of {{t}}"
    returns: {label: text, score: real}
  told: {value: "{{each_one[0].label}} and {{each_one[1].label}}"}
$$;
CREATE FUNCTION gated(n int) RETURNS int LANGUAGE chaincall AS $$
steps:
  asked: {sql: "SELECT {{n}}::int / open::int FROM gate", returns: value}
$$;
CREATE FUNCTION inner_chain(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  deep: {model: broken, prompt: "{{t}}"}
$$;
CREATE FUNCTION outer_chain(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  called: {function: inner_chain, args: {t: "{{t}}"}}
$$;
CREATE FUNCTION caught(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  tried: {model: broken, prompt: "{{t}}", on_error: {model: broken, prompt: "sorry {{error.message}}"}}
$$;
CREATE FUNCTION rescued(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  tried: {model: broken, prompt: "{{t}}", on_error: skip}
  said: {value: "rescued {{t}}", after: tried}
$$;
CREATE FUNCTION slow(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  napping: {sql: "SELECT pg_sleep(60)", timeout: 300 ms, returns: value}
$$;
CREATE FUNCTION later(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  said: {value: "later {{t}}"}
$$;
SQL

sub failed
{
	my ($in, $chain, $input) = @_;
	my $id = submit($in, $chain, $input);

	wait_sql($s, "SELECT state = 'failed' FROM chaincall.job WHERE id = '$id'");
	return $id;
}

# What came of an action: "applied", or "refused: why".
sub outcome
{
	my ($id) = @_;

	wait_sql($s, "SELECT state <> 'pending' FROM chaincall.action WHERE id = '$id'");
	return $s->must("SELECT concat_ws(': ', state, reason) FROM chaincall.action WHERE id = '$id'");
}

sub act { my ($in, $call) = @_; return outcome($in->must("SELECT chaincall.$call")); }

sub ended
{
	my ($id) = @_;

	wait_sql($s, "SELECT finished_at IS NOT NULL FROM chaincall.job WHERE id = '$id'");
	return $s->must("SELECT concat_ws(' ', state, output #>> '{}', error ->> 'message') FROM chaincall.job WHERE id = '$id'");
}

sub letter { my ($id, $columns) = @_; return $s->must("SELECT $columns FROM chaincall.dead_letter WHERE job = '$id'"); }

sub said { my ($result) = @_; return $result->ok ? $result->{out} : "$result->{state} $result->{message}"; }

sub error_of { my ($in, $sql) = @_; my $r = $in->run($sql); return ("$r->{state} $r->{message}", $r->{hint}); }

# ---- the dead letter ----
my $job;
{
	my $listener = session($node, user => 'stranger');

	$listener->must('LISTEN chaincall_alert');
	$job = failed($app, 'flaky', '{"t": "ü"}');
	is(letter($job, 'chain, owner, step, error_class, tries, deaths'), 'public.flaky(text)|app|second|transient|2|0', 'what failed, and where');
	is(letter($job, 'input'), '{"model": "echo?status=500", "messages": [{"role": "user", "content": "second first ü"}]}', 'what the step was asked');
	is(letter($job, q{input = chaincall.render('public.flaky', 'second', '{"t": "ü"}', '{"first": "first ü"}') -> 'body'}), 't', 'is what render() shows as body');
	is(letter($job, q{jsonb_array_length(last_errors), last_errors #>> '{0,model}', last_errors #>> '{1,class}', last_errors #>> '{1,server}', last_errors #>> '{1,message}'}),
		'2|broken|transient|stand_in|This error was asked for.', 'its last errors');
	is($s->must("SELECT a.kind, a.owner::regrole, a.message LIKE 'public.flaky(text): model \"broken\"%', a.hint = d.hint FROM chaincall.alert a, chaincall.dead_letter d WHERE a.id = d.alert AND d.job = '$job'"),
		'dead_letter|app|t|t', 'its alert');
	is($s->must("SELECT count(*) FROM chaincall.alert WHERE alert::text ~ 'sk-secret'"), '0', 'keys are not in it');
	my $told = $listener->must('SELECT 1');
	my $alert = letter($job, 'alert');

	is(scalar(() = $told =~ /Asynchronous notification "chaincall_alert" with payload "\{"alert": "$alert", "job": "$job"\}"/g), 1, 'any role may listen: ids and nothing else');
	is($stranger->must('SELECT count(*) FROM chaincall.dead_letter'), '0', 'which is all that a stranger sees');
	is($clerk->must("SELECT owner FROM chaincall.dead_letter WHERE job = '$job'"), 'app', 'a member of the owner sees it');
}
is(letter(failed($app, 'divide', '{"n": 0}'), 'step, error_class, message, input'), 'quotient|sql|division by zero|[0]', 'a statement: its parameters');
is(letter(failed($app, 'checked', '{"n": -1}'), 'step, message, hint, input'),
	'checked|negative: -1|Give another one.|{"n": -1, "word": "number "}', 'a function: its arguments');
is(letter(failed($app, 'outer_chain', '{"t": "deep down"}'), q{step, input #>> '{messages,0,content}'}), 'called/deep|deep down', 'a chain that is called');
like(letter(failed($app, 'caught', '{"t": "x"}'), q{step || ' ' || (input #>> '{messages,0,content}')}), qr{^tried/on_error sorry model}, 'on_error that fails too');
like(letter(failed($app, 'slow', '{"t": "x"}'), q{step || ' ' || error_class || ' ' || input}), qr/^napping timeout \[\]/, 'a timeout');
is(ended(submit($app, 'rescued', '{"t": "it"}')), 'succeeded rescued it', 'what is caught');
is($s->must("SELECT count(*) FROM chaincall.alert a JOIN chaincall.job j ON j.id = a.job WHERE j.chain ~ 'rescued'"), '0', 'is no dead letter');

# many at once: one for each, whatever ends them
{
	my $n = $s->must('SELECT count(*) FROM chaincall.alert');

	$app->must(q{UPDATE gate SET open = false});
	$app->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'gated', jsonb_build_object('n', i) FROM generate_series(1, 1000) i});
	is(wait_jobs($s, "chain = 'public.gated(integer)'"), 'failed 1000', 'a thousand jobs fail');
	is($s->must('SELECT count(*) FROM chaincall.alert') - $n, 1000, 'and have an alert each');
	is($s->must(q{SELECT count(*), count(DISTINCT job), max((input -> 0)::int) FROM chaincall.dead_letter WHERE chain ~ 'gated'}), '1000|1000|1000', 'which dead_letter shows');
	like($s->must("EXPLAIN SELECT * FROM chaincall.dead_letter WHERE job = '$job'"), qr/Index.*alert_job/, 'one of many is found by an index');
}

# ---- retry ----
is(act($clerk, "retry(job) FROM chaincall.dead_letter WHERE job = '$job'"), 'applied', 'retry');
is(ended($job), 'failed model "broken" at server "stand_in" answered 500: This error was asked for.', 'it is tried again');
is(letter($job, 'tries'), '4', 'with all of its attempts');
is($s->must("SELECT count(*), count(acknowledged_at), min(acknowledged_by::regrole::text) FROM chaincall.alert WHERE job = '$job'"), '2|1|clerk', 'the first alert is acknowledged by who asked, the second open');
is($s->must("SELECT count(*) FROM chaincall.span WHERE job = '$job' AND path = 'first'"), '1', 'what had succeeded is not done again');
is($s->must("SELECT author::regrole, action, state, applied_at >= created_at FROM chaincall.action WHERE job = '$job'"), 'clerk|retry|applied|t', 'the row says who did what');
is($s->must("SELECT retried_at > started_at, worker IS NULL, finished_at > retried_at FROM chaincall.job WHERE id = '$job'"), 't|t|t', 'when it was tried again');

# in bulk
$app->must('UPDATE gate SET open = true');
{
	my $from = now_ms();

	my $other = submit($app, 'later', '{"t": "x"}', q{run_at => now() + interval '1 hour'});

	is($app->must(q{SELECT count(chaincall.retry(job)) FROM chaincall.dead_letter WHERE chain ~ 'gated'}), '1000', 'a thousand are asked for at once');
	my $cancel = $app->must("SELECT chaincall.cancel('$other')");

	is(outcome($cancel), 'applied', 'a cancel that is asked for after them');
	cmp_ok($s->must(q{SELECT count(*) FROM chaincall.action WHERE state = 'pending'}), '>', 100, 'does not wait for all of them');
	wait_sql($s, q{SELECT NOT EXISTS (SELECT FROM chaincall.action WHERE state = 'pending')});
	is(wait_jobs($s, "chain = 'public.gated(integer)'"), 'succeeded 1000', 'and succeed');
	note(sprintf('1,000 retries took %.0f ms', now_ms() - $from));
	is($s->must(q{SELECT count(*) FROM chaincall.dead_letter WHERE chain ~ 'gated'}), '0', 'no letter is left');
	is($s->must(q{SELECT a.state, count(*) FROM chaincall.action a JOIN chaincall.job j ON j.id = a.job WHERE chain ~ 'gated' GROUP BY a.state}), 'applied|1000', 'all are applied');
}

# with another input
is(act($app, "retry('$job', 'second', '{\"model\": \"of no matter\", \"messages\": [{\"role\": \"user\", \"content\": \"edited\"}], \"user\": \"u7\"}')"), 'applied', 'retry with an input');
ended($job);
{
	my ($last) = $models->last(1);

	is($last->{body}{user}, 'u7', 'what was given is what is asked');
	is($last->{body}{model}, 'echo?status=500', 'but of the model that the route says');
	is($last->{body}{messages}[0]{content}, 'edited', 'and not what the chain renders');
}
is(letter($job, q{input ->> 'user', input ->> 'model'}), 'u7|echo?status=500', 'the next letter shows it');
$s->must("UPDATE chaincall.endpoint SET remote_name = 'echo' WHERE model = 'broken'");
is(act($app, "retry('$job')"), 'applied', 'again, without an input');
is(ended($job), 'succeeded third edited', 'the one that was given still holds, and the job goes on');
is($s->must("SELECT count(*) FROM chaincall.span WHERE job = '$job' AND try = 0"), '3', 'each step once');
$s->must("UPDATE chaincall.endpoint SET remote_name = 'echo?status=500' WHERE model = 'broken'");

$job = failed($app, 'divide', '{"n": 0}');
is(act($app, "retry('$job', 'quotient', '[4]')"), 'applied', 'a statement with other parameters');
is(ended($job), 'succeeded 3', 'has another result');
is($s->must('SELECT string_agg(n::text, $$ $$) FROM effect'), '0 0', 'the step before has written once');
$job = failed($app, 'checked', '{"n": -1}');
is(act($app, "retry('$job', 'checked', '{\"word\": \"changed \", \"n\": 5}')"), 'applied', 'a function with other arguments');
is(ended($job), 'succeeded changed 5', 'has another result');

# what cannot be
$job = failed($app, 'divide', '{"n": 0}');
my %refused = (
	"retry('$job', 'quotient', '{}')" => qr/^refused: the input of a sql step is an array, its parameters, not object$/,
	"retry('$job', 'quotient', '4')" => qr/^refused: the input of a sql step is an array, its parameters, not number$/,
	"retry('$job', 'quotient', '[1, 2]')" => qr/^refused: the input has 2 elements, the statement has 1 parameters$/,
	"retry('$job', 'noted', '[1]')" => qr/^refused: step noted has succeeded already$/,
	"retry('$job', 'second', '[1]')" => qr/^refused: chain public.divide\(integer\) has no step "second"/,
	"retry('$job', 'quotient[0]', '[1]')" => qr/^refused: chain .* has no step/,
	"retry('$job', 'quotient/x', '[1]')" => qr/^refused: chain .* has no step/,
	"retry('$job', '', '[1]')" => qr/^refused: chain .* has no step/,
	"retry('$job', '\$1; DROP TABLE effect', '[1]')" => qr/^refused: chain .* has no step/,
	"resolve('$job', 'noted', '1')" => qr/^refused: step noted has succeeded already$/,
	"resolve('$job', 'quotiemt', '1')" => qr/^refused: chain .* has no step "quotiemt"/,
	"cancel('$job')" => qr/^refused: the job has already ended: failed$/,
	'retry(gen_random_uuid())' => qr/^refused: there is no such job$/,
	'discard(gen_random_uuid())' => qr/^refused: there is no such job$/,
	'resolve(gen_random_uuid(), $$x$$, $$1$$)' => qr/^refused: there is no such job$/,
	'acknowledge(gen_random_uuid())' => qr/^refused: there is no such alert$/);

like(act($app, $_), $refused{$_}, "refused: $_") for sort keys %refused;
for my $call ("retry('$job')", "retry('$job', 'quotient', '[1]')", "resolve('$job', 'quotient', '1')", "discard('$job')")
{
	is(act($stranger, $call), 'refused: there is no such job', "a stranger: $call");
}
my $alert = letter($job, 'alert');

is(act($stranger, "acknowledge('$alert')"), 'refused: there is no such alert', 'a stranger: acknowledge');
is(letter($job, 'alert'), $alert, 'nothing of all that has changed it');

# ---- what is no action at all ----
my @bad = (
	[ "INSERT INTO chaincall.action (job, action) VALUES ('$job', 'cancle')", '22023 unknown action "cancle"', 'Perhaps you meant cancel.' ],
	[ "INSERT INTO chaincall.action (job, action) VALUES ('$job', 'explode')", '22023 unknown action "explode"', 'Known are cancel, retry, resolve, discard, acknowledge and replace.' ],
	[ "INSERT INTO chaincall.action (job, action, step) VALUES ('$job', 'retry', 'x')", '22023 action "retry" takes a job, or a job, a step and its input, and nothing else', 'Give "input".' ],
	[ "INSERT INTO chaincall.action (job, action, input) VALUES ('$job', 'retry', '{}')", '22004 action "retry" takes a job, or a job, a step and its input, and nothing else', 'Give "step".' ],
	[ "INSERT INTO chaincall.action (job, action, output) VALUES ('$job', 'discard', '1')", '22023 action "discard" takes a job, and nothing else', 'Leave "output" out.' ],
	[ "INSERT INTO chaincall.action (job, action, step) VALUES ('$job', 'resolve', 'x')", '22004 action "resolve" takes a job, a step and its output, and nothing else', 'Give "output".' ],
	[ "INSERT INTO chaincall.action (job, action) VALUES ('$job', 'acknowledge')", '22023 action "acknowledge" takes an alert, and nothing else', 'Leave "job" out.' ],
	[ "INSERT INTO chaincall.action (alert, action) VALUES ('$job', 'retry')", '22004 action "retry" takes a job, or a job, a step and its input, and nothing else', 'Give "job".' ],
	[ "INSERT INTO chaincall.action (action) VALUES ('retry')", '22004 an action needs a name, and a job or an alert', undef ],
	[ "SELECT chaincall.retry('$job', NULL, '1')", '22004 argument "step" is null', undef ],
	[ "SELECT chaincall.resolve('$job', 'x', NULL)", '22004 argument "output" is null', undef ],
	[ "SELECT chaincall.resolve('$job', repeat('x', 1501), '1')", 'MC006 the path of a step is longer than 1500 bytes', undef ],
	[ "SELECT chaincall.resolve('$job', 'quotient', to_jsonb(repeat('x', 20000000)))", 'MC006 output of an action is too large', 'Raise chaincall.max_input.' ]);

for my $bad (@bad)
{
	my ($error, $hint) = error_of($app, $bad->[0]);

	is($error, $bad->[1], substr($bad->[0], 0, 90));
	is($hint, $bad->[2], 'and the hint') if defined $bad->[2];
}
is($app->must('SELECT chaincall.retry(NULL) IS NULL'), 't', 'no job, no action');
like(said($app->run("UPDATE chaincall.alert SET acknowledged_at = now()")), qr/^42501 /, 'alerts are acknowledged by actions only');
like(said($app->run("INSERT INTO chaincall.action (job, action, author) VALUES ('$job', 'retry', 'postgres'::regrole)")), qr/^42501 /, 'nobody acts for another');

# ---- resolve ----
is(act($app, "resolve('$job', 'quotient', '7')"), 'applied', 'resolve');
is(ended($job), 'succeeded 7', 'the job goes on with it');
like($s->must("SELECT chaincall.trace('$job')"), qr/^quotient.* resolved by role "app"$/m, 'its trace says who');
is($s->must("SELECT kind, try, sha256 IS NOT NULL, class IS NULL FROM chaincall.span WHERE job = '$job' AND path = 'quotient' AND try = 0"), 'sql|0|t|t', 'it is a checkpoint as any other');
$job = failed($app, 'labelled', '{"t": "x", "items": ["a", "b"]}');
my $step = letter($job, 'step');

like($step, qr/^each_one\[[01]\]$/, 'an item');
like(act($app, "resolve('$job', '$step', '{\"label\": 7, \"score\": 1}')"), qr/^refused: the output does not fit: .*label/, 'an output that does not fit `returns`');
like(act($app, "resolve('$job', 'each_one', '[]')"), qr/^refused: chain .* has no step "each_one"/, 'a step with items is none of them');
is(act($app, "resolve('$job', 'each_one[0]', '{\"label\": \"zero\", \"score\": 1}')"), 'applied', 'one item');
is(ended($job) =~ /^failed/ ? letter($job, 'step') : 'no', 'each_one[1]', 'then the other one fails');
is(act($app, "resolve('$job', 'each_one[1]', '{\"label\": \"one\", \"score\": 1.5}')"), 'applied', 'and is resolved');
is(ended($job), 'succeeded zero and one', 'both are used');
$job = failed($app, 'outer_chain', '{"t": "x"}');
like(act($app, "resolve('$job', 'called', '\"y\"')"), qr/^refused: the step calls a chain/, 'a step that calls a chain');
is(act($app, "resolve('$job', 'called/deep', '5')"), 'refused: the output does not fit: expected a text, not number', 'what gives a text');
is(act($app, "resolve('$job', 'called/deep', '\"y\"')"), 'applied', 'the step in it');
is(ended($job), 'succeeded y', 'goes on');
{
	# every form that a path can have
	my %bodies = (
		'rounds' => [ 'rounds[1]', "steps:\n  rounds: {model: broken, prompt: x, until: 'round == 1', max: 2}" ],
		'arms' => [ 'arms/arm[1]', "steps:\n  arms: {switch: [{when: 1 > 2, value: no}, {model: broken, prompt: x}]}" ],
		'handler' => [ 'tried/on_error', "steps:\n  tried: {model: broken, prompt: x, on_error: {model: broken, prompt: y}}" ],
		'items' => [ 'block[0]/inner[1]/deep[0]', "steps:\n  block:\n    each: 1\n    steps:\n      inner: {until: 'round == 1', max: 2, steps: {deep: {each: 1, model: broken, prompt: x}}, output: '{{deep}}'}" ],
		'body' => [ 'chain', "model: broken\nprompt: x" ],
		'bodies' => [ 'chain[0]', "each: 1\nmodel: broken\nprompt: x" ],
		'body_handler' => [ 'chain/on_error', "steps:\n  a: {model: broken, prompt: x}\non_error: {model: broken, prompt: y}" ],
		'inside' => [ 'called[0]/chain', "steps:\n  called: {each: 1, function: path_body}" ],
		'inside_items' => [ 'called/chain[0]', "steps:\n  called: {function: path_bodies}" ],
		'inside_handler' => [ 'called/on_error/deep', "steps:\n  called: {function: divide, args: {n: 0}, on_error: {steps: {deep: {model: broken, prompt: x}}}}" ]);

	for my $name (sort { ($a =~ /^inside/) <=> ($b =~ /^inside/) || $a cmp $b } keys %bodies)
	{
		my ($path, $body) = @{ $bodies{$name} };

		$app->must("CREATE FUNCTION path_$name() RETURNS jsonb LANGUAGE chaincall AS " . sql_literal($body));
		my $failing = failed($app, "path_$name", '{}');

		is(letter($failing, 'step'), $path, "a path: $path");
		is(act($app, "resolve('$failing', '$path', '\"given\"')"), 'applied', 'is found');
		like(ended($failing), qr/^succeeded.*given/, 'and the output taken');
		like(act($app, "resolve('$failing', '$path', '1')"), qr/^refused: the job has already ended/, 'once');
	}
}
like(act($app, "resolve('$job', 'called/deep', '\"z\"')"), qr/^refused: the job has already ended: succeeded$/, 'too late');
{
	my $running = submit($app, 'slow', '{"t": "x"}', q{run_at => now() + interval '1 hour'});

	is(act($app, "resolve('$running', 'napping', '1')"), 'refused: the job has not failed: it is waiting, and only asks of it can be answered', 'a job that has not failed');
	is(act($app, "retry('$running')"), 'refused: the job has not failed: it is waiting', 'nor can it be retried');
	is(act($app, "discard('$running')"), 'refused: the job has not failed: it is waiting', 'nor discarded');
	is(act($app, "cancel('$running')"), 'applied', 'but cancelled');
	is(act($app, "retry('$running')"), 'refused: the job has already ended: cancelled', 'and not retried then');
}

# ---- discard, acknowledge ----
$job = failed($app, 'flaky', '{"t": "x"}');
is(act($app, "discard('$job')"), 'applied', 'discard');
is($s->must("SELECT state, error ->> 'class' FROM chaincall.job WHERE id = '$job'"), 'cancelled|transient', 'the job is cancelled');
is(letter($job, 'count(*)'), '0', 'its letter is settled');
is(act($app, "retry('$job')"), 'refused: the job has already ended: cancelled', 'nobody tries it again');
$job = failed($app, 'flaky', '{"t": "x"}');
$alert = letter($job, 'alert');
is(act($clerk, "acknowledge('$alert')"), 'applied', 'acknowledge');
is($s->must("SELECT acknowledged_by::regrole, state FROM chaincall.alert a JOIN chaincall.job j ON j.id = a.job WHERE a.id = '$alert'"), 'clerk|failed', 'says who; the job stays failed');
is(letter($job, 'count(*)'), '0', 'and leaves the view');
is(act($app, "acknowledge('$alert')"), 'refused: the alert is acknowledged already', 'once');
is(act($app, "retry('$job')"), 'applied', 'it can be retried all the same');
ended($job);
is(letter($job, 'count(*)'), '1', 'and is a letter again when it fails');
{
	my $general = $s->must(q{INSERT INTO chaincall.alert (id, kind, message, created_at) VALUES (gen_random_uuid(), 'partition', 'x', now()) RETURNING id});

	is(act($app, "acknowledge('$general')"), 'refused: there is no such alert', 'what concerns the installation is not a user\'s');
	is(act($s, "acknowledge('$general')"), 'applied', 'but a superuser\'s');
}

# ---- what is past ----
{
	my $expiring = submit($app, 'divide', '{"n": 0}', q{expires_at => clock_timestamp() + interval '2 s'});

	wait_sql($s, "SELECT state = 'failed' AND expires_at < now() FROM chaincall.job WHERE id = '$expiring'");
	like(act($app, "retry('$expiring')"), qr/^refused: the job's time was up at /, 'retry of a job whose time is up');
	like(act($app, "resolve('$expiring', 'quotient', '1')"), qr/^refused: the job's time was up at /, 'resolve too');
	is(act($app, "discard('$expiring')"), 'applied', 'it can be discarded');
}
$job = failed($app, 'checked', '{"n": -1}');
$s->must("DELETE FROM chaincall.definition WHERE sha256 = (SELECT definition FROM chaincall.job WHERE id = '$job')");
is(act($app, "retry('$job')"), 'refused: the definition of the job\'s chain is gone', 'a job whose definition is gone');
is(act($app, "retry('$job', 'checked', '{}')"), 'refused: the definition of the job\'s chain is gone', 'with an input too');
$s->must("ALTER TABLE chaincall.definition DISABLE TRIGGER USER; ALTER TABLE chaincall.definition ENABLE ALWAYS TRIGGER drop_replicated");

# ---- who waits for a result ----
{
	my $failed = $s->must("SELECT id FROM chaincall.job WHERE state = 'failed' AND owner = 'app'::regrole LIMIT 1");

	within(5000, 'result() after an action that is refused', sub {
		$app->must("SELECT chaincall.resolve('$failed', 'nowhere', '1')");
		my $result = $app->run("SELECT chaincall.result('$failed')");

		return $result->ok ? undef : $result->{ms};
	});
}

# ---- asks ----
$s->must('CREATE ROLE board_role; GRANT board_role TO stranger');
$app->must(<<'SQL');
CREATE FUNCTION asks(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  before: {wait: 3 s}
  signed: {ask: "Sign {{t}}?", to: board_role, returns: {yes: boolean}, after: before}
  done: {value: "{{t}}: {{signed.yes}}"}
$$;
SQL
{
	my $asks = submit($app, 'asks', '{"t": "early"}');

	is(act($app, "resolve('$asks', 'before', '1')"), 'refused: the job has not failed: it is ' . $s->must("SELECT state FROM chaincall.job WHERE id = '$asks'") . ', and only asks of it can be answered', 'a step that asks nothing')
	  if $s->must("SELECT state FROM chaincall.job WHERE id = '$asks'") eq 'waiting';
	is(act($stranger, "resolve('$asks', 'signed', '{\"yes\": true}')"), 'applied', 'an ask can be answered before the job comes to it, by whom it will ask');
	is(act($stranger, "resolve('$asks', 'signed', '{\"yes\": false}')"), 'refused: step signed is answered already', 'once');
	is(ended($asks), 'succeeded early: true', 'and is not asked then');
	$asks = submit($app, 'asks', '{"t": "late"}');
	wait_sql($s, "SELECT count(*) = 1 FROM chaincall.question WHERE job = '$asks'");
	like(act($app, "resolve('$asks', 'signed', '\"maybe\"')"), qr/^refused: the answer does not fit: /, 'an answer that does not fit');
	is(act($stranger, "resolve('$asks', 'done', '1')"), 'refused: there is no such job', 'whom it asks may answer just that');
	is(act($stranger, "cancel('$asks')"), 'refused: there is no such job', 'and nothing else');
	is(act($stranger, "resolve('$asks', 'signed', '{\"yes\": false}')"), 'applied', 'an open question is answered');
	is(ended($asks), 'succeeded late: false', 'and the job goes on');
	like($s->must("SELECT chaincall.trace('$asks')"), qr/^signed +ask.* resolved by role "stranger"$/m, 'its trace says who answered');
	is($s->must('SELECT count(*) FROM chaincall.question'), '0', 'no question is left');
}

# ---- people hold up nothing ----
{
	my ($mine, $other) = map { failed($app, 'divide', '{"n": 0}') } 1 .. 2;
	my $holder = session($node, user => 'app');

	$holder->must("BEGIN; SELECT chaincall.resolve('$mine', 'quotient', '1')");
	is(act($app, "resolve('$mine', 'quotient', '2')"), 'applied', 'somebody\'s open transaction has not asked yet');
	is(ended($mine), 'succeeded 2', 'and holds up nobody');
	$holder->must('ROLLBACK');
	is($s->must("SELECT count(*) FROM chaincall.action WHERE job = '$mine'"), '1', 'what is rolled back was never asked');

	# a superuser can lock more than people can
	my $asked = $app->must("BEGIN; SELECT chaincall.resolve('$other', 'quotient', '3')");
	my $super = session($node);

	$app->must('PREPARE TRANSACTION $$asked$$');
	$super->must("BEGIN; SELECT FROM chaincall.job WHERE id = '$other' FOR UPDATE");
	$app->must('COMMIT PREPARED $$asked$$');
	$mine = failed($app, 'divide', '{"n": 0}');
	is(act($app, "resolve('$mine', 'quotient', '4')"), 'applied', 'a locked job does not hold up others');
	is($s->must("SELECT state FROM chaincall.action WHERE id = '$asked'"), 'pending', 'its own action waits');
	my $second = $app->must("SELECT chaincall.discard('$other')");

	$super->must('COMMIT');
	is(outcome($asked), 'applied', 'until the lock is gone');
	like(outcome($second), qr/^refused: the job has (not failed: it is|already ended: )/, 'what was asked later comes later');
	is(ended($other), 'succeeded 3', 'the first holds');

	# an action's row, and an alert's
	$mine = failed($app, 'divide', '{"n": 0}');
	$super->must("BEGIN; SELECT FROM chaincall.alert WHERE job = '$mine' FOR UPDATE");
	$asked = $app->must("SELECT chaincall.resolve('$mine', 'quotient', '5')");
	$other = failed($app, 'divide', '{"n": 0}');
	is(act($app, "resolve('$other', 'quotient', '6')"), 'applied', 'nor does a locked alert');
	is($s->must("SELECT a.state, (SELECT count(*) FROM chaincall.span WHERE job = '$mine' AND path = 'quotient' AND try = 0) FROM chaincall.action a WHERE id = '$asked'"), 'pending|0', 'nothing of it is done meanwhile');
	$super->must('COMMIT');
	is(outcome($asked), 'applied', 'then all of it');
	is(ended($mine), 'succeeded 5', 'with what was given');
	$super->quit;
	$holder->quit;
}

# ---- who notifies waits for others who do ----
{
	# a commit that waits for a standby which never comes holds the lock under which all notifications are written
	set_conf($s, synchronous_commit => 'local', synchronous_standby_names => 'nobody');

	my $notifier = session($node, sql => 'SET synchronous_commit = on');

	$notifier->send('BEGIN; INSERT INTO effect VALUES (-1, $$notified$$); NOTIFY something; COMMIT');
	wait_sql($s, q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'});
	my $held_up = failed($app, 'flaky', '{"t": "x"}');

	is($s->must("SELECT count(*) FROM chaincall.dead_letter WHERE job = '$held_up'"), '1', 'a job ends, with its alert, though nobody can be notified');
	$s->must('SELECT pg_cancel_backend(' . $notifier->pid . ')');
	$notifier->result;
	$notifier->quit;
	set_conf($s, synchronous_commit => undef, synchronous_standby_names => undef);
	wait_sql($s, q{SELECT current_setting('synchronous_standby_names') = ''});
}

# ---- killed in between ----
{
	my @jobs = map { failed($app, 'divide', '{"n": 0}') } 1 .. 20;
	my $maintainer = pid_of($s, 'maintainer');

	$app->must("SELECT count(chaincall.retry(j, 'quotient', '[2]')) FROM unnest('{" . join(',', @jobs) . "}'::uuid[]) j");
	$_->quit for $app, $clerk, $stranger;
	$s = crash($node, $s, $maintainer);
	$app = session($node, user => 'app');
	wait_sql($s, q{SELECT NOT EXISTS (SELECT FROM chaincall.action WHERE state = 'pending')});
	is(wait_jobs($s, q{id IN ('} . join(q{','}, @jobs) . q{')}), 'succeeded 20', 'a crash in the midst of it loses nothing');
	is($s->must(q{SELECT string_agg(DISTINCT state, ' ') FROM chaincall.action WHERE job IN ('} . join(q{','}, @jobs) . q{')}), 'applied', 'all are applied');
	is($s->must(q{SELECT max(n) FROM (SELECT count(*) AS n FROM chaincall.span WHERE path = 'noted' GROUP BY job) x}), '1', 'no step was done twice');
}

# ---- a job that has killed its workers can be tried again ----
{
	$app->must(<<'SQL');
CREATE FUNCTION poison() RETURNS int LANGUAGE plpgsql AS $$ BEGIN IF (SELECT NOT open FROM gate) THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF; RETURN 1; END $$;
CREATE FUNCTION poisoned() RETURNS int LANGUAGE chaincall AS $$
steps:
  hurt: {function: poison}
$$;
UPDATE gate SET open = false;
SQL
	my $poison = failed($app, 'poisoned', '{}');

	is(letter($poison, 'error_class, deaths, step, input'), 'crash|3|hurt|{}', 'a job that ends its executors');
	$app->must('UPDATE gate SET open = true');
	is(act($app, "retry('$poison')"), 'applied', 'is tried again');
	is(ended($poison), 'succeeded 1', 'and succeeds');
	is($s->must("SELECT deaths FROM chaincall.job WHERE id = '$poison'"), '0', 'its deaths are forgotten');
}

# ---- replace ----
{
	my $future = q{run_at => now() + interval '1 hour', dedupe_key => 'k', dedupe => 'replace', priority => 3};
	my $first = submit($app, 'later', '{"t": "one"}', $future);

	is(submit($app, 'later', '{"t": "two"}', $future), $first, 'replace gives the job that is there');
	wait_sql($s, "SELECT input ->> 't' = 'two' FROM chaincall.job WHERE id = '$first'");
	pass('which gets the new input');
	submit($app, 'later', qq({"t": "$_"}), $future) for 3 .. 6;
	wait_sql($s, "SELECT bool_and(state <> 'pending') FROM chaincall.action WHERE job = '$first'");
	is($s->must("SELECT input ->> 't', state FROM chaincall.job WHERE id = '$first'"), '6|waiting', 'the last one holds');
	is((error_of($app, qq{SELECT chaincall.submit('later', '{"u": 1}', $future)}))[0] =~ /^MC008/ ? 1 : 0, 1, 'an input that the chain cannot take');
	is((error_of($app, q{SELECT chaincall.submit('later', '{"t": "x"}', dedupe => 'replace')}))[0], '22023 dedupe without a dedupe_key', 'without a key');
	is((error_of($app, q{SELECT chaincall.submit('later', '{"t": "x"}', dedupe_key => 'k', dedupe => 'replce')}))[0], '22023 unknown value of dedupe: "replce"', 'what it does not know');
	like(outcome($app->must(qq{INSERT INTO chaincall.action (job, action, input) VALUES ('$first', 'replace', '{"u": 1}') RETURNING id})), qr/^refused: /, 'by hand it is checked as well');
	my $other = session($node, user => 'stranger');

	is(outcome($other->must(qq{INSERT INTO chaincall.action (job, action, input) VALUES ('$first', 'replace', '{"t": "evil"}') RETURNING id})), 'refused: there is no such job', 'nobody else\'s');
	$other->quit;

	# it starts before the action is applied
	my $super = session($node);
	my $n = $s->must('SELECT count(*) FROM chaincall.job');

	my $gated = submit($app, 'gated', '{"n": 1}', q{dedupe_key => 'g'});

	is(ended($gated), 'succeeded 1', 'a job with a key has run');
	my $anew = $app->must(qq{INSERT INTO chaincall.action (job, action, input) VALUES ('$gated', 'replace', '{"n": 2}') RETURNING id});

	like(outcome($anew), qr/^applied: the job had started: enqueued anew as [0-9a-f-]{36}$/, 'one that has started is left alone');
	my $new = $s->must("SELECT right(reason, 36) FROM chaincall.action WHERE id = '$anew'");

	is(ended($new), 'succeeded 2', 'and another runs with the new input');
	is($s->must("SELECT n.owner::regrole, n.dedupe_key, n.definition = o.definition, n.started_at IS NOT NULL FROM chaincall.job n, chaincall.job o WHERE n.id = '$new' AND o.id = '$gated'"), 'app|g|t|t', 'as the first one\'s owner');
	like(outcome($app->must(qq{INSERT INTO chaincall.action (job, action, input) VALUES ('$job', 'replace', '{"n": 2}') RETURNING id})), qr/^refused: the job has no dedupe_key$/, 'a job without a key');
	$super->quit;
	is(act($app, "cancel('$first')"), 'applied', 'cancelled');
}

$_->quit for $s, $app;
$node->stop;
done_testing();
