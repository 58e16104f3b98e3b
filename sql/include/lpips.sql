\set ECHO none
-- Weights of LPIPS that are of no use, but have AlexNet's shapes: the table pg_temp.files has one
-- row, backbone and heads. The function makes them: a safetensors file of tensors
-- filled with a pattern; numbers of heads are not negative.
CREATE FUNCTION pg_temp.weights(names text[], shapes text[], heads bool) RETURNS bytea
	LANGUAGE sql AS $$
	WITH pattern AS (
		SELECT string_agg(lpad(to_hex(get_byte(b, 3)), 2, '0')
			|| lpad(to_hex(get_byte(b, 2)), 2, '0') || lpad(to_hex(get_byte(b, 1)), 2, '0')
			|| lpad(to_hex(get_byte(b, 0)), 2, '0'), '' ORDER BY i) AS hex
		FROM generate_series(1, 1021) AS i,
			float4send((CASE WHEN heads THEN abs(sin(i)) ELSE 0.03 * sin(i * i) END)::float4) AS b),
	tensor AS (
		SELECT n, name, shape, (SELECT exp(sum(ln(d::float8)))::numeric(12)::bigint
			FROM unnest(string_to_array(shape, ',')) AS d) AS numbers
		FROM unnest(names, shapes) WITH ORDINALITY AS u(name, shape, n)),
	placed AS (SELECT *, sum(numbers) OVER (ORDER BY n) * 4 AS until FROM tensor),
	header AS (
		SELECT convert_to('{' || string_agg(format('"%s":{"dtype":"F32","shape":[%s],'
			'"data_offsets":[%s,%s]}', name, shape, until - 4 * numbers, until), ',' ORDER BY n)
			|| '}', 'UTF8') AS json, sum(numbers) AS numbers FROM placed)
	SELECT set_byte(set_byte('\x0000000000000000', 0, length(json) % 256), 1, length(json) / 256)
		|| json || decode(left(repeat(hex, (numbers / 1021 + 1)::int), (numbers * 8)::int), 'hex')
	FROM header, pattern $$;
CREATE TEMP TABLE files AS
	SELECT pg_temp.weights('{features.0.weight,features.0.bias,features.3.weight,features.3.bias,
		features.6.weight,features.6.bias,features.8.weight,features.8.bias,features.10.weight,
		features.10.bias}', '{"64,3,11,11",64,"192,64,5,5",192,"384,192,3,3",384,"256,384,3,3",256,
		"256,256,3,3",256}', false) AS backbone,
	pg_temp.weights('{lin0.model.1.weight,lin1.model.1.weight,lin2.model.1.weight,
		lin3.model.1.weight,lin4.model.1.weight}',
		'{"1,64,1,1","1,192,1,1","1,384,1,1","1,256,1,1","1,256,1,1"}', true) AS heads;
\set ECHO all
