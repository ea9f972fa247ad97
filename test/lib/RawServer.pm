# A server that answers with given bytes, for what no HTTP library would send, and holes in which connections vanish.
package RawServer;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket;

# Starts a server on a free port of the loopback interface. handler gets a connection whose request has been read whole,
# one at a time; it writes what it likes and returns, and the connection is closed. The server ends with the test.
sub new
{
	my ($class, $handler) = @_;
	my $listen = _listen(64);
	my $self = bless { port => $listen->sockport }, $class;

	pipe(my $watched, my $alive) or die "pipe: $!";
	$self->{pid} = fork();
	die "fork: $!" unless defined $self->{pid};
	if ($self->{pid} == 0)
	{
		# PostgreSQL's test module dies of SIGTERM with a message
		$SIG{TERM} = 'DEFAULT';
		_close_others($listen, $watched);
		_serve($listen, $watched, $handler);
		POSIX::_exit(0);
	}
	$self->{alive} = $alive;
	return $self;
}

# A child must not keep open what others watch: pipes of other servers, of sessions.
sub _close_others
{
	my %mine = map { fileno($_) => 1 } @_;

	for my $fd (3 .. 1023)
	{
		POSIX::close($fd) unless $mine{$fd};
	}
	return;
}

sub _listen
{
	my ($backlog) = @_;

	return IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => $backlog, Proto => 'tcp') || die "listen: $!";
}

sub _serve
{
	my ($listen, $watched, $handler) = @_;
	my $select = IO::Select->new($listen, $watched);

	local $SIG{PIPE} = 'IGNORE';
	while (my @ready = $select->can_read)
	{
		last if grep { $_ == $watched } @ready;
		my $connection = $listen->accept or next;

		$connection->autoflush(1);
		$handler->($connection) if _read_request($connection);
		$connection->flush;
		shutdown($connection, 2);
	}
	return;
}

sub _read_request
{
	my ($connection) = @_;
	my $text = '';

	until ($text =~ /\r\n\r\n/)
	{
		sysread($connection, $text, 65536, length $text) or return 0;
	}
	my $wanted = $+[0] + ($text =~ /^content-length: *(\d+)/mi ? $1 : 0);
	while (length $text < $wanted)
	{
		sysread($connection, $text, 65536, length $text) or return 0;
	}
	return 1;
}

# A port at which connections are opened for ever: the queue of a listener that accepts none is full, and the kernel
# lets further ones wait.
sub black_hole
{
	my ($class) = @_;
	my $listen = _listen(1);
	my $self = bless { port => $listen->sockport, listen => $listen, fillers => [] }, $class;

	for (1 .. 8)
	{
		my $socket = IO::Socket::INET->new(Proto => 'tcp') || die "socket: $!";

		$socket->blocking(0);
		connect($socket, sockaddr_in($self->{port}, inet_aton('127.0.0.1')));
		push @{ $self->{fillers} }, $socket;
	}
	return $self;
}

# A port that accepts connections and never says a word.
sub mute
{
	my ($class) = @_;
	my $listen = _listen(64);

	return bless { port => $listen->sockport, listen => $listen }, $class;
}

# A port nobody listens at; it stays ours, so that nobody will.
sub closed
{
	my ($class) = @_;
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'tcp') || die "bind: $!";

	return bless { port => $socket->sockport, socket => $socket }, $class;
}

sub port { return $_[0]->{port}; }

sub url { return "http://127.0.0.1:$_[0]->{port}"; }

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);

	return unless $self->{pid};
	close $self->{alive};
	kill('TERM', $self->{pid});
	waitpid($self->{pid}, 0);
	return;
}

1;
