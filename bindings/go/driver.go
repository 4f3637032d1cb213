//go:build cgo

package turso

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync"
)

func init() { sql.Register("turso", &tursoDriver{}) }

// tursoDriver is the driver "turso" of database/sql: plain local databases, :memory:, and replicas offline.
type tursoDriver struct{}

var (
	_ driver.Driver        = (*tursoDriver)(nil)
	_ driver.DriverContext = (*tursoDriver)(nil)
)

// Open opens a connection to a database of its own.
func (*tursoDriver) Open(dsn string) (driver.Conn, error) {
	connector, err := NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	conn, err := connector.connect(context.Background())
	if err != nil {
		connector.Close()
		return nil, err
	}
	conn.closing = connector.Close
	return conn, nil
}

// OpenConnector reads the data source name, so that sql.Open fails for one that cannot be.
func (*tursoDriver) OpenConnector(dsn string) (driver.Connector, error) { return NewConnector(dsn) }

// TursoConnector opens the connections of one [sql.DB], which share one database, :memory: included. It closes the
// database when the sql.DB is closed.
type TursoConnector struct {
	source source
	open   func(context.Context) (database, error)

	mu       sync.Mutex
	database database
	opened   bool
	closed   bool
}

var _ driver.Connector = (*TursoConnector)(nil)

// ConnectorOption changes what [NewConnector] makes.
type ConnectorOption func(*TursoConnector)

// WithBusyTimeout sets how many milliseconds a statement waits for another connection's lock: 0 not at all, -1 what the
// data source name says, or else the default (5000).
func WithBusyTimeout(ms int) ConnectorOption {
	return func(c *TursoConnector) {
		switch ms {
		case 0:
			c.source.busyTimeout = -1
		case -1:
		default:
			c.source.busyTimeout = ms
		}
	}
}

// NewConnector is for sql.OpenDB; sql.Open("turso", dsn) does the same.
func NewConnector(dsn string, opts ...ConnectorOption) (*TursoConnector, error) {
	s, err := parseSource(dsn)
	if err != nil {
		return nil, err
	}
	c := &TursoConnector{source: s}
	for _, option := range opts {
		option(c)
	}
	busy, err := busyTimeout(c.source.busyTimeout)
	if err != nil {
		return nil, err
	}
	c.open = func(context.Context) (database, error) {
		return openDatabase(&options{
			path:           c.source.path,
			busyTimeoutMs:  busy,
			queryTimeoutMs: uint32(c.source.queryTimeout),
		}, canceller{})
	}
	return c, nil
}

// Connect opens a connection, and the database before the first one.
func (c *TursoConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Driver is the driver "turso".
func (c *TursoConnector) Driver() driver.Driver { return &tursoDriver{} }

// Close closes the database; its files are given back when the connections are closed too.
func (c *TursoConnector) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened {
		c.database.close()
	}
	c.opened, c.closed = false, true
	return nil
}

func (c *TursoConnector) connect(ctx context.Context) (*conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrTursoConnClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, &Error{Code: codeInterrupt, Message: "interrupted", cause: endOf(ctx)}
	}
	if !c.opened {
		database, err := c.open(ctx)
		if err != nil {
			return nil, err
		}
		c.database, c.opened = database, true
	}
	return newConn(ctx, c.database, &c.source)
}
