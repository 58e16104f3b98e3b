-- The pairs that bench/compare.sh trains on, as those of demo/demo.sql.
CREATE EXTENSION bicycle;
CREATE TABLE pairs (glyph int PRIMARY KEY, shape int, variants int, held_out bool, outline bytea,
	emoji bytea);
\copy pairs FROM PROGRAM 'emoji_pairs 64'
CREATE VIEW colored AS SELECT * FROM pairs WHERE variants BETWEEN 5 AND 50;
