// Package tests holds the tests of the module turso that need a remote or another module. scripts/test-go runs them.
package tests

import (
	"bufio"
	"context"
	"database/sql"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"turso"
)

var ctx = context.Background()

// The remote's contents: 20,000 messages of 200 users, about 4 MB.
const messages = `
	CREATE TABLE messages(id INTEGER PRIMARY KEY, user_id TEXT, body TEXT);
	WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 20000)
	INSERT INTO messages SELECT x, 'u_' || (x % 200), printf('%0180d', x) FROM c;
	CREATE INDEX messages_user ON messages(user_id);
	CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, body);`

// program is the server, which scripts/build-go-lib builds with the library.
func program(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	target := os.Getenv("CARGO_TARGET_DIR")
	if target == "" {
		target = filepath.Join(filepath.Dir(here), "../../../target")
	}
	for _, profile := range []string{"debug", "release"} {
		if path := filepath.Join(target, profile, "partial-sync"); exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	t.Fatalf("there is no partial-sync in %s: run scripts/build-go-lib", target)
	return ""
}

// serve makes a database from a script, serves it until the test ends, and gives its url.
func serve(t testing.TB, script string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "remote.db")
	create(t, file, script)
	return serveAt(t, file)
}

// serveFolder does so for several databases, by name.
func serveFolder(t testing.TB, scripts map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for name, script := range scripts {
		create(t, filepath.Join(folder, name+".db"), script)
	}
	return serveAt(t, folder)
}

func create(t testing.TB, file, script string) {
	t.Helper()
	local, err := sql.Open("turso", file)
	must(t, err)
	_, err = local.Exec("PRAGMA journal_mode = WAL;" + script)
	must(t, err)
	must(t, local.Close())
}

func serveAt(t testing.TB, path string) string {
	t.Helper()
	server := exec.Command(program(t), "serve", path, "--listen", "127.0.0.1:0")
	output, err := server.StdoutPipe()
	must(t, err)
	must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		if _, url, found := strings.Cut(lines.Text(), "listening on "); found {
			go func() {
				for lines.Scan() {
				}
			}()
			return strings.TrimSpace(url)
		}
	}
	t.Fatal("the server did not start")
	return ""
}

// prefix is the usual way to open a replica here.
func prefix(url, path string) turso.TursoSyncDbConfig {
	return turso.TursoSyncDbConfig{
		Path:      path,
		RemoteUrl: url,
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 16 * 1024,
			SegmentSize:            16 * 1024,
		},
	}
}

func replica(t testing.TB, config turso.TursoSyncDbConfig) (*turso.TursoSyncDb, *sql.DB) {
	t.Helper()
	db, err := turso.NewTursoSyncDb(ctx, config)
	must(t, err)
	conn, err := db.Connect(ctx)
	must(t, err)
	t.Cleanup(func() {
		must(t, conn.Close())
		must(t, db.Close())
	})
	return db, conn
}

func local(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("turso", dsn)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })
	return db
}

func inFolder(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(t.TempDir(), name)
}

func must(t testing.TB, err error) {
	t.Helper()
	alive()
	if err != nil {
		t.Fatal(err)
	}
}

func exec1(t testing.TB, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) sql.Result {
	t.Helper()
	result, err := db.ExecContext(ctx, query, args...)
	must(t, err)
	return result
}

// one is the only value of the only row.
func one[T any](t testing.TB, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, query string, args ...any) (value T) {
	t.Helper()
	must(t, db.QueryRowContext(ctx, query, args...).Scan(&value))
	return value
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	alive()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func statsOf(t testing.TB, db *turso.TursoSyncDb) turso.TursoSyncDbStats {
	t.Helper()
	stats, err := db.Stats(ctx)
	must(t, err)
	return stats
}

// eventually waits until something is so.
func eventually(t testing.TB, what string, isSo func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !isSo(); time.Sleep(5 * time.Millisecond) {
		alive() // It has a limit of its own.
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// silent is a proxy in front of a server that can be told to keep silent: it then takes requests and answers none.
type silent struct {
	url string

	mu        sync.Mutex
	isSilent  bool
	hushAfter int // requests; 0: not by itself
	swallowed int
	broken    []net.Conn
}

func silentInFrontOf(t testing.TB, url string) *silent {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	s := &silent{url: "http://" + listener.Addr().String()}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				client.Close()
				continue
			}
			go func() {
				defer client.Close()
				buffer := make([]byte, 64*1024)
				for {
					n, err := server.Read(buffer)
					if _, failed := client.Write(buffer[:n]); err != nil || failed != nil {
						return
					}
				}
			}()
			go s.forward(client, server)
		}
	}()
	return s
}

func (s *silent) forward(client, server net.Conn) {
	defer server.Close()
	buffer := make([]byte, 64*1024)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.hushAfter > 0 && strings.HasPrefix(string(buffer[:n]), "POST ") {
			if s.hushAfter--; s.hushAfter == 0 {
				s.isSilent = true
			}
		}
		silent := s.isSilent
		if silent {
			s.swallowed++
			s.broken = append(s.broken, client)
		}
		s.mu.Unlock()
		if !silent {
			if _, err := server.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

// hush swallows every request from now on.
func (s *silent) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isSilent, s.swallowed = true, 0
}

// hushAt answers so many requests less one, and swallows every one from that one on.
func (s *silent) hushAt(request int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hushAfter = request
}

// speak continues; connections whose requests were swallowed end.
func (s *silent) speak() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.isSilent = false
	for _, connection := range s.broken {
		connection.Close()
	}
	s.broken = nil
}

// heard tells whether a request was swallowed.
func (s *silent) heard() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.swallowed > 0
}
