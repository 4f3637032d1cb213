// Query bootstrap: the first connect downloads the pages that a query touches when the remote runs it, so that the same
// query asks for nothing later.
//
//	TURSO_DATABASE_URL=libsql://... TURSO_AUTH_TOKEN=... go run ./query
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"turso"
)

const mine = "SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100"

func main() {
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            "./app.db",
		RemoteUrl:       os.Getenv("TURSO_DATABASE_URL"),
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyQuery: mine,
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Connect(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	before, err := db.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	rows, err := conn.Query(mine)
	if err != nil {
		log.Fatal(err)
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		count++
	}
	if err := rows.Err(); err != nil {
		log.Fatal(err)
	}
	after, err := db.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d messages, with %d more requests\n", count, after.Requests-before.Requests)
}
