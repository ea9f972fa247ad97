-- Texts: cutting them into pieces and packing pieces together. Workers call the same code without SQL.

CREATE FUNCTION split_text(text text, by text, size int DEFAULT 0, overlap int DEFAULT 0) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_split_text';

COMMENT ON FUNCTION split_text(text, text, int, int) IS
'cuts a text into pieces, without white space at their ends, losing nothing but white space.
by section: at headings (# of Markdown, underlined, numbered as 1. 1.2 Section 4. Article IV or by a section sign, Roman
numbers and letters with a title, lines alone in capitals or centred); the text before the first is a piece, a title
without a body belongs to what follows; without a heading, at form feeds; without those the whole text is one piece.
by paragraph: at empty lines and form feeds.
by sentence: behind . ! ? before white space and no small letter, behind the full stops of Chinese and Japanese, and at
empty lines; common abbreviations, initials and decimals do not end one.
size, for these three: how many tokens (see estimate_tokens) a piece may have, 0 for any; a longer one is cut at
paragraphs, then sentences, then white space into pieces as full as may be. Short neighbours stay apart: see pack_text.
by tokens: windows of size tokens, cut at white space where possible, that share up to overlap tokens with the one before.
by characters: windows of exactly size characters, white space included, that share overlap characters.';

CREATE FUNCTION join_text(items text[], separator text DEFAULT E'\n\n') RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_join_text';

COMMENT ON FUNCTION join_text(text[], text) IS
'the items as one text with the separator between them; nulls are skipped';

CREATE FUNCTION pack_text(items text[], tokens int) RETURNS text[]
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_pack_text';

COMMENT ON FUNCTION pack_text(text[], int) IS
'packs consecutive items, with an empty line between them, so that no pack has more than so many tokens (see
estimate_tokens) and every pack but the last has at least two items; fails naming the item that is too long for that.
Nulls are skipped.';

CREATE FUNCTION estimate_tokens(text text) RETURNS int
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'chaincall_estimate_tokens';

COMMENT ON FUNCTION estimate_tokens(text) IS
'about how many tokens a model makes of a text, rather too many than too few: one for up to 6 ASCII letters of a word, up
to 3 digits, up to 2 letters of other scripts, each ideograph, kana or hangul syllable, and up to 4 equal punctuation
marks or symbols in a row; white space counts nothing';
