package tests

import (
	"database/sql"
	"os"
	"os/exec"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"
)

// A program may link the usual SQLite driver too (GORM's is that one). Each has a SQLite of its own, and neither sees the
// other's functions.
func TestGoSqlite3InTheSameProgram(t *testing.T) {
	versions := map[string]string{}
	for _, driver := range []string{"sqlite3", "turso"} {
		db, err := sql.Open(driver, ":memory:")
		must(t, err)
		defer db.Close()
		db.SetMaxOpenConns(1)
		var source string
		must(t, db.QueryRow("SELECT sqlite_source_id()").Scan(&source))
		versions[source] = driver
		_, err = db.Exec("CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)")
		must(t, err)
		var sum int
		must(t, db.QueryRow("SELECT sum(x) FROM t").Scan(&sum))
		if sum != 3 {
			t.Fatalf("%s: %d", driver, sum)
		}
	}
	if len(versions) != 2 {
		t.Fatalf("both drivers run one SQLite: %v", versions)
	}
}

// Without cgo the compiler's one message says what to do.
func TestWithoutCgoTheBuildSaysWhatIsMissing(t *testing.T) {
	build := exec.Command("go", "build", ".")
	build.Dir = inRepository(t, "bindings/go")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	var output []byte
	var err error
	patiently(func() { output, err = build.CombinedOutput() })
	if err == nil || strings.Count(string(output), "undefined") != 1 ||
		!strings.Contains(string(output), "turso_needs_cgo_set_CGO_ENABLED_1_and_install_a_C_compiler") {
		t.Fatalf("%v: %s", err, output)
	}
}
