//go:build cgo

package turso

import (
	"context"
	"database/sql/driver"
)

// How many statements a connection keeps compiled for texts that come again.
const idleMost = 32

// idleStatements are compiled statements that nobody uses now, by their text. Those that were not asked for longest go
// first.
type idleStatements struct {
	texts []string // the oldest first
	kept  map[string]*statement
}

func (i *idleStatements) take(sql string) *statement {
	s := i.kept[sql]
	if s != nil {
		i.remove(sql)
	}
	return s
}

func (i *idleStatements) put(sql string, s *statement) {
	if i.kept[sql] != nil {
		s.finalize()
		return
	}
	if len(i.texts) == idleMost {
		oldest := i.texts[0]
		i.kept[oldest].finalize()
		i.remove(oldest)
	}
	if i.kept == nil {
		i.kept = make(map[string]*statement)
	}
	i.kept[sql] = s
	i.texts = append(i.texts, sql)
}

func (i *idleStatements) remove(sql string) {
	delete(i.kept, sql)
	// What was put last is what is asked for next, mostly.
	for at := len(i.texts) - 1; at >= 0; at-- {
		if i.texts[at] == sql {
			i.texts = append(i.texts[:at], i.texts[at+1:]...)
			return
		}
	}
}

func (i *idleStatements) finalize() {
	for _, s := range i.kept {
		s.finalize()
	}
	*i = idleStatements{}
}

// stmt is a prepared statement as database/sql sees it.
type stmt struct {
	conn   *conn
	sql    string
	native *statement
	inUse  bool
	closed bool
}

var (
	_ driver.Stmt              = (*stmt)(nil)
	_ driver.StmtExecContext   = (*stmt)(nil)
	_ driver.StmtQueryContext  = (*stmt)(nil)
	_ driver.NamedValueChecker = (*stmt)(nil)
)

// Close gives the compiled statement back to the connection.
func (s *stmt) Close() error {
	if !s.closed && !s.inUse {
		s.conn.release(s.sql, s.native)
	}
	s.closed = true
	return nil
}

// NumInput leaves the check of the arguments, which may be named, to this package.
func (s *stmt) NumInput() int { return -1 }

// CheckNamedValue turns an argument into a value that SQLite has.
func (s *stmt) CheckNamedValue(v *driver.NamedValue) error { return checkValue(v) }

// acquire gives the compiled statement, or another one of the same text while its rows are still being read.
func (s *stmt) acquire(ctx context.Context) (*statement, error) {
	if s.closed {
		return nil, ErrTursoStmtClosed
	}
	if s.conn.closed {
		return nil, ErrTursoConnClosed
	}
	if !s.inUse {
		s.inUse = true
		return s.native, nil
	}
	another, _, err := s.conn.acquire(ctx, s.sql)
	return another, err
}

// release takes back what acquire gave.
func (s *stmt) release(native *statement) {
	if native != s.native {
		s.conn.release(s.sql, native)
		return
	}
	s.inUse = false
	if s.closed {
		s.conn.release(s.sql, native)
	} else {
		native.forget()
	}
}

// ExecContext runs the statement to its end.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	native, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer s.release(native)
	if native.encoded, err = encodeAll(native, args); err != nil {
		return nil, err
	}
	b, err := s.conn.run(ctx, native, 0)
	if err != nil {
		return nil, err
	}
	return result{lastInsertId: b.lastInsertId, changes: b.changes}, nil
}

// QueryContext runs the statement up to its first row.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	native, err := s.acquire(ctx)
	if err != nil {
		return nil, err
	}
	if native.encoded, err = encodeAll(native, args); err != nil {
		s.release(native)
		return nil, err
	}
	return s.conn.query(ctx, native, s, "")
}

// Exec is ExecContext for old callers.
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

// Query is QueryContext for old callers.
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

func named(args []driver.Value) []driver.NamedValue {
	all := make([]driver.NamedValue, len(args))
	for i, value := range args {
		all[i] = driver.NamedValue{Ordinal: i + 1, Value: value}
	}
	return all
}
