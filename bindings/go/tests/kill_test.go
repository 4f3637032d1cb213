package tests

import (
	"bufio"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"turso"
)

// What the child process says when a write has succeeded, it has said after the success and before anything else.
func TestMain(m *testing.M) {
	if path := os.Getenv("WRITES_UNTIL_IT_IS_KILLED"); path != "" {
		writeUntilKilled(path, os.Getenv("ITS_REMOTE"))
	}
	if url := os.Getenv("HANGS_AT"); url != "" {
		hang(url, os.Getenv("HANGS_IN"))
	}
	if path := os.Getenv("OPENS_WHAT_ITS_PARENT_HAS_OPEN"); path != "" {
		openWhatTheParentHasOpen(path, os.Getenv("ITS_REMOTE"))
	}
	startWatchdog()
	os.Exit(m.Run())
}

func writeUntilKilled(path, url string) {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{Path: path, RemoteUrl: url})
	die(err)
	conn, err := db.Connect(ctx)
	die(err)
	conn.SetMaxOpenConns(1)
	_, err = conn.Exec("PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, how)")
	die(err)
	if url != "" {
		// It is killed in the middle of these, too.
		go func() {
			for {
				_, _ = db.Pull(ctx)
				_ = db.Push(ctx)
			}
		}()
	}
	prepared, err := conn.Prepare("INSERT INTO t(how) VALUES ('prepared') RETURNING id")
	die(err)
	for {
		var id int64
		switch rand.Intn(4) {
		case 0:
			done, err := conn.Exec("INSERT INTO t(how) VALUES ('exec')")
			die(err)
			id, err = done.LastInsertId()
			die(err)
		case 1:
			die(conn.QueryRow("INSERT INTO t(how) VALUES ('query') RETURNING id").Scan(&id))
		case 2:
			die(prepared.QueryRow().Scan(&id))
		case 3:
			tx, err := conn.Begin()
			die(err)
			die(tx.QueryRow("INSERT INTO t(how) VALUES ('transaction') RETURNING id").Scan(&id))
			die(tx.Commit())
		}
		fmt.Println(id)
	}
}

// Everything that succeeded is there after a kill. KILLS says how often.
func TestWhatSucceededIsThereAfterAKill(t *testing.T) {
	kills := 20
	if text := os.Getenv("KILLS"); text != "" {
		var err error
		kills, err = strconv.Atoi(text)
		must(t, err)
	}
	remote := filepath.Join(t.TempDir(), "remote.db")
	create(t, remote, messages)
	for name, url := range map[string]string{"local": "", "replica": serveAt(t, remote)} {
		t.Run(name, func(t *testing.T) {
			path, said := inFolder(t, "killed.db"), map[int64]bool{}
			for range kills / 2 {
				child := exec.Command(os.Args[0])
				child.Env = append(os.Environ(), "WRITES_UNTIL_IT_IS_KILLED="+path, "ITS_REMOTE="+url)
				child.Stderr = os.Stderr
				output, err := child.StdoutPipe()
				must(t, err)
				must(t, child.Start())
				lines := bufio.NewScanner(output)
				for range 1 + rand.Intn(10) {
					if !lines.Scan() {
						t.Fatal("the child ended by itself")
					}
					id, err := strconv.ParseInt(lines.Text(), 10, 64)
					must(t, err)
					said[id] = true
				}
				if url != "" {
					create(t, remote, "INSERT INTO messages(body) VALUES ('another client')")
				}
				must(t, child.Process.Kill())
				for lines.Scan() { // What it said before it was killed.
					if id, err := strconv.ParseInt(lines.Text(), 10, 64); err == nil {
						said[id] = true
					}
				}
				_ = child.Wait()
				db, err := turso.NewTursoSyncDb(ctx, turso.TursoSyncDbConfig{Path: path, RemoteUrl: url})
				must(t, err)
				conn, err := db.Connect(ctx)
				must(t, err)
				for id := range said {
					equal(t, fmt.Sprint("row ", id), one[int](t, conn, "SELECT count(*) FROM t WHERE id = ?", id), 1)
				}
				if url != "" {
					must(t, db.Push(ctx))
				}
				must(t, conn.Close())
				must(t, db.Close())
			}
			if url == "" {
				return
			}
			pushed := local(t, remote)
			for id := range said {
				equal(t, fmt.Sprint("on the remote, row ", id), one[int](t, pushed, "SELECT count(*) FROM t WHERE id = ?", id), 1)
			}
		})
	}
}
