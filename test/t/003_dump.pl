# What PostgreSQL does with the objects of a database as a whole: dump and restore, DROP and CREATE EXTENSION, DROP
# DATABASE, templates, roll-back. Definitions come through complete, and no session uses what it remembers of others.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/../lib";

use Chaincall;
use ModelServer;
use PostgreSQL::Test::Utils;
use RawServer;
use Test::More;

my $here = ModelServer->new;
my $there = ModelServer->new;
my $node = new_node('dump');
my $dir = PostgreSQL::Test::Utils::tempdir();

# A function in LANGUAGE chaincall.
sub chain
{
	my ($signature, $body) = @_;

	return "CREATE FUNCTION $signature LANGUAGE chaincall AS \$chain\$\n$body\$chain\$;\n";
}

# Where a statement's one call went and with what key, as "here:key"; what it gave when there was none.
sub asked
{
	my ($session, $sql) = @_;
	my @asked;
	my $result;

	$_->reset for ($here, $there);
	$result = $session->run($sql || "SELECT chaincall.call('m', 'hello')");
	for my $place ([ here => $here ], [ there => $there ])
	{
		my ($name, $models) = @$place;

		next unless $models->stats->{requests};
		push @asked, map { "$name:" . (($_->{headers}{authorization} || 'none') =~ s/^Bearer //r) } $models->last(100);
	}
	return @asked ? join(' ', @asked) : $result->{state} || $result->{out};
}

# --------------------------------------------------------------------------------------------------
# A database with something of everything

# Names are such that pg_dump, which goes by name, writes each chain before what it uses; tables come after all functions.
sub fill
{
	my ($session) = @_;

	$session->must('CREATE EXTENSION chaincall; GRANT USAGE ON FOREIGN DATA WRAPPER chaincall TO dump_owner; SET ROLE dump_owner');
	add_server($session, 'owned', $here, timeout => '20 s', max_in_flight => '7', max_answer => '1MB');
	$session->must('RESET ROLE');
	add_server($session, '"Of the ""others"""', $there, connect_timeout => '900 ms');
	add_server($session, 'claude', $here->url . '/v1', api => 'anthropic');
	add_server($session, 'score', $here->url, api => 'http', path => '/json?only=score', headers => '{"X-Key": "{{api_key}}", "X-Note": "it\'s a \\\\ b"}',
		request => '{"n": "{{input}}"}', answer => '$.score');
	$session->must(<<'SQL');
COMMENT ON SERVER owned IS 'It''s "owned"';
CREATE USER MAPPING FOR PUBLIC SERVER owned OPTIONS (api_key 'sk-public''s');
CREATE USER MAPPING FOR PUBLIC SERVER score OPTIONS (api_key 'sk-score');
CREATE USER MAPPING FOR dump_app SERVER owned OPTIONS (api_key 'sk-app');
CREATE USER MAPPING FOR dump_owner SERVER claude OPTIONS (api_key_file '/etc/key of ours');
GRANT USAGE ON FOREIGN SERVER owned, score TO dump_app WITH GRANT OPTION;
GRANT USAGE ON FOREIGN SERVER "Of the ""others""" TO PUBLIC;
INSERT INTO chaincall.model (name, kind, params, retry, timeout, fallback, paused) VALUES
	('small', 'chat', '{"temperature": 0.5, "stop": ["\"", "\\"]}', '{"attempts": 2, "first": "1 ms"}', '15 s', '{nobody,"a, b"}', false),
	('echo of "ü"', 'chat', DEFAULT, '0', NULL, DEFAULT, false),
	('later', 'chat', DEFAULT, DEFAULT, DEFAULT, DEFAULT, true),
	('vector', 'embedding', DEFAULT, DEFAULT, DEFAULT, DEFAULT, false),
	('scorer', 'json', DEFAULT, DEFAULT, DEFAULT, DEFAULT, false);
INSERT INTO chaincall.endpoint (model, version, server, remote_name, weight) VALUES
	('small', '1', 'owned', 'extractive', 1),
	('small', '2-beta', 'Of the "others"', 'fixed', 0),
	('echo of "ü"', '1', 'owned', 'echo', 0.25),
	('echo of "ü"', '1', 'Of the "others"', 'echo', 0),
	('later', '1', 'claude', 'fixed', 1),
	('vector', '1', 'owned', 'hash-embedding', 1),
	('scorer', '1', 'score', 'score', 1);
CREATE SCHEMA aside;
CREATE TYPE zz_part AS (name text, weight numeric(6, 2));
CREATE DOMAIN zz_short AS text CHECK (length(VALUE) < 50);
CREATE TABLE zz_row (body text);
CREATE TABLE zz_note (id int PRIMARY KEY, body text, tags text[]);
INSERT INTO zz_note VALUES (1, 'one', '{a}'), (2, 'two ''{{x}}'' $$', NULL);
CREATE FUNCTION zz_length(t text) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN length(t); END';
SQL
	$session->must($_)
	  for (
		chain("zz_inner(t text) RETURNS text", qq[model: 'echo of "ü"'\nprompt: "<{{t}}>"\n]),
		chain("aa_outer(t text, times int DEFAULT 2, more jsonb DEFAULT '{\"sep\": \"''\"}') RETURNS text", <<'YAML'),
output: '{{answers | join("; ")}} {{length}} {{note}}{{more.sep}}'
steps:
  answers:
    each: times
    function: zz_inner
    args: {t: "{{t}} {{item}}"}
  length:
    function: zz_length
    args: {t: "{{t}}"}
  note:
    sql: SELECT body FROM zz_note WHERE id = {{times}}
    returns: value
YAML
		chain('aside.aa_of_row(note zz_row) RETURNS zz_short', "value: '{{note.body}}'   # of \"the\" row\n"),
		chain('aa_parts(n int) RETURNS SETOF zz_part', "each: n\nvalue: {name: \"part {{item}}\", weight: 1.5}\n"),
		chain('aa_table(n int) RETURNS TABLE (a int, b text)', "each: n\nvalue: {a: \"{{item}}\", b: \"\"}\n"),
		chain('aa_same(t text) RETURNS text STRICT', "value: \"text {{t}}\"\n"),
		chain('aa_same(n int) RETURNS text', "value: \"number {{n}}\"\n"),
		chain('aa_score(n int) RETURNS float8', "model: scorer\ninput: \"{{n}}\"\n"),
		chain('aa_vector(t text) RETURNS real[]', "model: vector\ninput: \"{{t}}\"\n"));
	$session->must('SET check_function_bodies = off; ' . chain('aa_broken() RETURNS text', "model: nobody\nprompt: x\n"));
	$session->must(<<'SQL');
RESET check_function_bodies;
COMMENT ON FUNCTION aa_outer(text, int, jsonb) IS 'It''s the outer "chain"';
COMMENT ON FUNCTION aa_same(text) IS 'of a text';
CREATE VIEW zz_view AS SELECT id, aa_same(body) AS same FROM zz_note;
ALTER TABLE zz_note ADD COLUMN made text DEFAULT aa_same(7);
ALTER FUNCTION zz_inner(text) OWNER TO dump_owner;
ALTER FUNCTION aa_parts(int) COST 1000 ROWS 7;
REVOKE EXECUTE ON FUNCTION aa_outer(text, int, jsonb), aa_score(int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION aa_outer(text, int, jsonb) TO dump_app;
GRANT SELECT ON zz_note, zz_view TO dump_app;
GRANT USAGE ON SCHEMA aside TO dump_app;
SELECT chaincall.grant_usage('dump_app');
GRANT INSERT ON chaincall.model TO dump_owner;
GRANT EXECUTE ON FUNCTION chaincall.fdw_validator(text[], oid) TO dump_owner;
SQL
	return;
}

# What comes out of all that, one line a result, as one role and as the other.
sub results
{
	my ($dbname) = @_;
	my $app = session($node, dbname => $dbname, user => 'dump_app');
	my $own = session($node, dbname => $dbname);
	my @results;

	for my $sql ("SELECT aa_outer('hello')", "SELECT aa_outer('x', 1, '{\"sep\": \"!\"}')", "SELECT aside.aa_of_row(ROW('row'))",
		'SELECT * FROM aa_parts(2)', 'SELECT * FROM aa_table(2)', "SELECT aa_same('a'), aa_same(1), aa_same(NULL::text)", 'SELECT * FROM zz_view ORDER BY id',
		'SELECT id, made FROM zz_note ORDER BY id', 'SELECT aa_score(9000)', "SELECT aa_vector('hello')", 'SELECT aa_broken()',
		"SELECT chaincall.call('small', 'One sentence.')", "SELECT chaincall.call('later', 'x')", "SELECT chaincall.call('echo of \"ü\"', 'x')")
	{
		for my $session ($app, $own)
		{
			my $result = $session->run($sql);

			push @results, "$sql: " . ($result->ok ? $result->{out} : "$result->{state} $result->{message}");
		}
	}
	push @results, asked($app, "SELECT chaincall.call('echo of \"ü\"', 'x')"), asked($own, "SELECT chaincall.call('echo of \"ü\"', 'x')");
	$_->quit for ($app, $own);
	return \@results;
}

# A dump as text, without what differs from one to the next by its nature.
sub dump_text
{
	my ($dbname) = @_;
	my $file = "$dir/text";

	$node->command_ok([ 'pg_dump', '-d', $node->connstr($dbname), '-f', $file ], "pg_dump of $dbname");
	return slurp_file($file) =~ s/^\\(?:un)?restrict .*$//mgr;
}

# Restores with a command that is given the database's connection string.
sub restored
{
	my ($how, $dbname, @command) = @_;
	my $connstr = $node->connstr($dbname);

	$node->command_ok([ map { s/CONNSTR/$connstr/r } @command ], "restore: $how");
	return;
}

# Tests that two texts are equal; shows the first line that is not.
sub same_text
{
	my ($got, $expected, $what) = @_;
	my @got = split /\n/, $got;
	my @expected = split /\n/, $expected;
	my $i = 0;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$i++ while $i < @got && $i < @expected && $got[$i] eq $expected[$i];
	return is($got[$i], $expected[$i], $what) && is(scalar @got, scalar @expected, "$what: to the end");
}

$node->safe_psql('postgres', $_) for ('CREATE ROLE dump_app LOGIN', 'CREATE ROLE dump_owner LOGIN', 'GRANT dump_owner TO CURRENT_USER', 'CREATE DATABASE source');
my $session = session($node, dbname => 'source');
fill($session);
$session->quit;

my $text = dump_text('source');
my $results = results('source');

subtest 'what is dumped' => sub {
	like($results->[0], qr/^SELECT aa_outer\('hello'\): <hello 1>; <hello 2> 5 two '\{\{x\}\}' \$\$'$/, 'the chain runs');
	is($results->[-2], 'here:sk-app', 'key of a role');
	is($results->[-1], "here:sk-public's", 'key of all others');
	ok((grep { /^SELECT aa_score\(9000\): 0\.9$/ } @$results) == 1 && (grep { /^SELECT aa_score\(9000\): 42501/ } @$results) == 1, 'privileges hold');
	is((grep { /^SELECT aa_broken\(\): 42704 .*unknown model "nobody"/ } @$results), 2, 'what could not be checked is an error at its first use');
	like($text, qr/CREATE SERVER owned .*max_in_flight '7'/s, 'server');
	like($text, qr/CREATE FUNCTION public\.aa_outer\(t text, times integer DEFAULT 2.*CREATE FUNCTION public\.zz_inner.*CREATE TABLE public\.zz_note/s,
		'chains before what they use');
	unlike($text, qr/CREATE (?:TABLE|FUNCTION|FOREIGN DATA WRAPPER|LANGUAGE) (?:IF NOT EXISTS )?chaincall\b/, 'nothing of the extension itself');
};

subtest 'plain' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE plain');
	$node->command_ok([ 'pg_dump', '-d', $node->connstr('source'), '-f', "$dir/plain" ], 'pg_dump');
	restored('plain', 'plain', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'CONNSTR', '-f', "$dir/plain");
	same_text(dump_text('plain'), $text, 'the second dump equals the first');
	is_deeply(results('plain'), $results, 'all works');
};

# A session that has used what is dropped and comes back must not mind.
subtest 'over what is there' => sub {
	my $other = session($node, dbname => 'plain');

	is($other->must("SELECT zz_inner('a')"), '<a>', 'a session uses it');
	$node->command_ok([ 'pg_dump', '--clean', '--if-exists', '-d', $node->connstr('source'), '-f', "$dir/clean" ], 'pg_dump --clean --if-exists');
	restored('clean, over the same', 'plain', 'psql', '-Xq1', '-v', 'ON_ERROR_STOP=1', '-d', 'CONNSTR', '-f', "$dir/clean");
	is($other->must("SELECT zz_inner('b')"), '<b>', 'and again');
	same_text(dump_text('plain'), $text, 'the second dump equals the first');
	is_deeply(results('plain'), $results, 'all works');
	$other->quit;
	$node->safe_psql('postgres', 'CREATE DATABASE clean');
	restored('clean, into an empty one', 'clean', 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', 'CONNSTR', '-f', "$dir/clean");
	same_text(dump_text('clean'), $text, 'the second dump equals the first');
};

subtest 'pg_restore' => sub {
	$node->command_ok([ 'pg_dump', '-Fc', '-d', $node->connstr('source'), '-f', "$dir/custom" ], 'pg_dump -Fc');
	$node->safe_psql('postgres', 'CREATE DATABASE custom');
	restored('custom', 'custom', 'pg_restore', '--exit-on-error', '-d', 'CONNSTR', "$dir/custom");
	same_text(dump_text('custom'), $text, 'the second dump equals the first');
	is_deeply(results('custom'), $results, 'all works');
	restored('custom, over the same', 'custom', 'pg_restore', '--exit-on-error', '--clean', '--if-exists', '-1', '-d', 'CONNSTR', "$dir/custom");
	same_text(dump_text('custom'), $text, 'the second dump equals the first');
};

subtest 'a template' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE copied TEMPLATE source');
	same_text(dump_text('copied'), $text, 'its dump is the same');
	is_deeply(results('copied'), $results, 'all works');
};

# --------------------------------------------------------------------------------------------------
# DROP EXTENSION and CREATE EXTENSION

# Model m at one of the two servers and a chain around it, which says which definition it is of.
sub define
{
	my ($session, $models, $key) = @_;

	add_server($session, 's', $models);
	$session->must("CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (api_key '$key')");
	add_model($session, 'm', 's', 'echo', retry => '0');
	$session->must(chain('ask(t text) RETURNS text', "model: m\nprompt: \"$key {{t}}\"\n"));
	return;
}

sub recreate { my ($session, @definition) = @_; $session->must('CREATE EXTENSION chaincall'); define($session, @definition); return; }

subtest 'DROP EXTENSION and CREATE EXTENSION' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE again');

	my $session = session($node, dbname => 'again');
	my $other = session($node, dbname => 'again');

	recreate($session, $here, 'k1');
	$session->must("CREATE FUNCTION plpgsql_ask(t text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN ask(t); END'");
	for my $each ($session, $other)
	{
		$each->must("PREPARE p AS SELECT ask('prepared')");
		is($each->must('EXECUTE p'), 'k1 prepared', 'a prepared statement');
		is($each->must("SELECT plpgsql_ask('x')"), 'k1 x', 'a function');
		is(asked($each), 'here:k1', 'a call');
	}
	for my $round (2 .. 4)
	{
		my ($name, $models) = $round % 2 ? (here => $here) : (there => $there);

		$session->must('DROP EXTENSION chaincall CASCADE');
		like($_->run("SELECT chaincall.call('m', 'x')")->{state}, qr/^(3F000|42883)$/, 'no extension: an error') for ($session, $other);
		is($_->run("SELECT plpgsql_ask('x')")->{state}, '42883', 'nor a chain') for ($session, $other);
		recreate($session, $models, "k$round");
		for my $each ($session, $other)
		{
			is(asked($each), "$name:k$round", 'a call');
			is($each->must("SELECT plpgsql_ask('x')"), "k$round x", 'a function');
			is($each->must('EXECUTE p'), "k$round prepared", 'a prepared statement');
		}
	}

	# within a transaction
	$session->must('BEGIN');
	is(asked($session), 'there:k4', 'before');
	$session->must('DROP EXTENSION chaincall CASCADE');
	recreate($session, $here, 'k5');
	is(asked($session), 'here:k5', 'anew');
	is($session->must("SELECT plpgsql_ask('x')"), 'k5 x', 'the chain');
	$session->must('SAVEPOINT a; DROP EXTENSION chaincall CASCADE');
	recreate($session, $there, 'k6');
	is(asked($session), 'there:k6', 'anew once more');
	$session->must('ROLLBACK TO a');
	is(asked($session), 'here:k5', 'back to the savepoint');
	is($session->must("SELECT plpgsql_ask('x')"), 'k5 x', 'the chain');
	$session->must('ROLLBACK');
	is(asked($session), 'there:k4', 'rolled back');
	is($session->must("SELECT plpgsql_ask('x')"), 'k4 x', 'the chain');
	is($session->must('EXECUTE p'), 'k4 prepared', 'a prepared statement');
	$session->must('BEGIN; DROP EXTENSION chaincall CASCADE');
	recreate($session, $here, 'k7');
	$session->must('COMMIT');
	is(asked($_), 'here:k7', 'committed') for ($session, $other);

	# by the chain that runs
	$session->must(chain('suicide() RETURNS text', "steps:\n  gone:\n    sql: DROP EXTENSION chaincall CASCADE\n"
			  . "  answer:\n    model: m\n    prompt: \"{{gone | json}}\"\n"));
	isnt($session->run('SELECT suicide()')->{state}, undef, 'a chain that drops its extension fails');
	is(asked($_), 'here:k7', 'and nothing is lost') for ($session, $other);
	$_->quit for ($session, $other);
};

# A server that answers when a file is there.
sub gate
{
	my ($file, $came) = @_;

	return RawServer->new(
		sub {
			my ($connection) = @_;
			my $body = '{"choices": [{"message": {"role": "assistant", "content": "late"}, "finish_reason": "stop"}]}';

			append_to_file($came, 'x');
			ModelServer::wait_until(sub { return -e $file }, 'the gate opens');
			print $connection "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
		});
}

subtest 'DROP EXTENSION while a call is in the air' => sub {
	my $gate = gate("$dir/open", "$dir/came");
	my $session = session($node, dbname => 'again');
	my $other = session($node, dbname => 'again');
	my $result;

	add_server($session, 'g', $gate->url);
	add_model($session, 'gated', 'g', 'x', retry => '0');
	$session->must(chain('two() RETURNS text', "steps:\n  first:\n    model: gated\n    prompt: x\n  second:\n    model: m\n    prompt: \"{{first}}\"\n"));
	$session->send('SELECT two()');
	wait_until(sub { return -s "$dir/came" }, 'the call is in the air');
	$other->must("SET lock_timeout = '20 s'; DROP EXTENSION chaincall CASCADE");
	append_to_file("$dir/open", 'now');
	$result = $session->result;
	like($result->{state} || '', qr/^(42|MC)/, 'a chain whose extension is dropped fails with an error') || diag("$result->{out} $result->{err}");
	is($session->must('SELECT 1'), '1', 'the session lives');
	recreate($other, $there, 'k8');
	is(asked($_), 'there:k8', 'and works with the new one') for ($session, $other);
	$_->quit for ($session, $other);
};

# --------------------------------------------------------------------------------------------------
# DROP DATABASE

subtest 'DROP DATABASE' => sub {
	my $admin = session($node);
	my $idle = session($node, dbname => 'again');
	my $busy = session($node, dbname => 'again');

	add_model($idle, 'hang', 's', 'fixed?hang=1');
	is(asked($idle), 'there:k8', 'a session has used it');
	$there->reset;
	$busy->send("SELECT chaincall.call('hang', 'x')");
	$there->wait_in_flight(1);
	is($admin->run('DROP DATABASE again WITH (FORCE)')->{state}, undef, 'by force');
	$there->wait_in_flight(0);
	like($busy->result->{err}, qr/57P01|connection/, 'a session in a call is gone');
	$idle->send('SELECT 1');
	like($idle->result->{err}, qr/57P01|connection/, 'an idle one too');
	$_->quit for ($idle, $busy);

	$idle = session($node, dbname => 'copied');
	$idle->must("SELECT zz_inner('x')");
	is($admin->run('DROP DATABASE copied')->{state}, '55006', 'an idle session keeps it');
	$idle->quit;
	wait_until(sub { $admin->must("SELECT count(*) FROM pg_stat_activity WHERE datname = 'copied'") eq '0' }, 'the session has left');
	is($admin->run('DROP DATABASE copied')->{state}, undef, 'when it has left');
	$admin->quit;
};

# --------------------------------------------------------------------------------------------------
# Changes that are rolled back

subtest 'changes that are rolled back' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE back');

	my $session = session($node, dbname => 'back');
	my $other = session($node, dbname => 'back');
	my ($url_here, $url_there) = map { sql_literal($_->url . '/v1') } ($here, $there);

	recreate($session, $here, 'k');
	$session->must('CREATE ROLE dump_user; GRANT USAGE ON FOREIGN SERVER s TO dump_user; SELECT chaincall.grant_usage(\'dump_user\')');
	add_server($session, 's2', $there);

	my %changes = (
		'a server\'s url' => [ "ALTER SERVER s OPTIONS (SET url $url_there)", 'there:k' ],
		'a server\'s api' => [ 'ALTER SERVER s OPTIONS (SET api \'anthropic\')', 'here:none' ],
		'a server\'s name' => [ 'ALTER SERVER s RENAME TO t', '42704' ],
		'a mapping' => [ "ALTER USER MAPPING FOR PUBLIC SERVER s OPTIONS (SET api_key 'new')", 'here:new' ],
		'a mapping of one\'s own' => [ "CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (api_key 'own')", 'here:own' ],
		'no mapping' => [ 'DROP USER MAPPING FOR PUBLIC SERVER s', 'here:none' ],
		'an endpoint\'s server' => [ "UPDATE chaincall.endpoint SET server = 's2' WHERE model = 'm'", 'there:none' ],
		'no endpoint' => [ 'DELETE FROM chaincall.endpoint', 'MC003' ],
		'a model\'s name' => [ "UPDATE chaincall.model SET name = 'n'", '42704' ],
		'a paused model' => [ 'UPDATE chaincall.model SET paused = true', 'MC003' ],
		'no model' => [ 'TRUNCATE chaincall.model, chaincall.endpoint', '42704' ],
		'no server' => [ 'DROP SERVER s CASCADE', '42704' ],
		'the role\'s privilege' => [ 'REVOKE USAGE ON FOREIGN SERVER s FROM dump_user; SET ROLE dump_user', '42501' ],
		'another role' => [ "CREATE USER MAPPING FOR dump_user SERVER s OPTIONS (api_key 'user'); SET ROLE dump_user", 'here:user' ]);

	is(asked($_), 'here:k', 'at first') for ($session, $other);
	for my $what (sort keys %changes)
	{
		my ($change, $expected) = @{ $changes{$what} };

		subtest $what => sub {
			$session->must("BEGIN; $change");
			is(asked($session), $expected, 'holds in the transaction');
			is(asked($other), 'here:k', 'and there alone') unless $change =~ /TRUNCATE/;
			$session->must('ROLLBACK; RESET ROLE');
			is(asked($session), 'here:k', 'rolled back');

			$session->must("BEGIN; $change; ROLLBACK; RESET ROLE");
			is(asked($session), 'here:k', 'rolled back before it was used');

			$session->must("BEGIN; SAVEPOINT a; $change");
			is(asked($session), $expected, 'holds behind a savepoint');
			$session->must('ROLLBACK TO a');
			is(asked($session), 'here:k', 'rolled back to it');
			$session->must("SAVEPOINT b; $change; RELEASE b");
			is(asked($session), $expected, 'holds when it is released');
			$session->must('ROLLBACK TO a');
			is(asked($session), 'here:k', 'rolled back all the same');
			$session->must('ROLLBACK; RESET ROLE');
			is(asked($session), 'here:k', 'and at the end');
		};
	}

	$session->must("BEGIN; ALTER SERVER s OPTIONS (SET url $url_there); UPDATE chaincall.model SET params = '{\"seed\": 5}'");
	is(asked($other), 'here:k', 'before the commit');
	$session->must('COMMIT');
	for my $each ($other, $session)
	{
		is(asked($each), 'there:k', 'after it: the server');
		is(($there->last)[0]{body}{seed}, 5, 'and the model');
	}

	# a chain whose step changes the server that its next step calls
	$session->must(chain('moves() RETURNS text', "steps:\n  moved:\n    sql: ALTER SERVER s OPTIONS (SET url $url_here)\n"
			  . "  answer:\n    after: [moved]\n    model: m\n    prompt: x\n"));
	is(asked($session, 'BEGIN; SELECT moves()'), 'here:k', 'a step sees what the one before it did');
	$session->must('ROLLBACK');
	is(asked($session), 'there:k', 'rolled back');
	$_->quit for ($session, $other);
};

unlike(slurp_file($node->logfile), qr/TRAP|PANIC|WARNING:|terminated by signal|cache lookup failed|could not open relation/, 'no warning, no crash, no stale oid');

$node->stop;
done_testing();
