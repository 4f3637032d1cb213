package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"turso"
)

// ended checks that a call ended because its context did, long before what it waited for would have ended it.
func ended(t *testing.T, err, cause error, began time.Time) {
	t.Helper()
	if !errors.Is(err, cause) || !errors.Is(err, turso.ErrTursoInterrupt) {
		t.Fatalf("the error is %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Fatalf("it took %v", took)
	}
}

// cancelledOnceHeard is a context that ends when a request waits in front of the silent remote.
func cancelledOnceHeard(t *testing.T, remote *silent) context.Context {
	t.Helper()
	until, cancel := context.WithCancel(ctx)
	t.Cleanup(cancel)
	remote.hush()
	go func() {
		for end := time.Now().Add(20 * time.Second); !remote.heard() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	return until
}

func TestACancelledContextBreaksAPageFetchAndTheHandleStaysUsable(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	db, conn := replica(t, prefix(remote.url, inFolder(t, "app.db")))
	conn.SetMaxOpenConns(1)
	equal(t, "one", one[int](t, conn, "SELECT 1"), 1)

	for name, call := range map[string]func(context.Context) error{
		"QueryRow": func(until context.Context) error {
			var body string
			return conn.QueryRowContext(until, "SELECT body FROM messages WHERE id = 15000").Scan(&body)
		},
		"Exec": func(until context.Context) error {
			_, err := conn.ExecContext(until, "UPDATE messages SET body = 'x' WHERE id = 16000")
			return err
		},
		"a prepared statement": func(until context.Context) error {
			statement, err := conn.Prepare("SELECT body FROM messages WHERE id = ?")
			must(t, err)
			defer statement.Close()
			var body string
			return statement.QueryRowContext(until, 17000).Scan(&body)
		},
	} {
		t.Run(name, func(t *testing.T) {
			until, began := cancelledOnceHeard(t, remote), time.Now()
			ended(t, call(until), context.Canceled, began)
			remote.speak()
		})
	}

	equal(t, "the row", len(one[string](t, conn, "SELECT body FROM messages WHERE id = 15000")), 180)
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('after')")
	must(t, db.Push(ctx))
}

func TestADeadlineBreaksAPageFetchInTheMiddleOfRows(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	config := prefix(remote.url, inFolder(t, "app.db"))
	// Else the other rows may be here by the time that the remote is silent.
	config.PartialSyncConfig.DisablePrefetch = true
	_, conn := replica(t, config)
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := conn.QueryContext(until, "SELECT id, body FROM messages")
	must(t, err)
	defer rows.Close()
	for range 10 {
		equal(t, "a row", rows.Next(), true)
	}
	remote.hush()
	go func() {
		for !remote.heard() {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	began, count := time.Now(), 0
	for rows.Next() {
		count++
	}
	// Which of the two ends the rows, database/sql or the driver, is a matter of chance; the driver's error is wrapped in
	// the context's, and database/sql has the context's alone.
	if err := rows.Err(); !errors.Is(err, context.Canceled) {
		t.Fatalf("after %d rows: %v", count, err)
	}
	if took := time.Since(began); took > 3*time.Second || count > 19000 {
		t.Fatalf("it took %v for %d rows", took, count)
	}
	must(t, rows.Close())
	remote.speak()
	equal(t, "all", one[int](t, conn, "SELECT count(*) FROM messages"), 20000)
}

func TestAnExpiredContextBreaksPullPushAndTheFirstConnect(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	db, conn := replica(t, prefix(remote.url, inFolder(t, "app.db")))
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('mine')")
	remote.hush()
	deadline := func() context.Context {
		until, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		t.Cleanup(cancel)
		return until
	}
	for name, call := range map[string]func() error{
		"pull": func() error { _, err := db.Pull(deadline()); return err },
		"push": func() error { return db.Push(deadline()) },
		"connect": func() error {
			_, err := turso.NewTursoSyncDb(deadline(), prefix(remote.url, inFolder(t, "new.db")))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			ended(t, call(), context.DeadlineExceeded, began)
		})
	}
	remote.speak()
	must(t, db.Push(ctx))
	_, err := db.Pull(ctx)
	must(t, err)
	equal(t, "changes to push", statsOf(t, db).CdcOperations, 0)
}

func TestAnExpiredContextBreaksTheFirstQueryWhichReadsALargeSchema(t *testing.T) {
	var script strings.Builder
	script.WriteString("BEGIN;")
	for i := range 1000 {
		fmt.Fprintf(&script, "CREATE TABLE wide%d(%s);", i, strings.Repeat("a", 300))
	}
	remote := silentInFrontOf(t, serve(t, script.String()+"COMMIT"))
	// The second request is the first one after the bootstrap: for a page of the schema.
	remote.hushAt(2)
	_, conn := replica(t, prefix(remote.url, inFolder(t, "app.db")))
	until, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	began := time.Now()
	var tables int
	err := conn.QueryRowContext(until, "SELECT count(*) FROM sqlite_schema").Scan(&tables)
	ended(t, err, context.DeadlineExceeded, began)
	equal(t, "the second request was swallowed", remote.heard(), true)
	remote.speak()
	equal(t, "tables", one[int](t, conn, "SELECT count(*) FROM sqlite_schema"), 1000)
}

func TestAnotherGoroutinesContextDoesNotBreakAPull(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	db, _ := replica(t, prefix(remote.url, inFolder(t, "app.db")))
	remote.hush()
	pulled := make(chan error, 1)
	go func() {
		_, err := db.Pull(ctx)
		pulled <- err
	}()
	eventually(t, "the pull asks", remote.heard)
	until, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	ended(t, db.Push(until), context.DeadlineExceeded, began)
	select {
	case err := <-pulled:
		t.Fatalf("the pull ended: %v", err)
	default:
	}
	remote.speak()
	must(t, <-pulled)
}

func TestACancelledContextBreaksAWaitForALock(t *testing.T) {
	for name, open := range map[string]func(*testing.T) *sql.DB{
		"local": func(t *testing.T) *sql.DB { return local(t, inFolder(t, "local.db")) },
		"replica": func(t *testing.T) *sql.DB {
			_, conn := replica(t, prefix(serve(t, messages), inFolder(t, "app.db")))
			return conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := open(t)
			exec1(t, db, "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS notes(title)")
			tx, err := db.Begin()
			must(t, err)
			exec1(t, tx, "INSERT INTO notes(title) VALUES ('the lock is mine')")
			until, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			began := time.Now()
			_, err = db.ExecContext(until, "INSERT INTO notes(title) VALUES ('waits')")
			ended(t, err, context.DeadlineExceeded, began)
			must(t, tx.Rollback())
			exec1(t, db, "INSERT INTO notes(title) VALUES ('continues')")
		})
	}
}

func TestACancelledContextBreaksALongComputation(t *testing.T) {
	db := local(t, ":memory:")
	until, cancel := context.WithTimeoutCause(ctx, 50*time.Millisecond, errors.New("the user has left"))
	defer cancel()
	began := time.Now()
	var count int
	err := db.QueryRowContext(until, `WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
		SELECT count(*) FROM c`).Scan(&count)
	ended(t, err, context.DeadlineExceeded, began)
	equal(t, "still there", one[int](t, db, "SELECT 1"), 1)
}

func TestACancelledTransactionIsRolledBackAndItsConnectionServesOn(t *testing.T) {
	db := local(t, inFolder(t, "local.db"))
	db.SetMaxOpenConns(1)
	exec1(t, db, "CREATE TABLE t(x)")
	until, cancel := context.WithCancel(ctx)
	tx, err := db.BeginTx(until, nil)
	must(t, err)
	exec1(t, tx, "INSERT INTO t VALUES (1)")
	cancel()
	equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 0)
	if err := tx.Commit(); err == nil {
		t.Fatal("a cancelled transaction was committed")
	}
}

func TestAnInterruptNeverHitsTheNextStatement(t *testing.T) {
	db := local(t, inFolder(t, "local.db"))
	db.SetMaxOpenConns(1)
	exec1(t, db, "CREATE TABLE t(x)")
	for i := range 300 {
		until, cancel := context.WithTimeout(ctx, time.Duration(i)*time.Microsecond)
		_, err := db.ExecContext(until, "INSERT INTO t SELECT value FROM generate_series(1, 500)")
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
		exec1(t, db, "DELETE FROM t")
	}
}

func TestAStatementTakesNoLongerThanTheQueryTimeout(t *testing.T) {
	const endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
	url := serve(t, messages)
	config := prefix(url, inFolder(t, "app.db"))
	config.QueryTimeoutMs = 20
	replica, err := turso.NewTursoSyncDb(ctx, config)
	must(t, err)
	defer replica.Close()
	synced, err := replica.Connect(ctx)
	must(t, err)
	for name, db := range map[string]*sql.DB{"replica": synced, "local": local(t, inFolder(t, "local.db")+"?_query_timeout=20")} {
		exec1(t, db, "CREATE TABLE endless(x)")
		if _, err := db.ExecContext(ctx, endless+"INSERT INTO endless SELECT i FROM n"); !errors.Is(err, turso.ErrTursoInterrupt) {
			t.Errorf("%s: a write: %v", name, err)
		}
		var count int
		if err := db.QueryRowContext(ctx, endless+"SELECT count(*) FROM n").Scan(&count); !errors.Is(err, turso.ErrTursoInterrupt) {
			t.Errorf("%s: a read: %v", name, err)
		}
		equal(t, name, one[int](t, db, "SELECT count(*) FROM endless"), 0)
	}
}

func TestNothingIsLeftRunning(t *testing.T) {
	url := serve(t, messages)
	before := runtime.NumGoroutine()
	for range 20 {
		db, err := turso.NewTursoSyncDb(ctx, prefix(url, inFolder(t, "app.db")))
		must(t, err)
		conn, err := db.Connect(ctx)
		must(t, err)
		until, cancel := context.WithTimeout(ctx, time.Millisecond)
		rows, err := conn.QueryContext(until, "SELECT * FROM messages")
		if err == nil {
			for rows.Next() {
			}
			rows.Close()
		}
		cancel()
		_, _ = db.Pull(until)
		must(t, conn.Close())
		must(t, db.Close())
	}
	eventually(t, "as many goroutines as before", func() bool { return runtime.NumGoroutine() <= before })
}
