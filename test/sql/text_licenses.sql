-- split_text on what every Debian machine carries: the sections of long legal texts.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall;
RESET client_min_messages;
\pset format unaligned
\pset tuples_only on
CREATE TEMP TABLE license AS SELECT name, pg_read_file('/usr/share/common-licenses/' || name) AS body FROM unnest(array['GPL-3', 'GPL-2', 'LGPL-2.1', 'MPL-2.0', 'Apache-2.0', 'Artistic']) name;
SELECT name, n, left(regexp_replace(piece, '\s+', ' ', 'g'), 60) FROM license, unnest(chaincall.split_text(body, 'section')) WITH ORDINALITY p(piece, n) ORDER BY name COLLATE "C", 2;
SELECT name, by, size, regexp_replace(body, '\s', '', 'g') = regexp_replace(array_to_string(p, ''), '\s', '', 'g') AS whole,
  (SELECT max(chaincall.estimate_tokens(p)) FROM unnest(p) p) <= size AS fit
FROM license, unnest(array['section', 'paragraph', 'sentence', 'tokens']) by, unnest(array[20, 300]) size, LATERAL chaincall.split_text(body, by, size) p ORDER BY name COLLATE "C", by COLLATE "C", size;
-- as many words as a tokenizer makes tokens, and a little more
SELECT name, round(chaincall.estimate_tokens(body)::numeric / cardinality(regexp_split_to_array(trim(body), '\s+')), 1) AS tokens_per_word FROM license ORDER BY name COLLATE "C";
