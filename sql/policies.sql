-- Row-security policies of the extension's tables are noted for pg_dump, which leaves them out, and
-- come back with the rows of bicycle_policies.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
CREATE ROLE "regress bicycle reader";
CREATE FUNCTION public.regress_seen(text) RETURNS boolean
	LANGUAGE sql STABLE AS 'SELECT $1 <> ''hidden''';
SELECT count(*) FROM bicycle_policies;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Those seen" ON bicycle_models FOR SELECT TO "regress bicycle reader"
	USING (model <> '' AND regress_seen(model));
CREATE POLICY few ON bicycle_models AS RESTRICTIVE USING (true) WITH CHECK (version < 100);
CREATE POLICY checked ON bicycle_tensors FOR INSERT WITH CHECK (dtype = 'F32');
ALTER POLICY checked ON bicycle_tensors RENAME TO checked_type;
SELECT * FROM bicycle_policies ORDER BY tablename, policyname;
-- What is not ours is not noted, and anybody may go on with it.
CREATE ROLE regress_bicycle_user;
GRANT CREATE ON SCHEMA public TO regress_bicycle_user;
SET ROLE regress_bicycle_user;
CREATE TABLE regress_mine (a int);
ALTER TABLE regress_mine ENABLE ROW LEVEL SECURITY;
CREATE POLICY x ON regress_mine USING (true);
DROP TABLE regress_mine;
RESET ROLE;
SELECT count(*) FROM bicycle_policies;

-- A restore creates the extension and then copies the rows.
CREATE TEMP TABLE dumped AS SELECT tablename, policyname, permissive, roles::text, cmd, qual,
	with_check, enabled, forced FROM bicycle_policies;
CREATE TEMP TABLE policies AS SELECT * FROM pg_policies WHERE tablename LIKE 'bicycle%';
DROP EXTENSION bicycle;
CREATE EXTENSION bicycle;
INSERT INTO bicycle_policies SELECT tablename, policyname, permissive, roles::bicycle_role[], cmd,
	qual, with_check, enabled, forced FROM dumped;
SELECT count(*) AS policies FROM (SELECT * FROM policies INTERSECT SELECT *
	FROM pg_policies) AS same;
SELECT relname, relrowsecurity, relforcerowsecurity FROM pg_class
	WHERE relname IN ('bicycle_models', 'bicycle_tensors') ORDER BY relname;
SELECT d::text FROM dumped AS d EXCEPT SELECT p::text FROM bicycle_policies AS p;
-- A role that is renamed is noted under its new name.
ALTER ROLE "regress bicycle reader" RENAME TO regress_bicycle_reader;
SELECT policyname, roles FROM bicycle_policies WHERE tablename = 'bicycle_models'
	AND roles IS NOT NULL ORDER BY policyname;
ALTER ROLE regress_bicycle_reader RENAME TO "regress bicycle reader";
-- Going on from there.
ALTER TABLE bicycle_models FORCE ROW LEVEL SECURITY;
DROP POLICY few ON bicycle_models;
DROP OWNED BY "regress bicycle reader";
SELECT tablename, policyname, enabled, forced FROM bicycle_policies ORDER BY tablename, policyname;
DROP POLICY checked_type ON bicycle_tensors;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
SELECT count(*) FROM bicycle_policies;
-- A policy goes with what it depends on, and its note does, too; where somebody else has dropped
-- that, with the owner's next change.
SET client_min_messages = warning;
SET ROLE regress_bicycle_user;
CREATE TABLE regress_allowed (model text);
CREATE TYPE regress_kind AS ENUM ('lamp');
RESET ROLE;
CREATE POLICY listed ON bicycle_models USING (model IN (SELECT a.model FROM regress_allowed AS a));
CREATE POLICY kinds ON bicycle_tensors USING (network = 'lamp'::regress_kind::text);
CREATE POLICY stays ON bicycle_tensors USING (true);
SET ROLE regress_bicycle_user;
DROP TYPE regress_kind CASCADE;
RESET ROLE;
SELECT policyname FROM bicycle_policies ORDER BY policyname;
DROP TABLE regress_allowed CASCADE;
SELECT policyname FROM bicycle_policies;
DROP POLICY stays ON bicycle_tensors;
RESET client_min_messages;
-- A policy that cannot be restored is missed, and what it would not have hidden is not shown: row
-- security is enabled, other policies are made, and one that restricts them denies everything.
INSERT INTO bicycle_policies VALUES
	('bicycle_models', '', NULL, NULL, NULL, NULL, NULL, true, false),
	('bicycle_models', 'allow', true, '{regress nobody}', 'ALL', 'true', NULL, NULL, NULL),
	('bicycle_models', 'narrow', false, '{regress nobody,public}', 'SELECT', 'version < 3', NULL,
		NULL, NULL),
	('bicycle_counters', 'narrow', false, '{public}', 'INSERT', NULL, 'regress_gone(model)', NULL,
		NULL),
	('bicycle_models', 'other', true, '{public}', 'SELECT', 'model <> ''hidden''', NULL, NULL,
		NULL);
SELECT relname, relrowsecurity FROM pg_class WHERE relname IN ('bicycle_models', 'bicycle_counters')
	ORDER BY relname;
SELECT tablename, policyname, permissive, roles, cmd, qual, with_check FROM pg_policies
	WHERE tablename LIKE 'bicycle%' ORDER BY tablename, policyname;
DROP POLICY narrow ON bicycle_models;
DROP POLICY narrow ON bicycle_counters;
DROP POLICY other ON bicycle_models;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY;
SELECT count(*) FROM bicycle_policies;
-- Only what names one of the tables and says all that is needed can be noted.
\set VERBOSITY terse
INSERT INTO bicycle_policies (tablename, policyname, permissive, roles, cmd)
	VALUES ('pg_class', 'p', true, '{public}', 'ALL');
INSERT INTO bicycle_policies (tablename, policyname) VALUES ('bicycle_models', 'p');
INSERT INTO bicycle_policies (tablename, policyname) VALUES ('bicycle_models', '');
\set VERBOSITY default
DROP FUNCTION regress_seen(text);
REVOKE CREATE ON SCHEMA public FROM regress_bicycle_user;
DROP ROLE regress_bicycle_user, "regress bicycle reader";
