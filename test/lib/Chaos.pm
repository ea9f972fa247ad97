# Jobs while everything dies: workers one by one, the whole cluster, at last the machine, under a model server that answers
# a fifth of all calls wrongly; a client goes on enqueuing. Then the books are balanced: jobs against acknowledged commits,
# rows against checkpoints, requests (as the model server saw them) against the commits of their answers.
#
#     my $chaos = Chaos->new(jobs => 300, seconds => 20, seed => 1);
#     $chaos->run;        # dies when jobs do not come to an end
#     my $found = $chaos->balance;
#
# How a repeated call is told from an allowed one: a span's transaction has a commit timestamp (track_commit_timestamp, of
# the machine's clock, as the model server's log). It is taken before the commit is durable, so a checkpoint that is
# there in the end was there for whoever looked after that time, save during a crash that would have taken it away.
# A request for the same step that arrives later is one that nobody may make.
package Chaos;

use strict;
use warnings;

use Chaincall;
use Jobs;
use JSON::PP ();
use ModelServer;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);
use Time::Local qw(timegm);

use constant ITEMS => 3;
use constant WORKERS => qw(caller executor maintainer launcher);
use constant PATIENCE => 180;	# seconds

# Failures that come of what the model server does; any other has to do with the deaths.
use constant EXPECTED => qr/^(?:transient|throttled|permanent|invalid|content|limit|timeout)$/;

