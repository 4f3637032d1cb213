//go:build cgo

package turso

import (
	"context"
	"database/sql"
	"database/sql/driver"
)

// conn is a connection as database/sql sees it: used by one goroutine at a time.
type conn struct {
	connection
	begin   string
	idle    idleStatements
	closing func() error
	closed  bool
	// The open transaction forbids writes (PRAGMA query_only).
	readOnly bool
}

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
	_ driver.NamedValueChecker  = (*conn)(nil)
)

// newConn connects. Opening reads the schema, which may have to be fetched.
func newConn(ctx context.Context, d database, s *source) (*conn, error) {
	native, err := d.connect()
	if err != nil {
		return nil, err
	}
	c := &conn{connection: native, begin: s.begin}
	if s.foreignKeys {
		if _, err := c.ExecContext(ctx, "PRAGMA foreign_keys = ON", nil); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Close finalizes what is kept and closes the connection; an open transaction is rolled back.
func (c *conn) Close() error {
	if c.closed {
		return nil
	}
	c.closed = true
	c.idle.finalize()
	c.connection.close()
	if c.closing != nil {
		return c.closing()
	}
	return nil
}

// SetBusyTimeout sets how many milliseconds a statement of this connection waits for a lock; 0 and less: not at all.
// Reach it with [sql.Conn.Raw].
func (c *conn) SetBusyTimeout(ms int) error {
	if c.closed {
		return ErrTursoConnClosed
	}
	if ms <= 0 {
		ms = -1
	}
	busy, err := busyTimeout(ms)
	if err != nil {
		return err
	}
	return c.busyTimeout(busy)
}

// acquire gives a compiled statement for the first one in sql (nil when there is none) and the rest of the text. Compiling
// reads the schema again when that has changed, which may have to be fetched.
func (c *conn) acquire(ctx context.Context, sql string) (s *statement, tail string, err error) {
	if c.closed {
		return nil, "", ErrTursoConnClosed
	}
	if s := c.idle.take(sql); s != nil {
		return s, "", nil
	}
	end := 0
	err = guarded(ctx, c.interrupt, func() error {
		s, end, err = c.prepare(sql)
		return err
	})
	return s, sql[end:], err
}

// release keeps the statement for the next one who asks for the same text. One that was not run is not kept: many a PRAGMA
// works while it is compiled, and would do nothing then.
func (c *conn) release(sql string, s *statement) {
	if c.closed || !s.wasRun {
		s.finalize()
		return
	}
	s.forget()
	c.idle.put(sql, s)
}

// run runs a statement, in such a way that the end of the context breaks it.
func (c *conn) run(ctx context.Context, s *statement, rows int) (b batch, err error) {
	if ctx.Done() == nil {
		return s.run(rows)
	}
	err = guarded(ctx, c.interrupt, func() error {
		b, err = s.run(rows)
		return err
	})
	return b, err
}

// ExecContext runs every statement of query. Each takes as many of the positional arguments as it has parameters; named
// ones go to each statement that has the name.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	var done result
	given := newArguments(args)
	for first := true; ; first = false {
		s, tail, err := c.acquire(ctx, query)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return done, given.end()
		}
		if s.encoded, err = given.encode(s); err != nil {
			c.release(query[:len(query)-len(tail)], s)
			return nil, err
		}
		if tail == "" {
			if err := given.end(); err != nil {
				c.release(query, s)
				return nil, err
			}
		}
		b, err := c.run(ctx, s, 0)
		if first && tail == "" {
			c.release(query, s)
		} else {
			s.finalize()
		}
		if err != nil {
			return nil, err
		}
		done.changes += b.changes
		done.lastInsertId = b.lastInsertId
		if tail == "" {
			return done, nil
		}
		query = tail
	}
}

// QueryContext runs every statement of query; the rows are those of the last one.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	given := newArguments(args)
	for {
		s, tail, err := c.acquire(ctx, query)
		if err != nil {
			return nil, err
		}
		if s == nil {
			return nil, misuse("the SQL text holds no statement")
		}
		if s.encoded, err = given.encode(s); err == nil && tail == "" {
			err = given.end()
		}
		if err != nil {
			s.finalize()
			return nil, err
		}
		if tail == "" {
			return c.query(ctx, s, nil, query)
		}
		_, err = c.run(ctx, s, 0)
		s.finalize()
		if err != nil {
			return nil, err
		}
		query = tail
	}
}

