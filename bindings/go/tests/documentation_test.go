package tests

import (
	"context"
	"database/sql"
	"os"
	"testing"

	"turso"
)

// The examples of the documentation, with the url of a test server.

func TestPrefixBootstrap(t *testing.T) {
	url, path := serve(t, messages), inFolder(t, "app.db")
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            path,
		RemoteUrl:       url,
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 128 * 1024, // 128 KiB
		},
	})
	must(t, err)
	defer db.Close()
	stats := statsOf(t, db)
	equal(t, "pages here after the bootstrap", stats.PagesPresent, 32)
	if stats.PagesTotal < 1000 {
		t.Fatalf("the remote has %d pages", stats.PagesTotal)
	}
	readEverything(t, db)
}

func TestQueryBootstrap(t *testing.T) {
	url, path := serve(t, messages), inFolder(t, "app.db")
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            path,
		RemoteUrl:       url,
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyQuery: "SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100",
		},
	})
	must(t, err)
	defer db.Close()
	conn, err := db.Connect(context.Background())
	must(t, err)
	defer conn.Close()
	requests := statsOf(t, db).Requests
	rows, err := conn.Query("SELECT * FROM messages WHERE user_id = 'u_123' LIMIT 100")
	must(t, err)
	equal(t, "rows", countRows(t, rows), 100)
	equal(t, "requests for what the bootstrap brought", statsOf(t, db).Requests, requests)
	readEverything(t, db)
}

func TestSegmentSize(t *testing.T) {
	url, path := serve(t, messages), inFolder(t, "app.db")
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            path,
		RemoteUrl:       url,
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 128 * 1024, // 128 KiB
			SegmentSize:            16 * 1024,
			DisablePrefetch:        true,
		},
	})
	must(t, err)
	defer db.Close()
	conn, err := db.Connect(context.Background())
	must(t, err)
	defer conn.Close()
	before := statsOf(t, db)
	one[string](t, conn, "SELECT body FROM messages WHERE id = 15000")
	segments := statsOf(t, db).Requests - before.Requests
	if segments < 1 {
		t.Fatal("no request was made")
	}
	// The row is given when its page is here, and the rest of the segment arrives after it.
	eventually(t, "4 pages come with each request", func() bool {
		return statsOf(t, db).PagesPresent == before.PagesPresent+4*segments
	})
	readEverything(t, db)
}

func TestPrefetch(t *testing.T) {
	url, path := serve(t, messages), inFolder(t, "app.db")
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:            path,
		RemoteUrl:       url,
		RemoteAuthToken: os.Getenv("TURSO_AUTH_TOKEN"),
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 128 * 1024, // 128 KiB
			Prefetch:               true,
		},
	})
	must(t, err)
	defer db.Close()
	conn, err := db.Connect(context.Background())
	must(t, err)
	defer conn.Close()
	one[int64](t, conn, "SELECT sum(length(body)) FROM messages")
	if stats := statsOf(t, db); stats.PrefetchHits == 0 {
		t.Fatalf("nothing was prefetched: %+v", stats)
	}
	readEverything(t, db)
}

func TestPushAndPull(t *testing.T) {
	url := serve(t, messages)
	here, conn := replica(t, prefix(url, inFolder(t, "here.db")))
	there, other := replica(t, prefix(url, inFolder(t, "there.db")))
	exec1(t, conn, "INSERT INTO notes(title, body) VALUES (?, ?)", "first", "of here")
	equal(t, "changes to push", statsOf(t, here).CdcOperations, 1)
	must(t, here.Push(ctx))
	equal(t, "changes to push", statsOf(t, here).CdcOperations, 0)
	changed, err := there.Pull(ctx)
	must(t, err)
	equal(t, "something came", changed, true)
	equal(t, "the row", one[string](t, other, "SELECT body FROM notes WHERE title = 'first'"), "of here")
	changed, err = there.Pull(ctx)
	must(t, err)
	equal(t, "something came again", changed, false)
	must(t, there.Checkpoint(ctx))
}

// The other spellings, and code of the published package.
func TestPublishedSpellings(t *testing.T) {
	url, path := serve(t, messages), inFolder(t, "app.db")
	bootstrap := true
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{
		Path:             path + "?_busy_timeout=1000",
		RemoteUrl:        url,
		AuthToken:        "not-needed",
		ClientName:       "test",
		BootstrapIfEmpty: &bootstrap,
		PartialSyncExperimental: turso.TursoPartialSyncConfig{
			BootstrapStrategyPrefix: 128 * 1024,
			SegmentSize:             16 * 1024,
		},
		BusyTimeout:             2000,
		PushOperationsThreshold: 100,
		PullBytesThreshold:      1 << 20,
		LongPollTimeoutMs:       50,
	})
	must(t, err)
	defer db.Close()
	equal(t, "pages here after the bootstrap", statsOf(t, db).PagesPresent, 32)
	_, err = os.Stat(path)
	must(t, err)
}

func TestInMemoryReplicaLeavesNoFile(t *testing.T) {
	url := serve(t, messages)
	t.Chdir(t.TempDir())
	db, conn := replica(t, prefix(url, ":memory:"))
	equal(t, "messages", one[int](t, conn, "SELECT count(*) FROM messages"), 20000)
	exec1(t, conn, "INSERT INTO notes(title) VALUES ('kept in memory')")
	must(t, db.Push(ctx))
	files, err := os.ReadDir(".")
	must(t, err)
	equal(t, "files", len(files), 0)
}

func readEverything(t *testing.T, db *turso.TursoSyncDb) {
	t.Helper()
	conn, err := db.Connect(ctx)
	must(t, err)
	defer conn.Close()
	equal(t, "messages", one[int](t, conn, "SELECT count(*) FROM messages WHERE length(body) = 180"), 20000)
}

func countRows(t *testing.T, rows *sql.Rows) (count int) {
	t.Helper()
	defer rows.Close()
	for rows.Next() {
		count++
	}
	must(t, rows.Err())
	return count
}

func TestAReplicaCanBeginWithoutTheRemote(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	remote.hush()
	no := false
	config := prefix(remote.url, inFolder(t, "app.db"))
	config.BootstrapIfEmpty = &no
	db, conn := replica(t, config)
	equal(t, "requests", statsOf(t, db).Requests, 0)
	remote.speak()
	changed, err := db.Pull(ctx)
	must(t, err)
	equal(t, "something came", changed, true)
	equal(t, "messages", one[int](t, conn, "SELECT count(*) FROM messages"), 20000)
}
