// Cycles opens a replica, asks it and closes it, again and again; it prints resident memory (KiB), open descriptors and
// threads as it goes.
//
// Each cycle also gives up what is under way: a query and its goroutine; rows that nobody closes, with their transaction; a
// pull that is cancelled; and in a replica without pages a goroutine that ends in the middle of a page fetch, while it waits for
// a row and while it reads rows that it does not close.
//
// cycles PATH URL CYCLES
package main

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"

	"turso"
)

func main() {
	cycles, err := strconv.Atoi(os.Args[3])
	check(err)
	remote := inFrontOf(os.Args[2])
	for cycle := 1; cycle <= cycles; cycle++ {
		once(os.Args[1], os.Args[2])
		remote.endInAFetch()
		if cycle%(cycles/10) == 0 {
			debug.FreeOSMemory()
			fmt.Println(cycle, status("VmRSS:"), descriptors(), status("Threads:"))
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

// A remote takes requests and, while it is hushed, does not answer them.
type remote struct {
	url    string
	hushed atomic.Bool
	heard  chan struct{}
}

func inFrontOf(address string) *remote {
	to, err := url.Parse(address)
	check(err)
	r := &remote{heard: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(to)
	// A client that leaves in the middle of an answer is what this is about.
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if !r.hushed.Load() {
			proxy.ServeHTTP(w, request)
			return
		}
		// The client's leaving is noticed once its request has been read.
		_, _ = io.Copy(io.Discard, request.Body)
		r.heard <- struct{}{}
		<-request.Context().Done()
	}))
	r.url = server.URL
	return r
}

// endInAFetch ends goroutines whose query waits for a page.
func (r *remote) endInAFetch() {
	r.hushed.Store(false)
	ctx := context.Background()
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
		Path:              ":memory:",
		RemoteUrl:         r.url,
		PartialSyncConfig: turso.TursoPartialSyncConfig{BoostrapStrategyPrefix: 4096, SegmentSize: 4096},
	})
	check(err)
	conn, err := db.Connect(ctx)
	check(err)
	// The first rows are on the pages that this fetches.
	var v string
	check(conn.QueryRowContext(ctx, "SELECT v FROM t").Scan(&v))
	for _, query := range []func(context.Context) error{
		func(until context.Context) error {
			var n int
			return conn.QueryRowContext(until, "SELECT count(*) FROM t").Scan(&n)
		},
		func(until context.Context) error {
			rows, err := conn.QueryContext(until, "SELECT v FROM t")
			check(err)
			for rows.Next() {
			}
			return rows.Err()
		},
	} {
		r.hushed.Store(true)
		until, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if query(until) == nil {
				log.Fatal("the fetch was not broken off")
			}
			runtime.Goexit()
		}()
		<-r.heard
		cancel()
		<-ended
	}
	check(conn.Close())
	check(db.Close())
}

func descriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	check(err)
	return len(open)
}

func status(field string) string {
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	_, after, _ := strings.Cut(string(status), field)
	return strings.Fields(after)[0]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
