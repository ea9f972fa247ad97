# Keys in files: what is no file of a key is refused at once, and a new key is seen in a running session, whatever the
# times of its file say.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;

use constant KEY => 'sk-key-first-1';
use constant NEW_KEY => 'sk-key-other-2';

my $dir = PostgreSQL::Test::Utils::tempdir();
my $file = "$dir/key";
my $models = ModelServer->new(args => [ '--api-key', NEW_KEY ]);
my $node = new_node('key_file');
my $session = session($node);

# Writes the key in place: the file keeps its inode, and its length where the keys have the same.
sub write_key
{
	my ($key) = @_;

	open(my $out, '>', $file) or die "$file: $!";
	print $out "$key\n";
	close $out;
	return (stat $file)[10];
}

sub ask { return $session->run(q{SELECT chaincall.call('m', 'hello')}); }

sub refused
{
	my ($what, $message) = @_;
	my $result = ask();

	is($result->{state}, 'F0000', "$what: refused") or diag($result->{out});
	like($result->{message}, $message, "$what: why");
	cmp_ok($result->{ms}, '<', 1000 * 60, "$what: nothing waited for");
	unlike($result->{err}, qr/\Q$file\E/, "$what: the path is for those who may see the mapping");
	return;
}

add_server($session, 's', $models, timeout => '20 s');
add_model($session, 'm', 's', 'fixed', retry => '0');
$session->must('CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (api_key_file ' . sql_literal($file) . ')');

refused('no file', qr/cannot be opened/);
mkdir $file;
refused('a directory', qr/is not a regular file/);
rmdir $file;
POSIX::mkfifo($file, oct(600)) or die "mkfifo: $!";
refused('a FIFO', qr/is not a regular file/);
unlink $file;
symlink('/dev/zero', $file);
refused('a device', qr/is not a regular file/);
unlink $file;
symlink('/proc/self/environ', $file);
refused('what holds no key', qr/holds a NUL byte/);
unlink $file;
write_key('');
refused('an empty file', qr/is empty/);
write_key('x' x 20000);
refused('a large file', qr/is too large/);
write_key("sk\r\nX-Evil: 1");
refused('a key with a line break', qr/holds a control character/);

# A key of the same length is written in place within the second in which the session has read the one before.
my ($first, $second);
do
{
	$first = write_key(KEY);
	$session->must("ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET api_key_file " . sql_literal($file) . ')');
	is(ask()->{state}, 'MC003', 'the old key is refused by the service');
	$second = write_key(NEW_KEY);
} until $first == $second;
wait_until(sub { return ask()->ok; }, 'the new key to be used');
pass('the new key is used');

# the same times, size and inode but for the one that nobody can set
my @times = (stat $file)[8, 9];
write_key(KEY);
utime(@times, $file) or die "utime: $!";
wait_until(sub { return !ask()->ok; }, 'the key with the old time to be used');
pass('a key that is written with the old time is seen, too');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/sk-key-/, 'no key in the log');
$session->quit;
$node->stop;
done_testing();
