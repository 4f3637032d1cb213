package tests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"turso"
)

// Functions of the program that the engine asks: for the url, for the token, what becomes of a change.

const functionsSchema = `CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE);
	CREATE TABLE pairs(a TEXT, b TEXT, n, PRIMARY KEY(a, b)) WITHOUT ROWID;`

// door is a proxy in front of a server that lets in who has the token.
type door struct {
	url     string
	token   atomic.Value
	entered atomic.Int64
}

func doorOf(t testing.TB, remote string) *door {
	t.Helper()
	behind, err := url.Parse(remote)
	must(t, err)
	d := &door{}
	d.token.Store("")
	proxy := httputil.NewSingleHostReverseProxy(behind)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token := d.token.Load(); token != "" && r.Header.Get("Authorization") != "Bearer "+token.(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		d.entered.Add(1)
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	d.url = server.URL
	return d
}

// fixed is a url or token function that always gives the same.
func fixed(text string) func() (string, error) { return func() (string, error) { return text, nil } }

// turning is a url or token function whose answer can be changed.
type turning struct {
	mu   sync.Mutex
	text string
	err  error
	how  func() // done first
}

func (a *turning) set(text string, err error, how func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text, a.err, a.how = text, err, how
}

func (a *turning) ask() (string, error) {
	a.mu.Lock()
	text, err, how := a.text, a.err, a.how
	a.mu.Unlock()
	if how != nil {
		how()
	}
	return text, err
}

// fails checks an error's kind and text.
func fails(t testing.TB, err, kind error, says string) {
	t.Helper()
	alive()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Fatalf("%v is not %v with %q", err, kind, says)
	}
}

func TestTheUrlAndTheTokenMayBeFunctions(t *testing.T) {
	door := doorOf(t, serve(t, functionsSchema))
	door.token.Store("first")
	token, remote := &turning{text: "first"}, &turning{text: door.url}
	db, conn := replica(t, turso.TursoSyncDbConfig{
		Path: inFolder(t, "app.db"), RemoteUrlFunction: remote.ask, RemoteAuthTokenFunction: token.ask})
	exec1(t, conn, "INSERT INTO t VALUES (1, 'one')")

	door.token.Store("second")
	fails(t, db.Push(ctx), turso.ErrTursoUnauthorized, "")
	token.set("second", nil, nil)
	must(t, db.Push(ctx))

	// Without a url sync is paused, and local work continues.
	remote.set("", nil, nil)
	_, err := db.Pull(ctx)
	fails(t, err, turso.ErrTursoNetwork, "paused")
	exec1(t, conn, "INSERT INTO t VALUES (2, 'two')")
	equal(t, "rows", one[int](t, conn, "SELECT count(*) FROM t"), 2)
	equal(t, "changes", statsOf(t, db).CdcOperations, 1)
	remote.set(door.url, nil, nil)
	must(t, db.Push(ctx))

	token.set("", errors.New("nobody is signed in"), nil)
	_, err = db.Pull(ctx)
	fails(t, err, turso.ErrTursoCallback, "the auth token function failed: nobody is signed in")
	token.set("second", nil, nil)
	remote.set("", errors.New("no settings yet"), nil)
	_, err = db.Pull(ctx)
	fails(t, err, turso.ErrTursoCallback, "the url function failed: no settings yet")
	remote.set(door.url, nil, nil)
	_, err = db.Pull(ctx)
	must(t, err)
}

func TestAFirstConnectWhoseFunctionFailsLeavesNothing(t *testing.T) {
	remote, folder := serve(t, functionsSchema), t.TempDir()
	for name, config := range map[string]turso.TursoSyncDbConfig{
		"token": {RemoteUrl: remote, RemoteAuthTokenFunction: func() (string, error) { return "", errors.New("not today\x00\xff") }},
		"url":   {RemoteUrlFunction: func() (string, error) { return "", errors.New("not today\x00\xff") }},
	} {
		config.Path = filepath.Join(folder, name+".db")
		_, err := turso.NewTursoSyncDb(ctx, config)
		fails(t, err, turso.ErrTursoCallback, "function failed: not today\\x00\uFFFD")
	}
	left, err := os.ReadDir(folder)
	must(t, err)
	equal(t, "files", len(left), 0)
}

