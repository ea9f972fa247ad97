-- split_text, join_text, pack_text, estimate_tokens.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
RESET client_min_messages;
CREATE SCHEMA text_test;
SET search_path = text_test, public;
\pset format unaligned
\pset tuples_only on

CREATE FUNCTION fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  state text; message text; detail text; hint text;
BEGIN
  EXECUTE statement;
  RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
  RETURN state || ': ' || message || CASE WHEN detail <> '' THEN ' / ' || detail ELSE '' END || ' / ' || hint;
END $$;
-- the pieces on a line each, their line breaks as |
CREATE FUNCTION pieces(body text, by text, size int DEFAULT 0, overlap int DEFAULT 0) RETURNS SETOF text LANGUAGE sql AS
$$ SELECT '[' || replace(replace(p, E'\r', '~'), E'\n', '|') || ']' FROM unnest(chaincall.split_text(body, by, size, overlap)) p $$;

-- as chains call it, by name
SELECT chaincall.split_text(text => 'One. Two.', by => 'sentence');
SELECT proname, provolatile, proisstrict, proparallel, prosecdef, pg_get_function_arguments(oid) FROM pg_proc
  WHERE pronamespace = 'chaincall'::regnamespace AND proname IN ('split_text', 'join_text', 'pack_text', 'estimate_tokens') ORDER BY 1;

-- tokens: up to 6 letters, 3 digits, 2 letters beyond ASCII, an ideograph, 4 equal marks
SELECT t, chaincall.estimate_tokens(t) FROM unnest(array['', E' \t\n', 'a', 'letter', 'letters', 'two words', '123', '1234', 'a1', 'don''t', '....', '.....', '.,.', '=========', 'é', 'été', 'Привет мир', '你好', '日本語です', '안녕', '😀😀', '€€ £', 'the quick brown fox jumps over the lazy dog', E'a\u00a0b\u3000c']) t;

-- sections
SELECT pieces(E'Intro text.\n\n# One\nbody\n## Two\n\nbody two\n#hashtag\n\n####### seven\n', 'section');
SELECT pieces(E'Title\n=====\n\nFirst\n-----\nbody\n\nSecond\n-----\n\nbody\n\nno heading\n--\n\nx | y\n--|--\n', 'section');
SELECT pieces(E'1. First clause.\n\n2. Second clause\nof two lines.\n\n  3. Indented.\n\nnot 4. this\n\n5) nor this\n\n2024. nor this\n\n3.5 million nor this\n\n3.5 Notices\n\n6.1. lower case is one\n\n7 nor this', 'section');
SELECT pieces(E'1. Payment\n\n1.1 The price.\n\n1.2 The date.\n\n2. Term\n\n3. Law\n\n3.1. Courts.', 'section');
SELECT pieces(E'a list:\n1. one\n2. two\n\nand:\n\n1. one\n2. two', 'section');
SELECT pieces(E'Section 1. Scope.\n\nSection 2 of this Agreement stays.\n\nARTICLE IV\n\nSome text.\n\nArticle V - Law\nThe law.\n\nClause 7: Costs\n\n§ 3 Form\nText.\n\n§ 4a\nText.\n\n§ 5 of the Act stays.\n\nsection 6. stays.\n\nPart of it stays.\n\nExhibit B\nText.\n\nAppendix: Forms\nText.\n\nSchedule of works stays.', 'section');
SELECT pieces(E'I. Facts\n\nText.\n\nII. Law\n\nText.\n\nB. Claims\n\nText.\n\nI. e. this stays.\n\nJ. Smith came to court and said.', 'section');
SELECT pieces(E'PREAMBLE\n\nWhereas.\n\nÜBERSICHT\n\nText.\n\nTHIS IS SHOUTED OVER\nTWO LINES.\n\nNot ALL of it\n\nABC\n\nГЛАВА ПЕРВАЯ\n\nТекст.\n\n| NAME | TEXT |\n\n' || repeat('TOO LONG ', 12) || E'\n\nlast', 'section');
SELECT pieces(E'Text.\n\n            A Centred Title\n\nText.\n\n            not a title\n\n            Code();\n\n            Two centred\n            lines\n\nText.', 'section');
SELECT pieces(E'***********\n*         *\n*  6. No  *\n*  -----  *\n*         *\n***********\n\nText.\n\n***********\n*  7. Yes *\n***********\nText.', 'section');
SELECT pieces(E'# Code\n\n```\n# comment\n\n1. no heading\n```\n\n~~~ sh\n# comment\n~~~\n\n# Next\ntext ```\n# Last\ntext', 'section');
SELECT pieces(E'A TITLE\n\nANOTHER\n\n1. Clause.\n\nTHE END', 'section');
SELECT pieces(E'ONLY TITLES\n\nNOTHING ELSE', 'section');
SELECT pieces(E'page one\n\fpage two\n\n\f\n\f page three', 'section');
SELECT pieces(E'1. Clause that\n\fgoes on\n\n2. Next', 'section');
SELECT pieces(E'# One\r\nbody\r\n\r\n# Two\r\nbody\r\n', 'section'), pieces(E'# One\rbody\r# Two\rbody', 'section');
SELECT pieces('no heading at all', 'section'), pieces(E'\n \t\n', 'section'), pieces('', 'section'), pieces('#', 'section'), pieces(' # x ', 'section');

