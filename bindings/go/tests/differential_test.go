package tests

import (
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"turso"
	"turso_tests/programs"
)

var deliberate = regexp.MustCompile(`\{([a-z-]+): [^{}]*\}`)

// documented are the names of the differences that docs/go.md lists.
func documented(t *testing.T) map[string]bool {
	text, err := os.ReadFile("../../../docs/go.md")
	must(t, err)
	_, table, found := strings.Cut(string(text), "## Differences to mattn/go-sqlite3")
	equal(t, "the section is there", found, true)
	table, _, _ = strings.Cut(table, "\n## ")
	names := map[string]bool{}
	for _, name := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(table, -1) {
		names[name[1]] = true
	}
	return names
}

// The same random programs come to the same results, errors and files as with github.com/mattn/go-sqlite3, but for what
// docs/go.md lists. PROGRAMS says how many, SEED with which to begin.
func TestRandomProgramsDoWhatTheyDoWithTheReference(t *testing.T) {
	count, seed := 300, time.Now().Unix()*1000
	for name, value := range map[string]*int64{"SEED": &seed} {
		if text := os.Getenv(name); text != "" {
			var err error
			*value, err = strconv.ParseInt(text, 10, 64)
			must(t, err)
		}
	}
	if text := os.Getenv("PROGRAMS"); text != "" {
		var err error
		count, err = strconv.Atoi(text)
		must(t, err)
	}
	t.Logf("SEED=%d PROGRAMS=%d", seed, count)
	theirs := programs.Driver{
		Name: "sqlite3",
		DSN:  func(path string) string { return "file:" + path + "?_foreign_keys=1&_busy_timeout=0" },
		Code: func(err error) int {
			var failed sqlite3.Error
			if errors.As(err, &failed) {
				return int(failed.ExtendedCode)
			}
			return 0
		},
	}
	ours := programs.Driver{
		Name: "turso",
		DSN:  func(path string) string { return path + "?_foreign_keys=1&_busy_timeout=-1" },
		Code: func(err error) int {
			var failed *turso.Error
			if errors.As(err, &failed) {
				return failed.ExtendedCode
			}
			return 0
		},
	}
	names, folder, met, failed := documented(t), t.TempDir(), map[string]bool{}, 0
	for end := seed + int64(count); seed < end && failed < 5; seed++ {
		there, err := programs.Run(theirs, seed, folder)
		must(t, err)
		here, err := programs.Run(ours, seed, folder)
		must(t, err)
		strip := func(line string) string {
			return deliberate.ReplaceAllStringFunc(line, func(part string) string {
				name := deliberate.FindStringSubmatch(part)[1]
				met[name] = true
				if names[name] {
					return "{" + name + "}"
				}
				return part
			})
		}
		for i := range max(len(here), len(there)) {
			if i >= len(here) || i >= len(there) || strip(here[i]) != strip(there[i]) {
				failed++
				t.Errorf("SEED=%d: step %d differs\nhere:  %s\nthere: %s", seed, i,
					strings.Join(here[:min(i+1, len(here))], "\n       "), strings.Join(there[min(i, len(there)):min(i+1, len(there))], ""))
				break
			}
		}
	}
	for name := range met {
		if !names[name] {
			t.Errorf("docs/go.md does not list the difference %q", name)
		}
	}
	for name := range names {
		if !met[name] && count > 200 {
			t.Errorf("docs/go.md lists the difference %q, which was not met", name)
		}
	}
}
