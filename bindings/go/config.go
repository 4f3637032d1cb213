//go:build cgo

package turso

import (
	"context"
	"database/sql/driver"
	"net"
	"net/url"
	"strings"
)

// TursoSyncDbConfig says what [NewTursoSyncDb] opens. Some options have two names; both may be given when they agree.
type TursoSyncDbConfig struct {
	// Path is the database file; ":memory:" leaves no file. It may carry options: "app.db?_busy_timeout=10000".
	Path string
	// RemoteUrl is the remote: libsql://, turso://, https:// or http://. Without one, the replica at the path is opened
	// offline.
	RemoteUrl string
	// Namespace is the database's name on a remote that serves several: with it, libsql://HOST means libsql://NAMESPACE.HOST,
	// and where the host is an address, http://1.2.3.4:8080 means http://1.2.3.4:8080/NAMESPACE.
	Namespace string
	// RemoteAuthToken is the bearer token.
	RemoteAuthToken string
	// AuthToken is another name of RemoteAuthToken.
	AuthToken string
	// RemoteUrlFunction is asked for the url before each request, in place of RemoteUrl. While it gives "", sync is paused:
	// requests fail, and local reads and writes continue. It must answer at once, and name the same remote every time.
	//
	// This and the next two functions are called on threads of the library and during calls of this package, also several at a
	// time. What they return as an error, or panic with, makes the request, push or pull fail with that text. They cannot use
	// their own database: what they call of it fails at once, with [ErrTursoMisuse]. Nor can they call [runtime.Goexit].
	RemoteUrlFunction func() (string, error)
	// RemoteAuthTokenFunction is asked for the bearer token before each request, in place of RemoteAuthToken; "" is none. It may
	// take its time, within RequestTimeoutMs; a call whose context ends does not wait for it.
	RemoteAuthTokenFunction func() (string, error)
	// Transform is asked about each local change of a row before it is pushed, and before a pull puts it back: nil keeps it as it
	// is. It must decide at once.
	Transform func(TursoMutation) (*TursoTransformResult, error)
	// ClientName is how this client is called on the remote. Default: turso-sync-go.
	ClientName string
	// LongPollTimeoutMs is how many milliseconds a pull lets the remote wait for a change. Default: not at all.
	LongPollTimeoutMs int
	// BootstrapIfEmpty false makes a new replica without asking the remote; the first pull brings the data. Default: true.
	BootstrapIfEmpty *bool
	// AcceptNewUrl lets a replica that is here continue with another remote than it was made from: its database has moved to a
	// new url, or was restored from a backup. After the next pull pages that are not here can be read again; changes that
	// were not pushed stay.
	AcceptNewUrl bool
	// PartialSyncConfig is what to fetch at the first connect and how to fetch the rest later. Without it the first connect
	// downloads everything.
	PartialSyncConfig TursoPartialSyncConfig
	// PartialSyncExperimental is another name of PartialSyncConfig.
	PartialSyncExperimental TursoPartialSyncConfig
	// ExperimentalFeatures are names of features of the published package. SQLite has them all; they change nothing.
	ExperimentalFeatures string
	// BusyTimeout is how many milliseconds a statement waits for another connection's lock; -1: not at all. Default: 5000.
	// It goes before _busy_timeout in Path.
	BusyTimeout int
	// QueryTimeoutMs is how many milliseconds a statement, or the reading of its next rows, may take, network included. It fails
	// with [ErrTursoInterrupt] then. Default: no limit but that of the context. It goes before _query_timeout in Path.
	QueryTimeoutMs int
	// PushOperationsThreshold is the number of changes in one push request, at most; a transaction is never split. Default:
	// 10000.
	PushOperationsThreshold int
	// PullBytesThreshold makes the bootstrap of everything ask for about this many bytes at a time. Default: one request.
	PullBytesThreshold int
	// RequestTimeoutMs is how many milliseconds a query waits for a page, and a request for each next piece of its answer.
	// Default: 30000.
	RequestTimeoutMs int
	// RemoteEncryptionKey is the key of a remote that encrypts its database, in base64; sent as a header.
	RemoteEncryptionKey string
	// RemoteEncryptionCipher is the cipher that goes with the key, such as aes256gcm.
	RemoteEncryptionCipher string
	// LogicalMvccPull is an option of the published package that means nothing here; it must be false.
	LogicalMvccPull bool
}

