-- bicycle_fill computes a column for the rows that lack it and for no others: which rows, what is
-- counted, what is refused, and that what the caller wrote stays what it is.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
\set SHOW_CONTEXT never
-- A row of these fails as an unreadable image does, and as one beyond a limit does.
CREATE FUNCTION fill_root(a int) RETURNS float8 LANGUAGE plpgsql AS $$
BEGIN
	IF a % 100 = 7 THEN
		RAISE invalid_binary_representation USING MESSAGE = 'no root', DETAIL = 'It is odd.';
	ELSIF a % 100 = 8 THEN
		RAISE program_limit_exceeded USING MESSAGE = 'no root', DETAIL = 'It is odd.';
	END IF;
	RETURN sqrt(a);
END $$;

-- ---- Rows ----
CREATE TABLE numbers (id int PRIMARY KEY, a int, root float8, reason text);
INSERT INTO numbers SELECT n, n FROM generate_series(1, 1000) AS n;
UPDATE numbers SET root = -1 WHERE id % 10 = 0;
VACUUM numbers;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)');
SELECT count(*), count(root), count(*) FILTER (WHERE root = -1) AS kept,
	count(*) FILTER (WHERE root = sqrt(a)) AS filled FROM numbers;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)');
-- Under a condition; in chunks of any size; again for what was left.
UPDATE numbers SET root = NULL;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)', 'a % 2 = 0', chunk => 1);
SELECT count(root), bool_and(a % 2 = 0) FROM numbers WHERE root IS NOT NULL;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)', 'a <= (SELECT max(a) FROM numbers)
	AND EXISTS (SELECT FROM pg_class)', chunk => 7);
SELECT count(*) FROM numbers WHERE root IS DISTINCT FROM sqrt(a);
-- A condition that is no reason to join, and so to go through the rows in another order.
UPDATE numbers SET root = NULL WHERE id % 2 = 0;
UPDATE numbers SET root = NULL;
CREATE TABLE others AS SELECT id FROM numbers;
SET enable_hashjoin = off;
SET enable_nestloop = off;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)',
	'EXISTS (SELECT FROM others AS o WHERE o.id = numbers.id)');
RESET enable_hashjoin;
RESET enable_nestloop;
SELECT count(*) FROM numbers WHERE root IS DISTINCT FROM sqrt(a);
-- An expression that stays NULL, and one that does now and then. No row is visited twice, also
-- where its new version comes to lie before the others.
DELETE FROM numbers WHERE id % 2 = 0;
VACUUM numbers;
UPDATE numbers SET root = NULL;
CALL bicycle_fill('numbers', 'root', 'NULL');
CREATE SEQUENCE visits;
CALL bicycle_fill('numbers', 'root', 'CASE WHEN a % 3 = 0 THEN nextval(''visits'') * 0 END',
	chunk => 3);
CALL bicycle_fill('numbers', 'root', 'CASE WHEN nextval(''visits'') > 0 THEN NULL::float8 END',
	chunk => 5);
SELECT count(*), count(root), (SELECT last_value FROM visits) AS visits FROM numbers;
-- A volatile expression is computed for each row.
UPDATE numbers SET root = NULL;
CALL bicycle_fill('numbers', 'root', 'nextval(''visits'')');
SELECT count(DISTINCT root) FROM numbers;
-- An empty table, and one that was truncated.
TRUNCATE numbers;
CALL bicycle_fill('numbers', 'root', 'sqrt(a)');

