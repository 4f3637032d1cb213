// Segment size: how many bytes around an absent page come with it. Small segments suit reads that are far apart, large
// ones suit scans.
//
//	TURSO_DATABASE_URL=libsql://... TURSO_AUTH_TOKEN=... go run ./segment_size
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
			SegmentSize:            16 * 1024,
			DisablePrefetch:        true, // segments alone, without what else the statement will read
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
	var body string
	err = conn.QueryRow("SELECT body FROM messages ORDER BY id DESC LIMIT 1").Scan(&body)
	if err != nil {
		log.Fatal(err)
	}
	after, err := db.Stats(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the last message:", body)
	fmt.Printf("%d pages came with %d requests\n", after.PagesPresent-before.PagesPresent, after.Requests-before.Requests)
}
