-- Imports the weights of LPIPS that tools/lpips_weights.py has put into the working directory into
-- the database that psql is connected to: of each net and version, if it is not there yet.
\set ON_ERROR_STOP on
\set QUIET on
BEGIN;
\lo_import alex.safetensors
\set alex :LASTOID
\lo_import vgg.safetensors
\set vgg :LASTOID
\lo_import v0.0/alex.pth
\set alex_old :LASTOID
\lo_import v0.1/alex.pth
\set alex_new :LASTOID
\lo_import v0.0/vgg.pth
\set vgg_old :LASTOID
\lo_import v0.1/vgg.pth
\set vgg_new :LASTOID
SELECT 'lpips-' || net || '-' || version AS model,
	bicycle_import_lpips(net, lo_get(backbone), lo_get(heads), version) AS version
FROM (VALUES ('alex', '0.0', :alex::oid, :alex_old::oid), ('alex', '0.1', :alex, :alex_new),
	('vgg', '0.0', :vgg, :vgg_old), ('vgg', '0.1', :vgg, :vgg_new))
	AS f(net, version, backbone, heads)
WHERE NOT EXISTS (SELECT FROM bicycle_models AS m
	WHERE m.model = 'lpips-' || net || '-' || f.version);
SELECT lo_unlink(oid) FROM unnest(ARRAY[:alex, :vgg, :alex_old, :alex_new, :vgg_old, :vgg_new])
	AS oid \g /dev/null
COMMIT;
