CREATE FUNCTION yaml_json(body text) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_yaml_json';

CREATE FUNCTION yaml_tree(body text) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_yaml_tree';

CREATE FUNCTION yaml_bytes(body bytea) RETURNS jsonb
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_yaml_bytes';

CREATE FUNCTION yaml_nearest(word text, known text[]) RETURNS text
LANGUAGE C STRICT AS 'MODULE_PATHNAME', 'chaincall_test_yaml_nearest';
