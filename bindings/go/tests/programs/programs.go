// Package programs makes random programs of what can be done with database/sql on a SQLite database, and runs them with any
// driver. The same seed is the same program, so that two drivers can be compared.
package programs

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Driver is what is compared.
type Driver struct {
	Name string
	// DSN is for a database at a path, with foreign keys enforced and no wait for locks.
	DSN func(path string) string
	// Code is SQLite's extended result code of an error; 0 when it is not one.
	Code func(error) int
}

const schema = `
	CREATE TABLE p(id INTEGER PRIMARY KEY, v);
	CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED);
	CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v NOT NULL DEFAULT 'x', CHECK (v <> 'bad'));
	CREATE TABLE log(what, id);
	CREATE TABLE many(i PRIMARY KEY) WITHOUT ROWID; -- Rowids are compared, and a lost interrupt inserts more.
	CREATE TRIGGER tr AFTER DELETE ON t BEGIN INSERT INTO log VALUES ('deleted', old.id); END;`

// long takes long; it is run with a context that ends. It ends by itself, since the reference may lose the interrupt.
const long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT count(*) FROM n"

// longWrite is the same for a write. A program takes its rows away again: with a lost interrupt they are there.
const longWrite = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO many SELECT i FROM n"

// leftOpen has more rows than a driver reads ahead.
const leftOpen = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9999) SELECT i FROM n, (SELECT count(*) FROM t)"

type program struct {
	*rand.Rand
	driver Driver
	db     *sql.DB
	conns  [2]*sql.Conn
	txs    [2]*sql.Tx
	open   []*sql.Rows
	owner  []int
	stmts  []*sql.Stmt
	texts  []string
	trace  []string
}

// Run runs the program of a seed in a folder of its own and tells what happened, a line for each step and for each row that
// is there in the end. The parts of a line that are in {} may differ for the reasons that docs/go.md lists.
func Run(d Driver, seed int64, folder string) (trace []string, err error) {
	path := filepath.Join(folder, fmt.Sprintf("%d.db", seed))
	defer func() {
		for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
			os.Remove(path + suffix)
		}
	}()
	db, err := sql.Open(d.Name, d.DSN(path))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	p := &program{Rand: rand.New(rand.NewSource(seed)), driver: d, db: db}
	mode := []string{"PRAGMA journal_mode = WAL;", ""}[p.Intn(2)]
	if _, err := db.Exec(mode + schema); err != nil {
		return nil, err
	}
	for i := range p.conns {
		if p.conns[i], err = db.Conn(context.Background()); err != nil {
			return nil, err
		}
	}
	for range 5 + p.Intn(40) {
		p.step()
	}
	p.finish()
	return p.trace, p.look(path)
}

func (p *program) note(format string, args ...any) {
	p.trace = append(p.trace, fmt.Sprintf(format, args...))
}

// class is an error as both drivers must tell it.
func (p *program) class(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "context"
	case errors.Is(err, sql.ErrTxDone), errors.Is(err, sql.ErrConnDone), errors.Is(err, driver.ErrBadConn):
		return "done"
	}
	if code := p.driver.Code(err); code != 0 {
		return fmt.Sprintf("sqlite %d", code)
	}
	return "other"
}

func (p *program) id() int { return 1 + p.Intn(8) }

func (p *program) value() any {
	return []any{nil, int64(p.Intn(5)), "text", "bad", []byte{0, 255}, 1.5, int64(-1) << 62, "", []byte{}, true}[p.Intn(10)]
}