// TursoPartialSyncConfig is partial sync: what to fetch at the first connect and how to fetch the rest later.
type TursoPartialSyncConfig struct {
	// BoostrapStrategyPrefix is how many bytes of the beginning of the database to fetch at the first connect.
	BoostrapStrategyPrefix int
	// BootstrapStrategyPrefix is another name of BoostrapStrategyPrefix.
	BootstrapStrategyPrefix int
	// BoostrapStrategyQuery is a SELECT: what it touches is fetched at the first connect.
	BoostrapStrategyQuery string
	// BootstrapStrategyQuery is another name of BoostrapStrategyQuery.
	BootstrapStrategyQuery string
	// SegmentSize is how many bytes around an absent page are fetched with it, rounded down to whole pages. Default: 128 KiB.
	SegmentSize int
	// Prefetch fetches along what a query is expected to want next too. Default: where the remote can, a SELECT that misses a page is
	// sent along, with its values, and what it touches comes with the answer.
	Prefetch bool
	// DisablePrefetch sends no statement: the segment of an absent page comes alone.
	DisablePrefetch bool
}

// check holds the options against the engine's table (docs/options.md), merges both spellings, and says what to open.
func (c *TursoSyncDbConfig) check() (*options, source, error) {
	s, err := parseSource(c.Path)
	if err != nil {
		return nil, s, err
	}
	if c.BusyTimeout != 0 {
		s.busyTimeout = c.BusyTimeout
	}
	if c.QueryTimeoutMs != 0 {
		s.queryTimeout = c.QueryTimeoutMs
	}
	documented, published := &c.PartialSyncConfig, &c.PartialSyncExperimental
	const d, p = "PartialSyncConfig.", "PartialSyncExperimental."
	var m merging
	o := &options{
		path:       s.path,
		clientName: c.ClientName,
		token:      merge(&m, spelling("RemoteAuthToken", c.RemoteAuthToken), spelling("AuthToken", c.AuthToken)).value,
		bootstrapPrefix: number(&m, merge(&m,
			spelling(d+"BoostrapStrategyPrefix", documented.BoostrapStrategyPrefix),
			spelling(d+"BootstrapStrategyPrefix", documented.BootstrapStrategyPrefix),
			spelling(p+"BoostrapStrategyPrefix", published.BoostrapStrategyPrefix),
			spelling(p+"BootstrapStrategyPrefix", published.BootstrapStrategyPrefix))),
		bootstrapQuery: merge(&m,
			spelling(d+"BoostrapStrategyQuery", documented.BoostrapStrategyQuery),
			spelling(d+"BootstrapStrategyQuery", documented.BootstrapStrategyQuery),
			spelling(p+"BoostrapStrategyQuery", published.BoostrapStrategyQuery),
			spelling(p+"BootstrapStrategyQuery", published.BootstrapStrategyQuery)).value,
		segmentSize: number(&m, merge(&m,
			spelling(d+"SegmentSize", documented.SegmentSize), spelling(p+"SegmentSize", published.SegmentSize))),
		longPollMs:              number(&m, spelling("LongPollTimeoutMs", c.LongPollTimeoutMs)),
		timeoutMs:               number(&m, spelling("RequestTimeoutMs", c.RequestTimeoutMs)),
		pushOperationsThreshold: number(&m, spelling("PushOperationsThreshold", c.PushOperationsThreshold)),
		pullThreshold:           number(&m, spelling("PullBytesThreshold", c.PullBytesThreshold)),
		encryptionKey:           c.RemoteEncryptionKey,
		encryptionCipher:        c.RemoteEncryptionCipher,
		skipBootstrap:           c.BootstrapIfEmpty != nil && !*c.BootstrapIfEmpty,
		acceptNewUrl:            c.AcceptNewUrl,
		functions:               functions{token: c.RemoteAuthTokenFunction, transform: c.Transform},
	}
	if c.RemoteUrlFunction == nil {
		o.url, err = withNamespace(c.RemoteUrl, c.Namespace)
		m.note(err)
	} else {
		o.functions.url = func() (string, error) {
			url, err := c.RemoteUrlFunction()
			if err != nil || url == "" {
				return "", err
			}
			return withNamespace(url, c.Namespace)
		}
	}
	if c.RemoteUrlFunction != nil && c.RemoteUrl != "" {
		m.note(misuse("RemoteUrl is %q, and RemoteUrlFunction is given too: give one of them", c.RemoteUrl))
	}
	if o.functions.token != nil && o.token != "" {
		m.note(misuse("RemoteAuthToken and RemoteAuthTokenFunction are both given: give one of them"))
	}
	if o.clientName == "" {
		o.clientName = "turso-sync-go"
	}
	switch on, off := documented.Prefetch || published.Prefetch, documented.DisablePrefetch || published.DisablePrefetch; {
	case on && off:
		m.note(misuse("Prefetch and DisablePrefetch are both true: set one of them"))
	case on:
		o.prefetch = 1
	case off:
		o.prefetch = -1
	}
	if c.LogicalMvccPull {
		m.note(checkNumber("LogicalMvccPull", 1))
	}
	if c.RemoteEncryptionCipher != "" {
		m.note(checkText("RemoteEncryptionCipher", c.RemoteEncryptionCipher))
		if c.RemoteEncryptionKey == "" {
			m.note(misuse("RemoteEncryptionCipher needs RemoteEncryptionKey"))
		}
	}
	if o.bootstrapPrefix != 0 && o.bootstrapQuery != "" {
		m.note(misuse("BoostrapStrategyPrefix is %d and BoostrapStrategyQuery is %q: give one of them",
			o.bootstrapPrefix, o.bootstrapQuery))
	}
	o.queryTimeoutMs = uint32(number(&m, spelling("QueryTimeoutMs", s.queryTimeout)))
	o.busyTimeoutMs, err = busyTimeout(s.busyTimeout)
	m.note(err)
	return o, s, m.err
}