func TestANamespaceGoesWithTheUrlThatAFunctionGives(t *testing.T) {
	remote := serveFolder(t, map[string]string{"cats": "CREATE TABLE names AS SELECT 'Tom' AS name"})
	_, conn := replica(t, turso.TursoSyncDbConfig{
		Path: inFolder(t, "app.db"), RemoteUrlFunction: fixed(remote), Namespace: "cats"})
	equal(t, "the name", one[string](t, conn, "SELECT name FROM names"), "Tom")
}

// Everything that can need a page calls the url function on its own thread: the marks of cgo must not forbid that.
func TestTheUrlFunctionIsAskedByWhateverNeedsAPage(t *testing.T) {
	var script strings.Builder
	script.WriteString("BEGIN;")
	for i := range 300 {
		fmt.Fprintf(&script, "CREATE TABLE wide%d(%s);", i, strings.Repeat("a", 300))
	}
	url := serve(t, script.String()+"COMMIT;"+messages)
	var asked atomic.Int64
	config := prefix(url, inFolder(t, "app.db"))
	config.RemoteUrl, config.RemoteUrlFunction = "", func() (string, error) {
		asked.Add(1)
		return url, nil
	}
	db, conn := replica(t, config)
	conn.SetMaxOpenConns(1)
	isAsked := func(what string, call func()) {
		t.Helper()
		asked.Store(0)
		call()
		if asked.Load() == 0 {
			t.Fatalf("%s has not asked", what)
		}
	}
	isAsked("preparing, which reads the schema", func() {
		statement, err := conn.Prepare("SELECT 1 FROM wide299")
		must(t, err)
		must(t, statement.Close())
	})
	isAsked("the first row", func() { one[string](t, conn, "SELECT body FROM messages WHERE id = 15000") })
	isAsked("a write", func() { exec1(t, conn, "UPDATE messages SET body = 'x' WHERE id = 10000") })
	rows, err := conn.Query("SELECT body FROM messages")
	must(t, err)
	isAsked("the next rows", func() { equal(t, "rows", countRows(t, rows), 20000) })
	isAsked("a push", func() { must(t, db.Push(ctx)) })
}

