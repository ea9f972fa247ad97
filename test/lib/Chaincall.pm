# Common ground of the TAP tests: a node with the extension, sessions on it that tell errors as data and times as the
# client sees them, models at a stand-in server.
package Chaincall;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

our @EXPORT = qw(new_node resolver_env make_certificate session now_ms sql_literal add_server add_model within wait_until);

sub wait_until { return ModelServer::wait_until(@_); }

sub now_ms { return clock_gettime(CLOCK_MONOTONIC) * 1000; }

sub sql_literal
{
	my ($text) = @_;

	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return $text =~ /\\/ ? 'E\'' . ($text =~ s/\\/\\\\/gr) . '\'' : "'$text'";
}

# A running node with the extension in database postgres. PostgreSQL's own logging of statements is off, so that what
# the log shows is what chaincall wrote. conf: lines for postgresql.conf; env: variables that the server gets.
sub new_node
{
	my ($name, %params) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', "log_statement = none\n" . ($params{conf} || ''));
	{
		local %ENV = (%ENV, %{ $params{env} || {} });

		$node->start;
	}
	$node->safe_psql('postgres', 'CREATE EXTENSION chaincall');
	return $node;
}

# The environment of a server that resolves the names of test/lib/resolver.c; release: the file that slow.test waits for.
sub resolver_env
{
	my ($release) = @_;
	my $library = PostgreSQL::Test::Utils::tempdir() . '/resolver.so';

	PostgreSQL::Test::Utils::system_or_bail($ENV{CC} || 'cc', '-shared', '-fPIC', '-o', $library, "$FindBin::Bin/../lib/resolver.c", '-ldl');
	return (LD_PRELOAD => $library, RESOLVER_RELEASE => $release);
}

# A certificate for names (as openssl writes subjectAltName), signed by itself: the files of certificate and key.
sub make_certificate
{
	my ($names) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/server';

	PostgreSQL::Test::Utils::system_or_bail('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
		'-days', '2', '-subj', '/CN=model server', '-addext', "subjectAltName=$names", '-keyout', "$file.key", '-out', "$file.crt", '-batch');
	return ("$file.crt", "$file.key");
}

# A session; params: dbname, user, sql (run first, must succeed).
sub session { return Chaincall::Session->new(@_); }

# A foreign server for the model server, or for the url given; further options as a hash.
sub add_server
{
	my ($session, $name, $url, %options) = @_;
	my $list;

	$options{api} ||= 'openai';
	$options{url} = ref $url ? $url->url . '/v1' : $url;
	$list = join(', ', map { "$_ " . sql_literal($options{$_}) } sort keys %options);
	$session->must("CREATE SERVER $name FOREIGN DATA WRAPPER chaincall OPTIONS ($list)");
	return;
}

# A model with one endpoint. Further columns: kind, retry, timeout, params.
sub add_model
{
	my ($session, $name, $server, $remote_name, %columns) = @_;
	my $names = join('', map { ", $_" } sort keys %columns);
	my $values = join('', map { ', ' . sql_literal($columns{$_}) } sort keys %columns);

	$session->must('INSERT INTO chaincall.model (name' . "$names) VALUES (" . sql_literal($name) . $values . ')');
	$session->must('INSERT INTO chaincall.endpoint (model, server, remote_name) VALUES ('
		  . join(', ', map { sql_literal($_) } ($name, $server, $remote_name)) . ')');
	return;
}

# Tests that something takes no more than so many ms. A machine that does other things at the same time makes anything
# late now and then, but not always: the best of five tries counts. measure returns ms, or undef when it went wrong,
# which no further try mends.
sub within
{
	my ($limit_ms, $what, $measure) = @_;
	my @took;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	for (1 .. 5)
	{
		my $ms = $measure->();

		return fail("$what: it went wrong") unless defined $ms;
		push @took, sprintf('%.1f', $ms);
		last if $ms <= $limit_ms;
	}
	note("$what: @took ms");
	return ok($took[-1] <= $limit_ms, "$what: within $limit_ms ms") || diag("it took @took ms");
}

package Chaincall::Result;

# What came of a statement: out (text of the rows), ms, and of an error severity, state, message, detail, hint,
# context; state is undef where all went well.
sub ok { return !defined $_[0]->{state}; }

package Chaincall::Session;

use IO::Handle;
use IO::Select;
use IPC::Open3;
use Symbol;

