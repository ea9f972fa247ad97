# Services that mean harm: what they send stays outside of the session, its memory, its log and its next answers.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

use constant KEY => 'sk-key-77c0ffee';

# what the environment says of proxies is not asked
my %proxies = map { $_ => 'http://127.0.0.1:9' } qw(http_proxy https_proxy all_proxy HTTPS_PROXY ALL_PROXY);
my $node = new_node('hostile', env => { %proxies, no_proxy => '*' });
my $session = session($node);
my $made = 0;

sub answer
{
	my ($text, $header) = @_;
	my $body = qq({"choices":[{"message":{"role":"assistant","content":"$text"},"finish_reason":"stop"}]});

	return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" . ($header || '') . 'Content-Length: ' . length($body) . "\r\n\r\n$body";
}

# A model at a server that does what the handler does. Returns its name and the server.
sub hostile
{
	my ($handler, %options) = @_;
	my $server = RawServer->new($handler);
	my $name = 'h' . ++$made;

	add_server($session, $name, $server->url . '/v1', %options);
	$session->must("CREATE USER MAPPING FOR PUBLIC SERVER $name OPTIONS (api_key " . sql_literal(KEY) . ')');
	add_model($session, $name, $name, 'remote', retry => '0');
	return ($name, $server);
}

sub ask { return $session->run("SELECT chaincall.call('$_[0]', 'hello')"); }

# A service that repeats the key wherever it can.
my ($echo, $echo_server) = hostile(sub {
	my ($connection) = @_;
	my $body = '{"error": {"message": "key ' . KEY . ' is not known"}}';

	print $connection "HTTP/1.1 401 Unauthorized\r\nX-Request-Id: " . KEY . "\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
});
my $result = ask($echo);
is($result->{state}, 'MC003', 'a key is refused');
like($result->{detail}, qr/request \*\*\*/, 'the request id without the key');
unlike($result->{err}, qr/\Q${\KEY}\E/, 'no key in the error');
unlike($session->must('SELECT chaincall.last_trace()'), qr/\Q${\KEY}\E/, 'nor in the trace');

# More elements than PostgreSQL can hold in one array: on_error can handle it.
my ($many, $many_server) = hostile(sub {
	my ($connection) = @_;
	my $body = '[' . '1,' x 17_000_000 . '1]';

	print $connection "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
}, max_answer => '64MB');
$result = ask($many);
is($result->{state}, 'MC004', 'too many elements: an invalid answer') or diag($result->{err});
like($result->{message}, qr/too many elements/, 'too many elements: said so');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/\Q${\KEY}\E|invalid memory alloc/, 'neither key nor internal errors in the log');

# An answer that nobody asked for comes while the connection waits for its next request.
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($late, $late_server) = hostile(sub {
	my ($connection) = @_;

	print $connection answer('asked for');
	return if -e "$dir/injected";
	wait_until(sub { return -e "$dir/inject"; }, 'the client to be content');
	print $connection answer('INJECTED');
	append_to_file("$dir/injected", '');
	print $connection answer('the second') if RawServer::_read_request($connection);
});
is(ask($late)->{out}, 'asked for', 'an answer');
append_to_file("$dir/inject", '');
wait_until(sub { return -e "$dir/injected"; }, 'the server to send what nobody asked for');
is(ask($late)->{out}, 'asked for', 'what came unasked is not the next answer');

# A header with one long line.
my ($header, $header_server) = hostile(sub { print { $_[0] } answer('hello', 'X-Long: ' . ('x' x 10_000_000) . "\r\n"); });
$result = ask($header);
is($result->{state}, 'MC006', 'a header of 10 MB');
like($result->{message}, qr/header of the answer is too large/, 'a header of 10 MB: said so');

# A server's own proxy is used though no_proxy names all hosts.
my $proxy = RawServer->new(sub { print { $_[0] } answer('by proxy'); });
add_server($session, 'proxied', 'http://127.0.0.1:9/v1', proxy => $proxy->url);
add_model($session, 'proxied', 'proxied', 'remote', retry => '0');
is(ask('proxied')->{out}, 'by proxy', 'no_proxy of the environment is ignored');

# What a rendered request shows in a database that is not UTF-8.
$node->safe_psql('postgres', q{CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0});
$node->safe_psql('latin', 'CREATE EXTENSION chaincall');
my $latin = session($node, dbname => 'latin', sql => "SET client_encoding = 'UTF8'");
add_server($latin, 's', 'http://127.0.0.1:9/v1');
add_model($latin, 'm', 's', 'm');
$latin->must("CREATE FUNCTION f(x text) RETURNS text LANGUAGE chaincall AS 'model: m\nprompt: \"caf\xc3\xa9 {{x}}\"'");
is($latin->must("SELECT chaincall.render('f', 'chain', jsonb_build_object('x', '\xc3\xbc')) -> 'body' -> 'messages' -> 0 ->> 'content'"),
	"caf\xc3\xa9 \xc3\xbc", 'a rendered request in LATIN1');
add_server($latin, 'service', 'http://127.0.0.1:9', api => 'http', request => qq({"r\xc3\xa9sum\xc3\xa9": "\xc3\xa0 {{input}}"}));
add_model($latin, 'service', 'service', 'm', kind => 'json');
$latin->must("CREATE FUNCTION g(x text) RETURNS jsonb LANGUAGE chaincall AS '{model: service, input: \"{{x}}\"}'");
is($latin->must("SELECT chaincall.render('g', 'chain', jsonb_build_object('x', '\xc3\xbc')) ->> 'body'"),
	qq({"r\xc3\xa9sum\xc3\xa9": "\xc3\xa0 \xc3\xbc"}), 'a request template in LATIN1');
$latin->quit;

$session->quit;
$node->stop;
done_testing();
