# Of psycopg 3: lists of floats are float8[]; it opens transactions, in which a job is not there for
# others, and waiting and filling are refused; a call can be cancelled from another thread; bytes go
# out as they are, and files that come in as an array are computed many at once.
import threading
import psycopg
from psycopg.adapt import PyFormat, Transformer

OPTIONS = '{"size": 64, "iterations": 5, "ngf": 4, "nef": 4, "ndf": 4}'
TRAIN = "SELECT bicycle_train('other', 'SELECT image, image FROM sketches', %s)"
FILL = "CALL bicycle_fill('sketches', 'variant', %s)"
ANSWER = "bicycle_translate(image, bicycle_latent(8, id), model => 'edges')"
z = [0.1] * 8


def refused(conn, error, statement, *values):
    try:
        conn.execute(statement, values)
    except error:
        return True
    return False


assert Transformer().get_dumper(b"", PyFormat.AUTO).format == psycopg.pq.Format.BINARY

with psycopg.connect(autocommit=True) as conn:
    image = conn.execute("SELECT image FROM sketches WHERE id = 1").fetchone()[0]
    assert refused(conn, psycopg.errors.UndefinedFunction,
                   "SELECT bicycle_translate(%s, %s, model => 'edges')", image, z)
    plan = conn.execute(
        "EXPLAIN INSERT INTO sketches"
        " SELECT n, i, bicycle_translate(i, %s::float4[], model => 'edges')"
        " FROM unnest(%s::bytea[]) WITH ORDINALITY AS file (i, n)", (z, [image])).fetchall()
    assert "BicycleBatch" in str(plan)

    timer = threading.Timer(0.5, conn.cancel_safe)
    timer.start()
    assert refused(conn, psycopg.errors.QueryCanceled, "SELECT pg_sleep(600)")
    timer.join()

    # By itself it opens a transaction.
    with psycopg.connect() as other:
        job = other.execute(TRAIN, (OPTIONS,)).fetchone()[0]
        state = "SELECT state FROM bicycle_jobs WHERE job = %s"
        assert conn.execute(state, (job,)).fetchone() is None
        assert refused(other, psycopg.errors.ActiveSqlTransaction, "CALL bicycle_wait(%s)", job)
        other.rollback()
        assert conn.execute(state, (job,)).fetchone() is None

        assert refused(other, psycopg.errors.InvalidTransactionTermination, FILL, ANSWER)
        other.rollback()

        job = other.execute(TRAIN, (OPTIONS,)).fetchone()[0]
        other.commit()
        other.autocommit = True
        other.execute("CALL bicycle_wait(%s)", (job,))
        assert conn.execute(state, (job,)).fetchone()[0] == "done"
        other.execute("UPDATE sketches SET variant = NULL")
        other.execute(FILL, (ANSWER,))
        left = other.execute("SELECT count(*) FROM sketches WHERE variant IS NULL")
        assert left.fetchone()[0] == 0
