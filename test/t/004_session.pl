# What sessions share and what they do not: connections, definitions, keys, transactions, files.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use IO::Socket::INET;
use IPC::Run ();
use ModelServer;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

use constant ANSWER => 'A fixed answer.';

# Nobody listens there: whoever minds these variables gets no answer.
my $closed = RawServer->closed;
my %proxies = map { $_ => $closed->url } qw(http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY);

my $models = ModelServer->new;
my $others = ModelServer->new;
my $node = new_node('session', env => \%proxies, conf => "max_connections = 60\n");
my $admin = session($node);
my $session = session($node);

add_server($admin, 'models', $models);
add_model($admin, 'good', 'models', 'fixed');
add_model($admin, 'echo', 'models', 'echo');
add_model($admin, 'slow', 'models', 'delay-300');
add_model($admin, 'hang', 'models', 'fixed?hang=1');
add_model($admin, 'bad', 'models', 'fixed?status=400');

sub make_chain
{
	my ($name, $body, %params) = @_;

	$params{args} //= '';
	$params{returns} //= 'jsonb';
	$admin->must("CREATE OR REPLACE FUNCTION $name($params{args}) RETURNS $params{returns} LANGUAGE chaincall AS \$chain\$\n$body\n\$chain\$");
	return;
}

make_chain('twice', "each: 2\nmodel: echo\nprompt: \"item {{item}}\"");
make_chain('hello', "model: good\nprompt: hello", returns => 'text');
make_chain('fails', "steps:\n  a: {model: hang, prompt: hello}\n  b: {model: bad, prompt: hello}\noutput: \"{{a}} {{b}}\"");

# The connections that were made to a server while work was done, apart from those of the questions about it.
sub connections
{
	my ($server, $work) = @_;
	my $before = $server->stats->{connections_total};
	my $after;

	$work->();
	$after = $server->stats->{connections_total};
	return $after - $before - 1;
}

sub nothing_left
{
	return is($models->wait_in_flight(0)->{in_flight}, 0, 'no request in the air');
}

# --------------------------------------------------------------------------------------------------
# Connections

subtest 'connections are kept from statement to statement' => sub {
	my $new = session($node);

	is(connections($models, sub { $new->must("SELECT chaincall.call('good', 'hello')") for 1 .. 20 }), 1, 'twenty statements, one connection');
	is(connections($models, sub { $new->must('BEGIN'); $new->must('SELECT hello()'); $new->run('SELECT 1 / 0'); $new->must('ROLLBACK'); $new->must('SELECT hello()') }),
		0, 'a rollback does not close it');
	is(connections($models, sub { $new->run("SELECT chaincall.call('bad', 'hello')"); $new->must('SELECT hello()') }), 0, 'nor does an error of the service');
	make_chain('eight', "each: 8\nmodel: slow\nprompt: hello");
	is(connections($models, sub { $new->must('SELECT eight()') }), 7, 'eight calls at once need seven more');
	is(connections($models, sub { $new->must('SELECT eight()') }), 0, 'which are kept as well');
	$new->quit;
	$models->wait_for(sub { $_[0]->{connections} <= 2 }, 'connections end with the session');
};

subtest 'a server that comes back' => sub {
	my $coming = ModelServer->new;

	add_server($admin, 'coming', $coming);
	add_model($admin, 'coming', 'coming', 'fixed', retry => '{"first": "1 ms"}');
	is($session->must("SELECT chaincall.call('coming', 'hello')"), ANSWER, 'before');
	$coming->stop;
	is($session->run("SELECT chaincall.call('coming', 'hello')")->{state}, 'MC001', 'away');
	$coming->start;
	is($session->must("SELECT chaincall.call('coming', 'hello')"), ANSWER, 'back');
};

subtest 'many sessions at once' => sub {
	my @sessions = map { session($node) } 1 .. 20;

	$models->reset;
	$_->send("SELECT chaincall.call('slow', 'hello')") for @sessions;
	is(scalar(grep { $_->result->{out} eq ANSWER } @sessions), 20, 'all are answered');
	is($models->stats->{keys}{distinct}, 20, 'each asked for itself');
	is($models->stats->{keys}{repeated}, 0, 'and once');
	$_->quit for @sessions;
};

