package tests

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"turso"
)

func TestALocalDatabaseNeedsNoRemote(t *testing.T) {
	path := inFolder(t, "local.db")
	db := local(t, path+"?_busy_timeout=10000&_txlock=immediate&_foreign_keys=1")
	result := exec1(t, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t(x) VALUES (1), (2), (3); UPDATE t SET x = x + 1 WHERE id > 1")
	changed, err := result.RowsAffected()
	must(t, err)
	equal(t, "rows changed by both statements", changed, 5)
	last, err := result.LastInsertId()
	must(t, err)
	equal(t, "last rowid", last, 3)
	equal(t, "foreign keys", one[int](t, db, "PRAGMA foreign_keys"), 1)
	_, err = os.Stat(path)
	must(t, err)
	must(t, db.Ping())
}

func TestAnInMemoryDatabaseIsOneForTheWholePoolAndLeavesNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	db := local(t, ":memory:")
	exec1(t, db, "CREATE TABLE t(x)")
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			conn, err := db.Conn(ctx)
			if err == nil {
				defer conn.Close()
				_, err = conn.ExecContext(ctx, "INSERT INTO t VALUES (1)")
			}
			if err != nil {
				t.Error(err)
			}
		}()
	}
	all.Wait()
	equal(t, "rows", one[int](t, db, "SELECT count(*) FROM t"), 8)
	another := local(t, ":memory:")
	if _, err := another.Exec("SELECT * FROM t"); !errors.Is(err, turso.ErrTursoGeneric) {
		t.Fatalf("another pool sees the table: %v", err)
	}
	tx, err := db.Begin()
	must(t, err)
	exec1(t, tx, "DELETE FROM t")
	must(t, tx.Rollback())
	equal(t, "rows after a rollback", one[int](t, db, "SELECT count(*) FROM t"), 8)
	db.SetMaxIdleConns(0)
	equal(t, "rows when no connection was idle", one[int](t, db, "SELECT count(*) FROM t"), 8)
	files, err := os.ReadDir(".")
	must(t, err)
	equal(t, "files", len(files), 0)
}

func TestErrorsAreToldApart(t *testing.T) {
	url := serve(t, messages)
	path := inFolder(t, "app.db")
	db, conn := replica(t, prefix(url, path))
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('a')")

	_, err := conn.Exec("INSERT INTO notes(title) VALUES ('a')")
	var failed *turso.Error
	if !errors.Is(err, turso.ErrTursoConstraint) || !errors.As(err, &failed) || failed.ExtendedCode != 2067 {
		t.Fatalf("%v", err)
	}
	equal(t, "text", err.Error(), "UNIQUE constraint failed: notes.title")
	_, err = conn.Exec("SELEC 1")
	if !errors.Is(err, turso.ErrTursoGeneric) || errors.Is(err, turso.ErrTursoConstraint) {
		t.Fatalf("%v", err)
	}
	tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	must(t, err)
	if _, err := tx.Exec("DELETE FROM notes"); !errors.Is(err, turso.ErrTursoReadOnly) {
		t.Fatalf("%v", err)
	}
	must(t, tx.Rollback())
	exec1(t, conn, "UPDATE notes SET body = 'written after a read-only transaction'")

	noDatabase := inFolder(t, "text.db")
	must(t, os.WriteFile(noDatabase, []byte(strings.Repeat("this is not a database. ", 100)), 0o600))
	if _, err := local(t, noDatabase).Exec("SELECT * FROM sqlite_schema"); !errors.Is(err, turso.ErrTursoNotADb) {
		t.Fatalf("%v", err)
	}
	if _, err := turso.NewTursoSyncDb(ctx, prefix("http://127.0.0.1:1", inFolder(t, "x.db"))); !errors.Is(err, turso.ErrTursoNetwork) {
		t.Fatalf("%v", err)
	}
	must(t, conn.Close())
	must(t, db.Close())
	if _, err := turso.NewTursoSyncDb(ctx, prefix("http://127.0.0.1:1", path)); !errors.Is(err, turso.ErrTursoOtherRemote) {
		t.Fatalf("%v", err)
	}
	if _, err := db.Pull(ctx); !errors.Is(err, turso.ErrTursoConnClosed) {
		t.Fatalf("%v", err)
	}
	if _, err := db.Connect(ctx); !errors.Is(err, turso.ErrTursoConnClosed) {
		t.Fatalf("%v", err)
	}
}