-- paragraphs and sentences
SELECT pieces(E'\n\n one\n two \n \t \nthree\n\n\n\nfour\ffive\n', 'paragraph');
SELECT pieces(E'Mr. J. Smith met Dr. No at 3.30 p.m. He paid $3.14, e.g. to Acme Inc. and to others. "Stop!" he said. "Go!" She went. Art. 5, No. 7 and Sec. IV apply. Is it? No. It is not. Then… what? Yes?! (Really.) What... maybe. The U.S. Government v. Jones. etc. and so on', 'sentence');
SELECT pieces(E'1. First. 2. Second.\nIV. Fourth one. (a) Fifth.\n\nNo stop\n\nÉtude. élan. Äpfel. Élan. Конец. Начало. ещё.', 'sentence');
SELECT pieces('你好。我是学生！真的吗？「是的。」他说。日本語です。 Mixed text. 中文', 'sentence');
SELECT pieces('. ! ? ... a.b.c 1.2.3 x.', 'sentence'), pieces('.', 'sentence');

-- size: what is longer is cut by the next finer division, as full as may be
SELECT pieces(E'# A\n\none two three. four five.\n\nsix seven.\n\neight nine ten eleven twelve. thirteen\n\n# B\n\nshort', 'section', 8);
SELECT pieces(E'# A\n\none two three. Four five six. Seven eight nine ten eleven twelve thirteen fourteen fifteen.', 'section', 9);
SELECT pieces(E'One two three. Four five six. Seven.\n\nEight.\n\nNine.', 'paragraph', 8);
SELECT pieces(E'One two three four five six. Seven.', 'sentence', 4);
SELECT pieces('incomprehensibilities', 'paragraph', 2);

-- windows
SELECT pieces('one two three four five six seven eight nine ten', 'tokens', 4, 1);
SELECT pieces('one two three', 'tokens', 3), pieces('one two three', 'tokens', 1), pieces(' ', 'tokens', 1);
SELECT pieces('supercalifragilisticexpialidocious one two antidisestablishmentarianism x', 'tokens', 3, 2);
SELECT pieces('你好我是学生', 'tokens', 4, 1);
SELECT pieces('abcdefghij', 'characters', 4, 2), pieces('abcd', 'characters', 4, 3), pieces('abcde', 'characters', 2);
SELECT pieces('äöü€𝄞x ', 'characters', 2);

-- for every division: nothing but white space is lost, no piece is too long, none is empty
CREATE VIEW sample(body) AS SELECT string_agg(chr(CASE WHEN n * n % 7 = 0 THEN 10 WHEN n % 5 = 0 THEN 32 WHEN n % 11 = 0 THEN 46 WHEN n % 31 = 0 THEN 35 WHEN n % 13 = 0 THEN 19968 + n ELSE 65 + n * 37 % 58 END), '' ORDER BY n) FROM generate_series(1, 3000) n;
SELECT by, size,
  regexp_replace(body, '\s', '', 'g') = regexp_replace(array_to_string(p, ''), '\s', '', 'g') AS whole,
  (SELECT bool_and(p ~ '^\S(.*\S)?$' AND (size = 0 OR chaincall.estimate_tokens(p) <= size)) FROM unnest(p) p) AS pieces_fit, cardinality(p) > 1 AS cut