// withNamespace is the url of one database of a remote that serves several.
func withNamespace(remote, namespace string) (string, error) {
	if namespace == "" {
		return remote, nil
	}
	if strings.Trim(namespace, namespaceLetters) != "" {
		return "", misuse("Namespace is %q: it can hold letters, digits, '-', '_' and '.'", namespace)
	}
	u, err := url.Parse(remote)
	if err != nil || u.Host == "" {
		return "", misuse("Namespace is %q, and RemoteUrl has no host that it could go with", namespace)
	}
	if net.ParseIP(u.Hostname()) != nil {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/" + namespace
	} else {
		u.Host = namespace + "." + u.Host
	}
	return u.String(), nil
}

const namespaceLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_."

// option is the value of an option with the name that it was given by. The zero value says nothing.
type option[T comparable] struct {
	name  string
	value T
}

func spelling[T comparable](name string, value T) option[T] { return option[T]{name, value} }

// merging keeps the first thing that is wrong.
type merging struct{ err error }

func (m *merging) note(err error) {
	if m.err == nil {
		m.err = err
	}
}

// merge gives the one value that several names of an option have.
func merge[T comparable](m *merging, spellings ...option[T]) option[T] {
	var none T
	given := spellings[0]
	for _, another := range spellings[1:] {
		switch {
		case another.value == none || another.value == given.value:
		case given.value == none:
			given = another
		default:
			m.note(sameOption(given.name, another.name))
		}
	}
	return given
}

// number is one in the option's range; 0 means the default.
func number(m *merging, o option[int]) uint64 {
	if o.value != 0 {
		m.note(checkNumber(o.name, o.value))
	}
	return uint64(max(o.value, 0))
}

// busyTimeout is a number of milliseconds for the library: 0 the default, -1 none.
func busyTimeout(ms int) (int32, error) {
	if ms != -1 {
		if err := checkNumber("BusyTimeout", ms); err != nil {
			return 0, err
		}
	}
	return int32(ms), nil
}

// syncConnector opens connections to a replica.
type syncConnector struct{ db *TursoSyncDb }

// Connect opens a connection.
func (c *syncConnector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.db.enter(); err != nil {
		return nil, err
	}
	defer c.db.users.Done()
	conn, err := newConn(ctx, c.db.database, &c.db.source)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Driver is the driver "turso".
func (c *syncConnector) Driver() driver.Driver { return &tursoDriver{} }
