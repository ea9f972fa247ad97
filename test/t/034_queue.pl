# What people decide about jobs that are not theirs to run: chains that are paused, how long jobs may live, what is cancelled
# or has expired while it runs.
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

my $node = jobs_node('queue', "chaincall.park_after = 1s\n");
my $s = session($node);
my $models = ModelServer->new;

add_server($s, 'stand_in', $models);
add_model($s, 'echo', 'stand_in', 'echo');
add_model($s, 'other', 'stand_in', 'echo');
add_model($s, 'silent', 'stand_in', 'echo?hang=1');
$s->must(<<'END');
CREATE ROLE author LOGIN;
CREATE ROLE other LOGIN;
SELECT chaincall.grant_usage('author');
SELECT chaincall.grant_usage('other');
GRANT USAGE ON FOREIGN SERVER stand_in TO author, other;
GRANT CREATE ON SCHEMA public TO author;
END
my $author = session($node, user => 'author');
my $other = session($node, user => 'other');
$author->must(<<'END');
CREATE FUNCTION says(t text) RETURNS text LANGUAGE chaincall AS $$
model: echo
prompt: "{{t}}"
$$;
CREATE FUNCTION says_too(t text) RETURNS text LANGUAGE chaincall AS $$
model: echo
prompt: "{{t}}"
$$;
CREATE FUNCTION hangs() RETURNS text LANGUAGE chaincall AS $$
model: silent
prompt: x
$$;
END

sub waits_for
{
	my ($job) = @_;

	return $s->must("SELECT state || ': ' || waits_for FROM chaincall.job_status WHERE id = '$job'");
}