func TestALockThatIsTakenIsBusy(t *testing.T) {
	url := serve(t, messages)
	for name, dsn := range map[string]string{"field": "", "path": "?_busy_timeout=-1"} {
		t.Run(name, func(t *testing.T) {
			config := prefix(url, inFolder(t, "app.db")+dsn)
			if dsn == "" {
				config.BusyTimeout = -1
			}
			_, conn := replica(t, config)
			tx, err := conn.Begin()
			must(t, err)
			defer tx.Rollback()
			exec1(t, tx, "INSERT INTO notes(title) VALUES ('a')")
			began := time.Now()
			_, err = conn.Exec("INSERT INTO notes(title) VALUES ('b')")
			if !errors.Is(err, turso.ErrTursoBusy) || time.Since(began) > 2*time.Second {
				t.Fatalf("%v after %v", err, time.Since(began))
			}
			var failed *turso.Error
			if !errors.As(err, &failed) || !failed.Temporary() {
				t.Fatalf("%v is not temporary", err)
			}
		})
	}
}

func TestAPushThatIsRefusedNamesTheChange(t *testing.T) {
	url := serve(t, messages)
	here, conn := replica(t, prefix(url, inFolder(t, "here.db")))
	there, other := replica(t, prefix(url, inFolder(t, "there.db")))
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('the same')")
	exec1(t, other, "INSERT INTO notes(id, title) VALUES (77, 'the same')")
	must(t, here.Push(ctx))
	err := there.Push(ctx)
	var failed *turso.Error
	if !errors.Is(err, turso.ErrTursoPushRefused) || !errors.As(err, &failed) || failed.Change == 0 {
		t.Fatalf("%v", err)
	}
	found, err := there.DiscardChange(ctx, failed.Change)
	must(t, err)
	equal(t, "there was such a change", found, true)
	_, err = there.Pull(ctx)
	must(t, err)
	equal(t, "the note", one[int](t, other, "SELECT id FROM notes"), 1)
}

func TestS3AReplicaFollowsItsDatabaseToANewUrl(t *testing.T) {
	path := inFolder(t, "app.db")
	before, err := turso.NewTursoSyncDb(ctx, prefix(serve(t, messages), path))
	must(t, err)
	conn, err := before.Connect(ctx)
	must(t, err)
	exec1(t, conn, "INSERT INTO messages(id, body) VALUES (1000001, 'not pushed')")
	must(t, conn.Close())
	must(t, before.Close())
	moved := prefix(serve(t, messages), path)
	if _, err := turso.NewTursoSyncDb(ctx, moved); err == nil || !strings.Contains(err.Error(), "AcceptNewUrl") {
		t.Fatalf("%v", err)
	}
	moved.AcceptNewUrl = true
	after, here := replica(t, moved)
	_, err = after.Pull(ctx)
	must(t, err)
	must(t, after.Push(ctx))
	_, other := replica(t, prefix(moved.RemoteUrl, inFolder(t, "other.db")))
	for _, conn := range []*sql.DB{here, other} {
		equal(t, "the row", one[string](t, conn, "SELECT body FROM messages WHERE id = 1000001"), "not pushed")
	}
}

func TestS6ARefusedSchemaChangeIsDiscardedWithWhatDependsOnIt(t *testing.T) {
	url := serve(t, messages)
	here, conn := replica(t, prefix(url, inFolder(t, "here.db")))
	there, other := replica(t, prefix(url, inFolder(t, "there.db")))
	exec1(t, conn, "INSERT INTO messages(id, body) VALUES (1000001, 'b'), (1000002, 'b')")
	must(t, here.Push(ctx))
	exec1(t, other, "CREATE UNIQUE INDEX only ON messages(body) WHERE id > 1000000")
	exec1(t, other, "DROP INDEX only")
	err := there.Push(ctx)
	var failed *turso.Error
	if !errors.As(err, &failed) || failed.Change == 0 || !strings.Contains(failed.Message, "DiscardChange(") {
		t.Fatalf("%v", err)
	}
	discarded, err := there.DiscardChangeWithDependents(ctx, failed.Change)
	must(t, err)
	equal(t, "changes", discarded, 2)
	must(t, there.Push(ctx))
}

func TestSixteenConnectionsReadAColdTableAtOnce(t *testing.T) {
	url := serve(t, messages)
	count := func(t *testing.T, open func(t *testing.T, i int) *sql.Conn) {
		var all sync.WaitGroup
		for i := range 16 {
			all.Add(1)
			go func() {
				defer all.Done()
				conn := open(t, i)
				defer conn.Close()
				var found int
				err := conn.QueryRowContext(ctx, "SELECT count(*) FROM messages WHERE body LIKE '%7'").Scan(&found)
				if err != nil || found != 2000 {
					t.Errorf("%d, %v", found, err)
				}
			}()
		}
		all.Wait()
	}
	t.Run("of one pool", func(t *testing.T) {
		_, db := replica(t, prefix(url, inFolder(t, "app.db")))
		count(t, func(t *testing.T, _ int) *sql.Conn {
			conn, err := db.Conn(ctx)
			if err != nil {
				t.Error(err)
			}
			return conn
		})
	})
	t.Run("of sixteen replicas at one path", func(t *testing.T) {
		path := inFolder(t, "app.db")
		var pools [16]*sql.DB
		for i := range pools {
			_, pools[i] = replica(t, prefix(url, path))
		}
		count(t, func(t *testing.T, i int) *sql.Conn {
			conn, err := pools[i].Conn(ctx)
			if err != nil {
				t.Error(err)
			}
			return conn
		})
	})
}

