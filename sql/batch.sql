-- Statements over many images run them in rounds, through a plan node, with the results of
-- row-by-row evaluation.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SET client_min_messages = warning;
\set g :testdata '/edges2emoji/G.pth'
\set e :testdata '/edges2emoji/E.pth'
SELECT bicycle_import('batch', pg_read_binary_file(:'g'), pg_read_binary_file(:'e'));
SET bicycle.model = 'batch';
CREATE TABLE shoes (id int PRIMARY KEY, sketch bytea, photo bytea, variant bytea, style float4[],
	kind text);
\set a :testdata '/edges2emoji/pairs/'
INSERT INTO shoes (id, sketch, photo, kind)
	SELECT i, pg_read_binary_file(:'a' || to_char(i % 4, 'FM00') || '_A.png'),
		pg_read_binary_file(:'a' || to_char(i % 4, 'FM00') || '_B.png'),
		   CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END
	FROM generate_series(1, 12) i;
ANALYZE shoes;

-- The node stands over whatever computes the arguments, also under ModifyTable.
EXPLAIN (COSTS OFF) UPDATE shoes SET variant = bicycle_translate(sketch, bicycle_latent(8, id));
EXPLAIN (COSTS OFF, VERBOSE)
	SELECT id, length(bicycle_translate(sketch, bicycle_latent(8, id), 'batch', 1)) FROM shoes
	WHERE kind = 'odd';
-- A limit is below it, so that no more images are computed than asked for.
EXPLAIN (COSTS OFF) SELECT bicycle_translate(sketch, bicycle_latent(8, id)) FROM shoes LIMIT 3;
EXPLAIN (COSTS OFF) SELECT bicycle_encode(photo) FROM shoes ORDER BY id DESC LIMIT 3;

-- It stands below aggregates, whatever computes their rows, and once for a call that two of them
-- take; other columns and conditions of the aggregate see what they saw.
EXPLAIN (COSTS OFF, VERBOSE)
	SELECT kind, bicycle_mean(bicycle_encode(photo)), count(bicycle_encode(photo)) FROM shoes
	WHERE id > 2 GROUP BY kind HAVING max(length(bicycle_translate(sketch, '{0,0,0,0,0,0,0,0}')))
	> 0;
EXPLAIN (COSTS OFF) SELECT count(bicycle_check(photo)) FROM (SELECT photo FROM shoes LIMIT 3) AS x;
-- PostgreSQL 16 and later sort below aggregates; the plans shown are without that.
SELECT count(set_config(name, 'off', false)) < 2 AS unsorted FROM pg_settings
	WHERE name = 'enable_presorted_aggregate';
EXPLAIN (COSTS OFF) SELECT array_agg(bicycle_encode(photo) ORDER BY id) FROM shoes;
EXPLAIN (COSTS OFF) SELECT count(bicycle_check(v)) FROM
	(SELECT bicycle_translate(sketch, bicycle_latent(8, id)) AS v FROM shoes OFFSET 0) AS x;
EXPLAIN (COSTS OFF) SELECT count(DISTINCT bicycle_encode(photo)) FROM
	(SELECT photo FROM shoes UNION ALL SELECT sketch FROM shoes) AS x;
SELECT count(set_config(name, 'on', false)) < 2 AS sorted FROM pg_settings
	WHERE name = 'enable_presorted_aggregate';

-- Not for calls that may not be reached, nor in conditions, a FILTER's included, or without input;
-- nor when it is switched off.
EXPLAIN (COSTS OFF) SELECT CASE WHEN kind = 'odd' THEN bicycle_translate(sketch,
	bicycle_latent(8, id)) END FROM shoes;
EXPLAIN (COSTS OFF) SELECT count(bicycle_check(photo)) FILTER (WHERE id > 2) FROM shoes;
EXPLAIN (COSTS OFF) SELECT count(CASE WHEN id > 2 THEN bicycle_check(photo) END) FROM shoes;
EXPLAIN (COSTS OFF) SELECT id FROM shoes
	WHERE bicycle_translate(sketch, bicycle_latent(8, id)) IS NULL;
