-- Exchanges with a real server, and the ways they end
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\getenv url CHAINCALL_TEST_URL
\set chat :url /v1/chat/completions
\set fixed '{"model": "fixed", "messages": [{"role": "user", "content": "Hello"}]}'
\set slow '{"model": "delay-400", "messages": [{"role": "user", "content": "Hello"}]}'
\set hang '{"model": "fixed?hang=1", "messages": [{"role": "user", "content": "Hello"}]}'
\pset format unaligned
\pset tuples_only on

-- one, and what is told of it
SELECT fault, message, status, length, answer::jsonb #>> '{choices,0,message,content}', content_type, http_version,
    sent_ms > 0, first_byte_ms >= sent_ms, ended_ms >= first_byte_ms
FROM chaincall_test_http(:'chat', :'fixed');
SELECT fault, status, left(answer, 18) FROM chaincall_test_http(:'url' || '/v1/models', method => 'GET');
SELECT fault, status FROM chaincall_test_http(:'chat', :'fixed', method => 'DELETE');
SELECT fault, status FROM chaincall_test_http(:'url' || '/v1/models', method => 'HEAD');
SELECT fault, status, length FROM chaincall_test_http(:'chat');
-- what was sent
SELECT status FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-One: 1, X-Two:, Content-Type: application/json}');
SELECT l ->> 'method', l ->> 'path', h ->> 'x-one', h ->> 'content-type', h ->> 'content-length', h ? 'expect', h ? 'authorization',
    (h ->> 'user-agent') ~ '^chaincall/[0-9]+\.[0-9]+\.[0-9]+$', (h ->> 'accept-encoding') ~ 'gzip'
FROM chaincall_test_http(:'url' || '/last', method => 'GET'), LATERAL (SELECT answer::jsonb) AS a (l), LATERAL (SELECT l -> 'headers') AS b (h);
SELECT fault, status FROM chaincall_test_http(:'chat', repeat(' ', 3000000) || :'fixed');

-- many at once, on connections that stay
SELECT count(*), fault, status, min(n), max(n), max(ended_ms) < 4000 FROM chaincall_test_http(:'chat', :'slow', times => 300) GROUP BY fault, status;
SELECT count(*), fault, status, max(ended_ms) < 4000 FROM chaincall_test_http(:'chat', :'slow', times => 300) GROUP BY fault, status;
SELECT in_flight, lanes, sockets, threads, files - sockets < 60 AS few_files, capacity > 1000 FROM chaincall_test_http_state();
SELECT bad FROM chaincall_test_http_bench(:'chat', :'fixed', 2000, 64);
SELECT sockets FROM chaincall_test_http_state();
-- a great many: what they needed goes
SELECT bad FROM chaincall_test_http_bench(:'chat', :'slow', 2000, 2000);
SELECT in_flight, lanes, sockets <= 576 FROM chaincall_test_http_state();

-- what a server says
SELECT fault, status, retry_after, answer ~ 'error' FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: status=503&retry_after=7}');
SELECT fault, status FROM chaincall_test_http(:'chat', :'fixed', headers => ARRAY['X-Fault: redirect=' || :'chat']);
SELECT fault, status, length FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: broken=empty}');
SELECT fault, status, length, answer ~ '^{"id' FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: gzip=1&size=300000}');
SELECT fault, status, length FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: drip=200}');

-- answers that break
SELECT fault, status, count(*) FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: reset=head}', times => 5) GROUP BY fault, status;
SELECT fault, status, count(*) FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: reset=mid}', times => 5) GROUP BY fault, status;

-- answers that are too large: by their header, and by what comes
SELECT fault, message, status, length FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: size=50000}', max_answer => 50000);
SELECT fault, message, status, length FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: size=50000}', max_answer => 49999);
SELECT fault, message, status FROM chaincall_test_http(:'chat', :'fixed', headers => '{X-Fault: size=100000000&gzip=1}', max_answer => 50000);
SELECT fault, message, status FROM chaincall_test_http(:'chat', :'fixed', max_answer => 0);

-- requests that cannot be sent
SELECT fault FROM chaincall_test_http('http://[half?key=secret', :'fixed');
SELECT fault FROM chaincall_test_http('', :'fixed');
SELECT fault, message ~ 'secret' FROM chaincall_test_http('ftp://127.0.0.1/?key=secret', :'fixed');
SELECT fault FROM chaincall_test_http('file:///etc/passwd');
SELECT fault, message FROM chaincall_test_http(:'chat', :'fixed', headers => ARRAY[E'X-One: 1\r\nX-Two: 2']);
SELECT fault, message FROM chaincall_test_http(:'chat', :'fixed', method => 'GET /');
SELECT fault, message FROM chaincall_test_http(:'chat', :'fixed', method => '');
SELECT fault, message FROM chaincall_test_http(:'chat', :'fixed', proxy => 'socks5://127.0.0.1');

-- nobody there; many fail as fast as one
SELECT fault, status, count(*), max(ended_ms) < 2000 FROM chaincall_test_http('http://127.0.0.1:1/', :'fixed', times => 50) GROUP BY fault, status;
SELECT fault, status, count(*), max(ended_ms) < 2000 FROM chaincall_test_http('https://localhost:1/', :'fixed', times => 50) GROUP BY fault, status;
SELECT fault, status, count(*) FROM chaincall_test_http('https://localhost' || substring(:'url' from ':\d+$'), :'fixed', times => 50) GROUP BY fault, status;
-- a name that is none, wherever this runs: one look-up for all
SELECT DISTINCT fault IN ('resolve', 'connect'), message ~ 'name|resolve', status, count(*) OVER ()
FROM chaincall_test_http('http://nobody.invalid/?key=secret', :'fixed', times => 200, connect_timeout => 1000);
SELECT threads <= 3 FROM chaincall_test_http_state();
-- through a proxy; one from the environment would not be asked
SELECT fault, status FROM chaincall_test_http('http://nobody.invalid/v1/chat/completions', :'fixed', proxy => :'url');
SELECT fault, status FROM chaincall_test_http('http://nobody.invalid/v1/chat/completions', :'fixed', proxy => 'http://127.0.0.1:1');
SELECT fault, status FROM chaincall_test_http(:'chat', :'fixed');

