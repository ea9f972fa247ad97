# A stand-in model server (test/modelserver) beside a TAP test: starts one on a free port of the loopback interface,
# asks it what it has seen, ends it. Whatever becomes of the test, the server ends with it: its standard input is a
# pipe that only the test holds open.
package ModelServer;

use strict;
use warnings;

use Cwd ();
use File::Temp ();
use FindBin;
use HTTP::Tiny;
use IO::Handle;
use JSON::PP ();
use POSIX ();
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC usleep);

use constant PATIENCE => 60;	# seconds, then something is wrong

# args: further arguments of the program (reference to an array); tls => [cert, key] makes it speak https; port: the one
# to listen at (default: a free one).
sub new
{
	my ($class, %params) = @_;
	my $self = bless {
		args => $params{args} || [],
		tls => $params{tls},
		port => $params{port} || 0,
		dir => File::Temp->newdir(),
	}, $class;

	$self->start;
	return $self;
}

sub start
{
	my ($self) = @_;
	my $program = $ENV{CHAINCALL_MODELSERVER} || Cwd::abs_path("$FindBin::Bin/../modelserver/modelserver");
	my $port_file = "$self->{dir}/port";
	my @command = ($program, '--port', $self->{port}, '--port-file', $port_file, '--exit-with-stdin',
		($self->{tls} ? ('--tls', @{ $self->{tls} }) : ()), @{ $self->{args} });

	die "$program is not built; run 'make test/modelserver/modelserver'" unless $program && -x $program;
	unlink $port_file;
	pipe(my $stdin, my $alive) or die "pipe: $!";
	$self->{pid} = fork();
	die "fork: $!" unless defined $self->{pid};
	if ($self->{pid} == 0)
	{
		close $alive;
		open(STDIN, '<&', $stdin) or POSIX::_exit(1);
		open(STDOUT, '>', "$self->{dir}/log") && open(STDERR, '>&', \*STDOUT) or POSIX::_exit(1);
		exec { $command[0] } @command or POSIX::_exit(1);
	}
	close $stdin;
	$self->{alive} = $alive;
	wait_until(
		sub {
			die "the model server did not start: " . $self->log if waitpid($self->{pid}, POSIX::WNOHANG()) != 0;
			return -s $port_file;
		}, 'the model server listens');
	open(my $file, '<', $port_file) or die "$port_file: $!";
	chomp($self->{port} = <$file>);
	close $file;
	return;
}

sub log
{
	my ($self) = @_;

	open(my $file, '<', "$self->{dir}/log") or return '';
	local $/;
	return <$file>;
}

# Ends the server; it can be started again, at the same port. signal: KILL ends it as a crash would.
sub stop
{
	my ($self, $signal) = @_;

	return unless $self->{pid};
	kill($signal, $self->{pid}) if $signal;
	close $self->{alive};
	waitpid($self->{pid}, 0);
	$self->{pid} = undef;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);

	$self->stop('KILL');
	return;
}

sub port { return $_[0]->{port}; }

# The base of its URLs, without a path.
sub url
{
	my ($self) = @_;

	return ($self->{tls} ? 'https' : 'http') . "://127.0.0.1:$self->{port}";
}

# Asks the server itself; the answer as data.
sub ask
{
	my ($self, $path, $method) = @_;
	my $text;

	$method ||= 'GET';
	if ($self->{tls})
	{
		open(my $curl, '-|', 'curl', '-s', '-k', '-X', $method, $self->url . $path) or die "curl: $!";
		local $/;
		$text = <$curl>;
		close $curl or die "curl $path: $?";
	}
	else
	{
		my $answer = HTTP::Tiny->new(timeout => PATIENCE, keep_alive => 0, proxy => undef)->request($method, $self->url . $path);

		die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
		$text = $answer->{content};
	}
	return $text =~ /\S/ ? JSON::PP->new->utf8->allow_nonref->decode($text) : undef;
}

sub stats { return $_[0]->ask('/stats'); }

# How many requests came with this Idempotency-Key.
sub count { return $_[0]->ask("/stats?key=$_[1]")->{count}; }

# Idempotency-Keys with their counts.
sub keys { return $_[0]->ask('/keys'); }

# The last n requests, newest first, or the last one where n is left out: method, path, headers, body.
sub last
{
	my ($self, $n) = @_;

	return $self->ask('/last') unless $n;
	return @{ $self->ask("/last?n=$n") };
}

sub reset { $_[0]->ask('/reset', 'POST'); return; }

# Waits until the server's statistics satisfy a condition; they are its argument. Returns them.
sub wait_for
{
	my ($self, $condition, $what) = @_;
	my $stats;

	wait_until(sub { $stats = $self->stats; return $condition->($stats); }, $what || 'a condition on /stats');
	return $stats;
}

# Waits until so many requests are being answered.
sub wait_in_flight
{
	my ($self, $n) = @_;

	return $self->wait_for(sub { $_[0]->{in_flight} == $n }, "$n requests in flight");
}

# Polls until the condition holds; dies when it never does.
sub wait_until
{
	my ($condition, $what) = @_;
	my $end = clock_gettime(CLOCK_MONOTONIC) + PATIENCE;

	until ($condition->())
	{
		die "waited in vain: $what" if clock_gettime(CLOCK_MONOTONIC) > $end;
		usleep(2000);
	}
	return;
}

1;
