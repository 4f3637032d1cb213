// Cycles opens a replica, asks it and closes it, again and again; it prints resident memory (KiB) as it goes.
//
// cycles PATH URL CYCLES
package main

import (
	"context"
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
	check(conn.Close())
	check(db.Close())
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
