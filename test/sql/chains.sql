-- Worked chains, as a user would write them. The models are the stand-in server's: summaries made of the text's own
-- sentences (which fill in a shape where one is asked for), feature hashing for vectors.
\getenv abs_srcdir PG_ABS_SRCDIR
\set common :abs_srcdir /lib/regress.sql
\set ECHO none
\i :common
\set ECHO all

SELECT model('small', 'extractive'), model('large', 'extractive'), model('deepseek-chat', 'extractive'), model('embed-small', 'hash-embedding', kind => 'embedding'),
  model('fraud-score', 'x', 'service', 'json'), model('writer', 'echo'), model('judge', 'labels');

----------------------------------------------------------------------------------------------------------------------
-- Intent, look-up, answer. A type `vector` with the operator <=>, as pgvector has them, for want of pgvector: the angle
-- between two lists of numbers

SET client_min_messages = warning;
CREATE TYPE vector;
CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text);
CREATE FUNCTION numbers(v vector) RETURNS float8[] LANGUAGE sql IMMUTABLE AS $$ SELECT translate(vector_out(v)::text, '[]', '{}')::float8[] $$;
CREATE FUNCTION distance(a vector, b vector) RETURNS float8 LANGUAGE sql IMMUTABLE AS $$
  SELECT 1 - sum(x * y) / sqrt(sum(x * x) * sum(y * y)) FROM unnest(numbers(a), numbers(b)) t (x, y)
$$;
CREATE OPERATOR <=> (FUNCTION = distance, LEFTARG = vector, RIGHTARG = vector);
RESET client_min_messages;

CREATE TABLE kb (topic text, title text, body text, embedding vector);
INSERT INTO kb SELECT topic, title, body, vector_in(textout(replace(replace(e::text, '{', '['), '}', ']')))
FROM (VALUES
  ('billing', 'Refunds', 'A refund is paid within five days to the card that was charged.'),
  ('billing', 'Invoices', 'Invoices are sent by mail on the first day of the month.'),
  ('technical', 'Restart', 'Hold the power button for ten seconds and the router restarts.'),
  ('technical', 'Cables', 'Use the yellow cable between router and wall.')) t (topic, title, body),
  LATERAL chaincall.embed('embed-small', ARRAY[body]) e;

