SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on

-- types: JSON's forms only
SELECT yaml_json('[no, yes, on, y, 0777, 0x1F, 0o17, 1:30, 2024-05-01, +1, .5, 1., 1_000, .inf, .nan, True, NULL, Null]');
SELECT yaml_json('[0, -0, 7, -12, 1.50, 1e3, 1E-2, 0.1e+2, true, false, null, ~, ]');
SELECT yaml_json('["0", ''1'', "true", "null", "~", ""]');
SELECT yaml_json('{a: , b: ~, c: null, d: ""}');
SELECT yaml_json('just text');
SELECT yaml_json('42');
SELECT yaml_json('{"a": {"b": [1, 2.5, "\u00e4\n", null, true]}, "c": "\/"}');
SELECT yaml_json(E'a: |\n  one\n   two\n\nb: >-\n  three\n  four\nc: five\n  six');

-- lines, source texts, keys
SELECT yaml_tree(E'\nmodel: small\nmax: 0777\nvalue: 1.50\nsql: |\n  SELECT 1\n\n  , 2\nlist:\n- a\n- {b: c, "d": [e]}\n"k e y": ''it''''s''');
SELECT yaml_tree(E'a: 1\r\nb: |\r\n  x\r\n  y\r\n');
SELECT yaml_tree(E'--- # one document may be marked\na: 1\n...\n');
SELECT yaml_tree(E'\uFEFFa: 1');

-- the same by aliases
SELECT yaml_tree(E'a: &x {b: 1}\nc: *x\nd: [*x, &y z, *y]');

-- duplicate keys, at any depth, however written
SELECT yaml_json(E'model: a\nprompt: x\nmodel: b');
SELECT yaml_json(E'steps:\n  a:\n    params: {x: 1, "x": 2}');
SELECT yaml_json(E'- 1\n- a: 1\n  ''a'': 1');

-- tabs
SELECT yaml_json(E'a:\n\tb: 1');
SELECT yaml_json(E'a:\n  b: 1\n \tc: 1');
SELECT yaml_json(E'a:\tb');
SELECT yaml_json(E'a: 1\t');
SELECT yaml_json(E'a: [1,\t2]');
SELECT yaml_json(E'a: b\tc');
SELECT yaml_json(E'a: |\t\n  x');
SELECT yaml_json(E'a: |\n\tx');
SELECT yaml_json(E'a: b\n\tc');
SELECT yaml_json(E'a: "b\tc"\nd: ''\t''\ne: |\n  f\tg\n  \th\n# i\tj\nk: l # m\tn\no: >\n  p\tq\n');

-- tags
SELECT yaml_json('a: !!str 1');
SELECT yaml_json('a: !important read this');
SELECT yaml_json('a: ! 1');
SELECT yaml_json('[!x {}]');
SELECT yaml_json('a: &b !!map {}');
SELECT yaml_json('!k a: 1');
SELECT yaml_json('a: !e!x 1');
SELECT yaml_json('a: !<x 1');
SELECT yaml_json('a: "!"');

-- documents and directives
SELECT yaml_json(E'a: 1\n---\nb: 1');
SELECT yaml_json(E'a: 1\n...\nb: 1');
SELECT yaml_json(E'%YAML 1.1\n---\na: 1');
SELECT yaml_json(E'%TAG !e! tag:x\n---\na: 1');
SELECT yaml_json(E'%x\n---\na: 1');
SELECT yaml_json(E'prompt: |\n%d items');
SELECT yaml_json(E'"a"\nb: 1');

-- merge keys
SELECT yaml_json(E'a: &x {b: 1}\nc:\n  <<: *x\n  d: 1');
SELECT yaml_json(E'"<<": 1');

-- texts that a comment cuts
SELECT yaml_json('prompt: issue #42');
SELECT yaml_json('system: issue #42');
SELECT yaml_json('ask: say "hi" #42');
SELECT yaml_json('sql: SELECT a #> b');
SELECT yaml_json(E'steps:\n  a:\n    messages:\n      - {role: user, content: issue #42\n        }');
SELECT yaml_json(E'steps:\n  - text: issue # 42');
SELECT yaml_json(E'prompt: one\n  two #three');
SELECT yaml_json('prompt: #42');
SELECT yaml_json(E'prompt: "issue" #42\nmodel: a # b\nsystem: C#\nsql: | # c\n  d # e\ncontent: # f\n  - text: a#b');

-- templates without quotes
SELECT yaml_json('prompt: {{x}}');
SELECT yaml_json('prompt: {{ x | default("none") }} and more # not this');
SELECT yaml_json(E'steps:\n  a:\n    each: b\n    value: {{it''s}}');
SELECT yaml_json(E'images:\n  - {{x}}');
SELECT yaml_json('images: [{{x}}, "{{y}}"]');
SELECT yaml_json('args: {a: 1, text: {{x}}, b: 2}');
SELECT yaml_json(E'args: {\n  "text": {{x}},\n  "b": 2}');
SELECT yaml_json('{{x}}: 1');
SELECT yaml_json('{{x}}');
SELECT yaml_json('prompt: {{x}} % y: @z');
SELECT yaml_json('prompt: {{x["a: b"]}}: c');
SELECT yaml_json(E'prompt:\n  {{x}}');
SELECT yaml_json('[a {{x}}, b]');
SELECT yaml_json(E'prompt: see {{x}}\nvalue: ["{{y}}", ''{{z}}'', {a: "{{b}}"}]\nsql: |\n  {{x}}');

