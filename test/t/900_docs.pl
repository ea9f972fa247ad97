# Runs every SQL example of README.md and doc/*.md, each file's in order in a fresh database, by psql.
#
#   ```sql                  must succeed
#   ```sql error 42703      one statement, which must fail with that SQLSTATE
#   ```text output          behind one of these: what psql -At prints for it, or the error, compared line by line
#   <!--sql … -->           runs too and is not shown: what an example needs and a reader does not
#
# An example is run as it is written, but for the addresses of services (%addresses) and of key files: stand-in model servers
# are in their place. What a provider calls a model is, after each example, renamed to a stand-in's model that does such work
# (%models). The stand-in that is in the place of providers demands the key that the examples show. Where an example needs
# the end of a job it waits by chaincall.result(). The server has the library preloaded. DOCS=README runs that file alone.
use strict;
use warnings;

use File::Basename qw(dirname basename);
use FindBin;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = dirname(dirname($FindBin::RealBin));

my $key = 'sk-...';
my $key_file = '/etc/chaincall/deepseek.key';
my $key_copy = PostgreSQL::Test::Utils::tempdir() . '/key';

append_to_file($key_copy, "$key\n");

my %models = (
	'deepseek-chat' => 'extractive',
	'deepseek-reasoner' => 'extractive',
	'gpt-5-mini' => 'extractive',
	'claude-haiku-4-5' => 'extractive',
	'text-embedding-3-small' => 'hash-embedding');

# ---- stand-ins for services

my @servers;