-- ---- Bad rows ----
INSERT INTO numbers SELECT n, n FROM generate_series(1, 1000) AS n;
CALL bicycle_fill('numbers', 'root', 'fill_root(a)');
SELECT count(root), array_agg(a % 100 ORDER BY a) FILTER (WHERE root IS NULL) AS bad FROM numbers;
CALL bicycle_fill('numbers', 'root', 'fill_root(a)', error_column => 'reason');
SELECT reason, count(*) FROM numbers WHERE root IS NULL GROUP BY 1;
-- They are left alone until their reason is gone.
CALL bicycle_fill('numbers', 'root', 'fill_root(a)', error_column => 'reason');
UPDATE numbers SET reason = NULL, a = a + 2 WHERE reason IS NOT NULL;
CALL bicycle_fill('numbers', 'root', 'fill_root(a)', error_column => 'reason', chunk => 1);
SELECT count(*) FROM numbers WHERE root IS DISTINCT FROM sqrt(a) OR reason IS NOT NULL;
-- All of them; with a column that is short; by a condition.
UPDATE numbers SET root = NULL, a = 7;
ALTER TABLE numbers ADD short varchar(4);
CALL bicycle_fill('numbers', 'root', 'fill_root(a)', error_column => 'short');
SELECT short, count(*) FROM numbers GROUP BY 1;
UPDATE numbers SET short = NULL, a = id;
CALL bicycle_fill('numbers', 'root', 'a', 'fill_root(a) > 0', error_column => 'reason');
SELECT count(*), count(root), count(reason) FROM numbers;
-- Where rows fail at the end of the statement, and where the ones before are not returned.
CREATE TABLE odd (id int, a int, root float8, reason text);
CREATE FUNCTION refuse_odd() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_WHEN = 'AFTER' THEN
		PERFORM fill_root(NEW.a);
	ELSIF NEW.a % 2 = 0 THEN
		RETURN NULL;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER before BEFORE UPDATE OF root ON odd FOR EACH ROW EXECUTE FUNCTION refuse_odd();
CREATE TRIGGER after AFTER UPDATE OF root ON odd FOR EACH ROW EXECUTE FUNCTION refuse_odd();
INSERT INTO odd SELECT n, n FROM generate_series(1, 300) AS n;
CALL bicycle_fill('odd', 'root', 'sqrt(a)', error_column => 'reason');
SELECT count(root), array_agg(a ORDER BY a) FILTER (WHERE reason IS NOT NULL) AS bad,
	bool_and((root IS NULL) = (a % 2 = 0 OR a % 100 = 7)) FROM odd;
DROP TRIGGER after ON odd;
UPDATE odd SET reason = NULL;
ALTER TABLE odd DISABLE TRIGGER before;
UPDATE odd SET root = NULL;
ALTER TABLE odd ENABLE TRIGGER before;
CALL bicycle_fill('odd', 'root', 'fill_root(a)', error_column => 'reason');
SELECT count(root), array_agg(a ORDER BY a) FILTER (WHERE reason IS NOT NULL) AS bad,
	bool_and((root IS NULL) = (a % 2 = 0 OR a % 100 = 7)) FROM odd;
-- Other errors end the call, and what was committed stays.
UPDATE numbers SET root = NULL, reason = NULL, a = id;
CALL bicycle_fill('numbers', 'root', '1 / (a - 500)', chunk => 100);
SELECT count(root) > 0 AS some, count(root) < 1000 AS not_all FROM numbers;
-- Images.
SELECT bicycle_import('fill', pg_temp.file('G.pth')) AS version;
CREATE TABLE pictures (id int PRIMARY KEY, sketch bytea, variant bytea, reason text);
INSERT INTO pictures SELECT n, CASE WHEN n % 10 = 3 THEN 'rubbish'
	ELSE pg_temp.file(format('pairs/0%s_A.png', n % 4)) END FROM generate_series(1, 40) AS n;
INSERT INTO pictures VALUES (41, NULL);
SET bicycle.on_error = 'null';
-- A slow device would have it say how far it is.
SET client_min_messages = warning;
CALL bicycle_fill('pictures', 'variant',
	'bicycle_translate(sketch, bicycle_latent(8, id), model => ''fill'')', 'sketch IS NOT NULL',
	error_column => 'reason');
RESET client_min_messages;
SELECT count(variant),
	bool_and(variant = bicycle_translate(sketch, bicycle_latent(8, id), 'fill'))
	FROM pictures WHERE variant IS NOT NULL;
SELECT array_agg(id ORDER BY id) AS bad, count(DISTINCT reason) FROM pictures
	WHERE reason IS NOT NULL;
SHOW bicycle.on_error;
RESET bicycle.on_error;

-- ---- Triggers ----
CREATE TABLE triggered (id int, root float8);
CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF OLD.id % 3 = 0 THEN
		DELETE FROM triggered WHERE id = OLD.id;
		RETURN NULL;
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER meddle BEFORE UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION meddle();
INSERT INTO triggered SELECT n FROM generate_series(1, 30) AS n;
CALL bicycle_fill('triggered', 'root', 'id');
SELECT count(*), count(root) FROM triggered;
-- One that fills the others meanwhile: they are not filled again.
DROP TRIGGER meddle ON triggered;
UPDATE triggered SET root = NULL;
CREATE FUNCTION help() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE triggered SET root = -1 WHERE root IS NULL AND id = OLD.id + 3;
	RETURN NULL;
