// Cycles opens a replica, asks it and closes it, again and again; it prints resident memory (KiB) as it goes.
//
// Each cycle also gives up what is under way: a query whose context ends in the middle of a page fetch, by itself and in a
// goroutine that nobody waits for; rows that nobody closes, with their transaction; a pull that is cancelled.
//
// cycles PATH URL CYCLES
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"turso"
)

func main() {
	cycles, err := strconv.Atoi(os.Args[3])
	check(err)
	for cycle := 1; cycle <= cycles; cycle++ {
		once(os.Args[1], os.Args[2])
		if cycle%(cycles/10) == 0 {
			debug.FreeOSMemory()
			fmt.Println(cycle, resident())
		}
	}
}

func once(path, url string) {
	ctx := context.Background()
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
		Path:              path,
		RemoteUrl:         url,
		PartialSyncConfig: turso.TursoPartialSyncConfig{BoostrapStrategyPrefix: 4096},
	})
	check(err)
	conn, err := db.Connect(ctx)
	check(err)
	var n int
	check(conn.QueryRowContext(ctx, "SELECT count(*) FROM t").Scan(&n))
	if n != 1000 {
		log.Fatalf("%d rows", n)
	}
	giveUp(ctx, db, conn)
	check(conn.Close())
	check(db.Close())
}

// giveUp begins what it does not end.
func giveUp(ctx context.Context, db *turso.TursoSyncDb, conn *sql.DB) {
	until, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var n int
		_ = conn.QueryRowContext(until, "SELECT count(*) FROM t AS a JOIN t AS b ON a.v < b.v WHERE a.id < 20").Scan(&n)
	}()
	tx, err := conn.BeginTx(until, nil)
	check(err)
	rows, err := tx.QueryContext(until, "SELECT v FROM t")
	check(err)
	rows.Next()
	cancel()
	_, _ = db.Pull(until)
	_, err = conn.QueryContext(until, "SELECT * FROM t")
	if err == nil {
		log.Fatal("a context that has ended was not looked at")
	}
	<-ended
}

func resident() string {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	return strings.Fields(after)[0]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