func TestTransformKeepsSkipsAndRewritesAndItsErrorLosesNothing(t *testing.T) {
	remote := serve(t, functionsSchema)
	var seen []turso.TursoMutation
	var fail error
	transform := func(m turso.TursoMutation) (*turso.TursoTransformResult, error) {
		if fail != nil {
			return nil, fail
		}
		seen = append(seen, m)
		switch m.After["v"] {
		case "secret":
			return &turso.TursoTransformResult{Skip: true}, nil
		case "shout":
			return &turso.TursoTransformResult{Sql: "INSERT INTO t VALUES (?, upper(?) || ?)", Values: []any{m.Id, m.After["v"], '!'}}, nil
		}
		return nil, nil
	}
	db, conn := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote, Transform: transform})
	exec1(t, conn, "INSERT INTO t VALUES (1, 'plain'), (2, 'secret'), (3, 'shout')")
	fail = errors.New("not today")
	fails(t, db.Push(ctx), turso.ErrTursoUnsendable, "not today")
	equal(t, "changes", statsOf(t, db).CdcOperations, 3)
	fail = nil
	must(t, db.Push(ctx))
	other, there := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "other.db"), RemoteUrl: remote})
	equal(t, "rows", one[string](t, there, "SELECT group_concat(id || v) FROM (SELECT * FROM t ORDER BY id)"), "1plain,3SHOUT33")

	first := seen[0]
	if first.ChangeTime < 1600000000 {
		t.Fatalf("changed at %d", first.ChangeTime)
	}
	first.ChangeTime = 0
	id := int64(1)
	want := turso.TursoMutation{TableName: "t", Id: &id, ChangeType: "insert", After: map[string]any{"id": id, "v": "plain"}}
	if !reflect.DeepEqual(first, want) {
		t.Fatalf("%+v", first)
	}
	seen = nil
	exec1(t, conn, "UPDATE t SET v = x'00ff' WHERE id = 1; UPDATE t SET v = 1.5 WHERE id = 1; UPDATE t SET v = NULL WHERE id = 1")
	exec1(t, conn, "DELETE FROM t WHERE id = 1; INSERT INTO pairs VALUES ('a', 'b', -7)")
	must(t, db.Push(ctx))
	said := fmt.Sprintf("%#v", rowsOf(seen))
	for _, part := range []string{
		`Before:{"id":1, "v":"plain"} After:{"id":1, "v":[]uint8{0x0, 0xff}} Updates:{"v":[]uint8{0x0, 0xff}}`,
		`Before:{"id":1, "v":[]uint8{0x0, 0xff}} After:{"id":1, "v":1.5} Updates:{"v":1.5}`,
		`Before:{"id":1, "v":1.5} After:{"id":1, "v":interface {}(nil)} Updates:{"v":interface {}(nil)}`,
		`delete 1 Before:{"id":1, "v":interface {}(nil)} After:(nil) Updates:(nil)`,
		`insert - Before:(nil) After:{"a":"a", "b":"b", "n":-7} Updates:(nil)`,
	} {
		if !strings.Contains(strings.ReplaceAll(strings.ReplaceAll(said, "\\\"", "\""), "map[string]interface {}", ""), part) {
			t.Fatalf("%s is not in %s", part, said)
		}
	}
	_, err := other.Pull(ctx)
	must(t, err)
	equal(t, "a pair", one[int](t, there, "SELECT n FROM pairs"), -7)
}

func rowsOf(mutations []turso.TursoMutation) (texts []string) {
	for _, m := range mutations {
		id := "-"
		if m.Id != nil {
			id = fmt.Sprint(*m.Id)
		}
		texts = append(texts, fmt.Sprintf("%s %s Before:%#v After:%#v Updates:%#v", m.ChangeType, id, m.Before, m.After, m.Updates))
	}
	return texts
}

func TestATransformThatDecidesNonsenseIsToldSo(t *testing.T) {
	remote := serve(t, functionsSchema)
	for says, result := range map[string]turso.TursoTransformResult{
		"neither Skip nor a statement": {},
		"Skip and a statement":         {Skip: true, Sql: "DELETE FROM t"},
		"chan int":                     {Sql: "INSERT INTO t VALUES (?, 1)", Values: []any{make(chan int)}},
		"NamedArg":                     {Sql: "INSERT INTO t VALUES (?, 1)", Values: []any{sql.Named("a", 1)}},
	} {
		db, conn := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote,
			Transform: func(turso.TursoMutation) (*turso.TursoTransformResult, error) { return &result, nil }})
		exec1(t, conn, "INSERT INTO t VALUES (1, 1)")
		fails(t, db.Push(ctx), turso.ErrTursoUnsendable, says)
		equal(t, "changes", statsOf(t, db).CdcOperations, 1)
	}
}

func TestAPullPutsBackWhatTransformMakesOfAChange(t *testing.T) {
	remote := serve(t, functionsSchema)
	var fail error
	db, conn := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote,
		Transform: func(m turso.TursoMutation) (*turso.TursoTransformResult, error) {
			switch m.After["v"] {
			case "rewrite":
				return &turso.TursoTransformResult{Sql: "INSERT INTO t VALUES (?, ?)", Values: []any{m.Id, []byte("rewritten")}}, nil
			case "skip":
				return &turso.TursoTransformResult{Skip: true}, nil
			}
			return nil, fail
		}})
	exec1(t, conn, "INSERT INTO t VALUES (1, 'rewrite'), (2, 'skip'), (3, 'kept')")
	other, there := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "other.db"), RemoteUrl: remote})
	exec1(t, there, "INSERT INTO t VALUES (20, 'theirs')")
	must(t, other.Push(ctx))
	fail = errors.New("not today")
	_, err := db.Pull(ctx)
	fails(t, err, turso.ErrTursoPullConflict, "not today")
	fail = nil
	_, err = db.Pull(ctx)
	must(t, err)
	equal(t, "rows", one[string](t, conn, "SELECT group_concat(id || v) FROM (SELECT * FROM t ORDER BY id)"),
		"1rewritten,3kept,20theirs")
}