func TestTransactions(t *testing.T) {
	_, db := replica(t, prefix(serve(t, messages), inFolder(t, "app.db")))
	for _, level := range []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelSerializable} {
		tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
		must(t, err)
		exec1(t, tx, "INSERT INTO notes(title) VALUES (?)", level.String())
		must(t, tx.Commit())
	}
	equal(t, "notes", one[int](t, db, "SELECT count(*) FROM notes"), 3)
	if _, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelLinearizable}); !errors.Is(err, turso.ErrTursoMisuse) {
		t.Fatalf("%v", err)
	}

	// A transaction that a statement left open does not continue in the next user of the connection.
	db.SetMaxOpenConns(1)
	exec1(t, db, "BEGIN; DELETE FROM notes")
	equal(t, "notes", one[int](t, db, "SELECT count(*) FROM notes"), 3)

	// Rows and other statements of one transaction at the same time.
	tx, err := db.Begin()
	must(t, err)
	rows, err := tx.Query("SELECT id FROM messages WHERE id <= 100")
	must(t, err)
	for rows.Next() {
		var id int
		must(t, rows.Scan(&id))
		exec1(t, tx, "INSERT INTO notes(id, title) VALUES (?1, 'of ' || ?1)", id+1000)
	}
	must(t, rows.Err())
	must(t, tx.Commit())
	equal(t, "notes", one[int](t, db, "SELECT count(*) FROM notes"), 103)
}