-- addresses that are not called, however they are written
SELECT address, fault, message FROM unnest('{169.254.169.254, 169.254.0.1:80, 0xa9fea9fe, 2852039166, 0251.0376.0251.0376, [::ffff:169.254.169.254],
    [::ffff:a9fe:a9fe], [fe80::1], [fd00:ec2::254], 100.100.100.200, [64:ff9b::169.254.169.254]}'::text[]) AS address,
    chaincall_test_http('http://' || address || '/latest/meta-data', method => 'GET', connect_timeout => 2000);
SELECT fault, message FROM chaincall_test_http('http://169.254.169.254/', method => 'GET', proxy => :'url');
SELECT chaincall_test_network_refused(a), a FROM unnest('{169.253.255.255, 169.254.0.0, 169.254.255.255, 169.255.0.0, 127.0.0.1, 10.0.0.1, 0.0.0.0, ::, ::1,
    fe7f::1, fe80::, febf:ffff::1, fec0::1, fd00:ec2::253, fd00:ec2::254, fd00:ec2::23, fd20:ce::254, 100.100.100.199, 100.100.100.200, 168.63.129.16, 192.0.0.192, ::169.254.1.1, ::ffff:169.254.1.1,
    64:ff9b::a9fe:1, 64:ff9b::1.2.3.4, 2002:a9fe:a9fe::1, 2002:102:304::1, 2001:db8::1}'::text[]) AS a;
SELECT chaincall_test_network_refused('169.254.169.254', l), l FROM unnest('{"", " ", 169.254.0.0/16, 169.254.169.254, 169.254.169.255/31, 169.254.169.253,
    0.0.0.0/0, ::/0, "10.0.0.0/8 , 169.254.169.0/24", fe80::/10, ::ffff:169.254.0.0/112}'::text[]) AS l;
SELECT chaincall_test_network_refused('fe80::1', 'fe80::/10'), chaincall_test_network_refused('fe80::1', 'fe80::2/127'), chaincall_test_network_refused('::ffff:169.254.1.1', '169.254.0.0/16');
SELECT chaincall_test_network_list(l), l FROM unnest('{"", 1.2.3.4, 1.2.3.4/32, 1.2.3.4/33, 1.2.3.4/, 1.2.3/8, fe80::/10, fe80::/129, "fe80::/10,", ",", "a,b",
    "1.2.3.4, fe80::1 ", 1.2.3.4/-1, 1.2.3.4/8x, "1.2.3.4;5.6.7.8", fe80::1%eth0, 00000000000000000000000000000000000000000000000000000000000000001.2.3.4}'::text[]) AS l;
SET chaincall.allowed_networks = 'fe80::1/128, 100.100.100.200';
SELECT fault <> 'refused address' FROM chaincall_test_http('http://100.100.100.200:1/', method => 'GET', connect_timeout => 100);
SELECT fault FROM chaincall_test_http('http://169.254.169.254/', method => 'GET', connect_timeout => 100);
RESET chaincall.allowed_networks;

-- cancelled from outside, and by a callback; before they leave, and while they wait
SELECT chaincall_test_http_cancel(:'chat', :'slow', 100, 100, 0);
SELECT chaincall_test_http_cancel(:'chat', :'slow', 100, 100, 10);
SELECT chaincall_test_http_cancel(:'chat', :'slow', 100, 0, 0);
SELECT chaincall_test_http_cancel('https://localhost:1/', :'slow', 100, 0, 0);
SELECT in_flight FROM chaincall_test_http_state();

-- a callback that raises: the others are called all the same
SELECT chaincall_test_http_raise(:'chat', :'fixed', 20, 3);
SELECT chaincall_test_http_raise(:'chat', :'fixed', 20, 20);
SELECT in_flight FROM chaincall_test_http_state();

-- statement_timeout while waiting
SET statement_timeout = 200;
SELECT extract(epoch FROM clock_timestamp()) AS start \gset
SELECT * FROM chaincall_test_http(:'chat', :'hang', times => 100);
RESET statement_timeout;
SELECT extract(epoch FROM clock_timestamp()) - :start BETWEEN 0.2 AND 0.45 AS in_time;
SELECT in_flight FROM chaincall_test_http_state();
SELECT answer::jsonb -> 'in_flight' FROM chaincall_test_http(:'url' || '/stats', method => 'GET');

-- settled: all is written, nothing is delivered; and nothing is late that comes while nobody looks
SELECT settled, delivered, bad, ended_ms BETWEEN 400 AND 900 FROM chaincall_test_http_settle(:'chat', :'slow', 20, 1000, 500);
SELECT settled, delivered, bad, ended_ms < 1500 FROM chaincall_test_http_settle(:'chat', :'slow', 2, 1000, 500, bytes => 5000000);
SELECT settled, delivered, bad FROM chaincall_test_http_settle(:'chat', :'slow', 2, 0, 300, connect_timeout => 200);
SELECT settled, delivered, bad FROM chaincall_test_http_settle('http://127.0.0.1:1/', :'slow', 2, 1000, 0);
