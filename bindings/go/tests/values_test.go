package tests

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"turso"
)

// Every value that SQLite has, at its limits.
var values = map[string]any{
	"null":              nil,
	"least integer":     int64(math.MinInt64),
	"greatest integer":  int64(math.MaxInt64),
	"zero":              int64(0),
	"negative zero":     math.Copysign(0, -1),
	"fraction":          0.1,
	"infinity":          math.Inf(1),
	"negative infinity": math.Inf(-1),
	"least float":       math.SmallestNonzeroFloat64,
	"greatest float":    math.MaxFloat64,
	"empty text":        "",
	"text":              "Grüße, 世界 \U0001f30d e\u0301 \u202e",
	"text with NUL":     "a\x00b\x00",
	"text not UTF-8":    "\xff\xfe a",
	"large text":        strings.Repeat("ä語\U0001f600", 200_000),
	"empty blob":        []byte{},
	"blob":              []byte{0, 1, 2, 255},
	"large blob":        bytes.Repeat([]byte{7, 0, 255}, 400_000),
}

func same(a, b any) bool {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		return ok && math.Float64bits(a) == math.Float64bits(b)
	case []byte:
		b, ok := b.([]byte)
		return ok && b != nil && bytes.Equal(a, b)
	default:
		return a == b
	}
}

func TestEveryValueComesBackAndThroughAPushAndAPull(t *testing.T) {
	url := serve(t, "CREATE TABLE v(name TEXT PRIMARY KEY, value)")
	here, conn := replica(t, prefix(url, inFolder(t, "here.db")))
	for name, value := range values {
		exec1(t, conn, "INSERT INTO v VALUES (?, ?)", name, value)
		if got := one[any](t, conn, "SELECT ?", value); !same(got, value) {
			t.Fatalf("%s came back as %T", name, got)
		}
	}
	must(t, here.Push(ctx))
	there, other := replica(t, prefix(url, inFolder(t, "there.db")))
	_, err := there.Pull(ctx)
	must(t, err)
	for who, db := range map[string]*sql.DB{"here": conn, "there": other} {
		for name, value := range values {
			if got := one[any](t, db, "SELECT value FROM v WHERE name = ?", name); !same(got, value) {
				t.Errorf("%s: %s is %T", who, name, got)
			}
		}
	}
}

func TestABlobOf100MegabytesGoesThroughAPushAndAPull(t *testing.T) {
	url := serve(t, "CREATE TABLE v(id INTEGER PRIMARY KEY, value BLOB)")
	// A server of a debug build may need more than 30 s for it on a busy machine, and this is not about that.
	config := func(name string) turso.TursoSyncDbConfig {
		config := prefix(url, inFolder(t, name))
		config.RequestTimeoutMs = 300_000
		return config
	}
	here, conn := replica(t, config("here.db"))
	blob := make([]byte, 100_000_000)
	for i := range blob {
		blob[i] = byte(i * i >> 7)
	}
	patiently(func() {
		exec1(t, conn, "INSERT INTO v VALUES (1, ?)", blob)
		must(t, here.Push(ctx))
	})
	there, other := replica(t, config("there.db"))
	patiently(func() {
		_, err := there.Pull(ctx)
		must(t, err)
		if !bytes.Equal(one[[]byte](t, other, "SELECT value FROM v"), blob) {
			t.Fatal("the blob is another one")
		}
	})
}

type celsius float64

type point struct{ x, y int64 }

func (p point) Value() (driver.Value, error) { return p.x*1000 + p.y, nil }

func TestGoTypesBindAsWhatTheyAre(t *testing.T) {
	db := local(t, ":memory:")
	number := 7
	for _, c := range []struct {
		value any
		kind  string
		want  any
	}{
		{int8(-5), "integer", int64(-5)},
		{uint16(5), "integer", int64(5)},
		{uint64(math.MaxInt64), "integer", int64(math.MaxInt64)},
		{true, "integer", int64(1)},
		{false, "integer", int64(0)},
		{float32(0.5), "real", 0.5},
		{celsius(36.6), "real", 36.6},
		{&number, "integer", int64(7)},
		{(*int)(nil), "null", nil},
		{[]byte(nil), "null", nil},
		{math.NaN(), "null", nil},
		{point{3, 4}, "integer", int64(3004)},
		{sql.NullString{}, "null", nil},
		{sql.NullInt64{Int64: 3, Valid: true}, "integer", int64(3)},
		{time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), "text", "2026-01-02T03:04:05.000006Z"},
	} {
		var kind string
		var got any
		must(t, db.QueryRow("SELECT typeof(?1), ?1", c.value).Scan(&kind, &got))
		if kind != c.kind || got != c.want {
			t.Errorf("%T %v: %s %v", c.value, c.value, kind, got)
		}
	}
	for _, value := range []any{uint64(math.MaxInt64) + 1, struct{}{}, []int{1}} {
		if _, err := db.Exec("SELECT ?", value); !errors.Is(err, turso.ErrTursoMisuse) {
			t.Errorf("%T: %v", value, err)
		}
	}
}

func TestColumnsDeclaredAsTimesAreTimes(t *testing.T) {
	db := local(t, ":memory:")
	exec1(t, db, `CREATE TABLE t(a DATETIME, b TIMESTAMP, c DATE, d TEXT, e DATETIME, f datetime);
		INSERT INTO t VALUES ('2026-01-02 03:04:05', '2026-01-02T03:04:05.5+02:00', '2026-01-02', '2026-01-02', 'never', 1700000000)`)
	var a, b, c time.Time
	var d, e string
	var f int64
	must(t, db.QueryRow("SELECT * FROM t").Scan(&a, &b, &c, &d, &e, &f))
	equal(t, "a", a, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	equal(t, "b", b.UTC(), time.Date(2026, 1, 2, 1, 4, 5, 500_000_000, time.UTC))
	equal(t, "c", c, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	equal(t, "text stays text", d, "2026-01-02")
	equal(t, "what is not a time stays text", e, "never")
	equal(t, "a number stays a number", f, 1_700_000_000)
	now := time.Now().UTC()
	exec1(t, db, "UPDATE t SET a = ?", now)
	equal(t, "a time that was bound", one[time.Time](t, db, "SELECT a FROM t"), now.Round(0))
}

func TestColumnsTellTheirTypes(t *testing.T) {
	db := local(t, ":memory:")
	exec1(t, db, "CREATE TABLE t(id INTEGER PRIMARY KEY, name VARCHAR(20), score DOUBLE, at datetime, raw BLOB)")
	rows, err := db.Query("SELECT *, 1 + 1 AS sum FROM t")
	must(t, err)
	defer rows.Close()
	types, err := rows.ColumnTypes()
	must(t, err)
	for i, want := range []struct{ name, database, scan string }{
		{"id", "INTEGER", "sql.NullInt64"},
		{"name", "VARCHAR", "sql.NullString"},
		{"score", "DOUBLE", "sql.NullFloat64"},
		{"at", "DATETIME", "sql.NullTime"},
		{"raw", "BLOB", "[]uint8"},
		{"sum", "", "interface {}"},
	} {
		equal(t, "name", types[i].Name(), want.name)
		equal(t, "database type", types[i].DatabaseTypeName(), want.database)
		equal(t, "scan type", types[i].ScanType().String(), want.scan)
		if _, known := types[i].Nullable(); known {
			t.Errorf("%s says whether it is nullable", want.name)
		}
	}
}
