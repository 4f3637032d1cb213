//go:build cgo

package turso

import (
	"net/url"
	"strconv"
	"strings"
)

// DefaultBusyTimeout is how many milliseconds a statement waits for another connection's lock unless told otherwise.
const DefaultBusyTimeout = 5000

// source is what a data source name says: a path, and options after a question mark.
type source struct {
	path         string
	busyTimeout  int    // milliseconds; 0: not said, -1: none
	queryTimeout int    // milliseconds; 0: none
	begin        string // the statement that begins a transaction
	foreignKeys  bool
}

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
		if err != nil {
			return checkText("?"+name, value)
		}
		if s.busyTimeout = ms; ms == -1 {
			return nil
		}
		// Somebody who writes 0 here wants no waiting; in a struct it means the default.
		if ms == 0 {
			s.busyTimeout = -1
		}
		return checkNumber("?"+name, ms)
	case "_query_timeout":
		ms, err := strconv.Atoi(value)
		if err != nil {
			return checkText("?"+name, value)
		}
		s.queryTimeout = ms
		return checkNumber("?"+name, ms)
	case "_txlock":
		s.begin = "BEGIN " + strings.ToUpper(value)
		return checkText("?"+name, strings.ToLower(value))
	case "_foreign_keys":
		on, err := parseBool(value)
		if err != nil {
			return checkText("?"+name, value)
		}
		s.foreignKeys = on
	case "async":
		// How the published package does its own I/O; calls look the same either way.
		if _, err := parseBool(value); err != nil {
			return checkText("?"+name, value)
		}
	case "experimental":
		// Names of features; SQLite's are all there.
	default:
		// One that is not supported, or not known.
		return checkText("?"+name, value)
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