// What panics in a function stays there: the call fails with it, nothing is lost, and the process continues.
func TestAPanicOfAFunctionIsTheErrorOfTheCall(t *testing.T) {
	remote := serve(t, messages)
	boom := func() { panic(fmt.Errorf("boom")) }
	url, token := &turning{text: remote}, &turning{}
	var inTransform atomic.Bool
	config := prefix("", inFolder(t, "app.db"))
	config.RemoteUrlFunction, config.RemoteAuthTokenFunction = url.ask, token.ask
	config.Transform = func(turso.TursoMutation) (*turso.TursoTransformResult, error) {
		if inTransform.Load() {
			var none map[string]int
			none["a"] = 1
		}
		return nil, nil
	}
	db, conn := replica(t, config)
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('mine')")
	cold := func(id int) error {
		var body string
		return conn.QueryRow("SELECT body FROM messages WHERE id = ?", id).Scan(&body)
	}
	url.set(remote, nil, boom)
	fails(t, db.Push(ctx), turso.ErrTursoCallback, "RemoteUrlFunction panicked: boom")
	fails(t, cold(5000), turso.ErrTursoCallback, "RemoteUrlFunction panicked: boom")
	url.set(remote, nil, nil)
	token.set("", nil, boom)
	fails(t, db.Push(ctx), turso.ErrTursoCallback, "RemoteAuthTokenFunction panicked: boom")
	fails(t, cold(10000), turso.ErrTursoCallback, "RemoteAuthTokenFunction panicked: boom")
	token.set("", nil, nil)
	inTransform.Store(true)
	fails(t, db.Push(ctx), turso.ErrTursoUnsendable, "Transform panicked: assignment to entry in nil map")
	inTransform.Store(false)
	_, err := db.Hydrate(ctx, "", func(done, total int) { boom() })
	fails(t, err, turso.ErrTursoCallback, "the progress function panicked: boom")
	must(t, cold(5000))
	must(t, cold(10000))
	equal(t, "changes", statsOf(t, db).CdcOperations, 1)
	must(t, db.Push(ctx))
}

func TestHydrate(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	db, conn := replica(t, prefix(remote.url, inFolder(t, "app.db")))
	some, err := db.Hydrate(ctx, "SELECT body FROM messages WHERE id = 15000", nil)
	must(t, err)
	if some.Fetched == 0 || some.Absent == 0 {
		t.Fatalf("%+v", some)
	}
	before := statsOf(t, db).Requests
	equal(t, "the row", len(one[string](t, conn, "SELECT body FROM messages WHERE id = 15000")), 180)
	equal(t, "requests", statsOf(t, db).Requests, before)

	until, began := cancelledOnceHeard(t, remote), time.Now()
	_, err = db.Hydrate(until, "", nil)
	ended(t, err, context.Canceled, began)
	remote.speak()

	last, most := 0, 0
	all, err := db.Hydrate(ctx, "", func(done, total int) {
		if done < last || done > total {
			t.Errorf("%d of %d after %d", done, total, last)
		}
		last, most = done, total
	})
	must(t, err)
	equal(t, "absent", all.Absent, 0)
	equal(t, "what was told last", last, all.Fetched)
	equal(t, "of how many", most, all.Fetched)
	before = statsOf(t, db).Requests
	equal(t, "rows", one[int](t, conn, "SELECT count(*) FROM messages"), 20000)
	equal(t, "requests", statsOf(t, db).Requests, before)
	_, err = db.Hydrate(ctx, "SELECT * FROM nowhere", nil)
	fails(t, err, turso.ErrTursoRemoteRefused, "nowhere")
}

