-- Chains that the figures are measured on; :url is the stand-in model server.

CREATE EXTENSION chaincall;
CREATE SERVER stub FOREIGN DATA WRAPPER chaincall OPTIONS (api 'openai', url :'url');
INSERT INTO chaincall.model (name) VALUES ('fixed'), ('second');
INSERT INTO chaincall.endpoint (model, server, remote_name)
VALUES ('fixed', 'stub', 'fixed'), ('second', 'stub', 'delay-1000');

CREATE FUNCTION three(t text) RETURNS text LANGUAGE chaincall AS $chain$
steps:
  first:
    model: fixed
    prompt: "Say hello to {{t}}"
  next:
    model: fixed
    prompt: "Say hello to {{first}}"
  end:
    model: fixed
    prompt: "Say hello to {{next}}"
$chain$;

CREATE FUNCTION fan(n int) RETURNS int LANGUAGE chaincall AS $chain$
output: "{{answer.size()}}"
steps:
  answer:
    each: n
    max_parallel: 64
    model: fixed
    prompt: "Say hello to {{item}}"
$chain$;

CREATE FUNCTION wide(n int) RETURNS int LANGUAGE chaincall AS $chain$
output: "{{answer.size()}}"
steps:
  answer:
    each: n
    model: second
    prompt: "Say hello to {{item}}"
$chain$;

-- n runs of the chain of three, each timed by itself: the median in ms.
CREATE FUNCTION median_ms(n int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
  started timestamptz;
  times float8[];
BEGIN
  FOR i IN 1 .. n LOOP
    started := clock_timestamp();
    PERFORM three('you');
    times := times || 1000 * extract(epoch FROM clock_timestamp() - started)::float8;
  END LOOP;
  RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(times) t);
END
$$;
