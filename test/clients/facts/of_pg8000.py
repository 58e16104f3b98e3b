# Of pg8000: a list needs no cast; it opens transactions, in which waiting is refused.
import os
import pg8000.dbapi

conn = pg8000.dbapi.connect(
    os.environ["PGUSER"], host="127.0.0.1", port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"])


def sqlstate(statement, *values):
    try:
        conn.cursor().execute(statement, values)
    except pg8000.dbapi.DatabaseError as e:
        return e.args[0]["C"]
    return None


cur = conn.cursor()
cur.execute("SELECT image FROM sketches WHERE id = 1")
image = cur.fetchone()[0]
cur.execute("SELECT bicycle_translate(%s, %s, model => 'edges')", (image, [0.1] * 8))
assert cur.fetchone()[0].startswith(b"\x89PNG")
assert sqlstate("CALL bicycle_wait(%s)", 1) == "25001"
conn.rollback()
conn.close()