// Where two mechanisms meet: what transform made of a change is refused, and the change is given up.
func TestAChangeWhoseRewritingIsRefusedIsNamedAndDiscarded(t *testing.T) {
	remote := serve(t, functionsSchema)
	db, conn := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote,
		Transform: func(m turso.TursoMutation) (*turso.TursoTransformResult, error) {
			if m.After["v"] == "taken by a rewriting" {
				return &turso.TursoTransformResult{Sql: "INSERT INTO t VALUES (?, 'taken')", Values: []any{m.Id}}, nil
			}
			return nil, nil
		}})
	other, there := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "other.db"), RemoteUrl: remote})
	exec1(t, there, "INSERT INTO t VALUES (100, 'taken')")
	must(t, other.Push(ctx))
	exec1(t, conn, "INSERT INTO t VALUES (1, 'before')")
	exec1(t, conn, "INSERT INTO t VALUES (2, 'taken by a rewriting')")
	exec1(t, conn, "INSERT INTO t VALUES (3, 'behind')")
	err := db.Push(ctx)
	fails(t, err, turso.ErrTursoPushConstraint, "UNIQUE")
	var failed *turso.Error
	if !errors.As(err, &failed) || failed.Change == 0 {
		t.Fatalf("%v names no change", err)
	}
	_, err = db.Pull(ctx)
	fails(t, err, turso.ErrTursoPullConflict, "")
	found, err := db.DiscardChange(ctx, failed.Change)
	must(t, err)
	equal(t, "there was such a change", found, true)
	must(t, db.Push(ctx))
	_, err = db.Pull(ctx)
	must(t, err)
	_, err = other.Pull(ctx)
	must(t, err)
	for _, conn := range []*sql.DB{conn, there} {
		equal(t, "rows", one[string](t, conn, "SELECT group_concat(id || v) FROM (SELECT * FROM t ORDER BY id)"), "1before,3behind,100taken")
	}
}

func TestATokenFunctionThatFailsInTheMiddleOfRowsIsTheirError(t *testing.T) {
	token := &turning{}
	config := prefix(serve(t, messages), inFolder(t, "app.db"))
	config.RemoteAuthTokenFunction = token.ask
	// Else the other rows may be here before the next token is asked for.
	config.PartialSyncConfig.DisablePrefetch = true
	_, conn := replica(t, config)
	conn.SetMaxOpenConns(1)
	tx, err := conn.Begin()
	must(t, err)
	exec1(t, tx, "INSERT INTO notes(title) VALUES ('in the transaction')")
	rows, err := tx.Query("SELECT id, body FROM messages")
	must(t, err)
	for range 10 {
		equal(t, "a row", rows.Next(), true)
	}
	token.set("", errors.New("the session has expired"), nil)
	for rows.Next() {
	}
	fails(t, rows.Err(), turso.ErrTursoCallback, "the session has expired")
	must(t, rows.Close())
	token.set("", nil, nil)
	// SQLite rolls back a transaction that has written when a page cannot be had.
	fails(t, tx.Commit(), turso.ErrTursoTransactionLost, "the session has expired")
	equal(t, "all", one[int](t, conn, "SELECT count(*) FROM messages"), 20000)
	equal(t, "notes", one[int](t, conn, "SELECT count(*) FROM notes"), 0)
}

func TestAContextThatEndsWhileATokenIsAskedForDoesNotWaitForIt(t *testing.T) {
	token := &turning{}
	config := prefix(serve(t, messages), inFolder(t, "app.db"))
	config.RemoteAuthTokenFunction = token.ask
	db, conn := replica(t, config)
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('mine')")
	for name, call := range map[string]func(context.Context) error{
		"a pull": func(until context.Context) error { _, err := db.Pull(until); return err },
		"a push": db.Push,
		"a query": func(until context.Context) error {
			var body string
			return conn.QueryRowContext(until, "SELECT body FROM messages WHERE id = 15000").Scan(&body)
		},
		"a hydration": func(until context.Context) error { _, err := db.Hydrate(until, "", nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			until, cancel := context.WithCancel(ctx)
			released := make(chan struct{})
			token.set("", nil, func() { cancel(); <-released })
			began := time.Now()
			// The function has not returned when the call has.
			ended(t, call(until), context.Canceled, began)
			token.set("", nil, nil)
			close(released)
		})
	}
	equal(t, "the row", len(one[string](t, conn, "SELECT body FROM messages WHERE id = 15000")), 180)
	must(t, db.Push(ctx))
}