// write is a statement that writes, with its arguments.
func (p *program) write() (string, []any) {
	or := []string{"", "", "", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT", " OR ROLLBACK"}[p.Intn(8)]
	returning := []string{"", "", " RETURNING id, v"}[p.Intn(3)]
	switch p.Intn(9) {
	case 0, 1:
		return "INSERT" + or + " INTO t(id, u, v) VALUES (?, ?, ?)" + returning, []any{p.id(), p.id(), p.value()}
	case 2:
		return "INSERT" + or + " INTO t(u, v) VALUES (?1, 'a'), (?2, 'b')" + returning, []any{p.id(), p.id()}
	case 3:
		return "UPDATE" + or + " t SET u = ?, v = ? WHERE id >= ?" + returning, []any{p.id(), p.value(), p.id()}
	case 4:
		return "DELETE FROM t WHERE id > ?" + returning, []any{p.id()}
	case 5:
		return "INSERT INTO p VALUES (?, ?)" + returning, []any{p.id(), p.value()}
	case 6:
		return "DELETE FROM p WHERE id = ?" + returning, []any{p.id()}
	default:
		return "INSERT INTO c(p) VALUES (?)" + strings.TrimSuffix(returning, ", v"), []any{p.id()}
	}
}

func (p *program) read() (string, []any) {
	switch p.Intn(6) {
	case 0:
		return "SELECT id, u, v, typeof(v) FROM t ORDER BY id", nil
	case 1:
		return "SELECT count(*) FROM c JOIN p ON p.id = c.p WHERE p.id > ?", []any{p.id()}
	case 2:
		return "SELECT ?, ?, :a", []any{p.value(), p.value(), sql.Named("a", 7)}
	case 3:
		return "SELECT * FROM nowhere", nil
	case 4:
		return "SELEC 1", nil
	default:
		return "SELECT * FROM log ORDER BY 1, 2", nil
	}
}

type executor interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
	PrepareContext(context.Context, string) (*sql.Stmt, error)
}

// on is what a statement is run on: the transaction of a connection, or the connection.
func (p *program) on() (executor, int) {
	i := p.Intn(2)
	if p.txs[i] != nil {
		return p.txs[i], i
	}
	return p.conns[i], i
}

