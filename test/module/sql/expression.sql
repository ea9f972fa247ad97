SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on

-- what a call gives: its value, or SQLSTATE, message, detail and hint of its error
CREATE FUNCTION pg_temp.try(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE value text; m text; d text; h text;
BEGIN
	EXECUTE 'SELECT (' || call || ')::text' INTO value;
	RETURN coalesce(value, '(missing)');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN sqlstate || ': ' || m || coalesce(E'\n    detail: ' || nullif(d, ''), '') || coalesce(E'\n    hint: ' || nullif(h, ''), '');
END $$;
CREATE FUNCTION pg_temp.vars() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{
	"n": null, "t": "text", "i": 3, "f": 1.5, "yes": true, "no": false, "e": [], "eo": {},
	"o": {"a": 1, "b": {"c": "deep"}, "k e y": 2, "nul": null, "list": [10, 20, 30], "type": "a key", "to": 5},
	"hits": [{"title": "A", "score": 3}, {"title": "B", "score": 8}],
	"mixed": [{"x": 1}, {"y": 2}, null], "words": ["a", "b", "c"], "nums": [1, 2, 3], "nested": [[1, 2], [3]],
	"index": 1, "item": {"id": 7}, "round": 2, "big": 99999999999999999999, "half": 1.7, "holes": "{{t}} $1 \" ''",
	"nullable": [1, null, 3], "quote": "a\"b\\c"}'::jsonb $$;
CREATE FUNCTION pg_temp.ex(source text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('expr_value(%L, pg_temp.vars())', source)) $$;
CREATE FUNCTION pg_temp.miss(source text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('expr_or_missing(%L, pg_temp.vars())', source)) $$;
CREATE FUNCTION pg_temp.cond(source text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('expr_condition(%L, pg_temp.vars())', source)) $$;
CREATE FUNCTION pg_temp.tt(source text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('template_text(%L, pg_temp.vars())', source)) $$;
CREATE FUNCTION pg_temp.tj(source text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('template_json(%L, pg_temp.vars())', source)) $$;
CREATE FUNCTION pg_temp.jt(yaml text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('json_template(%L, pg_temp.vars())', yaml)) $$;
CREATE FUNCTION pg_temp.st(sql text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('sql_template(%L)', sql)) $$;
CREATE FUNCTION pg_temp.sp(sql text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.try(format('sql_param(%L, pg_temp.vars())', sql)) $$;

-- E1: names, and what they are not
SELECT name, expr_name(name) FROM unnest('{a,_,a_1,A,1a,a-b,"",é,item,index,round,error,last,exists,true,unknown,size,default,and}'::text[]) name;
SELECT s, pg_temp.try(format('expr_info(%L)', s)) FROM unnest(ARRAY[
	'a', 'a.b.c', 'a[0]', 'a[last]', 'a[last - 1]', 'a[index]', 'a[index + 1].b', 'a."k"', 'a[*]', 'a[*].b[*]', '(a)', 'a.*', 'a.**', 'a.**{2 to last}',
	'a.keyvalue()', 'a[0 to 1]', 'a[0, 1]', 'a ? (@ > b)', 'a.size()', 'a[*].size()', 'a[b.c]', 'a[b[*].c.size()]', '-a', '-a[*]', 'a + b', 'a * b',
	'a == b', 'a.b > 1 && !(c == "d")', 'a[*] == b[*]', 'a[*] == b', 'exists(a ? (@.x == b.y))', '(a == b) is unknown', '(a == b).type()',
	't starts with "x"', 't starts with u', 't like_regex "x" flag "i"', '"just $text.a == b"', '1', 'true', 'a == a.a', 'a.true', 'a.last.exists',
	'a.type', 'a.type()', 'a.datetime()', 'a.datetime("YYYY")', ' a ', E'\n a ', 'a.b ? (@.c[last] == 1).d', 'EXISTS(a)', 'a[LAST]']) s;
SELECT s, pg_temp.ex(s) FROM unnest(ARRAY[
	't', 'i', 'f', 'n', 'yes', 'o', 'o.a', 'o.b.c', 'o."k e y"', 'o.type', 'o.to', 'o.nul', 'o.list[0]', 'o.list[last]', 'o.list[last - 1]', 'o.list[index]',
	'o.list[index + 1]', 'o.list[index - 1]', 'o.list[round]', 'o.list[half]', 'hits[1].title', 'item.id', 'o . a', 'o["list"]', 'o.list [ 0 ]', 'o  .list  [ 7 ] + 1']) s;

-- E1: jsonpath does the rest
SELECT s, pg_temp.ex(s) FROM unnest(ARRAY[
	'i + 1', 'i * f', '-i', '-o.a', 'i % 2', 'nums.size()', 't.type()', 'o.list.type()', 'f.floor()', '(f - 2).abs()', '"1.5".double()', '(i + 1)', '(o).a', '(o.b).c',
	'hits[*].title', 'hits[*] ? (@.score > i).title', 'hits[*] ? (@.score > 100)', 'hits[0 to 1].title', 'hits[1, 0].title', 'o.b.*', 'o.b.**', 'eo.*',
	'e[*]', 'nested[*][*]', '-nums[*]', 'hits[*].size()', 'o.b.keyvalue().key', 'words[*] ? (@ == "b")', 'words[*] ? (@ starts with "c")',
	'words[*] ? (@ like_regex "[ab]")', 'i > 2', '!(i > 2)', 'i == 3 && t == "text"', 'i == 3 || n.x == 1', 'n == null', 'n >= 1', 'n != null && n.x == 1',
	'exists(hits[*] ? (@.score > 5))', 'exists(e[*])', '(n.x == 1) is unknown', 't like_regex "^TE" flag "i"', 't starts with "te"', '"text" starts with t',
	'quote == "a\"b\\c"', '"\u00e9\t\x41\u{1F600}\ud83d\ude00"', '"2024-05-01".datetime() < "2024-06-01".datetime()', 'hits[*] ? (@.title == "B" && @.score > i)[0]',
	'hits ? (@.size() > 1)[0].title', '1.', '.5 + 1e2', 'i <> 4', '(i == 3).type()', 'null', '"x"', '[', 'item.id == 7 && round < 3 && index == 1',
	'words[*] == "b" && nums[*] == 2 && yes == true && no == false && i == 3 && f < 2 && t != "" && o.a == 1', 'nums[nums[0]]', 'nums[hits[0].score - 1]']) s;

-- E1: what is refused, each with its line and a hint
SELECT left(s, 40), left(pg_temp.ex(s), 300) FROM unnest(ARRAY[
	'', '  ', '$', '$.o', '$o', 'o.$a', 'strict o.a', 'lax o.a', 'o.a == lax', 'Name', 'NULL', 'True', 'é', 'last', '@.a', 'o ? (@.a == last)', 'i = 3', 'i & 1', 'o | json',
	'yes and no', 'i == 1 and i == 2', 'i == 1 OR i == 2', 'not yes', 'not(yes)', 'i > 1 && not yes', '!yes', 'n is null', 'n IS NOT NULL', 'i in (1, 2)', 't like "%x"', 'i between 1 and 2',
	't == ''text''', 'o->>''a''', 'i::int', 'o;', 'o.#', 'i ==', '== i', 'i == == 3', 'i < 3 < 4', '(i', 'i)', 'o.', 'o.list[', 'o.list[0', 'o.list[]', 'o ? ', 'o ? (@.a)', 'hits ? (yes)',
	'yes && no', 'i > 1 && yes', 'yes || i > 1', '(i > 1) + 1', '(i > 1) == true', 'i + (i > 1)', 'exists(i > 1)', 'upper(t)', 'size(e)', 'default(1)', 't.upper()', 't.bigint()', 't.date()',
	't.size(1)', 't.replace("a", "b")', 't.decimal(3)', 'o.1', 'hits.0.title', '0x1F', '1_000', '007', '12abc', '1e', '1.5.type()', '1e999999', '"abc', '"\d"', '"\u00"', '"\ud83d"', '"\u0000"',
	't like_regex "("', 't like_regex "x" flag "k"', 't like_regex o', 't starts with o.b', 'o.list[0].last()', E'\n\ni >\n 1 &&\n @', 'o.**{a}', 'o a', 'i 1', 'if', 'flag', 'o is unknown', '(o) is unknown',
	'a' || repeat('.a', 200) || ' = 1', '/* x */ i', '!!(i > 1)', 'i ? (@ > 1', '"' || repeat('é', 200), 'exists']) s;

SELECT left(s, 5), left(pg_temp.ex(s), 33) FROM unnest(ARRAY[repeat('(', 100000), repeat('!(', 50000), repeat('-', 100000) || '1', repeat('a[', 100000)]) s;

-- E2, E3: errors name the path; what is missing is told from what is unfit
SELECT s, pg_temp.ex(s), pg_temp.miss(s) FROM unnest(ARRAY[
	'o.x', 'o.b.x', 'o.b.x.y', 'eo.a', 'hits[2]', 'hits[2].title', 'hits[index + 5]', 'hits[last - 2]', 'e[0]', 'e[last]', 'n.a', 'n[0]', 'o.nul.a', 'o.nul[0]', 'n[*]',
	't.a', 'i.a.b', 'hits.title', 't[0]', 'o[0]', 'o[*]', 't[*]', 'hits[t]', 'hits[n]', 'hits[big]', 'hits[index - 2]', 'mixed[*].x', 'mixed[0].y', 'nested[*][1]', 'o.list[half]', 'n', 'o.nul',
	'hits[*].x', 'nums[*].x', 'n.size()', 't.size()', 'o.x.size()', 'n.a + 1', 'o.x + i', 't + 1', 'n + 1', 'i / 0', '(o.x).y', '(o).x', 'hits[0 to 5].title', 'hits[0, 7]', 'hits[i + 1]',
	'hits[*] ? (@.score > 1).x', 'mixed[*] ? (@ != null).x', 'words[*] ? (@ != "").x', 'hits[*] ? (@.nosuch > 1)', 'o.x > 1', 'n.a == 1', 'o.x ? (@ > 1)', 'o.x.**', 'n.*', 't.*', 'nums[*] + 1', 'hits[*].score.x',
	'n ? (@ == 1)', 'o.nul.type()', 'exists(o.x)', 'hits[o.x]', 't.datetime()', 'o.list[nums.size() + 1]', '-t', '-n.a', '-words[*]', 'nums.**{5}']) s;
SELECT s, pg_temp.cond(s) FROM unnest(ARRAY[
	'i > 2', 'i < 2', 'yes', 'no', 'o.a == 1', 't == "text"', 'n == null', 'n != null', 'n >= 1', 'n == 1', 'i != null', 't > 3', 't == 3', 'o.x == 1', 'n.a == 1', 'n != null && n.a == 1', 'o == 1', 'hits == 1',
	't', 'n', 'i', 'o', 'hits[*].score', 'o.x', 'hits[*].score > 5', 'hits[*].score > 50', 'words[*] == 1', 'hits[*].score >= t', 'i / 0 > 1', 't.double() > 1', 'i + n > 1', '(t > 3) is unknown', 'i > 2 || t > 3', 'i < 2 && t > 3',
	'yes == true', 't like_regex "x"', 'i like_regex "x"', 'i starts with "3"', 'exists(hits[*] ? (@.score > t))', 'holes == "{{t}} $1 \" ''''"', 'true', 'o.x == 1 || i == 3', 'big > 1']) s;

-- a stored value and a freshly built one are the same bytes: they are hashed
SELECT bool_and(scalar_form(v)) FROM unnest('{null,true,false,"\"\"","\"text\"",0,-1.5,1e300,123456789012345678901234567890}'::jsonb[]) v;
-- many variables, of all types and lengths of names, in the object that jsonpath sees
SELECT expr_value('z == 1 && bb == "b" && a == null && ccc[0] == 1.5 && d.x == "y" && yy == true && e2[last][0] == -7 && longer_name == 1e20 && f == "" && b == "é"',
	'{"z": 1, "bb": "b", "a": null, "ccc": [1.5], "d": {"x": "y"}, "yy": true, "e2": [[], [-7]], "longer_name": 1e20, "f": "", "b": "é"}');

-- T1: holes
SELECT s, pg_temp.tt(s) FROM unnest(ARRAY[
	'', 'plain', '{{t}}', 'a {{t}} b {{ i }} c', '{{t}}{{t}}', '{{"{{"}}t}}', 'x }} y', '{ {t} }', '{{holes}}', '{{t}', '{{', E'one\ntwo {{ t\n\n', 'a {{t', '{{"}}', '{{}}', '{{ }}', '{{"a}}b"}}', '{{o."}}"}}',
	'{{{t}}}', '{{o.b.**{1}[0]}}', '{{t {{i}} }}', '{{"\""}}', E'{{\n  t\n}}', E'x\n{{\n  o.\n  1}}', E'x\n{{t}}\n{{Name}}', '{{"a" | json}}', '{{1}}{{true}}{{null | default("none")}}', 'é{{t}}ü', '{{ "\u007b\u007b" }}', '$1 {{t}} \1 %s']) s;
-- T3: as text
SELECT s, pg_temp.tt(s) FROM unnest(ARRAY[
	'{{t}}', '{{i}}', '{{f}}', '{{yes}}', '{{o.b}}', '{{words}}', '{{nested}}', '{{hits}}', '{{e}}', '[{{e}}]', '{{eo}}', '{{n}}', '{{o.nul}}', '{{nullable}}', '{{nullable[*]}}', '{{hits[*].title}}', '{{i > 2}}', '{{i + 1}}', '{{big}}', '{{quote}}', '{{mixed}}']) s;
-- T2: alone it keeps its type
SELECT s, pg_temp.tj(s) FROM unnest(ARRAY[
	'', 'plain', '{{t}}', '{{i}}', '{{n}}', '{{o.b}}', '{{words}}', '{{e}}', '{{yes}}', '{{i > 2}}', ' {{i}}', '{{i}} ', '{{i}}{{i}}', 'n: {{i}}', 'n: {{n}}', '{{"{{"}}', '{{"x" | json}}', '{{o.x}}', E'{{i}}\n', '{{nullable}}', '{{hits[*].score}}', '{{ i }}']) s;
-- filters
SELECT s, pg_temp.tj(s) FROM unnest(ARRAY[
	'{{n | default("d")}}', '{{o.x | default("d")}}', '{{n.x.y | default("d")}}', '{{e | default("d")}}', '{{t | default("d")}}', '{{no | default(true)}}', '{{eo | default(1)}}', '{{"" | default("d")}}', '{{o.x | default(i)}}', '{{o.x | default(o.y) | default(o.a)}}',
	'{{o.x | default(o.y)}}', '{{o.x | default(n)}}', '{{o.x | default(null)}}', '{{n|default(words)|join("+")}}', '{{o.x | default(i + 1)}}', '{{o.x | default(hits[*] ? (@.score > i || @.score == 3).title)}}', '{{t.a | default(1)}}', '{{hits[9].title | default("none")}}',
	'{{hits[*].x | default("none")}}', '{{hits[*] ? (@.score > 99).title | default("none")}}', '{{n > 1 | default("none")}}', '{{o.x > 1 | default("none")}}', '{{t > 1 | default("none")}}',
	'{{words | join(", ")}}', '{{words | join("")}}', '{{e | join(", ")}}', '{{nested | join(";")}}', '{{nums | join("|")}}', '{{n | join(",")}}', '{{nullable | join(",")}}', '{{t | join(",")}}', '{{hits[*].title | join("}}")}}', '{{n | join(",") | default("d")}}', '{{o.x | first(1) | join(",") | default("d")}}',
	'{{o.b | json}}', '{{t | json}}', '{{n | json}}', '{{words | json | truncate(4)}}', '{{words | json()}}', '{{o.x | json | default(1)}}',
	'{{t | truncate(2)}}', '{{t | truncate(0)}}', '{{t | truncate(99)}}', '{{"äöü€😀x" | truncate(5)}}', '{{words | truncate(4)}}', '{{i | truncate(1)}}', '{{n | truncate(1)}}',
	'{{nums | first(2)}}', '{{nums | first(0)}}', '{{nums | first(9)}}', '{{nested | first(1)}}', '{{hits | first(1)}}', '{{t | first(1)}}', '{{o | first(1)}}', '{{n | first(1)}}', '{{nums | first(0) | default("d")}}', '{{nums | first(2) | join("-") | truncate(2) | json}}', '{{i > 2 || no == true | json}}']) s;
SELECT s, pg_temp.tj(s) FROM unnest(ARRAY[
	'{{t | upper}}', '{{t | defualt("x")}}', '{{t | Default("x")}}', '{{t | }}', '{{ | json}}', '{{t | | json}}', '{{t | "json"}}', '{{t | default}}', '{{t | default()}}', '{{t | default(1, 2)}}', '{{t | default("a" | json)}}', '{{t | join}}', '{{t | join(1)}}', '{{t | join(t)}}', '{{t | join("a", "b")}}',
	'{{t | json(1)}}', '{{t | truncate}}', '{{t | truncate(-1)}}', '{{t | truncate("1")}}', '{{t | truncate(1.5)}}', '{{t | truncate(9999999999)}}', '{{t | first(n)}}', '{{t | json json}}', '{{t | json; }}', '{{t | default("x") "y"}}', '{{t | default("x"))}}', '{{i == 1 | i == 2}}', '{{t | default(''x'')}}', E'a\n{{t\n | default(\n$x)}}']) s;
SELECT s, pg_temp.try(format('template_names(%L)', s)) FROM unnest(ARRAY['', 'a', '{{"{{"}}', '{{a}} {{b.c | default(d) | default("e")}}', '{{a[b] | first(1)}}{{a}}']) s;

-- the null table: text, JSON, condition, each, sql
SELECT what, pg_temp.tt('{{' || s || '}}') AS "text", pg_temp.jt(format('{v: "{{%s}}"}', s)) AS "json", pg_temp.cond(s || ' == null') AS "== null", pg_temp.cond(s || ' >= 1') AS ">= 1", pg_temp.cond(s || '.a == 1') AS ".a",
	pg_temp.ex(s) AS "each", pg_temp.sp('SELECT {{' || s || '}}') AS "sql"
FROM (VALUES ('null', 'n'), ('missing key', 'o.x'), ('missing index', 'hits[5]'), ('below null', 'n.x'), ('empty array', 'e'), ('with null in it', 'nullable')) AS t(what, s) \gx
SELECT what, pg_temp.tt('{{' || s || ' | default("d")}}') AS "text", pg_temp.jt(format(E'v: ''{{%s | default("d")}}''', s)) AS "json", pg_temp.sp('SELECT {{' || s || ' | default("d")}}') AS "sql"
FROM (VALUES ('null', 'n'), ('missing key', 'o.x'), ('missing index', 'hits[5]'), ('below null', 'n.x'), ('empty array', 'e'), ('with null in it', 'nullable')) AS t(what, s) \gx

-- JSON templates
SELECT s, pg_temp.jt(s) FROM unnest(ARRAY[
	'plain', '42', 'true', 'null', '"42"', '"{{i}}"', '"{{n}}"', '{a: 1, b: [x, 2, null, {c: "d"}]}', '{a: "{{i}}", b: ["{{t}}", "n {{i}}", 1.50, "{{words}}"], c: {d: {e: "{{o.b}}"}}}', E'a: |\n  {{t}}\nb: >-\n  {{i}}', '[]', '{}', '[[], {}, "{{e}}"]', '{"{{t}}": 1}', E'a: 1\nb:\n  - "x{{t}}": 1',
	'{a: "{{"}', '{a: "{{o.x}}"}', '{a: ''{{o.x | default("no")}}'', b: ''{{"{{"}} {{t}}''}', '[''{{"{{"}}'', x]', E'a: 1\nb: 2\nc: "{{x y}}"', '{b: 1, a: "{{i}}", aa: no}', '{a: "{{holes}}"}', '{a: "{{n}} "}']) s;
SELECT json_template('{a: "{{i}}", b: ["{{t | default(n)}}", {c: "x {{o.b}}"}], d: 1}', NULL);

-- SQL templates
SELECT s, pg_temp.st(s) FROM unnest(ARRAY[
	'SELECT 1', 'SELECT {{t}}', 'SELECT title FROM kb WHERE topic = {{o.b.c}} ORDER BY embedding <=> {{nums}}::vector LIMIT 5', 'SELECT {{i}},{{i}}', 'SELECT {{i}}5, a{{i}}, {{i}}a, {{i}}{{t}}, x.{{i}}, {{i}}$$a$$',
	'SELECT ''a '' || {{t}}', 'SELECT ''a {{t}}''', 'SELECT ''it''''s {{t}}''', 'SELECT ''it''''s'' || {{t}}', 'SELECT ''a\'' || {{t}}', 'SELECT E''a\'' {{t}}''', 'SELECT E''a\''b'' || {{t}}', 'SELECT e''\\'' || {{t}}', 'SELECT E''a''''b\'''' || {{t}}', E'SELECT E''a''\n ''b\\'' {{t}}''', E'SELECT E''a'' -- x\n ''b\\''c'' || {{t}}', E'SELECT ''a''\n ''b\\'' || {{t}}',
	'SELECT name''x'' || {{t}}', 'SELECT somee''\'' || {{t}}', 'SELECT U&''\0041 {{t}}''', 'SELECT U&''\'' || {{t}}', 'SELECT U&"a" || {{t}}', 'SELECT B''01'' || {{t}}', 'SELECT N''\'' || {{t}}',
	'SELECT "a{{t}}"', 'SELECT "a""b" || {{t}}', 'SELECT $$ {{t}} $$', 'SELECT $$ a $$ || {{t}}', 'SELECT $x$ $$ {{t}} $$ $x$', 'SELECT $x$ $y$ $x$ || {{t}}', 'SELECT a$b$ || {{t}} || $b$', 'SELECT 1$a$ {{t}} $a$', 'SELECT $é$ '' $é$ || {{t}}',
	E'SELECT 1 -- {{t}} ''\n + {{i}}', 'SELECT 1 /* {{t}} '' /* nested */ " */ + {{i}}', 'SELECT 1 /* /* */ {{t}}', 'SELECT 4 */* x */ {{i}}', 'SELECT 1--{{', 'SELECT $1', 'SELECT {{i}} + $12', 'SELECT a$1 + {{i}}', 'SELECT $', 'SELECT {{ o."a b" }}', 'SELECT {{o."''"}} || ''x''',
	E'SELECT\n  {{\n i }},\n''{{t}}''', E'SELECT {{i}},\n\n{{x y}}', 'SELECT {{i', 'SELECT ''{{1,2},{3,4}}''::int[]', 'SELECT 1e5{{i}}', 'SELECT ''unclosed {{', 'SELECT "unclosed', '{{i | default(0)}}', 'SELECT {{hits[*].title | join(",")}} }}', 'SELECT 1 $', 'SELECT a.$1', '''', '/*', '$a$', 'E''\']) s;
SELECT s, pg_temp.sp(s) FROM unnest(ARRAY['{{t}}', '{{n}}', '{{o}}', '{{e}}', '{{o.x}}', '{{o.x | default(null)}}', '{{words | join(",")}}', '{{i > 2}}', '{{"x"}}']) s;
