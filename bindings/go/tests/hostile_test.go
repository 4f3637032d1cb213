package tests

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand"
	"sync"
	"testing"
	"time"

	"turso"
)

// What a program can do wrong, or at a bad moment, is an error and leaves the database as it is.

func TestWhatIsUsedAfterItsEndIsAnError(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		exec1(t, db, "INSERT INTO t SELECT value, 'v' FROM generate_series(1, 10000)")
		for name, end := range map[string]func(*sql.Tx) error{"commit": (*sql.Tx).Commit, "rollback": (*sql.Tx).Rollback} {
			tx, err := db.Begin()
			must(t, err)
			rows, err := tx.Query("SELECT id FROM t")
			must(t, err)
			equal(t, "a row", rows.Next(), true)
			statement, err := tx.Prepare("DELETE FROM t")
			must(t, err)
			must(t, end(tx))
			equal(t, name+": a row after the end", rows.Next(), false)
			if _, err := statement.Exec(); err == nil {
				t.Fatalf("%s: a statement of the transaction ran after its end", name)
			}
			if err := end(tx); !errors.Is(err, sql.ErrTxDone) {
				t.Fatalf("%s, again: %v", name, err)
			}
		}
		equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 10000)

		// The driver itself, as somebody uses it who does not keep to the rules of database/sql.
		conn, err := db.Conn(ctx)
		must(t, err)
		defer conn.Close()
		must(t, conn.Raw(func(native any) error {
			c := native.(driver.ConnPrepareContext)
			prepared, err := c.PrepareContext(ctx, "SELECT id FROM t")
			must(t, err)
			rows, err := prepared.(driver.StmtQueryContext).QueryContext(ctx, nil)
			must(t, err)
			must(t, prepared.Close())
			row := make([]driver.Value, 1)
			must(t, rows.Next(row))
			must(t, rows.Close())
			must(t, rows.Close())
			if err := rows.Next(row); err == nil {
				t.Fatal("a row of closed rows")
			}
			if _, err := prepared.(driver.StmtQueryContext).QueryContext(ctx, nil); !errors.Is(err, turso.ErrTursoStmtClosed) {
				t.Fatalf("a closed statement: %v", err)
			}
			prepared, err = c.PrepareContext(ctx, "SELECT id FROM t")
			must(t, err)
			open, err := prepared.(driver.StmtQueryContext).QueryContext(ctx, nil)
			must(t, err)
			must(t, native.(driver.Conn).Close())
			must(t, native.(driver.Conn).Close())
			for range 3 { // What is read ahead, then what is not.
				_ = open.Next(row)
			}
			must(t, open.Close())
			must(t, prepared.Close())
			if _, err := c.PrepareContext(ctx, "SELECT 1"); !errors.Is(err, turso.ErrTursoConnClosed) {
				t.Fatalf("a closed connection: %v", err)
			}
			return nil
		}))
		equal(t, "rows after it", one[int](t, db, "SELECT count(*) FROM t"), 10000)
	})
}

func TestAPoolWithAConnectionThatLostItsTransactionServesOn(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		db.SetMaxOpenConns(1)
		exec1(t, db, "INSERT INTO t VALUES (1, 'one')")
		for range 100 {
			// By hand, on whatever connection the pool gives, and left as it is.
			exec1(t, db, "BEGIN; INSERT INTO t VALUES (2, 'two')")
			if _, err := db.Exec("INSERT OR ROLLBACK INTO t VALUES (1, 'again')"); err == nil {
				t.Fatal("it was accepted")
			}
			exec1(t, db, "UPDATE t SET v = 'after' WHERE id = 1")
			equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 1)
		}
	})
}

func TestContextsThatEndAtAnyMomentLeaveAllOrNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		db.SetMaxOpenConns(4)
		done := 0
		for i := range 400 {
			until, cancel := context.WithTimeout(ctx, time.Duration(rand.Intn(2000))*time.Microsecond)
			write := func() error {
				if i%2 == 0 {
					_, err := db.ExecContext(until, "INSERT INTO t(v) SELECT ? FROM generate_series(1, 200)", i)
					return err
				}
				tx, err := db.BeginTx(until, nil)
				if err != nil {
					return err
				}
				defer tx.Rollback()
				for range 2 {
					if _, err := tx.ExecContext(until, "INSERT INTO t(v) SELECT ? FROM generate_series(1, 100)", i); err != nil {
						return err
					}
				}
				return tx.Commit()
			}
			err := write()
			cancel()
			rows := one[int](t, db, "SELECT count(*) FROM t WHERE v = ?", i)
			if err == nil && rows != 200 || rows != 0 && rows != 200 {
				t.Fatalf("%d rows after %v", rows, err)
			}
			if err == nil {
				done++
			} else if rows != 0 && i%2 == 0 {
				t.Fatalf("it failed with %v, and its rows are there", err)
			}
		}
		t.Logf("%d of 400 succeeded", done)
	})
}

func TestClosingBesideEverythingElseEndsEverything(t *testing.T) {
	url := serve(t, messages)
	for range 5 {
		db, err := turso.NewTursoSyncDb(ctx, prefix(url, inFolder(t, "app.db")))
		must(t, err)
		conn, err := db.Connect(ctx)
		must(t, err)
		var all sync.WaitGroup
		for n := range 6 {
			all.Add(1)
			go func() {
				defer all.Done()
				for {
					var err error
					switch n % 3 {
					case 0:
						var count int
						err = conn.QueryRow("SELECT count(*) FROM messages WHERE id > ?", rand.Intn(20000)).Scan(&count)
					case 1:
						_, err = conn.Exec("INSERT INTO notes(title) VALUES (random())")
					case 2:
						if _, err = db.Pull(ctx); err == nil {
							err = db.Push(ctx)
						}
					}
					if err != nil && !errors.Is(err, turso.ErrTursoBusy) {
						return
					}
				}
			}()
		}
		time.Sleep(time.Duration(rand.Intn(30)) * time.Millisecond)
		if rand.Intn(2) == 0 {
			must(t, conn.Close())
			must(t, db.Close())
		} else {
			must(t, db.Close())
			must(t, conn.Close())
		}
		all.Wait()
	}
}
