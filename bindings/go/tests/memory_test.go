package tests

import (
	"database/sql"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// residentKiB is the memory that the process has now, the library's included.
func residentKiB(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("there is no /proc")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	must(t, err)
	return kib
}

func TestOpeningAndClosingKeepsMemoryFlat(t *testing.T) {
	if underRaceDetector {
		t.Skip("the race detector's memory is not flat")
	}
	if os.Getenv("ALONE") == "" {
		// What other tests have left to be collected would be counted too.
		alone := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		alone.Env = append(os.Environ(), "ALONE=1")
		patiently(func() {
			if output, err := alone.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, output)
			}
		})
		return
	}
	path := inFolder(t, "local.db")
	writer := local(t, path)
	exec1(t, writer, "CREATE TABLE t(x); INSERT INTO t VALUES ('value')")
	cycle := func() {
		db, err := sql.Open("turso", path)
		must(t, err)
		equal(t, "value", one[string](t, db, "SELECT x FROM t WHERE x = ?", "value"), "value")
		rows, err := db.Query("SELECT value FROM generate_series(1, 100)")
		must(t, err)
		equal(t, "a row", rows.Next(), true)
		must(t, rows.Close())
		must(t, db.Close())
	}
	for range 1000 {
		cycle()
	}
	before := residentKiB(t)
	for range 10000 {
		cycle()
	}
	if grown := residentKiB(t) - before; grown > 4096 {
		t.Fatalf("10,000 cycles took %d KiB", grown)
	}
}
