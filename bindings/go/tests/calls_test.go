package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"turso"
)

// What a call returned is what happened. Each test runs on a local database and on a replica.

const callsSchema = `CREATE TABLE p(id INTEGER PRIMARY KEY);
	CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);`

func onBoth(t *testing.T, test func(*testing.T, *sql.DB)) {
	t.Run("local", func(t *testing.T) {
		db := local(t, inFolder(t, "local.db")+"?_foreign_keys=1")
		exec1(t, db, "PRAGMA journal_mode = WAL; "+callsSchema)
		test(t, db)
	})
	t.Run("replica", func(t *testing.T) {
		_, conn := replica(t, prefix(serve(t, callsSchema), inFolder(t, "app.db?_foreign_keys=1")))
		test(t, conn)
	})
}

func TestB1AStatementThatWritesIsCommittedBeforeItsFirstRow(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		var id int
		err := db.QueryRow("INSERT INTO c(p) VALUES (7) RETURNING id").Scan(&id)
		if !errors.Is(err, turso.ErrTursoConstraint) {
			t.Fatalf("a commit that fails: id %d, %v", id, err)
		}
		equal(t, "rows after it", one[int](t, db, "SELECT count(*) FROM c"), 0)

		for _, query := range []string{
			"INSERT INTO t VALUES (1, 'a'), (2, 'b') RETURNING id",
			"UPDATE t SET v = 'c' RETURNING id",
			"DELETE FROM t RETURNING id",
		} {
			rows, err := db.Query(query)
			must(t, err)
			equal(t, "a row", rows.Next(), true)
			// Another connection sees it while the rows are being read.
			left := one[int](t, db, "SELECT count(*) FROM t WHERE v <> 'gone'")
			if want := map[byte]int{'I': 2, 'U': 2, 'D': 0}[query[0]]; left != want {
				t.Fatalf("%s: %d rows are seen by another connection", query, left)
			}
			equal(t, "another row", rows.Next(), true)
			equal(t, "a third row", rows.Next(), false)
			must(t, rows.Err())
			must(t, rows.Close())
		}
		statement, err := db.Prepare("INSERT INTO c(p) VALUES (?) RETURNING id")
		must(t, err)
		defer statement.Close()
		if err := statement.QueryRow(8).Scan(&id); !errors.Is(err, turso.ErrTursoConstraint) {
			t.Fatalf("prepared: %v", err)
		}
	})
}

func TestB3ATransactionThatWasRolledBackTakesNothingUntilItIsEnded(t *testing.T) {
	endless := `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO t SELECT i + 10, i FROM n`
	onBoth(t, func(t *testing.T, db *sql.DB) {
		for name, lose := range map[string]func(*sql.Tx) error{
			"OR ROLLBACK": func(tx *sql.Tx) error {
				_, err := tx.Exec("INSERT OR ROLLBACK INTO t VALUES (1, 'again')")
				return err
			},
			"a deadline": func(tx *sql.Tx) error {
				until, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
				defer cancel()
				_, err := tx.ExecContext(until, endless)
				return err
			},
		} {
			for _, commit := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, commit: %v", name, commit), func(t *testing.T) {
					tx, err := db.Begin()
					must(t, err)
					exec1(t, tx, "INSERT INTO t VALUES (1, 'one')")
					if err := lose(tx); err == nil || errors.Is(err, turso.ErrTursoTransactionLost) {
						t.Fatalf("losing it: %v", err)
					}
					_, err = tx.Exec("INSERT INTO t VALUES (2, 'two')")
					if !errors.Is(err, turso.ErrTursoTransactionLost) {
						t.Fatalf("a later statement: %v", err)
					}
					var n int
					if err := tx.QueryRow("SELECT count(*) FROM t").Scan(&n); !errors.Is(err, turso.ErrTursoTransactionLost) {
						t.Fatalf("a later query: %v", err)
					}
					if commit {
						if err := tx.Commit(); !errors.Is(err, turso.ErrTursoTransactionLost) {
							t.Fatalf("the commit: %v", err)
						}
					} else {
						must(t, tx.Rollback())
					}
					equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 0)
				})
			}
		}
		// By SQL on a connection of its own, which is given back as it is.
		conn, err := db.Conn(ctx)
		must(t, err)
		for _, statement := range []string{"BEGIN", "INSERT INTO t VALUES (1, 'one')"} {
			_, err := conn.ExecContext(ctx, statement)
			must(t, err)
		}
		if _, err := conn.ExecContext(ctx, "INSERT OR ROLLBACK INTO t VALUES (1, 'one')"); err == nil {
			t.Fatal("it was accepted")
		}
		if _, err := conn.ExecContext(ctx, "DELETE FROM t"); !errors.Is(err, turso.ErrTursoTransactionLost) {
			t.Fatal(err)
		}
		must(t, conn.Close())
		db.SetMaxOpenConns(1)
		exec1(t, db, "INSERT INTO t VALUES (3, 'three')")
		equal(t, "rows at the end", one[int](t, db, "SELECT count(*) FROM t"), 1)
	})
}