CREATE FUNCTION support(question text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  intent:
    model: small
    prompt: |
      What is this about? {{question}}
    returns: {topic: [billing, technical, other]}
  vector:
    model: embed-small
    input: "{{question}}"
  hits:
    sql: |
      SELECT title, body FROM kb WHERE topic = {{intent.topic}}
      ORDER BY embedding <=> {{vector}}::vector LIMIT 5
  answer:
    model: deepseek-chat
    prompt: |
      Answer from these articles only; say so when they do not help.
      {{hits[*].body | default("(no article found)")}}
      Question: {{question}}
$chain$;
SELECT chaincall.run('support', '{"question": "A billing question: when is my refund paid to my card?"}', stop_after => 'hits') - 'vector';
SELECT chaincall.render('support', 'answer', '{"question": "Is it?"}', '{"hits": [{"title": "t", "body": "One."}, {"title": "u", "body": "Two."}]}') #>> '{body,messages,0,content}';
SELECT chaincall.render('support', 'answer', '{"question": "Is it?"}', '{"hits": []}') #>> '{body,messages,0,content}';
SELECT support('My router has a technical fault. How do I restart it?');

----------------------------------------------------------------------------------------------------------------------
-- Transaction decision, 300 ms

CREATE TYPE card_tx_place AS (country text, city text);
CREATE TABLE card_tx (id int PRIMARY KEY, card text, amount numeric, merchant text, at timestamptz, place card_tx_place);
CREATE TABLE rule (merchant text, least numeric, blocks boolean, points int);
CREATE TABLE seen (device int, card text);
CREATE FUNCTION rule_hits(tx card_tx) RETURNS SETOF rule LANGUAGE sql STABLE AS
  $$ SELECT * FROM rule WHERE (merchant IS NULL OR merchant = tx.merchant) AND tx.amount >= least $$;
INSERT INTO rule VALUES ('casino', 0, true, 0), (NULL, 100, false, 30), (NULL, 500, false, 40);
INSERT INTO seen VALUES (1, 'c1'), (2, 'c9'), (2, 'r1'), (2, 'r2'), (2, 'r3'), (3, 'c2'), (3, 'c3');
INSERT INTO card_tx VALUES (1, 'c1', 10, 'books', '2024-01-01', ('DE', 'Bonn')), (2, 'c2', 600, 'books', '2024-01-01', NULL),
  (3, 'c3', 20, 'casino', '2024-01-01', NULL), (4, 'c9', 20, 'books', '2024-01-01', NULL), (5, 'c1', 9500, 'books', '2024-01-01', NULL), (7, 'c1', 50, 'books', '2024-01-01', NULL);

CREATE FUNCTION decide(tx card_tx) RETURNS jsonb LANGUAGE chaincall AS $chain$
timeout: 300 ms
on_error:
  value: {decision: review, why: "{{error.class}}"}
steps:
  rules:
    sql: SELECT coalesce(bool_or(blocks), false) AS block, coalesce(sum(points), 0) AS points FROM rule_hits({{tx}})
    returns: row
  behaviour:
    model: fraud-score
    input: {amount: "{{tx.amount}}", card: "{{tx.card}}", merchant: "{{tx.merchant}}"}
    returns: {score: real}
    timeout: 150 ms
    retry: 0
    on_error: {value: {score: 0.5}}
  ring:
    sql: SELECT count(DISTINCT b.card) FROM seen a JOIN seen b USING (device) WHERE a.card = {{tx.card}}
    returns: value
  decision:
    switch:
      - when: rules.block == true || behaviour.score >= 0.9
        value: {decision: block, score: "{{behaviour.score}}"}
      - when: behaviour.score + rules.points / 100 >= 0.6 || ring > 3
        value: {decision: review, score: "{{behaviour.score}}"}
      - value: {decision: allow, score: "{{behaviour.score}}"}
$chain$;
SELECT decide(t) IS NOT NULL FROM card_tx t WHERE id = 1;
SELECT id, decide(t) FROM card_tx t ORDER BY id;
SELECT decide(t) FROM card_tx t WHERE id = 7;
-- the service is down: a score is assumed; it is slow: its step's time is up, not the chain's; a rule fails: review
UPDATE chaincall.endpoint SET remote_name = 'any?status=500' WHERE model = 'fraud-score';
ALTER SERVER service OPTIONS (SET path '/nowhere');
SELECT decide(t) FROM card_tx t WHERE id = 1;
ALTER SERVER service OPTIONS (SET path '/json', ADD headers '{"X-Fault": "delay=2000"}');
SELECT decide(t) FROM card_tx t WHERE id = 2;
ALTER SERVER service OPTIONS (DROP headers);
DROP FUNCTION rule_hits(card_tx);
CREATE FUNCTION rule_hits(tx card_tx) RETURNS SETOF rule LANGUAGE sql STABLE AS $$ SELECT * FROM rule WHERE least / 0 > tx.amount $$;
SELECT decide(t) FROM card_tx t WHERE id = 1;
DROP FUNCTION rule_hits(card_tx);
CREATE FUNCTION rule_hits(tx card_tx) RETURNS SETOF rule LANGUAGE plpgsql STABLE AS $$ BEGIN PERFORM pg_sleep(60); END $$;
SELECT clock_timestamp() AS started \gset
SELECT decide(t) FROM card_tx t WHERE id = 1;
SELECT clock_timestamp() - :'started' BETWEEN interval '290 ms' AND interval '2 s';

----------------------------------------------------------------------------------------------------------------------
-- Long contract

CREATE FUNCTION contract_report(document text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  clauses:
    function: chaincall.split_text
    args: {text: "{{document}}", by: section}
  summary:
    each: clauses
    model: small
    prompt: |
      Summarise this clause in two sentences:
      {{item}}
  points:
    model: deepseek-chat
    prompt: |
      List obligations and deadlines:
      {{summary}}
  report:
    model: deepseek-chat
    prompt: |
      Write a one-page report from these points:
      {{points}}
$chain$;
SELECT $document$
SERVICE AGREEMENT

This agreement is made between Acme Ltd. (the "Provider") and Bolt Inc. (the "Customer").

1. Services
The Provider shall host the Customer's shop. The Provider shall keep the shop available at all hours. Maintenance is announced
three days before it begins. Colours of the shop are the Customer's affair.

2. Payment
The Customer shall pay 900 euros a month. Payment is due within 14 days of the invoice. After 30 days the Provider may suspend the
services. Interest of 5 percent is due on late payments.

3. Term
This agreement begins on 1 March 2024. Either party may end it with three months' notice. Notice must be given in writing.

4. Law
The law of Ireland applies. The courts of Dublin decide all disputes.
$document$ AS document \gset
SELECT jsonb_object_agg(key, CASE key WHEN 'clauses' THEN to_jsonb(jsonb_array_length(value)) ELSE value END)
FROM jsonb_each(chaincall.run('contract_report', jsonb_build_object('document', :'document'), stop_after => 'summary'));
SELECT contract_report(:'document') ~ '14 days', contract_report(:'document') = contract_report(:'document');
SELECT substring(chaincall.last_trace() FROM '[0-9]+ calls, [0-9]+ retries');
-- each clause is asked about once, whatever order the answers come in
SELECT chaincall.run('contract_report', '{"document": "# A\n\none\n\n# B\n\ntwo"}', '{"summary[0]": "first", "points": "listed"}', 'points') -> 'points';

----------------------------------------------------------------------------------------------------------------------
-- Routing

CREATE FUNCTION reply(mail text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  kind:
    model: small
    prompt: |
      Classify: {{mail}}
    returns: {label: [billing, technical, other]}
  answer:
    switch:
      - when: kind.label == "billing"
        model: small
        prompt: |
          Answer as the billing desk: {{mail}}
      - when: kind.label == "technical"
        model: large
        params: {reasoning: high}
        prompt: |
          Answer as an engineer, step by step: {{mail}}
      - model: small
        prompt: |
          Answer politely and briefly: {{mail}}
$chain$;
SELECT label, chaincall.render('reply', 'answer/arm[' || n || ']', '{"mail": "M"}', jsonb_build_object('kind', jsonb_build_object('label', label))) -> 'body'
FROM (VALUES (0, 'billing'), (1, 'technical'), (2, 'other')) t (n, label);
SELECT chaincall.run('reply', '{"mail": "My technical problem: the router does not start."}', stop_after => 'answer');
SELECT reply('A billing matter: the invoice is wrong.') IS NOT NULL;

----------------------------------------------------------------------------------------------------------------------
-- Structured extraction into a composite and into rows, with re-ask

CREATE TYPE contract_terms AS (party_a text, party_b text, starts date, ends date, amount numeric, currency text);
CREATE TABLE contract (id int PRIMARY KEY, body text);
CREATE TABLE terms (contract int, party_a text, party_b text, starts date, ends date, amount numeric, currency text);
INSERT INTO contract VALUES (42, 'party_a Acme, party_b Bolt, starts 2024-03-01, ends 2025-02-28, amount 900, currency EUR');
UPDATE chaincall.endpoint SET remote_name = 'labels?miss=2' WHERE model = 'deepseek-chat';
CREATE FUNCTION terms_of(body text) RETURNS contract_terms LANGUAGE chaincall AS $chain$
model: deepseek-chat
system: You read contracts. What the text does not say is null.
prompt: |
  Extract the terms of this contract:
  {{body}}
returns: contract_terms
reask: 2
$chain$;
INSERT INTO terms SELECT c.id, t.* FROM contract c, LATERAL terms_of(c.body) t WHERE c.id = 42;
SELECT * FROM terms;
SELECT substring(chaincall.last_trace() FROM '[0-9]+ calls, [0-9]+ retries, [0-9]+ asked again');
UPDATE chaincall.endpoint SET remote_name = 'extractive' WHERE model = 'deepseek-chat';

----------------------------------------------------------------------------------------------------------------------
-- Draft, critique, redraft

CREATE FUNCTION essay(topic text) RETURNS text LANGUAGE chaincall AS $chain$
output: "{{best.draft}}"
steps:
  best:
    until: review.score >= 8 || round == 3
    output: {draft: "{{draft}}", critique: "{{review.critique}}"}
    steps:
      draft:
        model: writer
        prompt: |
          Write 300 words on {{topic}}.
          Your last draft: {{best.draft | default("none")}}
          What to change: {{best.critique | default("nothing yet")}}
      review:
        model: judge
        prompt: |
          Score from 1 to 10 and criticise: {{draft}}
        returns: {score: "int, 1 to 10", critique: text}
$chain$;
-- what a round sees of the one before; the last one that is good enough, or the third
SELECT essay('the sea') <> '';
SELECT chaincall.run('essay', '{"topic": "the sea"}', '{"best[1]/review": {"score": 8, "critique": "fine"}}');
SELECT chaincall.run('essay', '{"topic": "the sea"}', '{"best[1]/draft": "It is wet.", "best[1]/review": {"score": 5, "critique": "longer"}, "best[2]/review": {"score": 9, "critique": "fine"}}');
SELECT chaincall.run('essay', '{"topic": "the sea"}', '{"best[2]/draft": "It is wet.", "best[1]/review": {"score": 5, "critique": "longer"}, "best[2]/review": {"score": 6, "critique": "shorter"}, "best[3]/review": {"score": 7, "critique": "no"}}');

----------------------------------------------------------------------------------------------------------------------
-- A table of rows, one after another in one statement

UPDATE chaincall.endpoint SET remote_name = 'echo' WHERE model = 'deepseek-chat';
CREATE TABLE product (id bigint PRIMARY KEY, body text, body_fr text);
INSERT INTO product SELECT n, 'Chair number ' || n FROM generate_series(1, 200) n;
CREATE FUNCTION translate_product(id bigint, body text) RETURNS boolean LANGUAGE chaincall AS $chain$
steps:
  french:
    model: deepseek-chat
    prompt: |
      Translate into French. Keep numbers, names and markup:
      {{body}}
  saved:
    sql: UPDATE product SET body_fr = {{french}} WHERE id = {{id}} AND body = {{body}} RETURNING true
    returns: value
$chain$;
SELECT count(*), bool_and(translate_product(id, body)) FROM product WHERE body_fr IS NULL;
SELECT id, body_fr FROM product WHERE id IN (1, 200) ORDER BY id;
SELECT count(*) FROM product WHERE body_fr LIKE '%' || body || '%';
-- a row that has changed meanwhile is left alone
SELECT translate_product(1, 'Another body') IS NULL, (SELECT count(*) FROM product WHERE body_fr LIKE '%Another%');
-- and all of it belongs to the caller's transaction
BEGIN;
UPDATE product SET body = 'Table', body_fr = NULL WHERE id = 1;
SELECT translate_product(id, body), id FROM product WHERE body_fr IS NULL;
ROLLBACK;
SELECT body, body_fr FROM product WHERE id = 1;