subtest 'a paused chain' => sub {
	$author->must(<<'END');
CREATE FUNCTION naps(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  nap: {wait: "1 hour", timeout: 2 s, on_error: {value: late}}
  said: {model: echo, prompt: "{{nap}} {{t}}"}
$$;
END
	my $begun = submit($author, 'naps', '{"t": "one"}');

	wait_sql($s, "SELECT state = 'waiting' AND started_at IS NOT NULL FROM chaincall.job WHERE id = '$begun'");
	$author->must(q{SELECT chaincall.pause('chain', 'naps')});
	wait_sql($s, "SELECT state = 'succeeded' AND output = '\"late one\"' FROM chaincall.job WHERE id = '$begun'");
	pass('a job that has begun goes on, though it was parked');
	is($author->must(q{SELECT chaincall.pause('chain', 'says')}), '', 'its owner pauses it');
	is($author->must(q{SELECT chain, paused FROM chaincall.chain_policy WHERE chain ~ 'says'}), 'public.says(text)|t', 'by the name that jobs have');
	my $job = submit($author, 'says', '{"t": "one"}');
	my $go = submit($author, 'says_too', '{"t": "two"}');

	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$go'");
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$job'");
	is(waits_for($job), 'waiting: chain public.says(text) to be resumed', 'a job of it waits, one of another chain does not');
	is($s->must("SELECT started_at IS NULL AND worker IS NULL FROM chaincall.job WHERE id = '$job'"), 't', 'it has not started');

	my $keyed = $author->must(q{SELECT chaincall.submit('says', '{"t": "k"}', dedupe_key => 'k')});
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$keyed'");
	is($author->must(q{SELECT chaincall.submit('says', '{"t": "k"}', dedupe_key => 'k', dedupe => 'skip')}), $keyed, 'it counts as one that has not started');

	# many of them hold up nobody
	$author->must(q{INSERT INTO chaincall.job (chain, input) SELECT 'says', '{"t": "many"}' FROM generate_series(1, 3000)});
	my $behind = submit($author, 'says_too', '{"t": "behind"}');
	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$behind'");
	wait_sql($s, q{SELECT count(*) = 3002 FROM chaincall.job WHERE state = 'waiting'});

	# a crash in between
	$s = crash($node, $s, pid_of($s, 'maintainer'));
	$_->quit for $author, $other;
	$author = reconnect($node, user => 'author');
	$other = reconnect($node, user => 'other');
	my $later = submit($author, 'says', '{"t": "later"}');
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$later'");
	is($author->must(q{SELECT chaincall.resume('chain', 'says(text)')}), '', 'it is resumed');
	is(wait_jobs($s), 'succeeded 3006', 'all of them run');
	is($s->must("SELECT waits_on IS NULL AND run_at < 'infinity' FROM chaincall.job WHERE id = '$job'"), 't', 'and wait for nothing');
	is($author->must(q{SELECT chaincall.resume('chain', 'says')}), '', 'a second time changes nothing');
};

subtest 'a paused model' => sub {
	$author->must(<<'END');
CREATE FUNCTION patient(t text) RETURNS text LANGUAGE chaincall AS $$
steps:
  before: {model: other, prompt: "{{t}}"}
  said: {model: echo, prompt: "{{before}}"}
$$;
CREATE FUNCTION hurried(t text) RETURNS text LANGUAGE chaincall AS $$
model: echo
prompt: "{{t}}"
timeout: 1500 ms
on_error: {value: "{{error.class}}: {{error.message}}"}
$$;
CREATE FUNCTION elsewhere(t text) RETURNS text LANGUAGE chaincall AS $$
model: echo
fallback: other
prompt: "{{t}}"
$$;
END
	$s->must(q{SELECT chaincall.pause('model', 'echo')});
	$models->reset;
	my $r = $author->run(q{SELECT says('x')});
	is("$r->{state} $r->{message}", 'MC003 step chain: model "echo" is paused', 'a call in a session fails');
	my $job = submit($author, 'patient', '{"t": "later"}');
	my $hurried = submit($author, 'hurried', '{"t": "now"}');
	my $elsewhere = submit($author, 'elsewhere', '{"t": "there"}');

	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$elsewhere'");
	pass('a call that has a fallback goes there');
	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$hurried'");
	like($s->must("SELECT output FROM chaincall.job WHERE id = '$hurried'"), qr/^"timeout: /, 'a timeout around it holds');
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$job'");
	is(waits_for($job), 'waiting: model echo to be resumed', 'a job waits for it, in nobody\'s hands');
	$s = crash($node, $s, pid_of($s, 'maintainer'));
	$_->quit for $author, $other;
	$author = reconnect($node, user => 'author');
	$other = reconnect($node, user => 'other');
	is($s->must("SELECT state FROM chaincall.job WHERE id = '$job'"), 'waiting', 'over a crash');
	$s->must(q{SELECT chaincall.resume('model', 'echo')});
	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$job'");
	is($s->must("SELECT output FROM chaincall.job WHERE id = '$job'"), '"later"', 'and goes on when it is resumed');
	is($models->stats->{requests}, 3, 'with what it had done before');
};

subtest 'who may pause, and what' => sub {
	my $r = $other->run(q{SELECT chaincall.pause('chain', 'says')});

	is("$r->{state} $r->{message}", '42501 must be owner of chain "says"', 'a chain: its owner');
	$r = $other->run(q{SELECT chaincall.set_ttl('says', '1 day')});
	is("$r->{state} $r->{message}", '42501 must be owner of chain "says"', 'how long its jobs live, too');
	$r = $author->run(q{SELECT chaincall.pause('model', 'echo')});
	is($r->{state}, '42501', 'a model: who may update its row');
	$r = $author->run(q{SELECT chaincall.pause('chain', 'nothing')});
	is("$r->{state} $r->{message}", '42883 chain "nothing" does not exist', 'no such chain');
	$r = $s->run(q{SELECT chaincall.pause('model', 'ecko')});
	is("$r->{state} $r->{message} $r->{hint}", '42704 model "ecko" does not exist Did you mean "echo"?', 'no such model');
	$r = $s->run(q{SELECT chaincall.pause('job', 'echo')});
	is("$r->{state} $r->{hint}", '22023 Known are chain and model.', 'neither');
	$r = $author->run(q{INSERT INTO chaincall.chain_policy VALUES ('says')});
	is($r->{state}, '42501', 'the table itself is the administrator\'s');
	$r = $s->run(q{INSERT INTO chaincall.chain_policy (chain, ttl) VALUES ('says_too', '-1 day')});
	is($r->{state}, '23514', 'a life that ends before it begins');
};

subtest 'how long jobs live' => sub {
	$author->must(q{SELECT chaincall.set_ttl('says_too', '2 hours')});
	my $job = $author->must(q{SELECT chaincall.submit('says_too', '{"t": "x"}', run_at => now() + interval '1 day')});
	is($s->must("SELECT expires_at - run_at FROM chaincall.job WHERE id = '$job'"), '02:00:00', 'as long as their chain says');
	my $own = $author->must(q{SELECT chaincall.submit('says_too', '{"t": "x"}', run_at => now() + interval '1 day', expires_at => now() + interval '2 days')});
	is($s->must("SELECT expires_at - run_at FROM chaincall.job WHERE id = '$own'"), '1 day', 'unless they say it themselves');
	$author->must(q{SELECT chaincall.set_ttl('says_too', NULL)});
	my $ever = $author->must(q{SELECT chaincall.submit('says_too', '{"t": "x"}', run_at => now() + interval '1 day')});
	is($s->must("SELECT expires_at IS NULL FROM chaincall.job WHERE id = '$ever'"), 't', 'or for ever');
	$author->must("SELECT chaincall.cancel(id) FROM chaincall.job WHERE state = 'waiting'");
	wait_jobs($s);

	# one that nobody claims
	$author->must(q{SELECT chaincall.set_ttl('says', '300 ms'); SELECT chaincall.pause('chain', 'says')});
	my $held = submit($author, 'says', '{"t": "x"}');
	wait_sql($s, "SELECT state = 'expired' FROM chaincall.job WHERE id = '$held'");
	is($s->must("SELECT started_at IS NULL FROM chaincall.job WHERE id = '$held'"), 't', 'a job that is not claimed in its time expires');
	$author->must(q{SELECT chaincall.set_ttl('says', NULL); SELECT chaincall.resume('chain', 'says')});
};

subtest 'what runs is ended at once' => sub {
	# the model server hears of it when the connection is closed
	within(200, 'from cancel() to the end of the call in the air', sub {
		my $job = submit($author, 'hangs', '{}');

		$models->wait_in_flight(1);
		$author->must("SELECT chaincall.cancel('$job')");
		my $begun = now_ms();
		$models->wait_in_flight(0);
		my $took = now_ms() - $begun;

		wait_sql($s, "SELECT state = 'cancelled' FROM chaincall.job WHERE id = '$job'");
		return $took;
	});
	within(300, 'from expires_at to the end of the call in the air', sub {
		my $job = $author->must(q{SELECT chaincall.submit('hangs', expires_at => clock_timestamp() + interval '500 ms')});

		$models->wait_in_flight(1);
		$models->wait_in_flight(0);
		wait_sql($s, "SELECT state = 'expired' FROM chaincall.job WHERE id = '$job'");
		return $s->must("SELECT round(extract(epoch FROM finished_at - expires_at) * 1000) FROM chaincall.job WHERE id = '$job'");
	});
};

subtest 'an open transaction holds up no action but its own' => sub {
	my $first = submit($author, 'says', '{"t": "keyed"}', "dedupe_key => 'k'");
	wait_jobs($s, "id = '$first'");
	my $open = session($node, user => 'author');
	$open->must('BEGIN');
	submit($open, 'says', '{"t": "not committed"}', "dedupe_key => 'k'");
	# where nothing is left to replace, a job is enqueued anew, and its key is that of the open transaction
	my $replace = $author->must(qq{INSERT INTO chaincall.action (job, action, input) VALUES ('$first', 'replace', '{"t": "newer"}') RETURNING id});
	my $later = submit($other, 'says', '{"t": "x"}', "run_at => now() + '1 day'");
	my $cancel = $other->must("SELECT chaincall.cancel('$later')");
	wait_sql($s, "SELECT state = 'applied' FROM chaincall.action WHERE id = '$cancel'");
	is($s->must("SELECT state FROM chaincall.action WHERE id = '$replace'"), 'pending', 'what meets the open transaction is put off');
	$open->must('COMMIT');
	wait_sql($s, "SELECT state <> 'pending' FROM chaincall.action WHERE id = '$replace'");
	$open->quit;
};

subtest 'many actions at once' => sub {
	$s->must(q{INSERT INTO chaincall.job (chain, input, run_at) SELECT 'says', '{"t": "x"}', now() + '1 day' FROM generate_series(1, 4000)});
	# statistics of a time when nothing is pending: no plan may be built on that
	$s->must('VACUUM ANALYZE chaincall.action; VACUUM ANALYZE chaincall.job');
	my $read = q{SELECT sum(pg_stat_get_tuples_returned(i)) FROM unnest('{chaincall.action_pending, chaincall.action_cancels, chaincall.action_first}'::regclass[]) i};
	my $before = $s->must($read);
	$s->must(q{SELECT count(chaincall.cancel(id)) FROM chaincall.job WHERE run_at > now() AND state = 'waiting'});
	wait_sql($s, "SELECT NOT EXISTS (SELECT FROM chaincall.action WHERE state = 'pending')");
	is($s->must(q{SELECT count(*) FROM chaincall.job WHERE run_at > now() AND state = 'waiting'}), 0, 'all are applied');
	wait_sql($s, "SELECT ($read) > $before");
	$read = $s->must($read) - $before;
	cmp_ok($read, '<', 2_000_000, "each looks at its own row, not at all that are pending ($read read)");
};

subtest 'two paused models' => sub {
	$author->must(<<'END');
CREATE FUNCTION asks_both() RETURNS jsonb LANGUAGE chaincall AS $$
steps:
  a: {model: echo, prompt: a}
  b: {model: other, prompt: b}
  out: {value: ["{{a}}", "{{b}}"]}
$$;
END
	$s->must(q{SELECT chaincall.pause('model', 'echo'), chaincall.pause('model', 'other')});
	my $job = submit($author, 'asks_both', '{}');
	wait_sql($s, "SELECT state = 'waiting' FROM chaincall.job WHERE id = '$job'");
	is($s->must("SELECT waits_on ~ '^model (echo|other)\$', run_at < now() + interval '2 min' FROM chaincall.job WHERE id = '$job'"), 't|t',
		'who waits for two is told of one, and looks at the other now and then');
	$s->must(q{SELECT chaincall.resume('model', 'echo'), chaincall.resume('model', 'other')});
	wait_sql($s, "SELECT state = 'succeeded' FROM chaincall.job WHERE id = '$job'");
};

$_->quit for $s, $author, $other;
$node->stop;
done_testing();
