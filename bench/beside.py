"""What a session waits for one image while other work goes on, and how fast that work is: UPDATEs,
bicycle_fill, a training job. Parts of bench.py.
"""
import subprocess
import sys
import time

from common import end_with_parent
from server import answers, program, psql, waits

SMALL = '{"size": 64, "input_nc": 1, "ngf": 8}'
PREPARE = r"""
CREATE EXTENSION IF NOT EXISTS bicycle;
DROP TABLE IF EXISTS outlines, filled;
CREATE TABLE outlines AS SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_A.png',
	:'data', to_char(n, 'FM00'))) AS image, pg_read_binary_file(format(
	'%s/edges2emoji/pairs/%s_B.png', :'data', to_char(n, 'FM00'))) AS photo
	FROM generate_series(0, 31) AS n;
SELECT bicycle_create('small', :'small');
SELECT count(bicycle_translate(image, bicycle_latent(8, 1), model => 'small')) FROM outlines;
CREATE OR REPLACE PROCEDURE update_filled() LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 0 .. (SELECT max(id) FROM filled) / 256 LOOP
		UPDATE filled SET made = bicycle_translate(image, bicycle_latent(8, id), model => 'small')
			WHERE id BETWEEN 256 * n AND 256 * n + 255 AND made IS NULL;
		COMMIT;
	END LOOP;
END $$;
"""
ROWS_ANEW = r"""
DROP TABLE IF EXISTS filled;
CREATE TABLE filled (id int PRIMARY KEY, image bytea, made bytea);
INSERT INTO filled SELECT n, image FROM generate_series(0, :rows - 1) AS n
	JOIN outlines ON outlines.id = n % 32;
VACUUM ANALYZE filled;
CHECKPOINT;
"""
WORK = {
    "UPDATEs in transactions of 256": "CALL update_filled()",
    "bicycle_fill": "CALL bicycle_fill('filled', 'made', "
                    "'bicycle_translate(image, bicycle_latent(8, id), model => ''small'')')",
}
ONE = """\\set id random(0, 31)
SELECT length(bicycle_translate(image, bicycle_latent(8, :id), model => 'small')) FROM outlines
	WHERE id = :id;
"""
DONE = "SELECT count(*) FROM filled WHERE made IS NOT NULL"
JOB = "the training job"


class Statement:
    """A session that runs it until it is cancelled."""

    def __init__(self, query):
        self.child = subprocess.Popen([program("psql"), "-XAtq", "-c", query],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      preexec_fn=end_with_parent)

    def end(self):
        psql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL %'")
        self.child.wait()


def fill_alone(bench, i):
    """Rows a second of a column, by each way, on a table of its own."""
    rows = bench.options.fill_rows
    for what, call in WORK.items():
        if bench.results.of("fill", what=what, round=i):
            continue
        psql(ROWS_ANEW, rows=rows)

        def measure(query=call):
            start = time.perf_counter()
            psql(query)
            return rows / (time.perf_counter() - start) if psql(DONE) == str(rows) else None

        # Once: what has been filled is not filled again.
        rate, share = bench.undisturbed(measure, what, again=False)
        if rate is None:
            sys.exit(f"{what} has not filled {rows} rows")
        bench.results.add(kind="fill", what=what, rows=rows, round=i, rate=round(rate, 1),
                          others=share)
        print(f"{what}: {rate:.0f} rows a second", flush=True)


def note_beside(bench, what, i, rate, measure):
    found, share = bench.undisturbed(measure, f"an image beside {what}", again=False)
    found = waits(found)
    bench.results.add(kind="beside", what=what, round=i, others=share, rate=round(rate(), 1),
                      **{k: round(v, 3) for k, v in found.items()})
    print(f"an image beside {what}: p50 {found['p50']:.2f} ms, p99 {found['p99']:.2f}", flush=True)


def beside_work(bench, i, ask):
    """One image after the other, beside each kind of work on rows."""
    for what, call in {"nothing": None, **WORK}.items():
        if bench.results.of("beside", what=what, round=i):
            continue
        if call is None:
            note_beside(bench, what, i, lambda: 0, ask)
            continue
        psql(ROWS_ANEW, rows=50 * bench.options.fill_rows)
        work = Statement(call)
        try:
            time.sleep(0.5)
            before, start = int(psql(DONE)), time.perf_counter()
            note_beside(bench, what, i, lambda b=before, s=start:
                        (int(psql(DONE)) - b) / (time.perf_counter() - s), ask)
        finally:
            work.end()


def comes_to(condition):
    while psql(f"SELECT {condition} FROM bicycle_jobs WHERE model = 'painting'") != "t":
        bad = psql("SELECT error FROM bicycle_jobs WHERE model = 'painting' AND state = 'failed'")
        if bad:
            sys.exit(f"{JOB} has failed: {bad}")
        time.sleep(0.1)


def beside_job(bench, i, ask):
    if bench.results.of("beside", what=JOB, round=i):
        return
    size = 64 if bench.options.tiny else 256
    job = psql("SELECT bicycle_train('painting', 'SELECT image, photo FROM outlines', "
               f"'{{\"size\": {size}, \"iterations\": 1000000}}')")
    try:
        comes_to("state = 'running' AND iteration > 0")
        comes_to("images_per_second > 0")
        note_beside(bench, JOB, i, lambda: float(psql(
            "SELECT images_per_second FROM bicycle_jobs WHERE model = 'painting'")), ask)
    finally:
        psql(f"SELECT bicycle_cancel({job})")
        comes_to("state = 'cancelled'")
        psql(f"DELETE FROM bicycle_training_jobs WHERE job = {job}")


def run_beside(bench):
    options = bench.options
    psql(PREPARE, data=options.data, small=SMALL)
    calls = 20 if options.tiny else 200

    def ask():
        return answers(ONE, 1, calls)[0]

    for i in range(options.rounds):
        fill_alone(bench, i)
        beside_work(bench, i, ask)
        beside_job(bench, i, ask)
