//go:build cgo

package turso

import (
	"database/sql"
	"reflect"
	"strings"
	"time"
)

// column is what is known of a result column before there are rows.
type column struct {
	name     string
	declared string // "" for an expression
	isTime   bool   // declared DATE, DATETIME or TIMESTAMP
}

func newColumn(name, declared string) column {
	c := column{name: name, declared: declared}
	switch strings.ToUpper(declared) {
	case "DATE", "DATETIME", "TIMESTAMP":
		c.isTime = true
	}
	return c
}

// typeName is the declared type without its length: VARCHAR(20) is VARCHAR.
func (c *column) typeName() string {
	name, _, _ := strings.Cut(c.declared, "(")
	return strings.ToUpper(strings.TrimSpace(name))
}

var (
	scanInteger = reflect.TypeFor[sql.NullInt64]()
	scanReal    = reflect.TypeFor[sql.NullFloat64]()
	scanText    = reflect.TypeFor[sql.NullString]()
	scanBlob    = reflect.TypeFor[[]byte]()
	scanTime    = reflect.TypeFor[sql.NullTime]()
	scanAny     = reflect.TypeFor[any]()
)

// scanType is what values of the column fit in, NULL among them: by SQLite's rules for the affinity of a declared type.
func (c *column) scanType() reflect.Type {
	name := c.typeName()
	has := func(part string) bool { return strings.Contains(name, part) }
	switch {
	case c.isTime:
		return scanTime
	case has("INT"):
		return scanInteger
	case has("CHAR"), has("CLOB"), has("TEXT"):
		return scanText
	case has("BLOB"):
		return scanBlob
	case has("REAL"), has("FLOA"), has("DOUB"):
		return scanReal
	default:
		return scanAny
	}
}

// The ways in which SQLite's functions and Go programs write times, the longest first.
var timeLayouts = [...]string{
	"2006-01-02 15:04:05.999999999-07:00",
	"2006-01-02T15:04:05.999999999-07:00",
	"2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04:05.999999999",
	"2006-01-02 15:04",
	"2006-01-02T15:04",
	"2006-01-02",
}

// asTime reads the text of a time column; a text that is not a time stays what it is.
func asTime(text string) any {
	trimmed := strings.TrimSuffix(text, "Z")
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, trimmed, time.UTC); err == nil {
			return t
		}
	}
	return text
}