-- keys
SELECT yaml_json('? [a]
: 1');
SELECT yaml_json('{{a: 1}: 2}');
SELECT yaml_json('{[a]: 2}');
SELECT yaml_json(E'a: &x b\n*x : 1');
SELECT yaml_json(': 1');
SELECT yaml_json('&a b: 1');
SELECT yaml_json('{1: a, true: b, null: c, 2.50: d}');

-- nothing, and what is no text
SELECT yaml_json('');
SELECT yaml_json(E'\n  \n# nothing\n');
SELECT yaml_json('---');
SELECT yaml_json(E'a: 1\nb: \u0001');
SELECT yaml_json(E'a: 1\nb: x\u2028y');
SELECT yaml_json(E'a: 1\nb: x\u0085y');
SELECT yaml_json(E'a: 1\nb: "\\u2028 \\0"');
SELECT yaml_bytes('a: 1\012b: \377');
SELECT yaml_bytes('a: 1\012b: \355\240\200');
SELECT yaml_json(repeat('# 345678901234567890123456789012', 32768) || ' a');
SELECT yaml_json('a: "\ud83d\ude00"');
SELECT yaml_json('a: "\q"');
SELECT yaml_json('a: "\xzz"');

-- depth and aliases
SELECT length(yaml_json(repeat('[', 100) || repeat(']', 100))::text);
SELECT yaml_json(repeat('[', 101) || repeat(']', 101));
SELECT yaml_json(repeat('[', 100000));
SELECT yaml_json(repeat('- ', 101) || 'a');
SELECT yaml_json(repeat('{a: ', 101) || repeat('}', 101));
SELECT yaml_json(E'a: &x ' || repeat('[', 60) || repeat(']', 60) || E'\nb: ' || repeat('[', 50) || '*x' || repeat(']', 50));
SELECT jsonb_array_length(yaml_json('[&a b' || repeat(', *a', 9998) || ']'));
SELECT yaml_json('[&a b' || repeat(', *a', 9999) || ']');
SELECT yaml_json('[&a b' || repeat(E'\n, *a', 100000) || ']');
SELECT yaml_json(E'a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: [*d, *d]');
SELECT jsonb_array_length(yaml_json('[b' || repeat(', a', 99999) || ']'));
SELECT yaml_json('a: &x [1, *x]');
SELECT yaml_json('a: *nobody');
SELECT yaml_json(E'a: &x 1\nb: &x 2');
SELECT yaml_json('a: &' || repeat('x', 64) || ' 1');

-- numbers that nobody means; as text they are fine
SELECT yaml_json(E'a: 1\nb: 1e401');
SELECT yaml_json('[1e99999999999999999999]');
SELECT yaml_json('[' || repeat('9', 401) || ']');
SELECT yaml_tree('1e99999');

-- what libyaml finds
SELECT yaml_json('prompt: Translate: {{text}}');
SELECT yaml_json(E'steps:\n  - when: a == "b: c"');
SELECT yaml_json(E'prompt: one\n  two: three');
SELECT yaml_json('a: - b');
SELECT yaml_json('a: ? b');
SELECT yaml_json('a: @b');
SELECT yaml_json('a: `b`');
SELECT yaml_json('a: %b');
SELECT yaml_json('a: **bold** text');
SELECT yaml_json('a: &');
SELECT yaml_json(E'prompt: |\nno indent\nat all');
SELECT yaml_json('a: "b');
SELECT yaml_json(E'a: ''it''s''\nb: 1');
SELECT yaml_json(E'a: "b\n--- c"');
SELECT yaml_json('a: | b');
SELECT yaml_json(E'a: |0\n  b');
SELECT yaml_json('a: [b, c');
SELECT yaml_json('a: {b: c');
SELECT yaml_json('a: {b: text[]}');
SELECT yaml_json('a: "b" c');
SELECT yaml_json(E'a: 1\n b: 2');
SELECT yaml_json(E'- a\nb: 1');
SELECT yaml_json('a: ]');
SELECT yaml_json('a: [b: c: d]');
SELECT yaml_json('{a: b:}');
SELECT yaml_json(E'a: 1\nb: \x7f');

-- nearest word
SELECT yaml_nearest('promt', '{model,prompt,params}'), yaml_nearest('retrun', '{returns,retry,request}'),
       yaml_nearest('xyz', '{model,prompt}') IS NULL, yaml_nearest('', '{a}') IS NULL,
       yaml_nearest('model', '{model}'), yaml_nearest('ab', '{cd,ax}'), yaml_nearest('prömpt', '{prompt}'),
       yaml_nearest(repeat('x', 1000), '{x}') IS NULL;

-- nonsense by the thousand; libyaml's memory comes back
SELECT fuzz_yaml(1, 10000) LIKE '10000 bodies: % good, % refused';