func TestAContextThatEndsInsideOfTransformBreaksThePushAndLosesNothing(t *testing.T) {
	remote := serve(t, functionsSchema)
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	db, conn := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote,
		Transform: func(turso.TursoMutation) (*turso.TursoTransformResult, error) { cancel(); return nil, nil }})
	exec1(t, conn, "INSERT INTO t VALUES (1, 'one')")
	began := time.Now()
	// It may have arrived when the push is broken.
	if err := db.Push(until); err != nil {
		ended(t, err, context.Canceled, began)
	}
	must(t, db.Push(ctx))
	_, there := replica(t, turso.TursoSyncDbConfig{Path: inFolder(t, "other.db"), RemoteUrl: remote})
	equal(t, "rows", one[int](t, there, "SELECT count(*) FROM t"), 1)
}

// captured counts how often what functions hold was given back.
type captured struct{ held, gone atomic.Int64 }

// hold is for a function to hold; it must not be small, or it shares its memory with others.
func (c *captured) hold() *[64]byte {
	what := new([64]byte)
	c.held.Add(1)
	runtime.AddCleanup(what, func(int) { c.gone.Add(1) }, 0)
	return what
}

func (c *captured) areGone(t *testing.T) {
	t.Helper()
	eventually(t, "everything is given back", func() bool {
		runtime.GC()
		return c.gone.Load() == c.held.Load()
	})
}

// A second release would end the process: a handle is deleted once.
func TestFunctionsAreReleasedOnceWhenTheLastThatCouldAskThemIsGone(t *testing.T) {
	remote := serve(t, functionsSchema)
	var all captured
	open := func(path string) (*turso.TursoSyncDb, error) {
		what := all.hold()
		return turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{Path: path, RemoteUrl: remote,
			RemoteAuthTokenFunction: func() (string, error) { return string(what[:0]), nil },
			Transform:               func(turso.TursoMutation) (*turso.TursoTransformResult, error) { what[0]++; return nil, nil }})
	}
	for range 20 {
		db, err := open(inFolder(t, "app.db"))
		must(t, err)
		conn, err := db.Connect(ctx)
		must(t, err)
		exec1(t, conn, "INSERT INTO t(v) VALUES (random())")
		must(t, db.Push(ctx))
		must(t, db.Close())
		must(t, db.Close())
		runtime.GC()
		exec1(t, conn, "INSERT INTO t(v) VALUES (random())")
		equal(t, "gone, while a pool is open", all.gone.Load() < all.held.Load(), true)
		must(t, conn.Close())
	}
	all.areGone(t)
	// One that cannot be opened.
	for range 5 {
		_, err := open(filepath.Join(inFolder(t, "nowhere"), "app.db"))
		fails(t, err, turso.ErrTursoCannotOpen, "")
		_, err = open("app\x00.db")
		fails(t, err, turso.ErrTursoMisuse, "NUL")
	}
	all.areGone(t)
}

