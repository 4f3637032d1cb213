package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"turso"
)

// Connections that go from one user to the next, and contexts that end at every moment at which they are looked at.

// endsAt is a context that ends when it is looked at for the nth time.
type endsAt struct {
	context.Context
	mu   sync.Mutex
	left int
	done chan struct{}
}

func newEndsAt(looks int) *endsAt {
	return &endsAt{Context: ctx, left: looks, done: make(chan struct{})}
}

func (e *endsAt) look() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left--; e.left == -1 {
		close(e.done)
	}
	return e.left < 0
}

func (e *endsAt) Done() <-chan struct{} {
	e.look()
	return e.done
}

func (e *endsAt) Err() error {
	if e.look() {
		return context.Canceled
	}
	return nil
}

const endless = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n`

func TestAContextThatEndsAtAnyLookLeavesAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		db.SetMaxOpenConns(1)
		insert := "INSERT INTO t(v) VALUES (?), (?)"
		for way, write := range map[string]func(until context.Context, v string) error{
			"exec": func(until context.Context, v string) error {
				_, err := db.ExecContext(until, insert, v, v)
				return err
			},
			"several statements": func(until context.Context, v string) error {
				_, err := db.ExecContext(until, "BEGIN; "+insert+"; COMMIT", v, v)
				return err
			},
			"prepared": func(until context.Context, v string) error {
				statement, err := db.PrepareContext(until, insert)
				if err != nil {
					return err
				}
				defer statement.Close()
				_, err = statement.ExecContext(until, v, v)
				return err
			},
			"transaction": func(until context.Context, v string) error {
				tx, err := db.BeginTx(until, nil)
				if err != nil {
					return err
				}
				defer tx.Rollback()
				if _, err := tx.ExecContext(until, insert, v, v); err != nil {
					return err
				}
				return tx.Commit()
			},
		} {
			failed := 0
			for looks := range 60 {
				v := fmt.Sprint(way, looks)
				err := write(newEndsAt(looks), v)
				rows := one[int](t, db, "SELECT count(*) FROM t WHERE v = ?", v)
				if err == nil && rows != 2 || err != nil && rows != 0 {
					t.Errorf("%s, %d looks: %d rows after %v", way, looks, rows, err)
				}
				if err != nil {
					failed++
					// A transaction whose context has ended may be rolled back before its next call is made.
					if !errors.Is(err, context.Canceled) && !errors.Is(err, sql.ErrTxDone) {
						t.Errorf("%s, %d looks: %v", way, looks, err)
					}
				}
			}
			if failed < 3 || failed == 60 {
				t.Errorf("%s: %d of 60 failed", way, failed)
			}
		}
	})
}

func TestAReadOnlyTransactionThatCannotBeginLeavesItsConnectionWritable(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		db.SetMaxOpenConns(1)
		exec1(t, db, "INSERT INTO t VALUES (1, 'x')")
		for looks := range 40 {
			if tx, err := db.BeginTx(newEndsAt(looks), &sql.TxOptions{ReadOnly: true}); err == nil {
				_ = tx.Rollback()
			}
			if _, err := db.Exec("UPDATE t SET v = ?", looks); err != nil {
				t.Fatalf("after a context that ended at look %d: %v", looks, err)
			}
		}
	})
}

func TestAConnectionThatIsGivenBackInATransactionHoldsNoLock(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		careless, err := db.Conn(ctx)
		must(t, err)
		another, err := db.Conn(ctx)
		must(t, err)
		defer another.Close()
		_, err = careless.ExecContext(ctx, "BEGIN IMMEDIATE; INSERT INTO t VALUES (1, 'forgotten')")
		must(t, err)
		must(t, careless.Close())
		// Nobody has asked the pool for that connection since.
		_, err = another.ExecContext(ctx, "INSERT INTO t VALUES (2, 'x')")
		must(t, err)
		equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 1)
	})
}

func TestATransactionWhoseEndIsInterruptedIsOver(t *testing.T) {
	for _, commit := range []bool{false, true} {
		onBoth(t, func(t *testing.T, db *sql.DB) {
			exec1(t, db, "INSERT INTO t SELECT value, 'v' FROM generate_series(1, 10000)")
			conn, err := db.Conn(ctx)
			must(t, err)
			defer conn.Close()
			tx, err := conn.BeginTx(ctx, nil)
			must(t, err)
			exec1(t, tx, "INSERT INTO t VALUES (20000, 'undone')")
			// Rows of the connection that the transaction does not know of. The interrupt lasts as long as they are unread.
			rows, err := conn.QueryContext(ctx, "SELECT id FROM t")
			must(t, err)
			equal(t, "a row", rows.Next(), true)
			until, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			var n int
			err = tx.QueryRowContext(until, endless).Scan(&n)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if commit {
				if err := tx.Commit(); !errors.Is(err, turso.ErrTursoInterrupt) {
					t.Fatalf("the commit: %v", err)
				}
			} else {
				must(t, tx.Rollback())
			}
			// It is over, and so a write now commits, or says that it cannot be.
			_, err = conn.ExecContext(ctx, "INSERT INTO t VALUES (30000, 'refused')")
			if !errors.Is(err, turso.ErrTursoInterrupt) {
				t.Fatalf("beside the unread rows: %v", err)
			}
			for rows.Next() {
			}
			if !errors.Is(rows.Err(), turso.ErrTursoInterrupt) {
				t.Fatalf("the unread rows: %v", rows.Err())
			}
			must(t, rows.Close())
			_, err = conn.ExecContext(ctx, "INSERT INTO t VALUES (30001, 'after')")
			must(t, err)
			equal(t, "rows that another connection sees", one[int](t, db, "SELECT count(*) FROM t WHERE id >= 20000"), 1)
		})
	}
}

func TestAPragmaThatWasCompiledAndNotRunWorksWhenItIsRun(t *testing.T) {
	db := local(t, inFolder(t, "local.db"))
	db.SetMaxOpenConns(1)
	level := func(want int) {
		t.Helper()
		equal(t, "PRAGMA synchronous", one[int](t, db, "PRAGMA synchronous"), want)
	}
	// Compiling it is what sets it, so one that is kept compiled would do nothing.
	if _, err := db.Exec("PRAGMA synchronous = OFF", "an argument that it does not take"); err == nil {
		t.Fatal("it was accepted")
	}
	exec1(t, db, "PRAGMA synchronous = FULL")
	level(2)
	exec1(t, db, "PRAGMA synchronous = OFF")
	level(0)
	unused, err := db.Prepare("PRAGMA synchronous = FULL")
	must(t, err)
	must(t, unused.Close())
	exec1(t, db, "PRAGMA synchronous = OFF")
	exec1(t, db, "PRAGMA synchronous = FULL")
	level(2)
}

func TestAContextBreaksEveryCallThatWaitsForALock(t *testing.T) {
	url := serve(t, callsSchema)
	db, conn := replica(t, prefix(url, inFolder(t, "app.db?_busy_timeout=60000")))
	exec1(t, conn, "INSERT INTO t VALUES (1, 'x')")
	// Without news a pull needs no lock.
	other, otherConn := replica(t, prefix(url, inFolder(t, "other.db")))
	exec1(t, otherConn, "INSERT INTO t VALUES (9, 'news')")
	must(t, other.Push(ctx))
	writer, err := conn.Begin()
	must(t, err)
	defer writer.Rollback()
	exec1(t, writer, "INSERT INTO t VALUES (2, 'x')")
	for name, call := range map[string]func(context.Context) error{
		"discard":      func(until context.Context) error { _, err := db.DiscardChange(until, 1); return err },
		"discard more": func(until context.Context) error { _, err := db.DiscardChangeWithDependents(until, 1); return err },
		"push":         db.Push,
		"pull":         func(until context.Context) error { _, err := db.Pull(until); return err },
		"begin":        func(until context.Context) error { _, err := conn.ExecContext(until, "BEGIN IMMEDIATE"); return err },
		"write":        func(until context.Context) error { _, err := conn.ExecContext(until, "DELETE FROM t"); return err },
		"write, one row": func(until context.Context) error {
			var id int
			return conn.QueryRowContext(until, "INSERT INTO t VALUES (3, 'x') RETURNING id").Scan(&id)
		},
	} {
		until, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if err := call(until); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, turso.ErrTursoInterrupt) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	// These do not wait for it.
	must(t, db.Checkpoint(ctx))
	_, err = db.Stats(ctx)
	must(t, err)
	must(t, writer.Commit())
	equal(t, "rows", one[int](t, conn, "SELECT count(*) FROM t"), 2)
}

func TestConnectionsThatAreOpenOutliveTheReplicaAndNoNewOnesAreMade(t *testing.T) {
	db, conn := replica(t, prefix(serve(t, callsSchema), inFolder(t, "app.db")))
	open, err := conn.Conn(ctx)
	must(t, err)
	defer open.Close()
	must(t, db.Close())
	_, err = open.ExecContext(ctx, "INSERT INTO t VALUES (1, 'x')")
	must(t, err)
	if _, err := conn.Conn(ctx); !errors.Is(err, turso.ErrTursoConnClosed) {
		t.Fatalf("a new connection: %v", err)
	}
}

func TestWhatWasScannedStaysWhatItWas(t *testing.T) {
	db := local(t, ":memory:")
	exec1(t, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
	given := []byte("given")
	exec1(t, db, "INSERT INTO t(v) SELECT ? FROM generate_series(1, 20)", given)
	copy(given, "other")
	rows, err := db.Query("SELECT v, v, v FROM t")
	must(t, err)
	defer rows.Close()
	reused := make([]byte, 0, 64)
	var kept [][]byte
	for rows.Next() {
		var raw sql.RawBytes
		var value any
		must(t, rows.Scan(&raw, &reused, &value))
		equal(t, "raw bytes", string(raw), "given")
		kept = append(kept, reused, value.([]byte))
		// It is the program's own: nothing of it comes back.
		copy(raw, "XXXXX")
		copy(value.([]byte), "given")
	}
	must(t, rows.Err())
	for _, value := range kept {
		equal(t, "a value that was kept", string(value), "given")
	}
}

func TestAStatementThatIsSharedByGoroutinesAndClosedBesideThem(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		for range 5 {
			statement, err := db.Prepare("INSERT INTO t(v) VALUES (?) RETURNING id, v")
			must(t, err)
			var all sync.WaitGroup
			for n := range 8 {
				all.Add(1)
				go func() {
					defer all.Done()
					for i := range 40 {
						var id, v int
						err := statement.QueryRow(n*1000+i).Scan(&id, &v)
						if err != nil && err.Error() == "sql: statement is closed" {
							return
						}
						if err != nil || v != n*1000+i {
							t.Errorf("%d of %d: %d, %v", i, n, v, err)
						}
						if n == 0 && i%10 == 5 {
							exec1(t, db, fmt.Sprintf("CREATE TABLE IF NOT EXISTS changed%d(x); DROP TABLE changed%[1]d", i))
						}
						if n == 1 && i == 30 {
							if err := statement.Close(); err != nil {
								t.Error(err)
							}
						}
					}
				}()
			}
			all.Wait()
		}
	})
}