func (p *program) step() {
	ctx := context.Background()
	e, i := p.on()
	switch p.Intn(20) {
	case 0, 1, 2:
		text, args := p.write()
		text, _, _ = strings.Cut(text, " RETURNING")
		result, err := e.ExecContext(ctx, text, args...)
		p.note("%d exec %s %v: %s", i, text, args, p.executed(result, err))
		p.afterWrite(i, text, err)
	case 3, 4:
		text, args := p.write()
		rows, err := e.QueryContext(ctx, text, args...)
		seen, err := p.all(text, rows, err)
		p.note("%d query %s %v: %s", i, text, args, seen)
		p.afterWrite(i, text, err)
	case 5, 6:
		text, args := p.read()
		rows, err := e.QueryContext(ctx, text, args...)
		seen, _ := p.all(text, rows, err)
		p.note("%d query %s %v: %s", i, text, args, seen)
	case 7: // A query that is left open.
		rows, err := e.QueryContext(ctx, leftOpen)
		began, next := p.class(err), false
		if err == nil {
			if next = rows.Next(); !next {
				err = rows.Err()
				rows.Close()
			}
		}
		p.note("%d left open {first-row: %s}: %s", i, began, p.class(err))
		if next {
			p.open, p.owner = append(p.open, rows), append(p.owner, i)
		}
	case 8:
		if len(p.open) > 0 {
			at := p.Intn(len(p.open))
			next := p.open[at].Next()
			line := fmt.Sprintf("next: %v", next)
			if next {
				var v any
				_ = p.open[at].Scan(&v)
				line += " " + show(v)
			}
			if p.Intn(2) == 0 {
				line += " closed: " + p.class(p.open[at].Close())
				p.open = append(p.open[:at], p.open[at+1:]...)
				p.owner = append(p.owner[:at], p.owner[at+1:]...)
			}
			p.note("%s", line)
		}
	case 9: // A prepared statement; it belongs to the connection.
		if p.txs[i] == nil && len(p.stmts) < 3 {
			text, _ := p.write()
			text, _, _ = strings.Cut(strings.ReplaceAll(text, " OR ROLLBACK", ""), " RETURNING")
			stmt, err := p.conns[i].PrepareContext(ctx, text)
			if p.note("%d prepare %s: %s", i, text, p.class(err)); err == nil {
				p.stmts, p.texts = append(p.stmts, stmt), append(p.texts, text)
			}
		}
	case 10:
		if len(p.stmts) > 0 {
			at := p.Intn(len(p.stmts))
			args := make([]any, strings.Count(p.texts[at], "?"))
			for n := range args {
				args[n] = p.id()
			}
			stmt, where := p.stmts[at], "prepared"
			if p.txs[i] != nil && p.Intn(2) == 0 { // As a part of a transaction, also of the other connection.
				stmt, where = p.txs[i].StmtContext(ctx, stmt), "prepared in it"
			}
			result, err := stmt.Exec(args...)
			p.note("%d %s %s %v: %s", i, where, p.texts[at], args, p.executed(result, err))
		}
	case 11: // A transaction by the helper.
		if p.txs[i] == nil {
			tx, err := p.conns[i].BeginTx(ctx, nil)
			if p.note("%d begin: %s", i, p.class(err)); err == nil {
				p.txs[i] = tx
			}
		}
	case 12:
		if p.txs[i] != nil {
			p.end(i, p.Intn(3) > 0)
		}
	case 13: // By hand, or a part of one.
		text := []string{"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a",
			"SAVEPOINT b", "RELEASE b"}[p.Intn(9)]
		if p.txs[i] != nil && strings.HasPrefix(text, "SAVEPOINT") || p.txs[i] == nil {
			_, err := e.ExecContext(ctx, text)
			p.note("%d %s: %s", i, text, p.class(err))
		}
	case 14: // A context that has ended.
		if p.isReading(i) {
			break
		}
		until, cancel := context.WithCancel(ctx)
		cancel()
		_, err := e.ExecContext(until, "SELECT 1")
		p.note("%d cancelled {ended-context: %s}", i, p.class(err))
	case 15: // A context that ends in the middle of a query.
		if p.Intn(4) == 0 && !p.isReading(i) {
			until, cancel := context.WithTimeout(ctx, time.Millisecond)
			var count int
			rows, err := e.QueryContext(until, long)
			if err == nil {
				for rows.Next() {
					_ = rows.Scan(&count)
				}
				err = rows.Err()
				rows.Close()
			}
			cancel()
			p.note("%d timeout {lost-interrupt: %s}", i, p.class(err))
		}
	case 16: // A context that ends in the middle of a write, which rolls its transaction back.
		if p.Intn(4) == 0 && !p.isReading(i) {
			until, cancel := context.WithTimeout(ctx, time.Duration(p.Intn(3000))*time.Microsecond)
			_, err := e.ExecContext(until, longWrite)
			cancel()
			p.note("%d timeout of a write {lost-interrupt: %s}", i, p.class(err))
			p.lost(i)
			_, err = p.conns[i].ExecContext(ctx, "DELETE FROM many")
			p.note("%d after it: %s", i, p.class(err))
		}
	case 17: // One row, also of a statement that writes more.
		text, args := p.write()
		if strings.HasSuffix(text, ", v") {
			var id, v any
			err := e.QueryRowContext(ctx, text, args...).Scan(&id, &v)
			p.note("%d row of %s %v: {rows-before-failure: %s %s} %s", i, text, args, show(id), show(v), p.class(err))
			p.afterWrite(i, text, err)
		}
	case 18: // A value that database/sql asks for, which fails or uses the other connection first.
		var other executor = p.conns[1-i]
		if p.txs[1-i] != nil {
			other = p.txs[1-i]
		}
		id, asked := p.id(), &asked{p: p, on: other, fails: p.Intn(3) == 0}
		result, err := e.ExecContext(ctx, "INSERT INTO t VALUES (?, ?, 'asked')", id, asked)
		p.note("%d exec with a value that is asked for, %d: %s", i, id, p.executed(result, err))
	case 19: // A place that is told its value, which fails or uses the same connection.
		rows, err := e.QueryContext(ctx, "SELECT id FROM t WHERE id > ? ORDER BY id", p.id())
		for asked := (&asked{p: p, on: e, fails: p.Intn(3) == 0}); err == nil; {
			if !rows.Next() {
				err = rows.Err()
				rows.Close()
				break
			}
			if err = rows.Scan(asked); err != nil {
				rows.Close()
			}
		}
		p.note("%d rows into a place that is told: %s", i, p.class(err))
	}
}

// asked is what database/sql calls: an argument that is asked for its value, and a place for a row's.
type asked struct {
	p     *program
	on    executor
	fails bool
}

func (a *asked) Value() (driver.Value, error) {
	return "asked", a.call("valued")
}

func (a *asked) Scan(value any) error {
	return a.call("scanned " + show(value))
}

func (a *asked) call(what string) error {
	if a.fails {
		return errors.New("it does not want to")
	}
	result, err := a.on.ExecContext(context.Background(), "INSERT INTO log VALUES ('asked', 1)")
	a.p.note("%s: %s", what, a.p.executed(result, err))
	return nil
}

// isReading tells whether rows of this connection are open. An interrupt hits them too, and what is begun while they are.
func (p *program) isReading(i int) bool { return slices.Contains(p.owner, i) }