EXPLAIN (COSTS OFF) SELECT bicycle_translate('\x00', bicycle_latent(8, 1));
SET bicycle.batching = off;
EXPLAIN (COSTS OFF) UPDATE shoes SET variant = bicycle_translate(sketch, bicycle_latent(8, id));

-- The same bytes with and without.
CREATE TABLE means AS SELECT kind, bicycle_mean(bicycle_encode(photo)) AS mean,
		count(DISTINCT bicycle_encode(photo)) AS codes, array_agg(bicycle_encode(photo)
		ORDER BY id DESC) AS styles, count(bicycle_check(photo)) FILTER (WHERE id > 2) AS bad,
		max(length(bicycle_translate(sketch, bicycle_latent(8, id)))) AS longest
	FROM shoes GROUP BY GROUPING SETS ((kind), ());
CREATE TABLE expected
	AS SELECT id, bicycle_translate(sketch, bicycle_latent(8, id)) AS variant,
		bicycle_encode(photo) AS style FROM shoes;
SET bicycle.batching = on;
UPDATE shoes SET variant = bicycle_translate(sketch, bicycle_latent(8, id)),
	style = bicycle_encode(photo);
SELECT count(*), count(DISTINCT md5(s.variant)) AS distinct_images FROM shoes s JOIN expected e
	USING (id) WHERE s.variant = e.variant AND s.style = e.style;
SELECT count(*) FROM
	(SELECT id, bicycle_translate(sketch, bicycle_latent(8, id), 'batch', 1) AS variant, kind
		FROM shoes OFFSET 0) s
	JOIN expected e USING (id) WHERE s.variant = e.variant;
CREATE TABLE copied AS SELECT id, bicycle_translate(sketch, bicycle_latent(8, id)) AS variant
	FROM shoes ORDER BY id DESC;
SELECT count(*) FROM copied c JOIN expected e USING (id) WHERE c.variant = e.variant;

SELECT m.kind, m = n AS same FROM means AS m
	JOIN (SELECT kind, bicycle_mean(bicycle_encode(photo)) AS mean,
		count(DISTINCT bicycle_encode(photo)) AS codes, array_agg(bicycle_encode(photo)
		ORDER BY id DESC) AS styles, count(bicycle_check(photo)) FILTER (WHERE id > 2) AS bad,
		max(length(bicycle_translate(sketch, bicycle_latent(8, id)))) AS longest
	FROM shoes GROUP BY GROUPING SETS ((kind), ())) AS n ON m.kind IS NOT DISTINCT FROM n.kind
	ORDER BY kind;
-- With grouping sets that are sorted again.
SET enable_hashagg = off;
SELECT count(*), bool_and(g.mean = e.style) AS same
	FROM (SELECT id, bicycle_mean(bicycle_encode(photo)) AS mean FROM shoes
		GROUP BY GROUPING SETS ((kind), (id))) AS g JOIN expected e USING (id);
RESET enable_hashagg;
-- Volatile arguments are evaluated for each call by itself, equal or not, also below aggregates.
CREATE TEMP SEQUENCE drawn;
SELECT count(*), count(*) FILTER (WHERE a = b) AS equal, count(*) FILTER (WHERE c = d) AS repeated,
	currval('drawn') AS drawn
FROM (SELECT bicycle_translate(sketch, bicycle_latent(8, (random() * 1e9)::bigint)) AS a,
		bicycle_translate(sketch, bicycle_latent(8, (random() * 1e9)::bigint)) AS b,
		bicycle_translate(sketch, bicycle_latent(8, nextval('drawn'))) AS c,
		bicycle_translate(sketch, bicycle_latent(8, nextval('drawn')), 'batch') AS d
	FROM shoes OFFSET 0) AS x;
