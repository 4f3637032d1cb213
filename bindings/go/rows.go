//go:build cgo

package turso

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
)

// Rows come in batches, so that a row does not cost a call into the library: one at first, since many queries want no
// more, then more and more. The library ends a batch early when its rows take long, so rows do not wait for the network
// that later ones need.
const (
	batchGrowth = 8
	batchMost   = 4096
)

// rows are the rows of a running statement.
type rows struct {
	conn      *conn
	statement *statement
	ctx       context.Context
	batch     batch
	asked     int
	closed    bool
	// Where the statement goes when the rows are closed.
	of  *stmt
	sql string
}

var (
	_ driver.Rows                           = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
)

// Columns are the names of the columns.
func (r *rows) Columns() []string {
	names := make([]string, len(r.statement.columns))
	for i := range names {
		names[i] = r.statement.columns[i].name
	}
	return names
}

// ColumnTypeDatabaseTypeName is the declared type of the table's column, in upper case and without a length; "" for an
// expression.
func (r *rows) ColumnTypeDatabaseTypeName(index int) string {
	return r.statement.columns[index].typeName()
}

// ColumnTypeScanType is a type that the column's values, NULL among them, can be scanned into.
func (r *rows) ColumnTypeScanType(index int) reflect.Type {
	return r.statement.columns[index].scanType()
}

// ColumnTypeNullable is not known: SQLite does not tell where a result column comes from.
func (r *rows) ColumnTypeNullable(int) (nullable, ok bool) { return true, false }

// Next reads the next row. It may wait for the network, which the end of the query's context breaks.
func (r *rows) Next(dest []driver.Value) error {
	if r.batch.rows == 0 {
		if r.closed {
			return ErrTursoRowsClosed
		}
		if r.batch.done {
			return io.EOF
		}
		if err := r.fetch(); err != nil {
			return err
		}
		if r.batch.rows == 0 {
			return io.EOF
		}
	}
	r.batch.rows--
	rest := r.batch.values
	for i := range dest {
		dest[i], rest = decode(rest)
		if r.statement.columns[i].isTime {
			if text, ok := dest[i].(string); ok {
				dest[i] = asTime(text)
			}
		}
	}
	r.batch.values = rest
	return nil
}

func (r *rows) fetch() (err error) {
	r.asked = min(r.asked*batchGrowth, batchMost)
	if r.ctx.Done() == nil {
		r.batch, err = r.statement.fetch(r.asked)
		return err
	}
	return guarded(r.ctx, r.conn.interrupt, func() (err error) {
		r.batch, err = r.statement.fetch(r.asked)
		return err
	})
}

// Close ends the query. What a statement has written is committed, or has failed, before its first row.
func (r *rows) Close() (err error) {
	if r.closed {
		return nil
	}
	r.closed = true
	if !r.batch.done {
		err = r.statement.reset()
	}
	r.batch = batch{done: true}
	if r.of != nil {
		r.of.release(r.statement)
	} else {
		r.conn.release(r.sql, r.statement)
	}
	return err
}
