// Prefetch: pages that a query is expected to want next come along with those that it waits for.
//
//	TURSO_DATABASE_URL=libsql://... TURSO_AUTH_TOKEN=... go run ./prefetch
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
			Prefetch:               true,
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

	var count, letters int
	err = conn.QueryRow("SELECT count(*), sum(length(body)) FROM messages").Scan(&count, &letters)
	if err != nil {
		log.Fatal(err)
	}
	stats, err := db.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d messages of %d letters\n", count, letters)
	fmt.Printf("%d requests; %d prefetched pages were read\n", stats.Requests, stats.PrefetchHits)
}