func TestClosingWaitsForACallWhoseFunctionRunsAndNobodyIsStuck(t *testing.T) {
	remote := serve(t, functionsSchema)
	for name, call := range map[string]func(*turso.TursoSyncDb) error{
		"a pull": func(db *turso.TursoSyncDb) error { _, err := db.Pull(ctx); return err },
		"a push": func(db *turso.TursoSyncDb) error { return db.Push(ctx) },
	} {
		for _, asked := range []string{"url", "token", "transform"} {
			if name == "a pull" && asked == "transform" {
				continue // nothing has come that changes would be put back on
			}
			t.Run(name+" and "+asked, func(t *testing.T) {
				var db *turso.TursoSyncDb
				var once sync.Once
				inside, closing := make(chan struct{}), make(chan struct{})
				var inFunction []error
				function := func() {
					if db == nil {
						return
					}
					once.Do(func() {
						close(inside)
						<-closing
						// Close waits for the end of the call: what is called now must not wait behind it.
						_, err := db.Stats(ctx)
						inFunction = append(inFunction, err, db.Push(ctx), db.Close())
					})
				}
				config := turso.TursoSyncDbConfig{Path: inFolder(t, "app.db"), RemoteUrl: remote}
				switch asked {
				case "url":
					config.RemoteUrl, config.RemoteUrlFunction = "", func() (string, error) { function(); return remote, nil }
				case "token":
					config.RemoteAuthTokenFunction = func() (string, error) { function(); return "", nil }
				case "transform":
					config.Transform = func(turso.TursoMutation) (*turso.TursoTransformResult, error) { function(); return nil, nil }
				}
				opened, err := turso.NewTursoSyncDb(ctx, config)
				must(t, err)
				conn, err := opened.Connect(ctx)
				must(t, err)
				exec1(t, conn, "INSERT INTO t(v) VALUES (random())")
				db = opened
				var all sync.WaitGroup
				var called error
				start(&all, func() { called = call(opened) })
				<-inside
				var closed [2]error
				for i := range closed {
					start(&all, func() { closed[i] = opened.Close() })
				}
				// A call that begins after the closing has is refused, while the closing waits.
				eventually(t, "it closes", func() bool { _, err := opened.Stats(ctx); return errors.Is(err, turso.ErrTursoConnClosed) })
				close(closing)
				all.Wait()
				must(t, errors.Join(called, closed[0], closed[1]))
				for _, err := range inFunction {
					fails(t, err, turso.ErrTursoMisuse, "its own database")
				}
				equal(t, "calls in the function", len(inFunction), 3)
				must(t, conn.Close())
			})
		}
	}
}

func TestFunctionsAreAskedByManyAtOnce(t *testing.T) {
	url := serve(t, messages)
	var asked, inside, most atomic.Int64
	function := func(text string) func() (string, error) {
		return func() (string, error) {
			asked.Add(1)
			most.Store(max(most.Load(), inside.Add(1)))
			defer inside.Add(-1)
			runtime.Gosched()
			return text, nil
		}
	}
	config := prefix("", inFolder(t, "app.db"))
	config.RemoteUrlFunction, config.RemoteAuthTokenFunction = function(url), function("token")
	config.Transform = func(turso.TursoMutation) (*turso.TursoTransformResult, error) { asked.Add(1); return nil, nil }
	db, conn := replica(t, config)
	var all sync.WaitGroup
	for n := range 8 {
		start(&all, func() {
			for i := range 40 {
				id := (n*40+i)*61%20000 + 1
				var body string
				if err := conn.QueryRow("SELECT body FROM messages WHERE id = ?", id).Scan(&body); err != nil || len(body) != 180 {
					t.Errorf("%d: %q, %v", id, body, err)
				}
				switch {
				case n == 0:
					if _, err := conn.Exec("INSERT INTO notes(title) VALUES (random())"); err != nil {
						t.Error(err)
					}
				case n == 1:
					if _, err := db.Pull(ctx); err != nil {
						t.Error(err)
					}
				case n == 2:
					if err := db.Push(ctx); err != nil {
						t.Error(err)
					}
				}
				alive()
			}
		})
	}
	all.Wait()
	must(t, db.Push(ctx))
	t.Logf("asked %d times, at most %d at once", asked.Load(), most.Load())
	equal(t, "notes", one[int](t, conn, "SELECT count(*) FROM notes"), 40)
}

func start(all *sync.WaitGroup, work func()) {
	all.Add(1)
	go func() {
		defer all.Done()
		work()
	}()
}
