SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS chaincall_test CASCADE;
RESET client_min_messages;
SET search_path = public, chaincall_test;
\pset format unaligned
\pset tuples_only on
\set SHOW_CONTEXT never

-- a request as it is sent, in three lines
CREATE FUNCTION pg_temp.sent(spec jsonb) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT unnest(ARRAY[e ->> 'url', (e -> 'headers')::text, (e -> 'body')::text]) FROM encode(spec) e
$$;
CREATE FUNCTION pg_temp.body(spec jsonb) RETURNS jsonb LANGUAGE sql AS $$ SELECT encode(spec) -> 'body' $$;
-- an answer with status 200
CREATE FUNCTION pg_temp.ok(spec jsonb, body text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT decode(spec, 200, convert_to(body, 'UTF8'), 'application/json')
$$;
CREATE FUNCTION pg_temp.status(status int, body text, type text DEFAULT 'application/json') RETURNS jsonb LANGUAGE sql AS $$
    SELECT decode('{"api": "openai", "key": "sk-secret", "messages": []}', status, convert_to(body, 'UTF8'), type)
$$;

-- openai: chat
SELECT pg_temp.sent('{"api": "openai", "url": "https://api.deepseek.com/v1", "name": "deepseek-chat", "key": "sk-1", "system": "Be \"brief\".\n", "messages": [{"role": "user", "content": "Hé\\ \u0001"}]}');
SELECT pg_temp.sent('{"api": "openai", "messages": [{"role": "user", "content": [{"text": "one"}, {"text": "two"}]}, {"role": "assistant", "content": "ok"}, {"role": "tool", "content": "5", "tool_call_id": "c1"}]}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "params": {"temperature": 0.5, "top_p": 1, "max_tokens": 300, "stop": ["a", "b"], "seed": 7, "reasoning": "low"}}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "params": {"temperature": null, "max_tokens": null, "stop": "x", "reasoning": "none"}}');
SELECT pg_temp.body('{"api": "openai", "url": "https://api.openai.com/v1", "messages": [], "params": {"max_tokens": 5}}');
SELECT pg_temp.body('{"api": "openai", "url": "https://api.openai.com.evil.example/v1", "messages": [], "params": {"max_tokens": 5}}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "params": {"max_tokens": 5}, "extra": {"max_completion_tokens": 6, "prompt_cache_key": "k"}}');
-- openai: a schema; where there is none, in words
SELECT pg_temp.body('{"api": "openai", "messages": [{"role": "user", "content": "x"}], "schema": {"type": "object"}}');
SELECT pg_temp.body('{"api": "openai", "url": "https://api.deepseek.com", "system": "S", "messages": [], "schema": {"type": "object"}}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "schema": {"type": "object"}, "extra": {"response_format": {"type": "json_object"}}}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "schema": {"type": "object"}, "extra": {"response_format": {"type": "json_schema", "more": 1}}}');
SELECT pg_temp.body('{"api": "openai", "messages": [], "schema": {"type": "object"}, "extra": {"response_format": null}}');
-- openai: embeddings and rerank
SELECT pg_temp.sent('{"api": "openai", "form": "input", "kind": "embedding", "name": "e", "body": "a text"}');
SELECT pg_temp.body('{"api": "openai", "form": "input", "kind": "embedding", "name": "e", "body": ["a", "b"], "extra": {"dimensions": 8}}');
SELECT pg_temp.sent('{"api": "openai", "form": "input", "kind": "rerank", "body": {"query": "q", "documents": ["a", "b"]}}');
-- openai: the provider's own body
SELECT pg_temp.sent('{"api": "openai", "form": "request", "name": "m", "body": {"messages": [], "n": 2}}');
SELECT pg_temp.body('{"api": "openai", "form": "request", "name": "m", "body": {"model": "own"}}');
SELECT pg_temp.body('{"api": "openai", "form": "request", "name": "m", "body": {}}');

-- what cannot be asked for
SELECT encode('{"api": "openai", "form": "input", "kind": "chat", "body": "x"}');
SELECT encode('{"api": "openai", "kind": "embedding", "messages": []}');
SELECT encode('{"api": "openai", "kind": "json", "form": "input", "body": "x"}');
SELECT encode('{"api": "openai", "kind": "image", "messages": []}');
SELECT encode('{"api": "openai", "form": "input", "kind": "embedding", "body": []}');
SELECT encode('{"api": "openai", "form": "input", "kind": "embedding", "body": ["a", 1]}');
SELECT encode('{"api": "openai", "form": "input", "kind": "rerank", "body": {"query": "q"}}');
SELECT encode('{"api": "openai", "form": "request", "body": [1]}');
SELECT encode('{"api": "openai", "form": "request", "body": {"stream": true}}');
SELECT encode('{"api": "openai", "messages": "x"}');
SELECT encode('{"api": "openai", "messages": [5]}');
SELECT encode('{"api": "openai", "messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}');
SELECT encode('{"api": "openai", "messages": [{"role": "user"}]}');
SELECT encode('{"api": "openai", "messages": [{"role": "user", "content": [{"image": "x"}]}]}');
SELECT encode('{"api": "openai", "messages": [], "extra": [1]}');
SELECT encode('{"api": "openai", "messages": [], "params": {"temprature": 1}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"temperature": "hot"}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"max_tokens": 0}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"max_tokens": 1e30}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"seed": 1.5}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"stop": ["a", 1]}}');
SELECT encode('{"api": "openai", "messages": [], "params": {"reasoning": "extreme"}}');

-- openai: answers
\set chat '{"api": "openai", "key": "sk-secret", "messages": []}'
\set object '{"api": "openai", "messages": [], "schema": {"type": "object"}}'
SELECT pg_temp.ok(:'chat', '{"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi \u00e9", "refusal": null, "reasoning_content": "hm"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": ""}}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": "Half"}, "finish_reason": "length"}], "usage": {"completion_tokens": 4096}}');
SELECT pg_temp.ok('{"api": "openai", "messages": [], "params": {"max_tokens": 7}}', '{"choices": [{"message": {"content": "Half"}, "finish_reason": "length"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": "Half"}, "finish_reason": "length"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": null, "refusal": "I cannot do that."}, "finish_reason": "stop"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": ""}, "finish_reason": "content_filter"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": null, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": null}}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"message": {"content": 5}}]}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"text": "x"}]}');
SELECT pg_temp.ok(:'chat', '{"choices": []}');
SELECT pg_temp.ok(:'chat', '{"choices": [{"finish_reason": "error", "error": {"message": "upstream"}}]}');
SELECT pg_temp.ok(:'chat', '{"error": {"message": "Rate limited", "code": 429}}');
SELECT pg_temp.ok(:'chat', '{"error": {"message": "No such model"}}');
SELECT pg_temp.ok(:'chat', '{"error": {"message": ""}}');
SELECT pg_temp.ok(:'chat', '{"usage": {"prompt_tokens": 1e300, "completion_tokens": -3}, "choices": [{"message": {"content": "x"}}]}');
SELECT pg_temp.ok(:'object', '{"choices": [{"message": {"content": "{\"a\": 1}"}}]}');
SELECT pg_temp.ok(:'object', '{"choices": [{"message": {"content": "<think>{hm}</think>\n```json\n{\"a\": 1}\n```\n"}}]}');
SELECT pg_temp.ok(:'object', '{"choices": [{"message": {"content": "Sure! Here it is: {\"a\": 1"}}]}');
SELECT pg_temp.ok(:'object', '{"choices": [{"message": {"content": ""}}]}');
SELECT pg_temp.ok(:'object', '{"choices": [{"message": {"content": "{\"a\": \"\\u0000\"}"}}]}');
-- openai: vectors and scores come in the order of what was asked
\set two '{"api": "openai", "form": "input", "kind": "embedding", "body": ["a", "b"]}'
SELECT pg_temp.ok(:'two', '{"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2.5e-3]}], "usage": {"prompt_tokens": 5, "total_tokens": 5}}');
SELECT pg_temp.ok(:'two', '{"data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}]}');
SELECT pg_temp.ok('{"api": "openai", "form": "input", "kind": "embedding", "body": "a"}', '{"data": [{"index": 0, "embedding": [1, 2]}]}');
SELECT pg_temp.ok('{"api": "openai", "form": "input", "kind": "embedding", "body": ["a"]}', '{"data": [{"index": 0, "embedding": [1, 2]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": [1, 2]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": [1]}, {"index": 2, "embedding": [1]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1, "x"]}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}]}');
SELECT pg_temp.ok(:'two', '{"data": [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}]}');
SELECT pg_temp.ok(:'two', '[]');
\set rank '{"api": "openai", "form": "input", "kind": "rerank", "body": {"query": "q", "documents": ["a", "b"]}}'
SELECT pg_temp.ok(:'rank', '{"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}');
SELECT pg_temp.ok(:'rank', '{"data": [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]}');
SELECT pg_temp.ok(:'rank', '{"results": [{"index": 1, "relevance_score": 0.9}]}');
SELECT pg_temp.ok(:'rank', '{"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0}]}');
SELECT pg_temp.ok('{"api": "openai", "form": "request", "body": {}}', '{"choices": [], "usage": {"prompt_tokens": 3}}');

-- anthropic
SELECT pg_temp.sent('{"api": "anthropic", "url": "https://api.anthropic.com", "name": "claude-haiku-4-5", "key": "sk-a", "system": "S", "messages": [{"role": "user", "content": "a"}, {"role": "user", "content": [{"text": "b"}, {"text": "c"}]}, {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}], "params": {"temperature": 0, "top_p": 0.9, "max_tokens": 300, "stop": "x", "seed": 1}}');
SELECT pg_temp.sent('{"api": "anthropic", "url": "https://gateway.example/anthropic/v1", "messages": [], "params": {"stop": ["x", "y"]}}');
SELECT pg_temp.body('{"api": "anthropic", "name": "claude-sonnet-4-5-20250929", "messages": [], "schema": {"type": "object"}}');
-- the budget is below max_tokens, and no tool forced while it thinks
SELECT pg_temp.body('{"api": "anthropic", "name": "claude-sonnet-4-5", "messages": [], "schema": {"type": "object"}, "params": {"reasoning": "high", "temperature": 0}}');
SELECT pg_temp.body('{"api": "anthropic", "name": "claude-3-7-sonnet-latest", "messages": [], "params": {"reasoning": "high", "max_tokens": 8000}}');
SELECT pg_temp.body('{"api": "anthropic", "name": "other-model", "messages": [], "params": {"reasoning": "minimal", "max_tokens": 100}}');
SELECT pg_temp.body('{"api": "anthropic", "name": "claude-opus-4-20250514", "messages": [], "params": {"reasoning": "none", "temperature": 1}}');
SELECT name, pg_temp.body(jsonb_build_object('api', 'anthropic', 'name', name, 'messages', '[]'::jsonb, 'schema', '{}'::jsonb, 'params', jsonb_build_object('temperature', 0, 'max_tokens', 9, 'reasoning', reasoning))) - '{model,messages,tools,max_tokens}'::text[]
    FROM unnest('{claude-3-5-sonnet-20241022,claude-opus-4-6,claude-opus-4-7,anthropic.claude-opus-5,claude-opus-5-5,claude-fable-5,claude-mythos-preview,claude-latest,glm-5}'::text[]) name,
         unnest('{NULL,none,medium}'::text[]) reasoning;
SELECT pg_temp.body('{"api": "anthropic", "messages": [], "params": {"reasoning": "low"}, "extra": {"cache_control": {"type": "ephemeral"}, "thinking": {"budget_tokens": 1500}}}');
SELECT pg_temp.sent('{"api": "anthropic", "form": "request", "name": "m", "body": {"max_tokens": 1, "messages": []}}');
SELECT encode('{"api": "anthropic", "form": "input", "kind": "embedding", "body": "x"}');
SELECT encode('{"api": "anthropic", "messages": [{"role": "tool", "content": "x"}]}');
\set chat '{"api": "anthropic", "messages": []}'
\set object '{"api": "anthropic", "messages": [], "schema": {"type": "object"}}'
SELECT pg_temp.ok(:'chat', '{"type": "message", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "Hi"}, {"type": "text", "text": " there"}], "stop_reason": "end_turn", "usage": {"input_tokens": 3, "cache_read_input_tokens": 100, "output_tokens": 4}}');
SELECT pg_temp.ok(:'object', '{"content": [{"type": "text", "text": "I will"}, {"type": "tool_use", "id": "t", "name": "answer", "input": {"a": [1]}}], "stop_reason": "tool_use"}');
SELECT pg_temp.ok(:'object', '{"content": [{"type": "text", "text": "```\n{\"a\": 1}\n```"}], "stop_reason": "end_turn"}');
SELECT pg_temp.ok(:'object', '{"content": [{"type": "text", "text": "I would rather not"}], "stop_reason": "end_turn"}');
SELECT pg_temp.ok(:'object', '{"content": [{"type": "tool_use", "name": "answer", "input": {"a": 1}}], "stop_reason": "max_tokens", "usage": {"output_tokens": 9}}');
SELECT pg_temp.ok(:'chat', '{"content": [], "stop_reason": "refusal"}');
SELECT pg_temp.ok(:'chat', '{"content": [], "stop_reason": "end_turn"}');
SELECT pg_temp.ok(:'chat', '{"content": "text"}');
SELECT pg_temp.ok(:'chat', '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}');

-- http: input is the body
SELECT pg_temp.sent('{"api": "http", "url": "http://h", "path": "/score", "form": "input", "kind": "json", "body": {"amount": 5}, "key": "k"}');
SELECT pg_temp.sent('{"api": "http", "form": "input", "kind": "json", "body": [1], "extra": null, "key": "k", "headers": {"X-Key": "Key {{api_key}} {{ api_key }}", "Content-Type": "application/vnd.x+json"}}');
SELECT pg_temp.sent('{"api": "http", "form": "input", "kind": "json", "body": [1], "headers": {"X": "y"}, "key": "k"}');
SELECT encode('{"api": "http", "form": "input", "kind": "json", "body": [1], "headers": {"X-Key": "{{api_key}}"}}');
-- http: a template
SELECT pg_temp.body('{"api": "http", "form": "input", "kind": "json", "name": "m1", "body": {"a": "{{model}}"}, "params": {"temperature": 0.5, "stop": null},
    "request": {"inputs": ["{{input}}", "{{params.stop}}"], "model": "{{ model }}", "t": "{{params.temperature}}", "left out": "{{params.top_p}}", "stop": "{{params.stop}}", "text": "for {{model}} at {{params.temperature}}: {{input}}", "n": [1, true, null, {}], "{{model}}": 1}}');
SELECT pg_temp.body('{"api": "http", "form": "input", "kind": "json", "body": "he said \"hi\"\n", "request": "{{input}}"}');
SELECT pg_temp.body('{"api": "http", "kind": "json", "system": "S", "messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": [{"text": "three"}, {"text": "four"}]}], "request": {"p": "{{prompt}}", "s": "{{system}}", "m": "{{messages}}", "q": "{{system}}: {{prompt}}"}}');
SELECT pg_temp.body('{"api": "http", "kind": "json", "messages": [{"role": "user", "content": "one"}], "request": {"p": "{{prompt}}", "s": "{{system}}"}, "extra": {"p": null, "z": 1}}');
SELECT pg_temp.body('{"api": "http", "form": "request", "kind": "json", "body": {"own": 1}, "request": {"p": "{{prompt}}"}}');
SELECT encode('{"api": "http", "kind": "json", "messages": []}');
SELECT encode('{"api": "http", "kind": "json", "messages": [], "request": {"x": "{{input}}"}}');
SELECT encode('{"api": "http", "kind": "json", "form": "input", "body": 1, "request": {"x": "{{prompt}}"}}');
SELECT encode('{"api": "http", "kind": "json", "form": "input", "body": 1, "request": {"x": "at {{params.seed}}"}}');
SELECT encode('{"api": "http", "kind": "json", "form": "input", "body": 1, "extra": {"a": 1}}');
-- http: the answer is where the path says
\set score '{"api": "http", "form": "input", "kind": "json", "body": 1, "answer": "$.outputs[0].score"}'
SELECT pg_temp.ok('{"api": "http", "form": "input", "kind": "json", "body": 1}', '{"score": 0.5}');
SELECT pg_temp.ok(:'score', '{"outputs": [{"score": 0.5}]}');
SELECT pg_temp.ok(:'score', '{"outputs": []}');
SELECT pg_temp.ok(:'score', '7');
SELECT pg_temp.ok('{"api": "http", "form": "input", "kind": "json", "body": 1, "answer": "$.t[*] ? (@.datetime() < \"2020-01-01 00:00:00+01\".datetime())"}', '{"t": ["2019-01-01"]}');
SELECT pg_temp.ok('{"api": "http", "form": "input", "kind": "embedding", "body": ["a", "b"], "answer": "$.v"}', '{"v": [[1], [2]]}');
SELECT pg_temp.ok('{"api": "http", "form": "input", "kind": "embedding", "body": ["a", "b"], "answer": "$.v"}', '{"v": [[1]]}');
SELECT pg_temp.ok('{"api": "http", "kind": "json", "messages": [], "answer": "$.text"}', '{"text": "hello"}');
SELECT pg_temp.ok('{"api": "http", "kind": "json", "messages": [], "answer": "$.text"}', '{"text": {"a": 1}}');
SELECT pg_temp.ok('{"api": "http", "kind": "json", "messages": [], "answer": "$.text", "schema": {}}', '{"text": {"a": 1}}');
SELECT pg_temp.ok('{"api": "http", "kind": "json", "messages": [], "answer": "$.text", "schema": {}}', '{"text": "{\"a\": 1}"}');

-- a status has a class
SELECT s, status_class(s, false), status_class(s, true)
    FROM unnest('{0,100,200,204,301,307,400,401,403,404,408,409,413,422,425,429,451,500,501,502,503,504,529,599}'::int[]) s;
-- and an answer without success a message, which holds neither key nor control characters
SELECT pg_temp.status(401, '{"error": {"message": "Incorrect API key provided: sk-secret.\u001b[31m\nSee", "type": "invalid_request_error"}}');
SELECT pg_temp.status(400, '{"error": "plain words"}');
SELECT pg_temp.status(404, '{"message": "not here"}');
SELECT pg_temp.status(422, '{"detail": [{"loc": ["body"], "msg": "field required"}]}');
SELECT pg_temp.status(422, '{"detail": "no"}');
SELECT pg_temp.status(400, '{"errors": [{"message": "first"}, {"message": "second"}]}');
SELECT pg_temp.status(400, '[{"error": {"code": 400, "message": "API key not valid"}}]');
SELECT pg_temp.status(400, '"a text"');
SELECT pg_temp.status(400, '{"error": {"message": "blocked", "code": "content_filter"}}');
SELECT pg_temp.status(400, '{"type": "error", "error": {"type": "invalid_request_error", "message": "Output blocked by content filtering policy"}}');
SELECT pg_temp.status(429, '{"error": {"message": "slow down"}}');
SELECT pg_temp.status(529, '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}');
SELECT pg_temp.status(500, '{"trace": "sk-secret", "n": 1}');
SELECT pg_temp.status(500, '');
SELECT pg_temp.status(502, '<html><head><title>502 Bad Gateway</title><style>p { color: red }</style></head>
<body><script>alert("<b>")</script><h1>502 Bad Gateway</h1><hr>nginx sk-secret</body></html>', 'text/html');
SELECT pg_temp.status(302, 'Moved');
SELECT length(pg_temp.status(500, repeat('é', 100000)) ->> 'message');
SELECT pg_temp.status(500, repeat(' ', 65530) || 'sk-secret, more');
SELECT decode('{"api": "openai", "key": "x", "messages": []}', 500, convert_to('x marks xxxx', 'UTF8'));

-- what is no JSON, or no JSON that can be held
SELECT pg_temp.ok('{"api": "openai", "messages": []}', body) FROM unnest(ARRAY['', 'OK', '<html>Welcome</html>', '{"choices": [{"mess',
    '{"choices": [{"message": {"content": "\u0000"}}]}', '{"choices": [{"message": {"content": "\ud800"}}]}', '{"a": 1e99999999}', '5', 'null', '"x"', '[]', '{}']) body;
SELECT decode('{"api": "openai", "messages": []}', 200, '\x7b2261223a2022ff227d');
SELECT decode('{"api": "openai", "messages": []}', 200, '\x7b2261223a202200227d');
SELECT decode('{"api": "openai", "messages": []}', 500, '\xfffe61c3a90062');
SELECT pg_temp.ok('{"api": "openai", "messages": []}', repeat('[', 100000)) ->> 'message' ~ '^the answer is nested too deeply: \[+\.\.\.$';
SELECT pg_temp.ok('{"api": "openai", "messages": []}', repeat('[', 100000) || repeat(']', 100000)) ->> 'class';
SELECT pg_temp.ok('{"api": "http", "form": "input", "kind": "json", "body": 1, "answer": "$.**"}', repeat('{"a":', 900) || '1' || repeat('}', 900)) ->> 'class';

-- mutated answers
SELECT fuzz_api(1, 20000) > 0;
