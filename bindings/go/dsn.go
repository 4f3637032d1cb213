//go:build cgo

package turso

import (
	"math"
	"net/url"
	"strconv"
	"strings"
)

// DefaultBusyTimeout is how many milliseconds a statement waits for another connection's lock unless told otherwise.
const DefaultBusyTimeout = 5000

// source is what a data source name says: a path, and options behind a question mark.
type source struct {
	path        string
	busyTimeout int    // milliseconds; 0: not said, -1: none
	begin       string // the statement that begins a transaction
	foreignKeys bool
}

// The options of a data source name, for the error about one that is not among them.
var sourceOptions = []string{"_busy_timeout", "_foreign_keys", "_txlock", "async", "experimental"}

func parseSource(dsn string) (source, error) {
	s := source{begin: "BEGIN"}
	path, query, found := strings.Cut(dsn, "?")
	s.path = strings.TrimPrefix(path, "file:")
	if strings.TrimSpace(s.path) == "" {
		return s, misuse("the data source name %q has no path: give a file, or :memory:", dsn)
	}
	if !found {
		return s, nil
	}
	options, err := url.ParseQuery(query)
	if err != nil {
		return s, misuse("the options of the data source name %q cannot be read: %v", dsn, err)
	}
	for name, values := range options {
		for _, value := range values {
			if value != values[0] {
				return s, misuse("the option %q is given twice, as %q and as %q", name, values[0], value)
			}
		}
		if err := s.set(name, values[0]); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *source) set(name, value string) error {
	switch name {
	case "_busy_timeout":
		ms, err := strconv.Atoi(value)
		if err != nil || ms < -1 || ms > math.MaxInt32 {
			return misuse("the option %q is %q: it must be a number of milliseconds, or -1 for none", name, value)
		}
		// Somebody who writes 0 here wants no waiting; in a struct it means the default.
		if s.busyTimeout = ms; ms == 0 {
			s.busyTimeout = -1
		}
	case "_txlock":
		switch strings.ToLower(value) {
		case "deferred", "immediate", "exclusive":
			s.begin = "BEGIN " + strings.ToUpper(value)
		default:
			return misuse("the option %q is %q: it must be deferred, immediate or exclusive", name, value)
		}
	case "_foreign_keys":
		on, err := parseBool(value)
		if err != nil {
			return misuse("the option %q is %q: it must be 0 or 1", name, value)
		}
		s.foreignKeys = on
	case "async":
		// How the published package does its own I/O; calls look the same either way.
		if _, err := parseBool(value); err != nil {
			return misuse("the option %q is %q: it must be 0 or 1", name, value)
		}
	case "experimental":
		// Names of features; SQLite's are all there.
	case "vfs", "encryption_cipher", "encryption_hexkey":
		return &Error{Code: codeUnsupported, Message: "the option \"" + name + "\" is not supported: " +
			"this library has one VFS of its own and does not encrypt local files"}
	default:
		return unknownOption(name, sourceOptions)
	}
	return nil
}

func parseBool(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "yes", "on":
		return true, nil
	case "no", "off":
		return false, nil
	}
	return strconv.ParseBool(value)
}

func unknownOption(name string, known []string) error {
	nearest, least := "", math.MaxInt
	for _, option := range known {
		if distance := editDistance(plain(name), plain(option)); distance < least {
			nearest, least = option, distance
		}
	}
	return misuse("unknown option %q; did you mean %q?", name, nearest)
}

// plain leaves out what people write differently.
func plain(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}

// editDistance is how many letters must be changed, added or left out to make a of b (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
