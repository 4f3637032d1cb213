package tests

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"turso"
)

// A wait of more than 20 seconds ends the tests with the stacks of all goroutines. The checks of this package (must, equal,
// eventually) are the signs of life.
var watchdog = struct {
	signs    atomic.Int64
	patience atomic.Int64 // how many waits that may be long are under way
	limit    time.Duration
}{limit: 20 * time.Second}

func alive() { watchdog.signs.Add(1) }

// patiently is for what may take long: another program, such as a compiler, or very much data.
func patiently(wait func()) {
	watchdog.patience.Add(1)
	defer func() {
		alive()
		watchdog.patience.Add(-1)
	}()
	wait()
}

func startWatchdog() {
	go func() {
		last, since := int64(-1), time.Now()
		for ; ; time.Sleep(watchdog.limit / 40) {
			if signs := watchdog.signs.Load(); signs != last || watchdog.patience.Load() > 0 {
				last, since = signs, time.Now()
			}
			if time.Since(since) > watchdog.limit {
				stacks := make([]byte, 4<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				fmt.Fprintf(os.Stderr, "watchdog: nothing has happened for %v\n%s\n", watchdog.limit, stacks)
				os.Exit(3)
			}
		}
	}()
}

// hang waits in a child process for a remote that does not answer.
func hang(url, path string) {
	watchdog.limit = time.Second
	startWatchdog()
	_, err := turso.NewTursoSyncDb(ctx, prefix(url, path))
	fmt.Fprintln(os.Stderr, "it ended:", err)
}

func TestTheWatchdogEndsAWaitWithAllStacks(t *testing.T) {
	remote := silentInFrontOf(t, serve(t, messages))
	remote.hush()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "HANGS_AT="+remote.url, "HANGS_IN="+inFolder(t, "hangs.db"))
	output, err := child.CombinedOutput()
	for _, part := range []string{"nothing has happened for 1s", "turso.NewTursoSyncDb", "_Cfunc_partial_sync_open"} {
		if err == nil || !strings.Contains(string(output), part) {
			t.Fatalf("%v, without %q: %s", err, part, output)
		}
	}
}