sub new
{
	my ($class, $node, %params) = @_;
	my $self = bless { count => 0, out => '', err => '', open => 1 }, $class;
	my $connection = $node->connstr($params{dbname} || 'postgres') . ($params{user} ? " user=$params{user}" : '');

	$self->{stderr} = gensym();
	$self->{psql} = open3($self->{stdin}, $self->{stdout}, $self->{stderr},
		$node->installed_command('psql'), '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connection, '-f', '-');
	$self->{stdin}->autoflush(1);
	$self->{select} = IO::Select->new($self->{stdout}, $self->{stderr});
	$self->{pid} = $self->must('SELECT pg_backend_pid()');
	$self->must($params{sql}) if $params{sql};
	return $self;
}

# The backend's process id.
sub pid { return $_[0]->{pid}; }

# Starts a statement (or several, between semicolons) and does not wait for it.
sub send
{
	my ($self, $sql) = @_;
	my $mark = '== ' . ++$self->{count};

	local $SIG{PIPE} = 'IGNORE';
	$sql =~ s/[;\s]+\z//;
	$self->{out} = $self->{err} = '';
	$self->{sent_ms} = Chaincall::now_ms();
	print { $self->{stdin} } "\\timing on\n$sql\n;\n\\timing off\n\\echo '$mark'\n\\warn '$mark'\n";
	return;
}

# Reads what psql has written, waiting so many seconds for it.
sub _read
{
	my ($self, $seconds) = @_;

	for my $stream ($self->{select}->can_read($seconds))
	{
		my $to = $stream == $self->{stdout} ? 'out' : 'err';

		next if sysread($stream, $self->{$to}, 65536, length $self->{$to});
		$self->{select}->remove($stream);
		$self->{open} = 0 unless $self->{select}->count;
	}
	return;
}

sub _ended
{
	my ($self) = @_;
	my $mark = "== $self->{count}\n";

	return index($self->{out}, $mark) >= 0 && index($self->{err}, $mark) >= 0 || !$self->{open};
}

# Has what was sent come to its end?
sub done
{
	my ($self) = @_;

	$self->_read(0);
	return $self->_ended;
}

# Waits for what was sent; a Chaincall::Result. A session whose connection is lost says so as an error too; only quit
# is allowed then.
sub result
{
	my ($self) = @_;
	my ($result, $mark) = ({}, "== $self->{count}\n");

	until ($self->_ended)
	{
		my $before = Chaincall::now_ms();

		$self->_read($PostgreSQL::Test::Utils::timeout_default);
		die 'a statement takes for ever' if Chaincall::now_ms() - $before >= 1000 * $PostgreSQL::Test::Utils::timeout_default;
	}
	$result->{end_ms} = Chaincall::now_ms();
	$result->{ms} = $result->{end_ms} - $self->{sent_ms};
	$result->{ms} = $1 while $self->{out} =~ s/^Time: ([0-9.]+) ms.*\n//m;
	$self->{out} =~ s/\n?\Q$mark\E//;
	$self->{err} =~ s/\Q$mark\E//;
	$result->{out} = $self->{out};
	$result->{err} = $self->{err};
	if ($self->{err} =~ /(?:^|: )(ERROR|FATAL|PANIC): +([0-9A-Z]{5}): (.*)\z/ms)
	{
		my $rest = $3;

		@$result{qw(severity state)} = ($1, $2);
		(my $first, my %fields) = split /^(DETAIL|HINT|CONTEXT|LOCATION|LINE \d+|QUERY): +/m, $rest;
		chomp($result->{message} = $first);
		for my $field (keys %fields)
		{
			chomp($result->{ lc $field } = $fields{$field});
		}
	}
	elsif (!$self->{open} || $self->{err} =~ /server closed the connection unexpectedly/)
	{
		# psql does not always end when its connection does
		@$result{qw(severity state message)} = ('FATAL', '08006', "connection lost: $self->{err}");
	}
	return bless $result, 'Chaincall::Result';
}

# Runs a statement; a Chaincall::Result.
sub run
{
	my ($self, $sql) = @_;

	$self->send($sql);
	return $self->result;
}

# Runs what must succeed; its rows as text.
sub must
{
	my ($self, $sql) = @_;
	my $result = $self->run($sql);

	$result->ok or die "failed: $sql\n$result->{err}";
	return $result->{out};
}

# Ends the session and waits for that.
sub quit
{
	my ($self) = @_;

	return unless $self->{psql};
	close $self->{stdin};
	waitpid($self->{psql}, 0);
	$self->{psql} = undef;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($?, $@, $!);

	kill('KILL', $self->{psql}) if $self->{psql};
	$self->quit;
	return;
}

1;