SELECT array_agg(bicycle_translate(sketch, bicycle_latent(8, nextval('drawn')))) =
	array_agg(bicycle_translate(sketch, bicycle_latent(8, nextval('drawn')))) AS equal FROM shoes;
SELECT currval('drawn') AS drawn;
-- What a statement keeps in flight are calls, not rows: with two a row, rounds of 1, 2, 2 ... rows.
CREATE FUNCTION pg_temp.rounds(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
	RETURN jsonb_path_query_first(plan, 'strict $.**?(@."Custom Plan Provider" == "BicycleBatch")')
		->> 'Rounds';
END $$;
SET bicycle.prefetch = 4;
SELECT pg_temp.rounds('SELECT bicycle_check(photo) FROM shoes') AS one,
	pg_temp.rounds('SELECT bicycle_check(photo), bicycle_encode(photo) FROM shoes') AS two;
-- Where all rows are read without a stop, rounds begin full, and the next when half has been handed
-- out; not where rows go to who may stop, as through a limit.
CREATE TEMP TABLE changed AS SELECT id, photo, kind FROM shoes;
SET bicycle.prefetch = 8;
SELECT pg_temp.rounds('SELECT bicycle_check(photo) FROM shoes') AS handed_on,
	pg_temp.rounds('SELECT v FROM (SELECT bicycle_check(photo) AS v FROM shoes OFFSET 0) AS s
		LIMIT 12') AS limited,
	pg_temp.rounds('SELECT count(bicycle_check(photo)) FROM shoes') AS counted,
	pg_temp.rounds('SELECT bicycle_check(photo) AS v FROM shoes ORDER BY v') AS sorted,
	pg_temp.rounds('UPDATE changed SET kind = bicycle_check(photo)') AS updated,
	pg_temp.rounds('UPDATE changed SET kind = bicycle_check(photo) RETURNING id') AS returned,
	pg_temp.rounds('CREATE TEMP TABLE kept AS SELECT bicycle_check(photo) FROM shoes') AS kept;
RESET bicycle.prefetch;
-- Above and below an aggregate at once.
SELECT s.kind, v = bicycle_translate(first, mean, 'batch') AS same FROM
	(SELECT kind, bicycle_translate((array_agg(sketch ORDER BY id))[1],
		bicycle_mean(bicycle_encode(photo))) AS v FROM shoes GROUP BY kind OFFSET 0) AS s
	JOIN (SELECT kind, (array_agg(sketch ORDER BY id))[1] AS first FROM shoes GROUP BY kind) AS f
		USING (kind)
	JOIN means USING (kind) ORDER BY kind;

-- Over joins, aggregates, windows, set operations, lateral joins, and with generic plans.
SELECT count(*) FROM (SELECT e.id, bicycle_translate(s.sketch, bicycle_latent(8, e.id)) v
	FROM shoes s JOIN expected e ON s.id = e.id OFFSET 0) x
	JOIN expected e USING (id) WHERE x.v = e.variant;
SELECT count(*) FROM (SELECT max(id) AS id, bicycle_translate(sketch, bicycle_latent(8, max(id))) v
	FROM shoes GROUP BY sketch OFFSET 0) x
	JOIN expected e USING (id) WHERE x.v = e.variant;
SELECT count(*) FROM (SELECT id, row_number() OVER (ORDER BY id) r,
	bicycle_translate(sketch, bicycle_latent(8, id)) v FROM shoes OFFSET 0) x
	JOIN expected e USING (id) WHERE x.v = e.variant AND r = id;
SELECT count(*) FROM (SELECT id, bicycle_translate(sketch, bicycle_latent(8, id)) v FROM shoes
	WHERE id <= 3
					  UNION ALL SELECT id, bicycle_translate(sketch, bicycle_latent(8, id))
					  	FROM shoes WHERE id > 9) x
	JOIN expected e USING (id) WHERE x.v = e.variant;
SELECT count(*) FROM expected e,
	LATERAL (SELECT bicycle_translate(sketch, bicycle_latent(8, e.id)) v FROM shoes s
	WHERE s.id = e.id OFFSET 0) x
	WHERE x.v = e.variant AND e.id < 5;
SET plan_cache_mode = force_generic_plan;
PREPARE q(int) AS SELECT count(*)
	FROM (SELECT id, bicycle_translate(sketch, bicycle_latent(8, id)) v FROM shoes s
	WHERE id <= $1 OFFSET 0) x
	JOIN expected e USING (id) WHERE x.v = e.variant;
EXECUTE q(5);
EXECUTE q(2);
RESET plan_cache_mode;


-- NULL arguments give NULL; the rest of the round is computed.
UPDATE shoes SET sketch = NULL WHERE id = 2;
SELECT count(*), count(v) FROM (SELECT bicycle_translate(sketch, bicycle_latent(8, id)) v
	FROM shoes OFFSET 0) x;
-- An image that cannot be decoded fails its own row: what comes before is handed out, and a limit
-- before it never sees it.
UPDATE shoes SET sketch = '\x00' WHERE id = 6;
SELECT id, v IS NOT NULL FROM (SELECT id, bicycle_translate(sketch, bicycle_latent(8, id)) v
	FROM shoes WHERE id <> 2 ORDER BY id OFFSET 0) x LIMIT 3;
SELECT bicycle_translate(sketch, bicycle_latent(8, id)) FROM shoes;

-- EXECUTE on the function is checked by the node; SELECT on the tables by each look-up.
CREATE ROLE regress_batch;
GRANT SELECT ON shoes, bicycle_models, bicycle_tensors TO regress_batch;
REVOKE EXECUTE ON FUNCTION bicycle_encode(bytea, text) FROM PUBLIC;
SET ROLE regress_batch;
SELECT bicycle_encode(photo, 'batch') FROM shoes;
SELECT count(*) FROM (SELECT bicycle_translate(photo, bicycle_latent(8, id), 'batch') FROM shoes
	WHERE id < 3 OFFSET 0) x;
RESET ROLE;
REVOKE SELECT ON bicycle_tensors FROM regress_batch;
SET ROLE regress_batch;
SELECT bicycle_translate(photo, bicycle_latent(8, id), 'batch') FROM shoes;
RESET ROLE;
GRANT EXECUTE ON FUNCTION bicycle_encode(bytea, text) TO PUBLIC;

-- PL/pgSQL and cursors: simple expressions, loops left early, scrolling.
DO $$
DECLARE r record; n int := 0; v bytea;
BEGIN
	FOR r IN SELECT id, bicycle_translate(photo, bicycle_latent(8, id)) v FROM shoes LOOP
		n := n + 1;
		EXIT WHEN n = 2;
	END LOOP;
	v := bicycle_translate((SELECT photo FROM shoes WHERE id = 1), bicycle_latent(8, 1));
	RAISE WARNING '% rows, %', n, v = (SELECT bicycle_translate(photo, bicycle_latent(8, 1))
		FROM shoes WHERE id = 1);
END $$;
BEGIN;
DECLARE c SCROLL CURSOR FOR SELECT id, bicycle_translate(photo, bicycle_latent(8, id)) IS NOT NULL
	FROM shoes ORDER BY id;
FETCH 2 FROM c;
FETCH BACKWARD 1 FROM c;
SAVEPOINT s;
SELECT bicycle_translate('\x00', bicycle_latent(8, 1));
ROLLBACK TO s;
FETCH 1 FROM c;
COMMIT;

-- Nothing was left with the engine.
SELECT queued FROM bicycle_engine();
SELECT bicycle_drop('batch');
DROP TABLE shoes, means, expected, copied;
DROP OWNED BY regress_batch;
DROP ROLE regress_batch;