# Starts a model server; it ends when its standard input does.
sub start_server
{
	my (@options) = @_;
	my $program = $ENV{CHAINCALL_MODELSERVER} || "$root/test/modelserver/modelserver";
	my $port_file = PostgreSQL::Test::Utils::tempdir() . '/port';
	my $server = { in => '', out => '' };

	$server->{run} = IPC::Run::start(
		[ $program, '--port', '0', '--port-file', $port_file, '--exit-with-stdin', @options ],
		'<', \$server->{in}, '>', \$server->{out}, '2>', \$server->{out},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	push @servers, $server;
	until (-s $port_file)
	{
		die "the model server did not start: $server->{out}" unless $server->{run}->pumpable;
		$server->{run}->pump_nb;
		select(undef, undef, undef, 0.01);
	}
	return 'http://127.0.0.1:' . (slurp_file($port_file) =~ s/\s//gr);
}

my $local = start_server();
my $provider = start_server('--api-key', $key);

my %addresses = (
	'http://127.0.0.1:8080' => $local,
	'https://api.deepseek.com' => $provider,
	'https://api.openai.com' => $provider,
	'https://api.anthropic.com' => $provider,
	'https://scores.example.com' => $local);

# ---- examples

# The examples of a file: kind (sql, error, hidden), text, line, state, output.
sub examples_of
{
	my ($file) = @_;
	my @examples;
	my $block;
	my $number = 0;

	foreach my $line (split /\n/, slurp_file($file), -1)
	{
		$number++;
		if (!$block)
		{
			if ($line =~ /^```(\S*)\s*(.*?)\s*$/)
			{
				$block = { fence => $1, rest => $2, line => $number, end => qr/^```\s*$/, text => '' };
			}
			elsif ($line =~ /^<!--sql\s*$/)
			{
				$block = { fence => 'sql', rest => 'hidden', line => $number, end => qr/^-->\s*$/, text => '' };
			}
			next;
		}
		if ($line !~ $block->{end})
		{
			$block->{text} .= "$line\n";
			next;
		}
		add_example($file, \@examples, $block);
		undef $block;
	}
	die "$file:$block->{line}: a block is not closed\n" if $block;
	return @examples;
}

sub add_example
{
	my ($file, $examples, $block) = @_;
	my $where = basename($file) . ":$block->{line}";
	my $example = { where => $where, text => $block->{text} };

	if ($block->{fence} eq 'sql')
	{
		if ($block->{rest} =~ /^error (\w{5})$/)
		{
			my $body;

			$example->{state} = $1;
			$body = $block->{text} =~ s/\$(\w*)\$.*?\$\1\$//gsr;
			die "$where: an example that fails has one statement\n" if ($body =~ tr/;//) != 1;
		}
		elsif ($block->{rest} !~ /^(hidden)?$/)
		{
			die "$where: unknown words behind sql: $block->{rest}\n";
		}
		push @$examples, $example;
	}
	elsif ($block->{fence} eq 'text' && $block->{rest} eq 'output')
	{
		die "$where: output without an example\n" unless @$examples && !defined $examples->[-1]{output};
		$examples->[-1]{output} = $block->{text};
	}
	elsif ($block->{rest} ne '')
	{
		die "$where: unknown words behind $block->{fence}: $block->{rest}\n";
	}
	return;
}

sub substituted
{
	my ($text) = @_;

	foreach my $address (sort keys %addresses)
	{
		$text =~ s/\Q$address\E(?=[\/'])/$addresses{$address}/g;
	}
	$text =~ s/\Q$key_file\E/$key_copy/g;
	return $text;
}

# One psql script of all examples. Before each a line to recognise its output by.
sub script_of
{
	my (@examples) = @_;
	my $renames = join("\n", map { "UPDATE chaincall.endpoint SET remote_name = '$models{$_}' WHERE remote_name = '$_';" } sort keys %models);
	my $script = <<'END';
\set QUIET 1
\set ON_ERROR_STOP 1
CREATE FUNCTION pg_temp.must_fail(state text, expected text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF state <> expected THEN
		RAISE 'SQLSTATE %, expected %', state, expected;
	END IF;
END $$;
END

	for my $i (0 .. $#examples)
	{
		my $example = $examples[$i];

		$script .= "\\echo '== $i'\n\\warn '== $i'\n";
		$script .= "\\set ON_ERROR_STOP 0\n" if $example->{state};
		$script .= substituted($example->{text});
		$script .= ";\n" unless $example->{text} =~ /(;|^\\[^\n]*|\\g\w*[^\n]*)\s*\z/m;
		$script .= "\\set state :SQLSTATE\n\\set ON_ERROR_STOP 1\nSELECT pg_temp.must_fail(:'state', '$example->{state}') \\g /dev/null\n"
		  if $example->{state};
		$script .= "SELECT to_regclass('chaincall.endpoint') IS NOT NULL AND current_user = session_user AS installed \\gset\n\\if :installed\n$renames\n\\endif\n";
	}
	return $script . "\\echo '== " . scalar(@examples) . "'\n\\warn '== " . scalar(@examples) . "'\n";
}

# What was printed between the marks, by number of the example.
sub pieces
{
	my ($text) = @_;
	my %pieces;
	my $number = -1;

	foreach my $line (split /\n/, $text)
	{
		if ($line =~ /^== (\d+)$/)
		{
			$number = $1;
			$pieces{$number} = '';
		}
		else
		{
			$pieces{$number} .= "$line\n";
		}
	}
	return \%pieces;
}

# Without white space at the ends of lines and empty lines at the ends.
sub plain
{
	my ($text) = @_;

	$text =~ s/[ \t]+$//mg;
	$text =~ s/\A\n+//;
	$text =~ s/\n+\z/\n/;
	return $text;
}

# ---- the test

my $node = PostgreSQL::Test::Cluster->new('docs');

$node->init(extra => [ '-E', 'UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "timezone = 'UTC'\nshared_preload_libraries = 'chaincall'\nmax_worker_processes = 16");
$node->start;

sub run_file
{
	my ($file, $dbname) = @_;
	my @examples = examples_of($file);
	my ($out, $err) = ('', '');
	my ($printed, $said);

	return unless @examples;
	$node->safe_psql('postgres', "CREATE DATABASE $dbname");
	IPC::Run::run([ $node->installed_command('psql'), '-XAt', '-d', $node->connstr($dbname), '-f', '-' ],
		'<', \script_of(@examples), '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$printed = pieces($out);
	$said = pieces($err);
	for my $i (0 .. $#examples)
	{
		my $example = $examples[$i];
		my $ran = defined $printed->{ $i + 1 };

		if ($ran && defined $example->{output})
		{
			my $got = $example->{state} ? $said->{$i} =~ s/^psql:\S+ //mgr : $printed->{$i};

			is(plain($got), plain($example->{output}), "$example->{where}: prints what it is said to");
		}
		else
		{
			ok($ran, "$example->{where}: " . ($example->{state} ? "fails with $example->{state}" : 'runs'));
		}
		next if $ran;
		diag($said->{$i} // $err);
		fail("$example->{where}: the examples behind it did not run");
		last;
	}
	$node->safe_psql('postgres', "DROP DATABASE $dbname");
	$node->safe_psql('postgres',
		join(';', map { "DROP ROLE \"$_\"" } split /\n/, $node->safe_psql('postgres', q{SELECT rolname FROM pg_roles WHERE oid >= 16384})));
	return;
}

my $number = 0;

foreach my $file ("$root/README.md", sort glob("$root/doc/*.md"))
{
	next if $ENV{DOCS} && basename($file) !~ /^$ENV{DOCS}/;
	run_file($file, 'docs_' . ++$number);
}

$node->stop;
done_testing();