// query runs a statement whose parameters are encoded, up to its first row. When the rows are closed, it goes back to the
// prepared statement that it is of, or else to the connection.
func (c *conn) query(ctx context.Context, s *statement, of *stmt, sql string) (*rows, error) {
	r := &rows{conn: c, statement: s, of: of, sql: sql, ctx: ctx, asked: 1}
	var err error
	if r.batch, err = c.run(ctx, s, 1); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// PrepareContext compiles exactly one statement.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	native, tail, err := c.acquire(ctx, query)
	switch {
	case err != nil:
		return nil, err
	case native == nil:
		return nil, misuse("the SQL text holds no statement")
	case tail != "":
		native.finalize()
		return nil, misuse("only one statement can be prepared; found %q after it", tail)
	}
	return &stmt{conn: c, sql: query, native: native}, nil
}

// Prepare is PrepareContext for old callers.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Ping tells whether the connection is there. It asks nothing of the remote.
func (c *conn) Ping(ctx context.Context) error {
	_, err := c.ExecContext(ctx, "SELECT 1", nil)
	return err
}

// ResetSession tells whether the connection can be used again: whatever its last user has left open was ended when it went
// back to the pool.
func (c *conn) ResetSession(context.Context) error {
	if c.closed {
		return driver.ErrBadConn
	}
	return nil
}

// IsValid tells whether the pool may keep the connection. It is asked when the connection goes back there: a transaction that
// a statement has begun and nobody has ended is rolled back now, since nobody knows when the connection is used next.
func (c *conn) IsValid() bool { return !c.closed && c.undo() == nil && c.writable() == nil }

// CheckNamedValue turns an argument into a value that SQLite has.
func (c *conn) CheckNamedValue(v *driver.NamedValue) error { return checkValue(v) }

// BeginTx begins a transaction. SQLite's are serializable, which is as good as every weaker level that is asked for.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if sql.IsolationLevel(opts.Isolation) > sql.LevelSerializable {
		return nil, misuse("isolation level %v is not supported: transactions are serializable",
			sql.IsolationLevel(opts.Isolation))
	}
	begin := c.begin
	var err error
	if opts.ReadOnly {
		begin = "BEGIN"
		// It works when it is compiled, also where it is not run any more.
		c.readOnly = true
		_, err = c.ExecContext(ctx, "PRAGMA query_only = ON", nil)
	}
	if err == nil {
		_, err = c.ExecContext(ctx, begin, nil)
	}
	if err != nil {
		_ = c.writable()
		return nil, err
	}
	return &tx{conn: c}, nil
}

// Begin is BeginTx for old callers.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// writable ends what a read-only transaction has set.
func (c *conn) writable() error {
	if !c.readOnly {
		return nil
	}
	_, err := c.ExecContext(context.Background(), "PRAGMA query_only = OFF", nil)
	c.readOnly = err != nil
	return err
}

// tx is a transaction.
type tx struct {
	conn *conn
	done bool
}

// Commit makes the changes permanent. A transaction that SQLite has rolled back by itself cannot be: it is ended then.
func (t *tx) Commit() error {
	return t.end("COMMIT")
}

// Rollback undoes the changes.
func (t *tx) Rollback() error {
	return t.end("ROLLBACK")
}

func (t *tx) end(how string) error {
	if t.done {
		return ErrTursoTxDone
	}
	if t.conn.closed {
		return ErrTursoConnClosed
	}
	t.done = true
	_, err := t.conn.ExecContext(context.Background(), how, nil)
	if err != nil && t.conn.inTransaction() {
		// database/sql does not come back to a transaction whose end failed.
		undone := t.conn.undo()
		if how == "ROLLBACK" {
			err = undone
		}
	}
	if restored := t.conn.writable(); err == nil {
		err = restored
	}
	return err
}

// result is what an execution did.
type result struct {
	lastInsertId, changes int64
}

// LastInsertId is the rowid of the last row inserted on the connection.
func (r result) LastInsertId() (int64, error) { return r.lastInsertId, nil }

// RowsAffected is the number of rows changed.
func (r result) RowsAffected() (int64, error) { return r.changes, nil }