// afterWrite ends a transaction that a conflict clause may have rolled back: what follows in it is a deliberate difference.
func (p *program) afterWrite(i int, text string, err error) {
	if err != nil && strings.Contains(text, " OR ROLLBACK") {
		p.lost(i)
	}
}

// lost ends a transaction that SQLite may have rolled back by itself.
func (p *program) lost(i int) {
	if p.txs[i] != nil {
		err := p.txs[i].Rollback()
		p.note("%d rolled back {transaction-lost: %s}", i, p.class(err))
		p.txs[i] = nil
		return
	}
	_, err := p.conns[i].ExecContext(context.Background(), "ROLLBACK")
	p.note("%d ended {transaction-lost: %s}", i, p.class(err))
}

func (p *program) end(i int, commit bool) {
	// database/sql closes the rows of a transaction with it.
	for at := len(p.open) - 1; at >= 0; at-- {
		if p.owner[at] == i {
			p.open[at].Close()
			p.open = append(p.open[:at], p.open[at+1:]...)
			p.owner = append(p.owner[:at], p.owner[at+1:]...)
		}
	}
	tx := p.txs[i]
	p.txs[i] = nil
	if !commit {
		p.note("%d rollback: %s", i, p.class(tx.Rollback()))
		return
	}
	err := tx.Commit()
	p.note("%d commit: %s", i, p.class(err))
	if err != nil {
		// database/sql does not come back to a transaction whose end failed.
		_, err := p.conns[i].ExecContext(context.Background(), "ROLLBACK")
		p.note("%d after it {failed-commit: %s}", i, p.class(err))
	}
}

func (p *program) finish() {
	for _, rows := range p.open {
		rows.Close()
	}
	for i := range p.txs {
		if p.txs[i] != nil {
			p.end(i, p.Intn(2) == 0)
		}
	}
	for _, stmt := range p.stmts {
		p.note("close: %s", p.class(stmt.Close()))
	}
	for _, conn := range p.conns {
		// A transaction by hand may be open.
		_, _ = conn.ExecContext(context.Background(), "ROLLBACK")
		p.note("close: %s", p.class(conn.Close()))
	}
	p.note("close: %s", p.class(p.db.Close()))
}

// look tells what is in the file.
func (p *program) look(path string) error {
	db, err := sql.Open(p.driver.Name, p.driver.DSN(path))
	if err != nil {
		return err
	}
	defer db.Close()
	for _, query := range []string{
		"SELECT * FROM t ORDER BY id", "SELECT * FROM p ORDER BY id", "SELECT * FROM c ORDER BY id",
		"SELECT * FROM log ORDER BY 1, 2", "PRAGMA integrity_check", "PRAGMA journal_mode",
	} {
		rows, err := db.Query(query)
		seen, _ := p.all(query, rows, err)
		p.note("%s: %s", query, seen)
	}
	return nil
}

// all reads rows to their end.
func (p *program) all(text string, rows *sql.Rows, err error) (string, error) {
	var seen []string
	if err == nil {
		columns, _ := rows.Columns()
		values, places := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			places[i] = &values[i]
		}
		for rows.Next() {
			if err = rows.Scan(places...); err != nil {
				break
			}
			var row []string
			for _, value := range values {
				row = append(row, show(value))
			}
			seen = append(seen, strings.Join(row, " "))
		}
		if err == nil {
			err = rows.Err()
		}
		closed := rows.Close()
		if err == nil {
			err = closed
		}
	}
	if err != nil && !strings.HasPrefix(text, "SELECT") {
		// Rows of a statement that fails at its end.
		return fmt.Sprintf("%s {rows-before-failure: %v}", p.class(err), seen), err
	}
	return fmt.Sprintf("%s %v", p.class(err), seen), err
}

// executed is what an execution says.
func (p *program) executed(result sql.Result, err error) string {
	if err != nil {
		return p.class(err)
	}
	changed, _ := result.RowsAffected()
	last, _ := result.LastInsertId()
	return fmt.Sprintf("ok %d %d", changed, last)
}

func show(value any) string {
	switch v := value.(type) {
	case nil:
		return "NULL"
	case []byte:
		return "x" + hex.EncodeToString(v)
	case string:
		return fmt.Sprintf("%q", v)
	default:
		return fmt.Sprintf("%T(%v)", v, v)
	}
}
