package tests

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"turso"
)

// Code of the caller that runs in the middle of a call: none of it may wait for itself. Some of it is asked by the engine, and
// some by database/sql.

// nosy uses everything of a database that it can get hold of.
type nosy struct {
	t           *testing.T
	path        string
	db          *turso.TursoSyncDb
	conn        *sql.DB
	statement   *sql.Stmt
	another     *sql.DB
	on          atomic.Bool
	called      atomic.Int64
	unconnected captured
}

func (n *nosy) look() {
	if !n.on.Load() {
		return
	}
	n.called.Add(1)
	what := n.unconnected.hold()
	_, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
		Path: n.path, RemoteAuthTokenFunction: func() (string, error) { return string(what[:]), nil }})
	refused := map[string]error{"NewTursoSyncDb": err}
	if n.db != nil {
		_, refused["Connect"] = n.db.Connect(ctx)
		_, refused["Pull"] = n.db.Pull(ctx)
		refused["Push"] = n.db.Push(ctx)
		refused["Checkpoint"] = n.db.Checkpoint(ctx)
		_, refused["Stats"] = n.db.Stats(ctx)
		_, refused["DiscardChange"] = n.db.DiscardChange(ctx, 1)
		_, refused["DiscardChangeWithDependents"] = n.db.DiscardChangeWithDependents(ctx, 1)
		_, refused["Hydrate"] = n.db.Hydrate(ctx, "", nil)
		refused["Close"] = n.db.Close()
	}
	if n.conn != nil {
		until, cancel := context.WithCancel(ctx)
		defer cancel()
		_, refused["Exec"] = n.conn.ExecContext(until, "INSERT INTO notes(title) VALUES ('nosy')")
		refused["QueryRow"] = n.conn.QueryRow("SELECT count(*) FROM messages").Scan(new(int))
		_, refused["Prepare"] = n.conn.Prepare("SELECT 2")
		_, refused["Begin"] = n.conn.BeginTx(until, nil)
		refused["a prepared statement"] = n.statement.QueryRow(1).Scan(new(int))
	}
	for what, err := range refused {
		if !errors.Is(err, turso.ErrTursoMisuse) || !strings.Contains(err.Error(), "its own database") {
			n.t.Errorf("%s: %v", what, err)
		}
	}
	// Another database may be used.
	if err := n.another.QueryRow("SELECT 1").Scan(new(int)); err != nil {
		n.t.Error(err)
	}
	alive()
}

// while runs a call during which the function is asked.
func (n *nosy) while(what string, call func()) {
	n.t.Helper()
	n.called.Store(0)
	n.on.Store(true)
	call()
	n.on.Store(false)
	if n.called.Load() == 0 {
		n.t.Errorf("%s has not asked", what)
	}
}

func TestB8AFunctionThatUsesItsOwnDatabaseIsRefusedAtOnce(t *testing.T) {
	url := serve(t, messages)
	_, another := replica(t, prefix(url, inFolder(t, "another.db")))
	for _, how := range []string{"url", "token", "transform", "progress"} {
		t.Run(how, func(t *testing.T) {
			n := &nosy{t: t, path: inFolder(t, "app.db"), another: another}
			config := prefix(url, n.path)
			switch how {
			case "url":
				config.RemoteUrl, config.RemoteUrlFunction = "", func() (string, error) { n.look(); return url, nil }
			case "token":
				config.RemoteAuthTokenFunction = func() (string, error) { n.look(); return "any", nil }
			case "transform":
				config.Transform = func(turso.TursoMutation) (*turso.TursoTransformResult, error) { n.look(); return nil, nil }
			}
			var err error
			if how == "url" || how == "token" {
				n.while("the first connect", func() { n.db, err = turso.NewTursoSyncDb(ctx, config) })
			} else {
				n.db, err = turso.NewTursoSyncDb(ctx, config)
			}
			must(t, err)
			n.conn, err = n.db.Connect(ctx)
			must(t, err)
			n.statement, err = n.conn.Prepare("SELECT length(body) FROM messages WHERE id = ?")
			must(t, err)
			exec1(t, n.conn, "INSERT INTO notes(title) VALUES (random())")
			if how == "url" || how == "token" {
				n.while("a query", func() { one[string](t, n.conn, "SELECT body FROM messages WHERE id = 9000") })
				n.while("rows", func() {
					rows, err := n.conn.Query("SELECT id FROM messages WHERE id < 4000")
					must(t, err)
					equal(t, "rows", countRows(t, rows), 3999)
				})
				n.while("a write", func() { exec1(t, n.conn, "UPDATE messages SET body = 'x' WHERE id = 12000") })
			}
			if how != "progress" {
				n.while("a push", func() { must(t, n.db.Push(ctx)) })
				exec1(t, n.conn, "INSERT INTO notes(title) VALUES (random())")
				exec1(t, another, "INSERT INTO notes(id, title) VALUES (1000 + abs(random() % 1000), random())")
				n.while("a pull", func() {
					_, err := n.db.Pull(ctx)
					must(t, err)
				})
			}
			if how == "url" || how == "token" || how == "progress" {
				n.while("a hydration", func() {
					_, err := n.db.Hydrate(ctx, "", func(int, int) {
						if how == "progress" {
							n.look()
						}
					})
					must(t, err)
				})
			}
			equal(t, "what was written by the function", one[int](t, n.conn, "SELECT count(*) FROM notes WHERE title = 'nosy'"), 0)
			equal(t, "the row", one[int](t, n.conn, "SELECT length(body) FROM messages WHERE id = 3"), 180)
			must(t, n.statement.Close())
			must(t, n.conn.Close())
			must(t, n.db.Close())
			n.unconnected.areGone(t)
		})
	}
}

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