END $$;
CREATE TRIGGER help AFTER UPDATE ON triggered FOR EACH ROW WHEN (OLD.id % 6 = 1)
	EXECUTE FUNCTION help();
CALL bicycle_fill('triggered', 'root', 'id', chunk => 1);
SELECT count(*) FILTER (WHERE root = -1) AS helped, count(*) FILTER (WHERE root = id) AS filled
	FROM triggered;

-- ---- Domains ----
CREATE DOMAIN small AS float8 CHECK (value < 10);
CREATE DOMAIN image AS bytea;
CREATE TABLE domains (id int, root small, picture image);
INSERT INTO domains SELECT n FROM generate_series(1, 20) AS n;
CALL bicycle_fill('domains', 'root', 'id', 'id < 10');
CALL bicycle_fill('domains', 'root', 'id');
CALL bicycle_fill('domains', 'picture', 'bicycle_translate(pg_temp.file(''pairs/00_A.png''),
	bicycle_latent(8, id), model => ''fill'')', 'id < 10');
SELECT count(root), count(picture), count(DISTINCT picture) FROM domains;
EXPLAIN (COSTS OFF) UPDATE domains
	SET picture = bicycle_translate(picture, bicycle_latent(8, id), model => 'fill');

-- ---- Partitions ----
CREATE TABLE parts (id int, k int, root float8) PARTITION BY LIST (k);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 (root float8, gone text, k int, id int);
ALTER TABLE parts_2 DROP gone;
ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2);
CREATE TABLE parts_3 PARTITION OF parts FOR VALUES IN (3) PARTITION BY HASH (id);
CREATE TABLE parts_3_0 PARTITION OF parts_3 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parts_3_1 PARTITION OF parts_3 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT n, nullif(n % 5, 0) FROM generate_series(1, 1000) AS n;
CALL bicycle_fill('parts', 'root', 'sqrt(id)');
SELECT tableoid::regclass::text COLLATE "C" AS "table", count(*), bool_and(root = sqrt(id))
	FROM parts GROUP BY 1 ORDER BY 1;
-- A single one of them; a column that decides which one; a trigger that does.
UPDATE parts SET root = NULL;
CALL bicycle_fill('parts_3', 'root', 'sqrt(id)');
CALL bicycle_fill('parts_2', 'root', 'sqrt(id)');
SELECT tableoid::regclass::text COLLATE "C" AS "table", count(*), count(root) FROM parts
	GROUP BY 1 ORDER BY 1;
CALL bicycle_fill('parts', 'k', '1 + id / 5 % 4');
SELECT tableoid::regclass::text COLLATE "C" AS "table", count(*) FROM parts GROUP BY 1
	ORDER BY 1;
CREATE FUNCTION move() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.k := 2; RETURN NEW; END';
CREATE TRIGGER move BEFORE UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION move();
CALL bicycle_fill('parts', 'root', 'sqrt(id)', 'k = 1');
SELECT tableoid::regclass::text COLLATE "C" AS "table", count(*), count(root) FROM parts
	GROUP BY 1 ORDER BY 1;
DROP TRIGGER move ON parts;
-- Each leaf is read once, and no other one beside it: the condition here is the cheapest thing to
-- be asked of a row.
UPDATE parts SET root = NULL;
VACUUM FULL parts;
CREATE SEQUENCE asked;
CREATE FUNCTION ask() RETURNS bool LANGUAGE plpgsql COST 0.0001
	AS 'BEGIN PERFORM nextval(''asked''); RETURN true; END';
CALL bicycle_fill('parts', 'root', 'sqrt(id)', 'ask()', chunk => 100000);
SELECT last_value FROM asked;
UPDATE parts SET root = NULL WHERE id > 700;
-- Privileges and row security are those of what was named.
CREATE ROLE regress_bicycle_filler;
GRANT SELECT, UPDATE ON parts TO regress_bicycle_filler;
ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON parts USING (id < 900 AND EXISTS (SELECT FROM pg_class));
SET ROLE regress_bicycle_filler;
CALL bicycle_fill('parts', 'root', 'sqrt(id)', 'id > 800');
CALL bicycle_fill('parts_3', 'root', 'sqrt(id)');
RESET ROLE;
SELECT count(*) FILTER (WHERE id BETWEEN 801 AND 899) AS seen, count(*) FILTER (WHERE id > 899) > 0
	AS hidden FROM parts WHERE root IS NULL AND id > 800;