func TestPreparedStatements(t *testing.T) {
	db := local(t, inFolder(t, "local.db"))
	exec1(t, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
	insert, err := db.Prepare("INSERT INTO t(x) VALUES (?) RETURNING id")
	must(t, err)
	defer insert.Close()
	for i := int64(1); i <= 50; i++ {
		var id int64
		must(t, insert.QueryRow(i*i).Scan(&id))
		equal(t, "id", id, i)
	}
	db.SetMaxOpenConns(1)
	find, err := db.Prepare("SELECT x FROM t WHERE id >= ? ORDER BY id")
	must(t, err)
	defer find.Close()
	tx, err := db.Begin()
	must(t, err)
	defer tx.Rollback()
	inside := tx.Stmt(find)
	outer, err := inside.Query(1)
	must(t, err)
	defer outer.Close()
	for outer.Next() {
		var square int64
		must(t, outer.Scan(&square))
		// The same statement while its rows are being read.
		var same int64
		must(t, inside.QueryRow(isqrt(square)).Scan(&same))
		equal(t, "square", same, square)
	}
	must(t, outer.Err())
	must(t, tx.Commit())
	if _, err := db.Prepare("SELECT 1; SELECT 2"); err == nil || !strings.Contains(err.Error(), "SELECT 2") {
		t.Fatalf("%v", err)
	}
}

func isqrt(square int64) (root int64) {
	for root*root < square {
		root++
	}
	return root
}

func TestAPreparedStatementSeesThatTheSchemaHasChanged(t *testing.T) {
	db := local(t, inFolder(t, "local.db"))
	db.SetMaxOpenConns(1)
	exec1(t, db, "CREATE TABLE t(a); INSERT INTO t VALUES (1)")
	const query = "SELECT * FROM t"
	names := func() string {
		rows, err := db.Query(query)
		must(t, err)
		defer rows.Close()
		names, err := rows.Columns()
		must(t, err)
		values := make([]any, len(names))
		for i := range values {
			values[i] = new(any)
		}
		equal(t, "a row", rows.Next(), true)
		must(t, rows.Scan(values...))
		return strings.Join(names, ",")
	}
	equal(t, "columns", names(), "a")
	exec1(t, db, "ALTER TABLE t ADD COLUMN b DEFAULT 2")
	equal(t, "columns", names(), "a,b")
	exec1(t, db, "ALTER TABLE t RENAME COLUMN a TO z")
	equal(t, "columns", names(), "z,b")
}

func TestNamedAndPositionalParameters(t *testing.T) {
	db := local(t, ":memory:")
	for _, query := range []string{
		"SELECT :a || @b || $c || :a",
		"SELECT $a || $b || $c || $a",
	} {
		equal(t, query, one[string](t, db, query, sql.Named("c", 3), sql.Named("a", 1), sql.Named("b", 2)), "1231")
		equal(t, query, one[string](t, db, query, 1, 2, 3), "1231")
	}
	equal(t, "mixed", one[string](t, db, "SELECT :a || ? || ?", "p", sql.Named("a", "n"), "q"), "npq")
	equal(t, "numbered", one[string](t, db, "SELECT ?2 || ?1", "x", "y"), "yx")
	exec1(t, db, "CREATE TABLE t(x); INSERT INTO t VALUES (?), (?); UPDATE t SET x = ? WHERE x = ?", 1, 2, 3, 1)
	equal(t, "sum", one[int](t, db, "SELECT sum(x) FROM t"), 5)
	exec1(t, db, "DELETE FROM t WHERE x = :x; INSERT INTO t VALUES (:x + 10)", sql.Named("x", 3))
	equal(t, "sum", one[int](t, db, "SELECT sum(x) FROM t"), 15)
	for _, wrong := range []struct {
		query, says string
		args        []any
	}{
		{"SELECT ?, ?", "2 parameters, 1 values", []any{1}},
		{"SELECT ?", "3 values were given", []any{1, 2, 3}},
		{"SELECT 1", "1 values were given", []any{1}},
		{"SELECT :a", `called "b"`, []any{sql.Named("a", 1), sql.Named("b", 1)}},
		{"SELECT :a, :b", "parameter :b has no value", []any{sql.Named("a", 1)}},
		{"", "no statement", nil},
		{" -- nothing\n", "no statement", nil},
	} {
		rows, err := db.Query(wrong.query, wrong.args...)
		if err == nil {
			rows.Close()
		}
		if !errors.Is(err, turso.ErrTursoMisuse) || !strings.Contains(err.Error(), wrong.says) {
			t.Errorf("%s: %v", wrong.query, err)
		}
	}
}

func TestSeveralStatementsInOneText(t *testing.T) {
	db := local(t, ":memory:")
	rows, err := db.Query(`CREATE TABLE t(x); -- a comment; with a semicolon
		INSERT INTO t VALUES (1), (2); /* another; one */ SELECT x FROM t ORDER BY x; -- the end`)
	must(t, err)
	equal(t, "rows", countRows(t, rows), 2)
	exec1(t, db, "-- only a comment")
	_, err = db.Exec("INSERT INTO t VALUES (3); INSERT INTO nowhere VALUES (4); INSERT INTO t VALUES (5)")
	if !errors.Is(err, turso.ErrTursoGeneric) || !strings.Contains(err.Error(), "nowhere") {
		t.Fatalf("%v", err)
	}
	equal(t, "what ran before the error stays", one[int](t, db, "SELECT max(x) FROM t"), 3)
}

func TestManyRowsComeInOrder(t *testing.T) {
	db := local(t, ":memory:")
	rows, err := db.Query("SELECT value, printf('%d', value) FROM generate_series(1, 100000)")
	must(t, err)
	defer rows.Close()
	for want := 1; rows.Next(); want++ {
		var number int
		var text string
		must(t, rows.Scan(&number, &text))
		if number != want || len(text) == 0 {
			t.Fatalf("%d %q instead of %d", number, text, want)
		}
	}
	must(t, rows.Err())
}

func TestAnErrorBehindRowsComesBehindThem(t *testing.T) {
	db := local(t, ":memory:")
	rows, err := db.Query("SELECT abs(value) FROM (SELECT value FROM generate_series(1, 20) UNION ALL SELECT -9223372036854775807 - 1)")
	must(t, err)
	defer rows.Close()
	count := 0
	for rows.Next() {
		count++
	}
	if err := rows.Err(); count != 20 || !errors.Is(err, turso.ErrTursoGeneric) {
		t.Fatalf("%d rows, then %v", count, err)
	}
}

func TestPlainDatabasesHaveNoRemote(t *testing.T) {
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{Path: inFolder(t, "local.db")})
	must(t, err)
	defer db.Close()
	if _, err := db.Pull(ctx); !errors.Is(err, turso.ErrTursoNoRemote) {
		t.Fatalf("%v", err)
	}
}

func TestANamespaceIsADatabaseOfTheRemote(t *testing.T) {
	url := serveFolder(t, map[string]string{"cats": "CREATE TABLE names AS SELECT 'Tom' AS name", "dogs": "CREATE TABLE names AS SELECT 'Rex' AS name"})
	for namespace, name := range map[string]string{"cats": "Tom", "dogs": "Rex"} {
		config := prefix(url, inFolder(t, namespace+".db"))
		config.Namespace = namespace
		_, conn := replica(t, config)
		equal(t, "the name", one[string](t, conn, "SELECT name FROM names"), name)
	}
}
