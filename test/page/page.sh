#!/bin/bash
# Makes a page by bicycle_report and has look.py look at it. Usage: page.sh DIRECTORY, with a server
# that has the extension in PGHOST and the like; 77 if there is no browser. Python's packages are
# taken from PyPI into build/page.
set -eu -o pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$1
venv=$root/${BUILD:-build}/page

[ -x /usr/bin/chromium ] || { echo "there is no /usr/bin/chromium (Debian: chromium)"; exit 77; }
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import axe_playwright_python' 2>/dev/null
then
	python3 -m venv "$venv" && "$venv/bin/pip" -q install playwright==1.65.2 \
		axe-playwright-python==0.1.8 || { echo "PyPI cannot be reached"; exit 77; }
fi
psql -X -q -v ON_ERROR_STOP=1 -v data="$BICYCLE_TESTDATA" -f - >"$out/page.html" <<'SQL'
SET client_min_messages = warning;
CREATE EXTENSION bicycle;
\o /dev/null
SELECT bicycle_import('emoji', pg_read_binary_file(:'data' || '/edges2emoji/G.pth'),
	pg_read_binary_file(:'data' || '/edges2emoji/E.pth'));
CREATE TABLE pairs AS
SELECT n, pg_read_binary_file(:'data' || format('/edges2emoji/pairs/0%s_A.png', n)) AS a,
	pg_read_binary_file(:'data' || format('/edges2emoji/pairs/0%s_B.png', n)) AS b
	FROM generate_series(0, 9) AS n;
SELECT bicycle_train('emoji', 'SELECT a, b FROM pairs',
	'{"iterations": 4, "preview_every": 2}') AS job \gset
CALL bicycle_wait(:job);
\o
\pset format unaligned
\pset tuples_only on
SELECT bicycle_report('emoji', 'SELECT a, b, ''<b>"'' || n AS id FROM pairs ORDER BY n',
	'{"rows": 4, "evaluation": {"inputs": 4, "samples": 3}}');
SQL
exec "$venv/bin/python" "$(dirname "$0")/look.py" "$out/page.html" "$out"
