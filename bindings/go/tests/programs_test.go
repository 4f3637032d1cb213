package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The examples, run as a user runs them, in order: the last one writes.
func TestTheExamplesRun(t *testing.T) {
	url, programs := serve(t, messages), t.TempDir()
	build := exec.Command("go", "build", "-o", programs, "./...")
	build.Dir = inRepository(t, "examples/go")
	patiently(func() {
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, output)
		}
	})
	for _, example := range []struct{ name, prints string }{
		{"prefix", "message 1: 000"},
		{"query", "100 messages, with 0 more requests"},
		{"segment_size", "the last message: 000"},
		{"prefetch", "20000 messages of 3600000 letters"},
		{"push_and_pull", "messages of u_go: 1"},
	} {
		t.Run(example.name, func(t *testing.T) {
			run := exec.Command(filepath.Join(programs, example.name))
			run.Dir = t.TempDir()
			run.Env = append(os.Environ(), "TURSO_DATABASE_URL="+url, "TURSO_AUTH_TOKEN=")
			output, err := run.CombinedOutput()
			if err != nil || !strings.Contains(string(output), example.prints) {
				t.Fatalf("%v: %s", err, output)
			}
		})
	}
}

// What the README says: a module anywhere uses this one with a replace directive, and needs nothing else.
func TestAProgramOfAnotherFolderUsesTheModule(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		must(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	write("go.mod", fmt.Sprintf("module another\n\ngo 1.24\n\nrequire turso v0.0.0\n\nreplace turso => %s\n",
		inRepository(t, "bindings/go")))
	write("main.go", `package main

import (
	"context"
	"fmt"
	"os"
	"turso"
)

func main() {
	db, err := turso.NewTursoSyncDb(context.Background(), turso.TursoSyncDbConfig{
		Path:      "./app.db",
		RemoteUrl: os.Args[1],
		PartialSyncConfig: turso.TursoPartialSyncConfig{
			BoostrapStrategyPrefix: 128 * 1024,
		},
	})
	if err != nil {
		panic(err)
	}
	conn, err := db.Connect(context.Background())
	if err != nil {
		panic(err)
	}
	var count int
	fmt.Println(conn.QueryRow("SELECT count(*) FROM messages").Scan(&count), count)
}
`)
	run := exec.Command("go", "run", ".", serve(t, messages))
	run.Dir = folder
	// No network: nothing may have to be downloaded.
	run.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod")
	var output []byte
	var err error
	patiently(func() { output, err = run.CombinedOutput() })
	if err != nil || string(output) != "<nil> 20000\n" {
		t.Fatalf("%v: %s", err, output)
	}
}

func inRepository(t *testing.T, path string) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	full, err := filepath.Abs(filepath.Join(filepath.Dir(here), "../../..", path))
	must(t, err)
	return full
}
