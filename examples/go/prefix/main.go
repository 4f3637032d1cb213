// Prefix bootstrap: the first connect downloads the beginning of the database file; the rest comes when a query needs it.
//
//	TURSO_DATABASE_URL=libsql://... TURSO_AUTH_TOKEN=... go run ./prefix
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"turso"
)

func main() {
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            "./app.db",
		RemoteUrl:       os.Getenv("TURSO_DATABASE_URL"),
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 128 * 1024, // 128 KiB
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

	var body string
	err = conn.QueryRow("SELECT body FROM messages WHERE id = ?", 1).Scan(&body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("message 1:", body)

	stats, err := db.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d of %d pages are here, after %d requests\n", stats.PagesPresent, stats.PagesTotal, stats.Requests)
}