-- Tables that inherit.
CREATE TABLE parent (id int, root float8);
CREATE TABLE child (more int) INHERITS (parent);
INSERT INTO parent SELECT n FROM generate_series(1, 10) AS n;
INSERT INTO child SELECT n FROM generate_series(11, 30) AS n;
CALL bicycle_fill('parent', 'root', 'sqrt(id)');
SELECT tableoid::regclass::text COLLATE "C" AS "table", count(root) FROM parent GROUP BY 1
	ORDER BY 1;

CREATE TEMP TABLE grandchild () INHERITS (child);
CALL bicycle_fill('parent', 'root', 'sqrt(id)');
DROP TABLE grandchild;

-- ---- Row security ----
CREATE TABLE secured (id int, root float8, owner text);
INSERT INTO secured SELECT n, NULL, CASE WHEN n % 2 = 0 THEN 'regress_bicycle_filler' ELSE 'x' END
	FROM generate_series(1, 20) AS n;
ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON secured FOR SELECT USING (id <= 15);
CREATE POLICY own ON secured FOR UPDATE USING (owner = current_user) WITH CHECK (root < 4);
GRANT SELECT, UPDATE (root) ON secured TO regress_bicycle_filler;
SET ROLE regress_bicycle_filler;
CALL bicycle_fill('secured', 'root', 'id / 4.0');
CALL bicycle_fill('secured', 'root', 'id');
SELECT pg_temp.state($$SELECT root FROM secured$$);
CALL bicycle_fill('secured', 'owner', '1');
CALL bicycle_fill('numbers', 'root', '1');
CALL bicycle_fill('pg_authid', 'rolpassword', '''x''');
RESET ROLE;
SELECT array_agg(id ORDER BY id) FROM secured WHERE root IS NOT NULL;
-- A function in the expression runs as the caller.
CREATE FUNCTION spy() RETURNS text LANGUAGE sql AS 'SELECT current_user::text';
CREATE TABLE spied (who text);
INSERT INTO spied VALUES (NULL);
GRANT SELECT, UPDATE ON spied TO regress_bicycle_filler;
SET ROLE regress_bicycle_filler;
CALL bicycle_fill('spied', 'who', 'spy()');
RESET ROLE;
SELECT * FROM spied;

-- ---- Names ----
CREATE SCHEMA "odd, schema";
CREATE TABLE "odd, schema"."t; DROP TABLE numbers; --" (id int, "a) = 1; --" int, "b""" text);
INSERT INTO "odd, schema"."t; DROP TABLE numbers; --" SELECT n FROM generate_series(1, 3) AS n;
CALL bicycle_fill('"odd, schema"."t; DROP TABLE numbers; --"', 'a) = 1; --',
	'CASE WHEN id > 1 THEN fill_root(id + 5)::int END', error_column => 'b"');
SELECT * FROM "odd, schema"."t; DROP TABLE numbers; --" ORDER BY id;
SELECT count(*) FROM numbers;
-- Operators and functions of others on the path are the caller's affair only in his own text.
CREATE SCHEMA evil;
CREATE FUNCTION evil.never(tid, tid) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE FUNCTION evil.never(oid, oid) RETURNS bool LANGUAGE sql AS 'SELECT false';
CREATE OPERATOR evil.= (LEFTARG = tid, RIGHTARG = tid, FUNCTION = evil.never);
CREATE OPERATOR evil.>= (LEFTARG = tid, RIGHTARG = tid, FUNCTION = evil.never);
CREATE OPERATOR evil.< (LEFTARG = tid, RIGHTARG = tid, FUNCTION = evil.never);
CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.never);
CREATE FUNCTION evil.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
UPDATE numbers SET root = NULL;
SET search_path = evil, public, pg_catalog;
CALL bicycle_fill('numbers', 'root', 'twice(a)');
RESET search_path;
SELECT count(*) FROM numbers WHERE root = 2 * a;
-- Names of the table in the expression, and other tables.
UPDATE numbers SET root = NULL WHERE id <= 10;
CALL bicycle_fill('numbers', 'root',
	'(SELECT o.id FROM odd AS o WHERE o.id = numbers.id) + public.numbers.a');
