// Of pgx: a slice of float32 needs no cast; the end of a context ends the call, in the server, too,
// and the connection.
package main

import (
	"context"
	"log"
	"time"

	"github.com/jackc/pgx/v4"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, "")
	check(err)
	var image, answer []byte
	check(conn.QueryRow(ctx, "SELECT image FROM sketches WHERE id = 1").Scan(&image))
	check(conn.QueryRow(ctx, "SELECT bicycle_translate($1, $2, model => 'edges')", image,
		make([]float32, 8)).Scan(&answer))

	moment, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err = conn.Exec(moment, "SELECT pg_sleep(600)"); err == nil || !conn.IsClosed() {
		log.Fatal("the context's end has not ended the call and the connection: ", err)
	}
	other, err := pgx.Connect(ctx, "")
	check(err)
	for left := 1; left > 0; time.Sleep(100 * time.Millisecond) {
		check(other.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"+
			" AND query = 'SELECT pg_sleep(600)'").Scan(&left))
	}
	check(other.Close(ctx))
}