FROM sample, unnest(array['section', 'paragraph', 'sentence', 'tokens']) by, unnest(array[0, 1, 2, 7, 100]) size, LATERAL chaincall.split_text(body, by, size) p WHERE by <> 'tokens' OR size > 0 ORDER BY by COLLATE "C", size;
SELECT body = array_to_string(chaincall.split_text(body, 'characters', 7), '') AS same FROM sample;
-- windows go forward: each ends behind the one before it
SELECT size, overlap, bool_and(substr(body, 1, length(body)) LIKE '%' || replace(replace(p, '\', '\\'), '_', '\_') || '%') AS found, max(chaincall.estimate_tokens(p)) <= size AS fit, count(*) > 1 AS cut
FROM (SELECT translate(body, '%', 'x') FROM sample) s(body), (VALUES (2, 1), (10, 3), (10, 9)) v(size, overlap), LATERAL unnest(chaincall.split_text(body, 'tokens', size, overlap)) p GROUP BY 1, 2 ORDER BY 1, 2;

-- joining
SELECT chaincall.join_text(array['a', NULL, '', 'b'], '-'), chaincall.join_text('{}'), chaincall.join_text(array[NULL]::text[]), chaincall.join_text(array['a', 'b'], '');
SELECT replace(chaincall.join_text(array['a', 'b']), E'\n', '|'), chaincall.join_text(array[['a', 'b'], ['c', 'd']], ','), chaincall.join_text(NULL) IS NULL;

-- packing; the last row: the pack before gives one up so that no item stays alone
SELECT items, tokens, replace(array_to_string(chaincall.pack_text(items, tokens), ' / '), E'\n\n', ' + ') FROM (VALUES
  ('{}'::text[], 5), ('{a}', 5), ('{a,b,c,d,e}', 2), ('{a,b,c,d,e}', 100), ('{a a,b b,c}', 4), ('{a a a,b,c c}', 4), ('{a,NULL,b,NULL}', 1 + 1), ('{NULL}', 1), ('{"","",""}', 1),
  ('{a a a,b b b,c c c c,d d d d d d,e e e e e}', 10)) v(items, tokens);
SELECT fails(format('SELECT chaincall.pack_text(%L, %s)', items, tokens)) FROM (VALUES
  ('{a,b b b b b,c}', 4), ('{a,NULL,"b b b b b b b b b b b b b b b b b b b b b b b b b b b"}', 4), ('{a a a,b b b,c}', 4), ('{a a,b b b,c c}', 4), ('{aaaaaaaaaaa}', 1), ('{a}', 0), ('{a}', -1)) v(items, tokens);

-- wrong calls
SELECT fails(s) FROM unnest(array[
  $$SELECT chaincall.split_text('x', 'chapter')$$, $$SELECT chaincall.split_text('x', '')$$, $$SELECT chaincall.split_text('x', 'Section')$$,
  $$SELECT chaincall.split_text('x', 'tokens')$$, $$SELECT chaincall.split_text('x', 'characters', -1)$$, $$SELECT chaincall.split_text('x', 'section', -1)$$,
  $$SELECT chaincall.split_text('x', 'tokens', 5, 5)$$, $$SELECT chaincall.split_text('x', 'tokens', 5, -1)$$, $$SELECT chaincall.split_text('x', 'paragraph', 5, 1)$$,
  $$SELECT chaincall.split_text(repeat('x', 3000000), 'characters', 2000, 1999)$$]) s;
SELECT chaincall.split_text(NULL, 'section') IS NULL, chaincall.estimate_tokens(NULL) IS NULL, chaincall.pack_text(NULL, 5) IS NULL;

-- large, and made to be slow
SELECT cardinality(chaincall.split_text(t, by, 100)) FROM (VALUES ('sentence', repeat('. ', 500000)), ('sentence', repeat('A.', 500000)), ('section', repeat(E'1. \n\n', 300000)), ('section', repeat(E'* - *\n', 300000)),
  ('section', repeat(E'1. a\n\n1.1 b\n\n', 100000)), ('paragraph', repeat(E' \n', 500000)), ('tokens', repeat('x', 1000000)), ('tokens', repeat(' ', 1000000)), ('section', repeat('`', 1000000)), ('sentence', repeat('"', 1000000)), ('section', repeat(E'X\n', 500000))) v(by, t);

-- other encodings
\set here :DBNAME
SET client_min_messages = warning;
DROP DATABASE IF EXISTS chaincall_text_eucjp;
DROP DATABASE IF EXISTS chaincall_text_latin1;
CREATE DATABASE chaincall_text_eucjp ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
CREATE DATABASE chaincall_text_latin1 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;
\c chaincall_text_eucjp
\encoding UTF8
CREATE EXTENSION chaincall;
SELECT p, chaincall.estimate_tokens(p) FROM unnest(chaincall.split_text('日本語です。そうですか？はい！ 「いいえ。」ﾊﾝｶｸ Mixed. 終わり', 'sentence')) p;
SELECT chaincall.split_text('日本語　です。ab', 'characters', 3, 1), chaincall.split_text('日本語　です。ab', 'tokens', 3, 1);
\c chaincall_text_latin1
\encoding UTF8
CREATE EXTENSION chaincall;
SELECT chaincall.split_text(E'ÄÖÜÄ\n\nText.\n\n§ 1 Größe\nÉtude. Äpfel. élan', 'section'), chaincall.split_text('Étude. Äpfel. élan', 'sentence'), chaincall.split_text('äöüß', 'characters', 3), chaincall.estimate_tokens('Größe');
\c :here
DROP DATABASE chaincall_text_eucjp;
DROP DATABASE chaincall_text_latin1;
SET client_min_messages = warning;
DROP SCHEMA text_test CASCADE;