SELECT sum(root) FROM numbers WHERE id <= 10;

-- ---- One expression ----
UPDATE numbers SET root = NULL WHERE id <= 10;
CALL bicycle_fill('numbers', 'root', '');
CALL bicycle_fill('numbers', 'root', '1, 2');
CALL bicycle_fill('numbers', 'root', '1 AS x');
CALL bicycle_fill('numbers', 'root', 'a x');
CALL bicycle_fill('numbers', 'root', 'numbers.*');
CALL bicycle_fill('numbers', 'root', '1 FROM numbers');
CALL bicycle_fill('numbers', 'root', '1 WHERE true');
CALL bicycle_fill('numbers', 'root', '1 LIMIT 1');
CALL bicycle_fill('numbers', 'root', '1 UNION SELECT 2');
CALL bicycle_fill('numbers', 'root', 'DISTINCT 1');
CALL bicycle_fill('numbers', 'root', 'SELECT 1');
CALL bicycle_fill('numbers', 'root', '1; DROP TABLE numbers');
CALL bicycle_fill('numbers', 'root', '1) WHERE (true');
CALL bicycle_fill('numbers', 'root', '1), a = (2');
CALL bicycle_fill('numbers', 'root', '1 /* ');
CALL bicycle_fill('numbers', 'root', '''1');
CALL bicycle_fill('numbers', 'root', '$1');
CALL bicycle_fill('numbers', 'root', '(SELECT $1[1])');
CALL bicycle_fill('numbers', 'root', '1', 'true) OR (true');
CALL bicycle_fill('numbers', 'root', '1', 'true, true');
CALL bicycle_fill('numbers', 'root', '1', 'a = $2');
CALL bicycle_fill('numbers', 'root', '1', '1');
CALL bicycle_fill('numbers', 'root', 'no_such_column');
CALL bicycle_fill('numbers', 'root', '''x''::text');
CALL bicycle_fill('numbers', 'root', 'count(*)');
-- Comments end where they are.
CALL bicycle_fill('numbers', 'root', 'a -- + 1', 'id <= 5 -- OR true');
CALL bicycle_fill('numbers', 'root', '(SELECT a /* the same */)', 'id > 5 OR false');
SELECT count(*) FROM numbers WHERE id <= 10 AND root = a;

-- ---- What is refused ----
CREATE VIEW a_view AS SELECT * FROM numbers;
CREATE TEMP TABLE temporary (id int, root float8);
CREATE MATERIALIZED VIEW materialized AS SELECT * FROM numbers;
CREATE FOREIGN DATA WRAPPER regress_nowhere;
CREATE SERVER nowhere FOREIGN DATA WRAPPER regress_nowhere;
CREATE FOREIGN TABLE elsewhere (id int, root float8) SERVER nowhere;
CALL bicycle_fill('elsewhere', 'root', '1');
CREATE TABLE partly (id int, root float8) PARTITION BY LIST (id);
CREATE FOREIGN TABLE partly_1 PARTITION OF partly FOR VALUES IN (1) SERVER nowhere;
CALL bicycle_fill('partly', 'root', '1');
DROP TABLE partly;
DROP FOREIGN DATA WRAPPER regress_nowhere CASCADE;
CALL bicycle_fill('a_view', 'root', '1');
CALL bicycle_fill('temporary', 'root', '1');
CALL bicycle_fill('materialized', 'root', '1');
CALL bicycle_fill('visits', 'last_value', '1');
CALL bicycle_fill('numbers_pkey', 'id', '1');
CALL bicycle_fill(0, 'id', '1');
CALL bicycle_fill(NULL, 'root', '1');
CALL bicycle_fill('numbers', NULL, '1');
CALL bicycle_fill('numbers', 'no', '1');
CALL bicycle_fill('numbers', 'ctid', '1');
CALL bicycle_fill('numbers', 'root', NULL);
CALL bicycle_fill('numbers', 'root', '1', chunk => 0);
CALL bicycle_fill('numbers', 'root', '1', chunk => -1);
CALL bicycle_fill('numbers', 'root', '1', chunk => 100001);
CALL bicycle_fill('numbers', 'root', '1', chunk => NULL);
CALL bicycle_fill('numbers', 'root', '1', error_column => 'no');
CALL bicycle_fill('numbers', 'root', '1', error_column => 'root');
CALL bicycle_fill('numbers', 'root', '1', error_column => 'a');
ALTER TABLE numbers ADD generated float8 GENERATED ALWAYS AS (a) STORED;
CALL bicycle_fill('numbers', 'generated', '1');
-- Where it cannot commit: 2D000; where nothing may be written: 25006.
BEGIN;
CALL bicycle_fill('numbers', 'root', '1');
ROLLBACK;
SELECT pg_temp.fails($$CALL bicycle_fill('numbers', 'root', '1')$$);
DO $$ BEGIN
	BEGIN
		CALL bicycle_fill('numbers', 'root', '1');
	EXCEPTION WHEN division_by_zero THEN
		NULL;
	END;
END $$;
DO $$ BEGIN CALL bicycle_fill('numbers', 'root', '1', 'id = 1'); END $$;
CREATE PROCEDURE defined() LANGUAGE plpgsql SECURITY DEFINER
	AS $$ BEGIN CALL bicycle_fill('numbers', 'root', '1'); END $$;
CALL defined();
SET default_transaction_read_only = on;
CALL bicycle_fill('numbers', 'root', '1');
RESET default_transaction_read_only;

-- ---- What it is meanwhile ----
-- Bulk work, and shown. Both end with it, also where it fails.
CREATE TABLE shown (id int, priority text, fills text);
INSERT INTO shown SELECT n FROM generate_series(1, 20) AS n;
CALL bicycle_fill('shown', 'priority', 'current_setting(''bicycle.priority'')', chunk => 4);
CALL bicycle_fill('shown', 'fills', '(SELECT string_agg(concat_ws('' '', owner = current_user,
	pid = pg_backend_pid(), relation, target_column, done > 0, bad, progress), '','')
	FROM bicycle_fills)', chunk => 4);
