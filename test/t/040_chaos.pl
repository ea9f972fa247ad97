# Everything dies, again and again, and no job is lost, no row written twice, no answer paid for twice: see test/lib/Chaos.pm.
# `make chaos` is the same, longer: CHAOS_JOBS, CHAOS_SECONDS, CHAOS_SEED.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaos;
use Test::More;

my %params = (jobs => $ENV{CHAOS_JOBS} || 300, seconds => $ENV{CHAOS_SECONDS} || 20, seed => $ENV{CHAOS_SEED} || time);
note("CHAOS_JOBS=$params{jobs} CHAOS_SECONDS=$params{seconds} CHAOS_SEED=$params{seed}");

my $chaos = Chaos->new(%params);
$chaos->run;
my $figure = $chaos->balance;

note(sprintf('%s: %d jobs in hand, the next call of half of them after %.0f ms', $_->{what}, scalar @{ $_->{jobs} }, $_->{p50})) for @{ $chaos->{outages} };
note("dead letters: $_") for @{ $figure->{reasons} };

is($figure->{lost}, 0, 'every job whose commit was acknowledged has ended, once');
is($figure->{unknown}, 0, 'and there is no other');
is($figure->{succeeded} + $figure->{dead_letters}, $params{jobs}, 'each has succeeded or is a dead letter');
cmp_ok($figure->{dead_letters}, '<', 0.1 * $params{jobs}, 'few are dead letters');
is($figure->{sql_effects_off}, 0, 'each row of a function step was written once');
is($figure->{twice}, 0, 'no step has succeeded twice');
is($figure->{repeated}, 0, 'no call was made again after its answer was committed');
cmp_ok($figure->{terminated}, '>=', 0.7 * $params{seconds}, 'workers have died all the time');
cmp_ok($figure->{outages}, '>=', 5, 'and the cluster');
cmp_ok($figure->{recovery_samples}, '>', 0, 'dead callers had jobs in hand');
cmp_ok($figure->{restart_samples}, '>', 0, 'crashed clusters too');
cmp_ok($figure->{recovery_p50_ms}, '<=', 300, 'half of the jobs of a dead caller go on within 300 ms');
cmp_ok($figure->{restart_p50_ms}, '<=', 1000, 'after a crash of the cluster within a second');
is_deeply([ splice(@{ $figure->{wrong} }, 0, 20) ], [], 'nothing else is wrong');
unlike($_, qr/TRAP|PANIC|terminated by signal (?!9\b)\d/, 'nothing has crashed by itself') for $chaos->stop;

# PostgreSQL's tests have put standard output into a file
my $out = Test::More->builder->output;
print {$out} sprintf("figure chaos_%s %d %s\n", $_->[0], $figure->{ $_->[0] }, $_->[1])
  for [ jobs => 'jobs' ], [ lost => 'jobs' ], [ repeated => 'calls' ], [ sql_effects_off => 'rows' ], [ dead_letters => 'jobs' ];
print {$out} sprintf("figure chaos_%s %.0f ms\n", $_, $figure->{$_}) for qw(recovery_p50_ms recovery_p95_ms restart_p50_ms restart_p95_ms exit_max_ms);
note(join(', ', map { "$_ $figure->{$_}" } qw(succeeded requests checkpoints in_doubt blamed terminated outages recovery_samples restart_samples)));
done_testing();