# How many sockets a backend has open.
sub sockets
{
	my ($of) = @_;

	return scalar grep { (readlink($_) // '') =~ /^socket:/ } glob('/proc/' . $of->pid . '/fd/*');
}

subtest 'HTTP/2' => sub {
	my ($program) = grep { -x } map { "$_/nghttpx" } split(/:/, $ENV{PATH}), '/usr/sbin', '/usr/local/sbin';
	my ($certificate, $key) = make_certificate('IP:127.0.0.1');
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $proxy;
	my $new;

	plan skip_all => 'nghttpx is not installed' unless $program;
	# ends with its standard input, so with this test
	$proxy = IPC::Run::start(
		[ 'sh', '-c', '"$@" & proxy=$!; cat; kill $proxy; wait $proxy', 'sh', $program, "-f127.0.0.1,$port", '-b127.0.0.1,' . $models->port,
			'--workers=1', '--no-ocsp', '--conf=/dev/null', '--errorlog-file=/dev/null', $key, $certificate ],
		'<pipe', \*PROXY, '>', '/dev/null', '2>', '/dev/null');
	wait_until(sub { IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port") }, 'nghttpx listens');
	add_server($admin, 'two', "https://127.0.0.1:$port/v1", ca_file => $certificate);
	add_model($admin, 'two', 'two', 'delay-1000');
	make_chain('many', "each: 50\nmodel: two\nprompt: \"{{item}}\"");
	$new = session($node);
	is($new->must("SELECT chaincall.call('two', 'hello')"), ANSWER, 'an answer');
	like($models->last->{headers}{via}, qr/^2\b/, 'was asked for by HTTP/2');
	for my $how ('warm', 'cold')
	{
		my $before;

		if ($how eq 'cold')
		{
			$new->quit;
			$new = session($node, sql => 'SELECT hello()');
		}
		$before = sockets($new);
		$models->reset;
		is($new->must('SELECT jsonb_array_length(many())'), '50', "$how: fifty calls at once");
		is(scalar(grep { $_->{headers}{via} =~ /^2\b/ } $models->last(50)), 50, "$how: by HTTP/2 all");
		is($models->stats->{max_in_flight}, 50, "$how: side by side");
		is(sockets($new) - $before, $how eq 'cold' ? 1 : 0, "$how: on one connection");
	}
	$new->quit;
	close PROXY;
	$proxy->finish;
};

subtest 'proxies' => sub {
	my $proxy = RawServer->new(
		sub {
			my $body = '{"choices": [{"message": {"role": "assistant", "content": "by proxy"}, "finish_reason": "stop"}]}';

			print { $_[0] } "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
		});

	is($session->must('SELECT hello()'), ANSWER, 'those in the environment are ignored');
	add_server($admin, 'proxied', $models, proxy => $proxy->url);
	add_model($admin, 'proxied', 'proxied', 'fixed');
	is($session->must("SELECT chaincall.call('proxied', 'hello')"), 'by proxy', 'the one of the server is asked');
};

subtest 'networks' => sub {
	my $result;

	add_server($admin, 'local', 'http://169.254.77.77', connect_timeout => '100 ms');
	add_model($admin, 'local', 'local', 'x', retry => '0');
	$result = $admin->run("SELECT chaincall.call('local', 'hello')");
	is($result->{state}, 'MC003', 'link-local addresses are refused');
	like($result->{message}, qr/its address is refused/, 'message');
	$admin->must("SET chaincall.allowed_networks = '10.0.0.0/8, 169.254.0.0/16'");
	$result = $admin->run("SELECT chaincall.call('local', 'hello')");
	unlike($result->{message}, qr/refused:/, 'unless allowed');
	$admin->must('RESET chaincall.allowed_networks');
	like($session->run("SELECT chaincall.call('local', 'hello')")->{message}, qr/its address is refused/, 'by this session for itself');
	$admin->must('CREATE ROLE nobody; SET ROLE nobody');
	is($admin->run("SET chaincall.allowed_networks = '169.254.0.0/16'")->{state}, '42501', 'only a superuser allows them');
	$admin->must('RESET ROLE');
	is($admin->run("SET chaincall.allowed_networks = '169.254.0.0/99'")->{state}, '22023', 'wrong ones are refused');
};

# --------------------------------------------------------------------------------------------------
# What is sent

subtest 'headers' => sub {
	my ($trace) = (session($node)->must('SELECT twice()') && $models->last(2))[0];
	my (@requests, %spans, %keys, $run);

	$models->reset;
	$session->must('SELECT twice()');
	@requests = $models->last(2);
	($run) = $session->must('SELECT chaincall.last_trace()') =~ /^trace ([0-9a-f-]{36})/;
	for my $request (@requests)
	{
		my $headers = $request->{headers};
		my $id = $run =~ s/-//gr;

		like($headers->{traceparent}, qr/^00-$id-[0-9a-f]{16}-01$/, 'traceparent: the run');
		like($headers->{'idempotency-key'}, qr/^$run-[0-9a-f]+$/, 'Idempotency-Key: the run');
		like($headers->{'accept-encoding'}, qr/gzip/, 'compression is offered');
		is($headers->{'content-type'}, 'application/json', 'Content-Type');
		is($headers->{authorization}, undef, 'no key, no Authorization');
		$spans{ $headers->{traceparent} } = $keys{ $headers->{'idempotency-key'} } = 1;
	}
	is(scalar keys %spans, 2, 'a span each');
	is(scalar keys %keys, 2, 'an Idempotency-Key each');
	isnt($trace->{headers}{traceparent}, $requests[0]->{headers}{traceparent}, 'another run, another trace');

	$models->reset;
	add_model($admin, 'again', 'models', 'fixed?status=500&times=1', retry => '{"first": "1 ms"}');
	$session->must("SELECT chaincall.call('again', 'hello')");
	@requests = $models->last(2);
	is($requests[0]->{headers}{'idempotency-key'}, $requests[1]->{headers}{'idempotency-key'}, 'a repetition has the same Idempotency-Key');
	isnt($requests[0]->{headers}{traceparent}, $requests[1]->{headers}{traceparent}, 'and a span of its own');
};

# --------------------------------------------------------------------------------------------------
# Transactions

subtest 'nested runs' => sub {
	my $result;

	make_chain('outer_sql', "steps:\n  a: {model: slow, prompt: hello}\n  b: {sql: SELECT hello() AS answer}\noutput: \"{{a}} {{b[0].answer}}\"", returns => 'text');
	make_chain('outer_function', "each: 3\nfunction: outer_sql");
	$admin->must(<<'SQL');
CREATE FUNCTION does() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE 'DO LANGUAGE chaincall ''{model: good, prompt: hello}''';
	RETURN hello();
END $$
SQL
	make_chain('outer_do', "steps:\n  a: {model: slow, prompt: hello}\n  b: {sql: SELECT does() AS answer}\noutput: \"{{a}} {{b[0].answer}}\"", returns => 'text');
	is($session->must('SELECT outer_sql()'), ANSWER . ' ' . ANSWER, 'a chain in a statement of a chain');
	is($session->must('SELECT outer_do()'), ANSWER . ' ' . ANSWER, 'DO in a function in a statement of a chain');
	is($session->must('SELECT outer_function()'), '["' . join('", "', (ANSWER . ' ' . ANSWER) x 3) . '"]', 'chains as function steps');
	$session->must('DO LANGUAGE chaincall $$steps: {a: {model: slow, prompt: hello}, b: {sql: SELECT hello()}, c: {value: "{{a}} {{b}}"}}$$');

	# an inner failure while an outer call is in the air, and the other way round
	make_chain('inner_fails', "steps:\n  a: {model: slow, prompt: hello}\n  b: {sql: SELECT fails(), on_error: skip}\noutput: \"{{a}}\"", returns => 'text');
	is($session->must('SELECT inner_fails()'), ANSWER, 'an inner run that fails leaves the outer one alone');
	make_chain('outer_fails', "steps:\n  a: {model: bad, prompt: hello}\n  b:\n    sql: SELECT chaincall.call('slow', 'hello')\noutput: \"{{a}} {{b}}\"");
	is($session->run('SELECT outer_fails()')->{state}, 'MC003', 'an outer call that fails while an inner run goes on');
	nothing_left();

	make_chain('deeper', 'value: 1');
	make_chain('deeper', 'function: deeper');
	$result = $session->run('SELECT deeper()');
	is($result->{state}, 'MC006', 'a chain that calls itself');
	like($result->{hint}, qr/max_depth/, 'hint');
	make_chain('deeper', 'sql: SELECT deeper()');
	like($session->run('SELECT deeper()')->{state}, qr/^(54001|MC006)$/, 'a chain that calls itself in a statement');
	is($session->must('SELECT hello()'), ANSWER, 'the session goes on');
};

subtest 'subtransactions' => sub {
	$admin->must(<<'SQL');
CREATE TABLE written (n int);
CREATE FUNCTION catches() RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
BEGIN
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM writes_and_fails(i);
		EXCEPTION WHEN OTHERS THEN
			state := concat_ws(' ', state, SQLSTATE);
		END;
	END LOOP;
	RETURN state || ' ' || hello();
END $$
SQL
	make_chain('writes_and_fails', "steps:\n  a: {sql: \"INSERT INTO written VALUES ({{n}}) RETURNING n\"}\n  b: {model: hang, prompt: hello}\n  c: {model: bad, prompt: hello, after: [a]}\noutput: \"{{a}} {{b}} {{c}}\"",
		args => 'n int');
	is($session->must('SELECT catches()'), 'MC003 MC003 MC003 ' . ANSWER, 'an exception block catches a chain that fails, again and again');
	is($session->must('SELECT count(*) FROM written'), '0', 'what it wrote is undone');
	nothing_left();

	make_chain('writes_and_skips', "steps:\n  a: {sql: \"INSERT INTO written VALUES ({{n}}) RETURNING n\"}\n  b: {after: [a], sql: \"INSERT INTO written SELECT 1 / 0\", on_error: skip}\n  c: {after: [b], sql: \"INSERT INTO written VALUES ({{n}}) RETURNING n\"}\noutput: \"{{c}}\"",
		args => 'n int');
	$session->must('SELECT writes_and_skips(7)');
	is($session->must('SELECT count(*) FROM written WHERE n = 7'), '2', 'a statement that is skipped takes no other along');

	$session->must('BEGIN; SELECT writes_and_skips(8); SAVEPOINT s');
	is($session->run('SELECT writes_and_fails(8)')->{state}, 'MC003', 'a failure behind a savepoint');
	is($session->run('SELECT hello()')->{state}, '25P02', 'aborts the transaction');
	$session->must('ROLLBACK TO s');
	is($session->must('SELECT hello()'), ANSWER, 'which goes on from there');
	$session->must('COMMIT');
	is($session->must('SELECT count(*) FROM written WHERE n = 8'), '2', 'and commits what went before');
	$session->must('BEGIN; SELECT writes_and_skips(9); ROLLBACK');
	is($session->must('SELECT count(*) FROM written WHERE n = 9'), '0', 'a rollback undoes what a chain wrote');

	$session->must('BEGIN READ ONLY');
	is($session->run('SELECT writes_and_skips(10)')->{state}, '25006', 'a read-only transaction holds for its statements');
	$session->must('ROLLBACK');
	$session->must('BEGIN ISOLATION LEVEL SERIALIZABLE');
	is($session->must('SELECT hello()'), ANSWER, 'serializable');
	$session->must('COMMIT');
	nothing_left();
};

subtest 'prepared statements and cursors' => sub {
	make_chain('says', "model: echo\nprompt: \"old {{t}}\"", args => 't text', returns => 'text');
	$session->must('PREPARE says(text) AS SELECT says($1)');
	is($session->must("EXECUTE says('$_')"), "old $_", "EXECUTE $_") for 1 .. 8;
	make_chain('says', "model: echo\nprompt: \"new {{t}}\"", args => 't text', returns => 'text');
	is($session->must("EXECUTE says('x')"), 'new x', 'after CREATE OR REPLACE');

	$models->reset;
	$session->must('BEGIN; DECLARE c CURSOR FOR SELECT says(i::text) FROM generate_series(1, 1000) i');
	is($session->must('FETCH 2 FROM c'), "new 1\nnew 2", 'FETCH');
	is($session->must('SELECT hello()'), ANSWER, 'a chain between');
	is($session->must('FETCH 1 FROM c'), 'new 3', 'FETCH goes on');
	is($models->stats->{requests}, 4, 'nothing is asked before its time');
	$session->must('CLOSE c; COMMIT');
	$session->must('BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT says(i::text) FROM generate_series(1, 3) i; COMMIT');
	is($session->must('FETCH ALL FROM c'), "new 1\nnew 2\nnew 3", 'a cursor that outlives its transaction');
	$session->must('CLOSE c');
	is($session->must('SELECT string_agg(says(i::text), \' \' ORDER BY i) FROM generate_series(1, 3) i WHERE says(i::text) <> \'new 2\''), 'new 1 new 3', 'in any place of a query');
	nothing_left();
};

# --------------------------------------------------------------------------------------------------
# Changes by others

# What the server that was asked last has got.
sub key_sent
{
	my ($server) = @_;

	return ($server->last->{headers}{authorization} // 'none') =~ s/^Bearer //r;
}

subtest 'definitions changed by another session are seen by the next call' => sub {
	my $call = sub { return $session->run("SELECT chaincall.call('changing', 'hello')") };

	add_server($admin, 'changing', $models, timeout => '60 s');
	add_model($admin, 'changing', 'changing', 'fixed');
	is($call->()->{out}, ANSWER, 'before');
	is(key_sent($models), 'none', 'without a key');
	for my $transaction ('', 'in a transaction: ')
	{
		my $change = sub {
			my ($what, $sql) = @_;

			$session->must('COMMIT; BEGIN') if $transaction;
			$admin->must($sql);
			return "$transaction$what";
		};
		my $name;

		$session->must('BEGIN; SELECT hello()') if $transaction;
		$name = $change->('name at the service', q(UPDATE chaincall.endpoint SET remote_name = 'echo' WHERE model = 'changing'));
		is($call->()->{out}, 'hello', $name);
		$name = $change->('params', q(UPDATE chaincall.model SET params = '{"temperature": 0.5}' WHERE name = 'changing'));
		$call->();
		is($models->last->{body}{temperature}, 0.5, $name);
		$name = $change->('params taken away', q(UPDATE chaincall.model SET params = '{}' WHERE name = 'changing'));
		$call->();
		is($models->last->{body}{temperature}, undef, $name);
		$name = $change->('url', 'ALTER SERVER changing OPTIONS (SET url ' . sql_literal($others->url . '/v1') . ')');
		$others->reset;
		$call->();
		is($others->stats->{requests}, 1, $name);
		$name = $change->('a key', q(CREATE USER MAPPING FOR PUBLIC SERVER changing OPTIONS (api_key 'first')));
		$call->();
		is(key_sent($others), 'first', $name);
		$name = $change->('another key', q(ALTER USER MAPPING FOR PUBLIC SERVER changing OPTIONS (SET api_key 'second')));
		$call->();
		is(key_sent($others), 'second', $name);
		$name = $change->('a key of one\'s own', 'CREATE USER MAPPING FOR CURRENT_USER SERVER changing OPTIONS (api_key \'third\')');
		$call->();
		is(key_sent($others), 'third', $name);
		$name = $change->('no key', q(DROP USER MAPPING FOR CURRENT_USER SERVER changing; DROP USER MAPPING FOR PUBLIC SERVER changing));
		$call->();
		is(key_sent($others), 'none', $name);
		$admin->must('ALTER SERVER changing OPTIONS (SET url ' . sql_literal($models->url . '/v1') . ')');
		$admin->must(q(UPDATE chaincall.endpoint SET remote_name = 'fixed' WHERE model = 'changing'));
		is($call->()->{out}, ANSWER, "${transaction}as it was");
		$session->must('COMMIT') if $transaction;
	}

	$admin->must(q(UPDATE chaincall.model SET paused = true WHERE name = 'changing'));
	like($call->()->{message}, qr/model "changing" is paused/, 'paused');
	$admin->must(q(UPDATE chaincall.model SET paused = false WHERE name = 'changing'));
	is($call->()->{out}, ANSWER, 'no longer');
	$admin->must('BEGIN; DELETE FROM chaincall.endpoint');
	is($call->()->{out}, ANSWER, 'what is not committed is not seen');
	$admin->must('ROLLBACK');
	is($call->()->{out}, ANSWER, 'nor what is rolled back');
	$admin->must(q(DELETE FROM chaincall.endpoint WHERE model = 'changing'));
	like($call->()->{message}, qr/model "changing" has no endpoint/, 'without an endpoint');
	$admin->must(q(DELETE FROM chaincall.model WHERE name = 'changing'));
	is($call->()->{state}, '42704', 'without the model');
	$admin->must('DROP SERVER changing');
	nothing_left();
};

subtest 'a chain that is replaced while it runs' => sub {
	make_chain('replaced', "steps:\n  a: {model: slow, prompt: hello}\n  b: {model: echo, prompt: \"old after {{a}}\"}", returns => 'text');
	$session->send('SELECT replaced()');
	$models->wait_in_flight(1);
	make_chain('replaced', "model: echo\nprompt: new", returns => 'text');
	is($session->result->{out}, 'old after ' . ANSWER, 'the run ends as it began');
	is($session->must('SELECT replaced()'), 'new', 'the next one is new');

	make_chain('replaced', "steps:\n  a: {model: slow, prompt: hello}\n  b: {model: echo, prompt: \"old after {{a}}\"}", returns => 'text');
	$session->send('SELECT replaced()');
	$models->wait_in_flight(1);
	$admin->must('DROP FUNCTION replaced()');
	is($session->result->{out}, 'old after ' . ANSWER, 'so does one that is dropped');
	is($session->run('SELECT replaced()')->{state}, '42883', 'then it is gone');

	make_chain('replaced', 'value: 1', returns => 'text');
	make_chain('replaced', <<'YAML', returns => 'text');
steps:
  a:
    sql: "DO $do$ BEGIN EXECUTE $sql$CREATE OR REPLACE FUNCTION replaced() RETURNS text LANGUAGE chaincall AS $new$value: replaced by itself$new$ $sql$; END $do$"
  b: {after: [a], model: echo, prompt: the end}
YAML
	is($session->must('SELECT replaced()'), 'the end', 'a chain that replaces itself');
	is($session->must('SELECT replaced()'), 'replaced by itself', 'has done so');
};

# --------------------------------------------------------------------------------------------------
# Keys and roles

subtest 'a thousand roles' => sub {
	my (%sent, $wrong);

	add_server($admin, 'shared', $models);
	add_model($admin, 'shared', 'shared', 'fixed');
	$admin->must(<<'SQL');
CREATE ROLE callers;
SELECT chaincall.grant_usage('callers');
GRANT USAGE ON FOREIGN SERVER shared TO callers;
CREATE USER MAPPING FOR PUBLIC SERVER shared OPTIONS (api_key 'key of all');
CREATE ROLE without_mapping LOGIN IN ROLE callers;
CREATE ROLE without_usage LOGIN;
SELECT chaincall.grant_usage('without_usage');
DO $$
BEGIN
	FOR i IN 1 .. 1000 LOOP
		EXECUTE format('CREATE ROLE caller%s LOGIN IN ROLE callers', i);
		EXECUTE format('CREATE USER MAPPING FOR caller%s SERVER shared OPTIONS (api_key ''key of %s'')', i, i);
	END LOOP;
END $$
SQL

	$models->reset;
	$wrong = 0;
	for my $hundred (0 .. 9)
	{
		my @asked = map { $hundred * 100 + $_ } 1 .. 100;
		my @got;

		$admin->must(join('', map { "SET ROLE caller$_; SELECT chaincall.call('shared', 'hello');\n" } @asked));
		@got = map { $_->{headers}{authorization} } reverse $models->last(100);
		$wrong += grep { $got[$_] ne "Bearer key of $asked[$_]" } 0 .. 99;
	}
	is($wrong, 0, 'a thousand roles in one session: each spends its own key');
	$admin->must('RESET ROLE');
	for my $role (1, 500, 1000)
	{
		my $own = session($node, user => "caller$role");

		$own->must("SELECT chaincall.call('shared', 'hello')");
		is(key_sent($models), "key of $role", "caller$role in a session of its own");
		$own->quit;
	}

	my $own = session($node, user => 'without_mapping');
	$own->must("SELECT chaincall.call('shared', 'hello')");
	is(key_sent($models), 'key of all', 'a role without a mapping: the key of all');
	is($own->must(q(SELECT coalesce(umoptions::text, 'hidden') FROM pg_user_mappings WHERE srvname = 'shared' AND umuser = 0)), 'hidden', 'which it cannot read');
	$admin->must('REVOKE callers FROM without_mapping');
	is($own->run("SELECT chaincall.call('shared', 'hello')")->{state}, '42501', 'a right that is taken away while the session goes on');
	$own->quit;

	$own = session($node, user => 'without_usage');
	my $result = $own->run("SELECT chaincall.call('shared', 'hello')");
	is($result->{state}, '42501', 'a role without USAGE');
	like($result->{hint}, qr/GRANT USAGE ON FOREIGN SERVER shared TO without_usage/, 'hint');
	$own->quit;

	# the right is the caller's, not the session's
	$admin->must(q(CREATE FUNCTION for_all() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$ SELECT chaincall.call('shared', 'hello') $$; ALTER FUNCTION for_all() OWNER TO caller7));
	$own = session($node, user => 'without_usage');
	is($own->must('SELECT for_all()'), ANSWER, 'a function of another role may call for it');
	is(key_sent($models), 'key of 7', 'with the key of its owner');
	$own->quit;
};

subtest 'keys in files' => sub {
	my $file = PostgreSQL::Test::Utils::tempdir() . '/key';
	my ($own, $result);

	append_to_file($file, "  key in a file\n");
	add_server($admin, 'filed', $models);
	add_model($admin, 'filed', 'filed', 'fixed');
	$admin->must("GRANT USAGE ON FOREIGN SERVER filed TO callers; CREATE USER MAPPING FOR PUBLIC SERVER filed OPTIONS (api_key_file '$file')");
	$own = session($node, user => 'caller1');
	$own->must("SELECT chaincall.call('filed', 'hello')");
	is(key_sent($models), 'key in a file', 'the file of the mapping for all');

	unlink $file;
	append_to_file($file, "the next key\n");
	wait_until(
		sub {
			$own->must("SELECT chaincall.call('filed', 'hello')");
			return key_sent($models) eq 'the next key';
		}, 'a new key in the file is sent');
	pass('a new key in the file is seen');

	$result = $own->run("CREATE USER MAPPING FOR caller1 SERVER filed OPTIONS (api_key_file '$file')");
	is($result->{state}, '42501', 'a role that may not read files cannot name one');
	$own->must(q(CREATE USER MAPPING FOR caller1 SERVER filed OPTIONS (api_key 'mine')));
	is($own->run("ALTER USER MAPPING FOR caller1 SERVER filed OPTIONS (DROP api_key, ADD api_key_file '$file')")->{state}, '42501', 'nor change to one');
	$admin->must("CREATE USER MAPPING FOR caller2 SERVER filed OPTIONS (api_key_file '$file')");
	my $second = session($node, user => 'caller2');
	is($second->run("SELECT chaincall.call('filed', 'hello')")->{state}, '42501', 'a superuser cannot lend it that right by a mapping');
	$admin->must('GRANT pg_read_server_files TO caller2');
	is($second->must("SELECT chaincall.call('filed', 'hello')"), ANSWER, 'who may read files may');
	$admin->must('REVOKE pg_read_server_files FROM caller2');
	is($second->run("SELECT chaincall.call('filed', 'hello')")->{state}, '42501', 'until not');
	$second->quit;

	$admin->must('GRANT USAGE ON FOREIGN DATA WRAPPER chaincall TO caller3; ALTER SERVER filed OWNER TO caller3');
	$own->must('DROP USER MAPPING FOR caller1 SERVER filed');
	is($own->run("SELECT chaincall.call('filed', 'hello')")->{state}, '42501', 'the mapping for all rests on the owner of the server');
	$admin->must('ALTER SERVER filed OWNER TO ' . $admin->must('SELECT session_user'));
	is($own->must("SELECT chaincall.call('filed', 'hello')"), ANSWER, 'who is a superuser again');

	unlink $file;
	$result = undef;
	wait_until(
		sub {
			$result = $own->run("SELECT chaincall.call('filed', 'hello')");
			return !$result->ok;
		}, 'the file is missed');
	is($result->{state}, 'F0000', 'a file that is gone');
	unlike($result->{err}, qr/\Q$file\E/, 'its name is for the log only');
	$own->quit;
};

# --------------------------------------------------------------------------------------------------
# Resources

# Memory of the backend, in kB.
sub memory
{
	my ($of) = @_;

	return slurp_file('/proc/' . $of->pid . '/status') =~ /^VmRSS:\s+(\d+) kB/m ? $1 : die 'no VmRSS';
}

subtest 'memory' => sub {
	my $new = session($node);
	my $work = sub {
		$new->must("SELECT count(hello()), count(says(i::text)), count(twice()) FROM generate_series(1, 300) i");
		$new->must('DO $$ BEGIN FOR i IN 1 .. 100 LOOP BEGIN PERFORM fails(); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$');
	};
	my $before;

	$work->() for 1 .. 2;
	$before = memory($new);
	$work->() for 1 .. 4;
	cmp_ok(memory($new) - $before, '<', 2048, 'does not grow with the number of runs');
	$new->quit;
};

# Starts the node with the limits of open files that ulimit's options say.
sub restart_with
{
	my (@limits) = @_;

	$node->stop;
	system_or_bail('sh', '-c', join(' && ', map { "ulimit $_" } @limits) . ' && exec "$@"', 'sh', $node->installed_command('pg_ctl'),
		'-w', '-D', $node->data_dir, '-l', $node->logfile, 'start');
	$node->_update_pid(1);
	return;
}

$_->quit for ($session, $admin);

subtest '2,000 calls at once, 256 files by default' => sub {
	my $hard = `sh -c 'ulimit -H -n'`;

	plan skip_all => "the hard limit of open files is $hard" if $hard !~ /unlimited/ && $hard < 6000;
	restart_with('-S -n 256');
	$admin = session($node);
	$session = session($node);
	make_chain('wide', "each: 2000\nmodel: hang\nprompt: \"{{item}}\"");
	make_chain('wide_echo', "each: 2000\nmodel: echo\nprompt: \"{{item}}\"");
	$models->reset;
	$session->send('SELECT wide()');
	is($models->wait_in_flight(2000)->{max_in_flight}, 2000, 'all are in the air');
	is($admin->must('SELECT count(*) FROM pg_class c, pg_attribute a WHERE a.attrelid = c.oid') > 0 ? 1 : 0, 1, 'other sessions work');
	$admin->must('SELECT pg_cancel_backend(' . $session->pid . ')');
	is($session->result->{state}, '57014', 'a cancel ends them');
	nothing_left();
	is($session->must('SELECT count(DISTINCT e) FROM jsonb_array_elements_text(wide_echo()) e'), '2000', 'two thousand answers');
	is($models->stats->{keys}{repeated}, 0, 'each asked for once');
	$_->quit for ($session, $admin);
};

subtest '300 files and no more' => sub {
	my $offset = -s $node->logfile;

	restart_with('-S -n 300', '-H -n 300');
	$admin = session($node);
	$session = session($node);
	is($session->must('SELECT count(DISTINCT e) FROM jsonb_array_elements_text(wide_echo()) e'), '2000', 'a fan-out goes within the bounds');
	like(slurp_file($node->logfile, $offset), qr/at most \d+ model calls can be in the air/, 'which the log tells');
	nothing_left();
	$_->quit for ($session, $admin);
};

my $log = slurp_file($node->logfile);
unlike($log, qr/TRAP|PANIC|terminated by signal/, 'no crash');
unlike($log, qr/key of \d|key of all|key in a file|the next key/, 'no key in the log');
$node->stop;
done_testing();
