// Push and pull: a write commits here, a push sends it, a pull brings what others have written. Every wait ends with its
// context.
//
//	TURSO_DATABASE_URL=libsql://... TURSO_AUTH_TOKEN=... go run ./push_and_pull
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"turso"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
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
	conn, err := db.Connect(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	_, err = conn.ExecContext(ctx, "INSERT INTO messages(user_id, body) VALUES (?, ?)", "u_go", "written here")
	if err != nil {
		log.Fatal(err)
	}
	switch err := db.Push(ctx); {
	case errors.Is(err, turso.ErrTursoNetwork):
		log.Fatal("offline; the message is kept and goes with a later push: ", err)
	case err != nil:
		log.Fatal(err)
	}
	changed, err := db.Pull(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("pushed; something came with the pull:", changed)

	var count int
	err = conn.QueryRowContext(ctx, "SELECT count(*) FROM messages WHERE user_id = ?", "u_go").Scan(&count)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("messages of u_go:", count)
}
