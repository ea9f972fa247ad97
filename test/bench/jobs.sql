-- Chains and helpers that the figures of jobs are measured on.

CREATE TABLE account (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO account SELECT g, 0 FROM generate_series(1, 10000) g;

CREATE FUNCTION mixed(id int) RETURNS int LANGUAGE chaincall AS $chain$
output: "{{paid}}"
steps:
  first:
    model: fixed
    prompt: "Say hello to {{id}}"
  paid:
    sql: UPDATE account SET n = n + 1 WHERE id = {{id}} RETURNING n
    returns: value
    after: first
  end:
    model: fixed
    prompt: "Say hello to {{paid}}"
$chain$;

CREATE FUNCTION slow(id int) RETURNS text LANGUAGE chaincall AS $chain$
model: second
prompt: "Say hello to {{id}}"
$chain$;

-- No call at all: what is left is the claim, and the end.
CREATE FUNCTION nothing(id int) RETURNS int LANGUAGE chaincall AS $chain$
value: "{{id}}"
$chain$;

-- What is parked.
CREATE FUNCTION asking(id int) RETURNS text LANGUAGE chaincall AS $chain$
ask: "What is {{id}}?"
$chain$;

CREATE FUNCTION resting(id int) RETURNS text LANGUAGE chaincall AS $chain$
wait: 30 days
$chain$;

-- Until no job is queued or running.
CREATE PROCEDURE drained() LANGUAGE plpgsql AS $$
BEGIN
  WHILE EXISTS (SELECT FROM chaincall.job WHERE state = 'queued')
     OR EXISTS (SELECT FROM chaincall.job WHERE state = 'running') LOOP
    COMMIT;
    PERFORM pg_sleep(0.02);
  END LOOP;
END
$$;

-- n jobs one after another: milliseconds from the commit of each INSERT until its result is here.
CREATE PROCEDURE one_by_one(n int, INOUT p50 float8, INOUT p99 float8) LANGUAGE plpgsql AS $$
DECLARE
  id uuid;
  started timestamptz;
  times float8[];
BEGIN
  FOR i IN 1 .. n LOOP
    INSERT INTO chaincall.job (chain, input) VALUES ('three', jsonb_build_object('t', i)) RETURNING job.id INTO id;
    COMMIT;
    started := clock_timestamp();
    PERFORM chaincall.result(id);
    times := times || 1000 * extract(epoch FROM clock_timestamp() - started)::float8;
  END LOOP;
  SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t), percentile_cont(0.99) WITHIN GROUP (ORDER BY t)
    INTO p50, p99 FROM unnest(times) t;
END
$$;

-- Ten jobs of a role at once, n times over: the 99th percentile of the time from their commit to the end of each, ms.
CREATE PROCEDURE ten_at_once(role text, n int, INOUT p99 float8) LANGUAGE plpgsql AS $$
DECLARE
  ids uuid[];
  times float8[];
  job uuid;
  committed timestamptz;
BEGIN
  FOR i IN 1 .. n LOOP
    EXECUTE format('SET ROLE %I', role);
    WITH made AS (
      INSERT INTO chaincall.job (chain, input) SELECT 'three', jsonb_build_object('t', g) FROM generate_series(1, 10) g RETURNING id
    ) SELECT array_agg(id) INTO ids FROM made;
    RESET ROLE;
    COMMIT;
    committed := clock_timestamp();
    FOREACH job IN ARRAY ids LOOP
      PERFORM chaincall.result(job);
    END LOOP;
    SELECT times || array_agg(1000 * extract(epoch FROM finished_at - committed)::float8) INTO times
      FROM chaincall.job WHERE id = ANY (ids);
  END LOOP;
  SELECT percentile_cont(0.99) WITHIN GROUP (ORDER BY t) INTO p99 FROM unnest(times) t;
END
$$;

-- Two thousand owners with a few jobs each.
CREATE PROCEDURE owners(n int) LANGUAGE plpgsql AS $$
BEGIN
  CREATE ROLE bench_owner NOLOGIN;
  PERFORM chaincall.grant_usage('bench_owner');
  FOR i IN 1 .. n LOOP
    EXECUTE format('CREATE ROLE %I IN ROLE bench_owner', 'owner_' || i);
  END LOOP;
END
$$;
CREATE PROCEDURE enqueue_for_owners(owners int, jobs int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. owners LOOP
    EXECUTE format('SET LOCAL ROLE %I', 'owner_' || i);
    INSERT INTO chaincall.job (chain, input) SELECT 'nothing', jsonb_build_object('id', g) FROM generate_series(1, jobs) g;
  END LOOP;
END
$$;

CREATE ROLE bench_small;
CREATE ROLE bench_large;
SELECT chaincall.grant_usage('bench_small'), chaincall.grant_usage('bench_large');
GRANT USAGE ON FOREIGN SERVER stub TO bench_small, bench_large;
CALL owners(2000);