my $models_sql = <<'SQL';
CREATE TABLE effect (job int, item int, at timestamptz DEFAULT clock_timestamp(), pid int DEFAULT pg_backend_pid());
CREATE FUNCTION note(job int, item int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO effect VALUES (job, item);
	PERFORM pg_sleep(0.02);		-- so that executors die in the midst of it, too
	RETURN item;
END $$;
-- what is written must not depend on answers: a model that was asked again may give another
CREATE FUNCTION chaos(n int) RETURNS jsonb LANGUAGE chaincall AS $chain$
output: {noted: "{{note}}", review: "{{review}}"}
steps:
  part:
    each: 3
    model: alpha
    prompt: '{"n": {{n}}, "step": "part", "item": {{item}}}'
    returns: {n: int, step: text, item: int}
    reask: 8
  note:
    each: part
    function: public.note
    args: {job: "{{n}}", item: "{{index}}"}
  draft:
    after: note
    model: alpha
    prompt: '{"n": {{n}}, "step": "draft", "item": 1}'
    returns: {n: int, step: text, item: int}
    reask: 8
  review:
    model: beta
    prompt: '{"n": {{n}}, "step": "review", "item": 1, "of": "{{draft.step}}"}'
    returns: {n: int, step: text}
    reask: 8
$chain$;
SQL

sub new
{
	my ($class, %params) = @_;
	my $self = bless {
		jobs => $params{jobs},
		seconds => $params{seconds},
		seed => $params{seed},
		log => PostgreSQL::Test::Utils::tempdir() . '/requests',
		deaths => [],		# of one worker: kind, jobs, at, gone
		outages => [],		# of the cluster: what, jobs, ready
		samples => {},
		unsent => [ 1 .. $params{jobs} ],
		committed => {},	# numbers of jobs whose commit was acknowledged, or found after all
		in_doubt => 0,		# statements whose end the client has not seen
		turn => 0,
		crashes => 0,
		next_batch => 0,
	}, $class;

	srand($self->{seed});
	$self->{models} = ModelServer->new(args => [ '--log', $self->{log} ]);
	$self->_make_nodes;
	return $self;
}

# --------------------------------------------------------------------------------------------------
# The nodes

sub _make_nodes
{
	my ($self) = @_;
	my $primary = jobs_node('chaos', <<'EOF');
wal_level = replica
max_wal_senders = 4
track_commit_timestamp = on
log_timezone = 'UTC'
chaincall.min_callers = 2
chaincall.max_executors = 8
EOF
	my $standby = PostgreSQL::Test::Cluster->new('chaos_standby');
	my $s = session($primary);

	$self->_fill($s);
	$primary->backup('base');
	$standby->init_from_backup($primary, 'base', has_streaming => 1);
	$standby->append_conf('postgresql.conf', "wal_retrieve_retry_interval = '50ms'\n");
	$standby->start;
	set_conf($s, synchronous_standby_names => '*');
	@$self{qw(node standby control)} = ($primary, $standby, $s);
	$self->_wait_for_standby;
	return;
}

sub _fill
{
	my ($self, $s) = @_;
	my %policy = (retry => '{"attempts": 12, "first": "50 ms", "max": "500 ms"}', timeout => '10 s');

	# three ways to each model, so that one that is to be left alone for a while is not all there is
	add_server($s, "server_$_", $self->{models}, max_answer => '1MB', attempt_timeout => '2 s') for (1 .. 3);
	add_model($s, 'alpha', 'server_1', 'echo?delay=400&mix=20', %policy);
	add_model($s, 'beta', 'server_1', 'labels?delay=400&mix=20', %policy);
	for my $remote ([ 2, 'gzip=1' ], [ 3, 'drip=150' ])
	{
		my ($n, $fault) = @$remote;

		$s->must("INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('alpha', 'server_$n', 'echo?delay=400&mix=20&$fault'), "
			  . "('beta', 'server_$n', 'labels?delay=400&mix=20&$fault')");
	}
	$s->must($models_sql);
	return;
}

sub _wait_for_standby
{
	my ($self) = @_;

	return wait_sql($self->{control}, q{SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming'});
}

# When the server's log has said for the nth time that it takes connections: seconds since 1970, or undef.
sub _ready_at
{
	my ($node, $n) = @_;
	my @ready = slurp_file($node->logfile) =~ /^(\S+ \S+) UTC .*database system is ready to accept connections$/mg;

	return undef unless @ready >= $n;
	my ($year, $month, $day, $hour, $minute, $second) = $ready[ $n - 1 ] =~ /^(\d+)-(\d+)-(\d+) (\d+):(\d+):([\d.]+)/
	  or die "no time: $ready[-1]";
	return timegm(0, $minute, $hour, $day, $month - 1, $year) + $second;
}

sub _times_ready
{
	my ($node) = @_;

	return scalar(() = slurp_file($node->logfile) =~ /database system is ready to accept connections$/mg);
}

# --------------------------------------------------------------------------------------------------
# The client that enqueues

# One step of it, without waiting: look after the statement that is under way, or begin the next.
sub _enqueue
{
	my ($self) = @_;
	my $due;

	if ($self->{batch})
	{
		my $result;

		return unless $self->{client}->done;
		$result = $self->{client}->result;
		if ($result->ok)
		{
			$self->{committed}{$_} = 1 for @{ $self->{batch} };
			$self->{batch} = undef;
		}
		else
		{
			$self->_drop_client;
			$self->_look_up;
		}
		return;
	}
	return unless @{ $self->{unsent} } && time >= $self->{next_batch};
	$self->{client} ||= eval { session($self->{node}) } or return;
	$self->{next_batch} = time + 0.1 + rand(1);
	# what is due by now, in parts of very different sizes
	$due = $self->{jobs} * (time - $self->{began}) / $self->{seconds} - ($self->{jobs} - @{ $self->{unsent} });
	$self->{batch} = [ splice(@{ $self->{unsent} }, 0, 1 + int(rand(2 * ($due > 0 ? $due : 0)))) ];
	# every tenth job waits before it begins
	$self->{client}->send("INSERT INTO chaincall.job (chain, input, run_at) SELECT 'chaos', jsonb_build_object('n', n), "
		  . "clock_timestamp() + CASE WHEN n % 10 = 0 THEN 1500 ELSE 0 END * interval '1 ms' FROM unnest('{"
		  . join(',', @{ $self->{batch} }) . "}'::int[]) n");
	return;
}

sub _drop_client
{
	my ($self) = @_;

	kill('KILL', $self->{client}{psql}) if $self->{client}{psql};
	$self->{client}->quit;
	$self->{client} = undef;
	return;
}

# A commit that was not acknowledged may have happened. What is not there is enqueued again.
sub _look_up
{
	my ($self) = @_;
	my $s = reconnect($self->{node});
	my %there = map { $_ => 1 } split /\n/,
	  $s->must("SELECT (input->>'n')::int FROM chaincall.job WHERE (input->>'n')::int = ANY ('{" . join(',', @{ $self->{batch} }) . "}')");

	for my $n (@{ $self->{batch} })
	{
		$there{$n} ? $self->{committed}{$n} = 1 : unshift(@{ $self->{unsent} }, $n);
	}
	$self->{in_doubt}++;
	$self->{batch} = undef;
	$self->{client} = $s;
	return;
}

# --------------------------------------------------------------------------------------------------
# Blows

# One worker gets SIGTERM: kinds in turn, those that are there.
sub _terminate
{
	my ($self) = @_;
	my $s = $self->{control};
	my %death = (at => 0);

	for (WORKERS)
	{
		my $kind = (WORKERS)[ $self->{turn}++ % (WORKERS) ];
		my @pids = split /\n/, $s->must("SELECT pid FROM pg_stat_activity WHERE backend_type = 'chaincall $kind'");

		next unless @pids;
		@death{qw(kind pid)} = ($kind, $pids[ int(rand(@pids)) ]);
		last;
	}
	return unless $death{kind};
	$death{jobs} = [ split /\n/, $s->must("SELECT job FROM chaincall.activity WHERE kind = 'job' AND pid = $death{pid}") ];
	$death{at} = time;
	kill('TERM', $death{pid});
	wait_until(sub { return !kill(0, $death{pid}) }, "the $death{kind} leaves");
	$death{gone} = time;
	push @{ $self->{deaths} }, \%death;
	return;
}

# The cluster goes down and comes up again: down does it, and node is the one that is up afterwards.
sub _outage
{
	my ($self, $what, $down, $node) = @_;
	my @jobs = split /\n/, $self->{control}->must(q{SELECT id FROM chaincall.job WHERE state = 'running'});
	my $times = _times_ready($node);
	my $ready;

	# so that a commit is in doubt now and then
	$self->{next_batch} = 0;
	$self->_enqueue;
	usleep(int(rand(8000)));
	$down->();
	wait_until(sub { return $ready = _ready_at($node, $times + 1) }, "$what: the server is back");
	$self->{node} = $node;
	$self->{control} = reconnect($node);
	push @{ $self->{outages} }, { what => $what, jobs => \@jobs, ready => $ready };
	return;
}

sub _crash
{
	my ($self) = @_;
	my $kind = (WORKERS)[ $self->{crashes}++ % (WORKERS) ];
	my @pids = split /\n/, $self->{control}->must("SELECT pid FROM pg_stat_activity WHERE backend_type = 'chaincall $kind'");

	@pids = $self->{control}->must(q{SELECT min(pid) FROM pg_stat_activity WHERE backend_type LIKE 'chaincall %'}) unless @pids;
	$self->_outage("kill -9 of a $kind", sub {
		kill('KILL', $pids[ int(rand(@pids)) ]);
		$self->_leave;
	}, $self->{node});
	return;
}

sub _immediate
{
	my ($self) = @_;

	$self->_outage('immediate stop', sub {
		$self->_leave;
		$self->{node}->stop('immediate');
		$self->{node}->start;
	}, $self->{node});
	return;
}

# The primary is gone for good. Only a standby that is in step takes its place, as its administrator would see to.
sub _promote
{
	my ($self) = @_;

	$self->_wait_for_standby;
	$self->_outage('promotion', sub {
		$self->_leave;
		$self->{node}->stop('immediate');
		$self->{old} = $self->{node};
		$self->{standby}->promote;
	}, $self->{standby});
	return;
}

sub _leave
{
	my ($self) = @_;

	kill('KILL', $self->{control}{psql});
	$self->{control}->quit;
	return;
}

# What comes when, in seconds from the start.
sub _plan
{
	my ($self) = @_;
	my $all = $self->{seconds};
	my $crash_every = $all < 40 ? 5 : 10;
	my @plan = ([ 0.3 * $all, '_immediate' ], [ 0.55 * $all, '_promote' ], [ 0.8 * $all, '_immediate' ]);

	push @plan, map { [ $_, '_terminate' ] } (1 .. $all);
	push @plan, map { [ $_ * $crash_every + 0.4, '_crash' ] } (1 .. $all / $crash_every);
	return sort { $a->[0] <=> $b->[0] } @plan;
}

# Enqueues and strikes, then waits for the last job.
sub run
{
	my ($self) = @_;
	my @plan = $self->_plan;
	my $began = $self->{began} = time;

	while (@plan || @{ $self->{unsent} } || $self->{batch})
	{
		$self->_enqueue;
		if (@plan && time - $began >= $plan[0][0])
		{
			my $blow = (shift @plan)->[1];

			$self->$blow;
		}
		usleep(2000);
	}
	$self->_wait_for_ends;
	return;
}

sub _wait_for_ends
{
	my ($self) = @_;
	my $s = $self->{control};
	my $until = time + PATIENCE;

	until ($s->must('SELECT count(*) FROM chaincall.job WHERE finished_at IS NULL') eq '0')
	{
		die "jobs do not end:\n" . $s->must('SELECT id, state, worker, deaths, run_at, error FROM chaincall.job WHERE finished_at IS NULL LIMIT 20')
		  . "\n" . $s->must(q{SELECT pid, backend_type, wait_event, state, query FROM pg_stat_activity WHERE backend_type ~ 'chaincall'})
		  if time > $until;
		usleep(50_000);
	}
	return;
}

# --------------------------------------------------------------------------------------------------
# The books

# Requests as the model server saw them: at, key, trace, span, n, path.
sub _requests
{
	my ($self) = @_;
	my $json = JSON::PP->new->utf8;
	my @requests;

	open(my $log, '<', $self->{log}) or die "$self->{log}: $!";
	while (my $line = <$log>)
	{
		my $request = $json->decode($line);
		my $asked = $json->decode($request->{user});

		(undef, $request->{trace}, $request->{span}) = split /-/, $request->{traceparent};
		$request->{n} = $asked->{n};
		$request->{path} = $asked->{step} eq 'part' ? 'part[' . ($asked->{item} - 1) . ']' : $asked->{step};
		push @requests, $request;
	}
	close $log;
	return @requests;
}

# Checkpoints of model steps: by "n path", when they were committed and by which attempt.
sub _checkpoints
{
	my ($self) = @_;
	my %checkpoints;

	for my $row (split /\n/, $self->{control}->must(<<'SQL'))
SELECT j.input->>'n', s.path, extract(epoch FROM pg_xact_commit_timestamp(s.xmin)), lpad(to_hex(s.id), 16, '0'), replace(j.id::text, '-', '')
FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job
WHERE s.try = 0 AND s.kind = 'model'
SQL
	{
		my ($n, $path, $at, $span, $trace) = split /\|/, $row;

		$checkpoints{"$n $path"} = { at => $at, span => $span, trace => $trace };
	}
	return \%checkpoints;
}

# How long after `from` the next call came of each of the jobs that were in hand: the first that was made before and is made
# again, or any after `gone`, when he who had the job can make no more. by_job: requests by job, in the order of time.
sub _gaps
{
	my ($by_job, $jobs, $from, $gone) = @_;
	my @gaps;

	for my $job (@$jobs)
	{
		my %before;

		for my $request (@{ $by_job->{ $job =~ s/-//gr } || [] })
		{
			if ($request->{at} <= $from)
			{
				$before{ $request->{path} } = 1;
				next;
			}
			next unless $request->{at} > $gone || $before{ $request->{path} };
			push @gaps, 1000 * ($request->{at} - $from);
			last;
		}
	}
	return @gaps;
}

sub _percentile
{
	my ($percent, @values) = @_;

	return 0 unless @values;
	return (sort { $a <=> $b } @values)[ int((@values - 1) * $percent / 100) ];
}

sub _count
{
	my ($self, $sql) = @_;

	return $self->{control}->must("SELECT count(*) FROM ($sql) AS rows");
}

# What came of it all, as a hash of figures; further facts are in lists of texts under `reasons` and `wrong`.
sub balance
{
	my ($self) = @_;
	my @requests = $self->_requests;
	my $checkpoints = $self->_checkpoints;
	my (%by_job, %attempts, @wrong);
	my %figure = (jobs => $self->{jobs}, requests => scalar @requests, checkpoints => scalar keys %$checkpoints);

	$figure{repeated} = 0;
	for my $request (@requests)
	{
		my $checkpoint = $checkpoints->{"$request->{n} $request->{path}"};

		push @{ $by_job{ $request->{trace} } }, $request;
		$attempts{ $request->{span} } = 1;
		push @wrong, "job $request->{n} was called under the name of another" if $checkpoint && $checkpoint->{trace} ne $request->{trace};
		push @wrong, "a key that is not the job's: $request->{key}" if $request->{key} !~ /^[0-9a-f-]{36}-/ || $& =~ s/-//gr ne $request->{trace};
		next unless $checkpoint && $request->{at} > $checkpoint->{at};
		$figure{repeated}++;
		push @wrong, sprintf('job %d, %s: asked %.6f s after its answer was committed', $request->{n}, $request->{path}, $request->{at} - $checkpoint->{at});
	}
	for my $at (sort keys %$checkpoints)
	{
		push @wrong, "$at: an answer that nobody was asked for" unless $attempts{ $checkpoints->{$at}{span} };
		push @wrong, "$at: no time of commit" unless $checkpoints->{$at}{at};
	}
	push @wrong, 'the model server has counted other requests than it has noted' if @requests != _sum(values %{ $self->{models}->keys });

	$self->_balance_jobs(\%figure, \@wrong);
	$self->_balance_times(\%figure, \%by_job);
	$figure{wrong} = \@wrong;
	return \%figure;
}

sub _sum
{
	my $sum = 0;

	$sum += $_ for @_;
	return $sum;
}

sub _balance_jobs
{
	my ($self, $figure, $wrong) = @_;
	my $s = $self->{control};
	my %ended = map { $_ => 1 } split /\n/,
	  $s->must(q{SELECT (input->>'n')::int FROM chaincall.job WHERE finished_at IS NOT NULL AND state IN ('succeeded', 'failed') GROUP BY 1 HAVING count(*) = 1});

	$figure->{lost} = grep { !$ended{$_} } keys %{ $self->{committed} };
	$figure->{in_doubt} = $self->{in_doubt};
	$figure->{unknown} = $self->_count('SELECT FROM chaincall.job') - keys %{ $self->{committed} };
	$figure->{dead_letters} = $self->_count(q{SELECT FROM chaincall.job WHERE state = 'failed'});
	$figure->{succeeded} = $self->_count(q{SELECT FROM chaincall.job WHERE state = 'succeeded'});
	$figure->{blamed} = $self->_count('SELECT FROM chaincall.job WHERE deaths > 0');
	$figure->{reasons} = [ split /\n/,
		$s->must(q{SELECT concat_ws(' ', count(*), error->>'class', regexp_replace(error->>'step', '\[\d+\]', ''), min(error->>'message')) FROM chaincall.job WHERE state = 'failed' GROUP BY error->>'class', regexp_replace(error->>'step', '\[\d+\]', '') ORDER BY 1}) ];
	for my $row (split /\n/, $s->must(q{SELECT input->>'n', error->>'class', error->>'step', error->>'message' FROM chaincall.job WHERE state = 'failed'}))
	{
		my ($n, $class, $step, $message) = split /\|/, $row, 4;

		push @$wrong, "job $n has failed for no good reason: $class, $step: $message"
		  unless $class =~ EXPECTED && $step =~ /^(?:part\[\d\]|draft|review)$/ && length $message;
	}
	push @$wrong, 'a failed job has no dead letter, or another job has one'
	  if $self->_count(q{SELECT FROM chaincall.dead_letter d FULL JOIN (SELECT id FROM chaincall.job WHERE state = 'failed') j ON j.id = d.job
WHERE j.id IS NULL OR d.job IS NULL OR d.step IS NULL OR d.input IS NULL});
	# a row and its checkpoint are one transaction: one of each, or none
	$figure->{sql_effects_off} = $self->_count(<<'SQL');
SELECT FROM (SELECT job AS n, format('note[%s]', item) AS path, count(*) AS rows FROM effect GROUP BY 1, 2) e
FULL JOIN (SELECT (j.input->>'n')::int AS n, s.path FROM chaincall.span s JOIN chaincall.job j ON j.id = s.job WHERE s.try = 0 AND s.path ~ '^note\[') c USING (n, path)
WHERE e.rows IS DISTINCT FROM 1 OR c.path IS NULL
SQL
	$figure->{sql_effects_off} += $self->_count('SELECT FROM chaincall.job j WHERE state = \'succeeded\' AND (SELECT count(*) FROM effect WHERE job = (j.input->>\'n\')::int) <> ' . ITEMS);
	$figure->{twice} = $self->_count('SELECT FROM chaincall.span WHERE try = 0 GROUP BY job, path HAVING count(*) > 1');
	# part, note, draft, review
	push @$wrong, 'a job has succeeded without all of its checkpoints'
	  if $self->_count('SELECT FROM chaincall.job j WHERE state = \'succeeded\' AND (SELECT count(*) FROM chaincall.span s WHERE s.job = j.id AND s.try = 0) <> ' . (2 * ITEMS + 2));
	push @$wrong, 'a job has another output than it should'
	  if $self->_count(q{SELECT FROM chaincall.job WHERE state = 'succeeded' AND output->'noted' <> '[0, 1, 2]'});
	return;
}

sub _balance_times
{
	my ($self, $figure, $by_job) = @_;
	my (@recovery, @restart);

	push @recovery, _gaps($by_job, @$_{qw(jobs at gone)}) for grep { $_->{kind} eq 'caller' } @{ $self->{deaths} };
	for my $outage (@{ $self->{outages} })
	{
		my @gaps = _gaps($by_job, @$outage{qw(jobs ready ready)});

		$outage->{p50} = _percentile(50, @gaps);
		push @restart, @gaps;
	}
	@$figure{qw(terminated outages)} = (scalar @{ $self->{deaths} }, scalar @{ $self->{outages} });
	@$figure{qw(recovery_p50_ms recovery_p95_ms recovery_samples)} = (_percentile(50, @recovery), _percentile(95, @recovery), scalar @recovery);
	@$figure{qw(restart_p50_ms restart_p95_ms restart_samples)} = (_percentile(50, @restart), _percentile(95, @restart), scalar @restart);
	$figure->{exit_max_ms} = _percentile(100, 0, map { 1000 * ($_->{gone} - $_->{at}) } @{ $self->{deaths} });
	return;
}

# Ends the servers.
sub stop
{
	my ($self) = @_;

	$self->{client}->quit if $self->{client};
	$self->{control}->quit;
	$self->{node}->stop;
	$self->{models}->stop;
	return map { slurp_file($_->logfile) } ($self->{old}, $self->{node});
}

1;