SELECT priority, fills, count(*) FROM shown GROUP BY 1, 2 ORDER BY 3;
SHOW bicycle.priority;
UPDATE shown SET priority = NULL;
CALL bicycle_fill('shown', 'priority', '1 / (id - 10)');
SHOW bicycle.priority;
SELECT count(*) FROM bicycle_fills;
-- Roles see the calls of those that they are members of.
UPDATE shown SET fills = NULL;
CREATE FUNCTION seen_by_filler() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	n bigint;
BEGIN
	SET LOCAL ROLE regress_bicycle_filler;
	SELECT count(*) INTO n FROM bicycle_fills;
	RESET ROLE;
	RETURN n;
END $$;
CALL bicycle_fill('shown', 'fills', 'seen_by_filler() || '' of '' || (SELECT count(*)
	FROM bicycle_fills)');
SELECT fills, count(*) FROM shown GROUP BY 1;
-- Whatever the session's isolation is.
UPDATE numbers SET root = NULL;
SET default_transaction_isolation = 'serializable';
CALL bicycle_fill('numbers', 'root', 'a');
SET default_transaction_isolation = 'repeatable read';
UPDATE numbers SET root = NULL;
CALL bicycle_fill('numbers', 'root', 'a');
RESET default_transaction_isolation;
-- Whatever plans the session wants.
UPDATE numbers SET root = NULL;
CREATE INDEX ON numbers (root, a DESC);
SET enable_tidscan = off;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
CALL bicycle_fill('numbers', 'root', 'a', 'a > 5');
RESET enable_tidscan;
RESET enable_seqscan;
RESET enable_bitmapscan;
SELECT count(root), bool_and(root = a) FROM numbers;

SELECT bicycle_drop('fill');
DROP SCHEMA evil, "odd, schema" CASCADE;
DROP TABLE numbers, others, odd, pictures, triggered, domains, parts, parent, child, secured, spied,
	shown CASCADE;
DROP DOMAIN small, image;
DROP SEQUENCE visits;
DROP PROCEDURE defined;
DROP SEQUENCE asked;
DROP FUNCTION ask, fill_root, refuse_odd, meddle, help, move, spy, seen_by_filler;
DROP ROLE regress_bicycle_filler;
