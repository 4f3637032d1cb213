package tests

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"turso"
)

// Code of the caller that runs in the middle of a call: none of it may wait for itself. The driver has no functions that the
// engine asks; what there is comes from database/sql.

// asks is a value that asks a database what it is.
type asks struct {
	db    *sql.DB
	query string
}

func (a asks) Value() (driver.Value, error) {
	var value int64
	return value, a.db.QueryRow(a.query).Scan(&value)
}

// answer is a place for a value that does something when it is filled.
type answer struct{ do func(any) error }

func (a *answer) Scan(value any) error { return a.do(value) }

func TestB8AValuerMayUseItsOwnDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		exec1(t, db, "INSERT INTO t VALUES (1, 'one')")
		value := asks{db, "SELECT count(*) FROM t"}
		equal(t, "asked for a query", one[int](t, db, "SELECT ?", value), 1)
		exec1(t, db, "INSERT INTO t VALUES (10 + ?, 'two')", value)
		statement, err := db.Prepare("INSERT INTO t VALUES (20 + ?, 'three') RETURNING id")
		must(t, err)
		defer statement.Close()
		var id int
		must(t, statement.QueryRow(value).Scan(&id))
		equal(t, "asked for a prepared statement", id, 22)
		tx, err := db.Begin()
		must(t, err)
		exec1(t, tx, "DELETE FROM t")
		equal(t, "asked in a transaction, outside of it", one[int](t, tx, "SELECT ?", value), 3)
		must(t, tx.Rollback())
		if _, err := db.Exec("SELECT ?", asks{db, "SELECT * FROM nowhere"}); !errors.Is(err, turso.ErrTursoMisuse) ||
			!strings.Contains(err.Error(), "nowhere") {
			t.Fatalf("one that fails: %v", err)
		}
	})
}

func TestB8AScannerMayUseItsOwnTransactionAndDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		exec1(t, db, "INSERT INTO t SELECT value, 'v' FROM generate_series(1, 100)")
		tx, err := db.Begin()
		must(t, err)
		rows, err := tx.Query("SELECT id FROM t ORDER BY id")
		must(t, err)
		seen := 0
		place := &answer{func(value any) error {
			seen++
			var there string
			if err := db.QueryRow("SELECT v FROM t WHERE id = ?", value).Scan(&there); err != nil {
				return err
			}
			_, err := tx.Exec("UPDATE t SET v = 'seen' WHERE id = ?", value)
			return err
		}}
		for rows.Next() {
			must(t, rows.Scan(place))
		}
		must(t, rows.Err())
		must(t, tx.Commit())
		equal(t, "rows", seen, 100)
		equal(t, "rows that were updated", one[int](t, db, "SELECT count(*) FROM t WHERE v = 'seen'"), 100)
	})
}

func TestB8AFunctionThatHasTheDriversConnectionMayUseItAndTheDatabase(t *testing.T) {
	onBoth(t, func(t *testing.T, db *sql.DB) {
		conn, err := db.Conn(ctx)
		must(t, err)
		defer conn.Close()
		must(t, conn.Raw(func(native any) error {
			if _, err := native.(driver.ExecerContext).ExecContext(ctx, "INSERT INTO t VALUES (1, 'raw')", nil); err != nil {
				return err
			}
			if err := native.(interface{ SetBusyTimeout(int) error }).SetBusyTimeout(100); err != nil {
				return err
			}
			_, err := db.Exec("UPDATE t SET v = 'by another connection'")
			return err
		}))
		equal(t, "value", one[string](t, conn, "SELECT v FROM t"), "by another connection")
	})
}

// A process in Go does not fork; it starts others. These see the locks of a local database, and are refused a replica.
func TestB7AChildProcessDoesNotOpenAReplicaThatItsParentHasOpenAndLosesNothingInALocalDatabase(t *testing.T) {
	for name, url := range map[string]string{"local": "", "replica": serve(t, callsSchema)} {
		t.Run(name, func(t *testing.T) {
			path := inFolder(t, "parents.db")
			_, conn := replica(t, turso.TursoSyncDbConfig{Path: path, RemoteUrl: url})
			exec1(t, conn, "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'parent')")
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), "OPENS_WHAT_ITS_PARENT_HAS_OPEN="+path, "ITS_REMOTE="+url)
			output, err := child.CombinedOutput()
			must(t, err)
			if said := string(output); name == "local" && said != "<nil>\n" || name == "replica" && !strings.HasPrefix(said, "busy: ") {
				t.Fatalf("the child said: %s", said)
			}
			exec1(t, conn, "INSERT INTO t VALUES (3, 'parent')")
			equal(t, "rows", one[int](t, conn, "SELECT count(*) FROM t"), map[string]int{"local": 3, "replica": 2}[name])
		})
	}
}

func openWhatTheParentHasOpen(path, url string) {
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{Path: path, RemoteUrl: url})
	if err == nil {
		var conn *sql.DB
		if conn, err = db.Connect(ctx); err == nil {
			_, err = conn.Exec("INSERT INTO t VALUES (2, 'child')")
		}
	}
	if errors.Is(err, turso.ErrTursoBusy) {
		fmt.Print("busy: ")
	}
	fmt.Println(err)
	os.Exit(0)
}
