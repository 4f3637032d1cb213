//go:build cgo

package turso

import (
	"context"
	"database/sql"
	"sync"
)

// TursoSyncDb is a local replica of a remote database. Its methods may be called by several goroutines; pulls, pushes and
// checkpoints then take turns.
type TursoSyncDb struct {
	source source
	stop   canceller
	// Held by the one call that the canceller would reach.
	turn chan struct{}

	// Held for moments only: a function of the database is refused, and must not wait for this before.
	mu       sync.Mutex
	database database
	users    sync.WaitGroup // calls that use the database; none begins when closing is closed
	closing  chan struct{}
}

// TursoHydrated is what a hydration did.
type TursoHydrated struct {
	// Fetched is the number of pages that it fetched.
	Fetched int
	// Absent is the number of pages of the remote's database that are still absent.
	Absent int
}

// TursoSyncDbStats are counters and sizes of a replica. Counters count from the moment it was opened.
type TursoSyncDbStats struct {
	// CdcOperations is the number of local changes that were not pushed.
	CdcOperations int64
	// MainWalSize is the size of the write-ahead log in bytes.
	MainWalSize int64
	// RevertWalSize is the size of the file of a pull under way in bytes.
	RevertWalSize int64
	// LastPullUnixTime is when the last pull brought something (or the bootstrap was), in seconds since 1970; 0: never.
	LastPullUnixTime int64
	// LastPushUnixTime is when the last push was confirmed, in seconds since 1970; 0: never.
	LastPushUnixTime int64
	// NetworkSentBytes is the size of all request bodies.
	NetworkSentBytes int64
	// NetworkReceivedBytes is the size of all answer bodies.
	NetworkReceivedBytes int64
	// Revision is the revision of the remote that the replica is at: an opaque text.
	Revision string
	// PageSize is the size of a page in bytes.
	PageSize int64
	// PagesTotal is the number of pages of the database.
	PagesTotal int64
	// PagesPresent is the number of pages that are here.
	PagesPresent int64
	// PagesDirty is the number of pages that local transactions wrote since the last pull.
	PagesDirty int64
	// Requests is the number of HTTP requests.
	Requests int64
	// PrefetchHits is the number of pages that prefetch added and a query read later.
	PrefetchHits int64
	// PrefetchWasted is the number of pages that prefetch added and no query has read.
	PrefetchWasted int64
}

// NewTursoSyncDb opens the replica at config.Path. One that is not there yet is made first, which asks the remote for the
// bootstrap; one that is there is opened without asking the remote for anything. The end of ctx breaks it off.
func NewTursoSyncDb(ctx context.Context, config TursoSyncDbConfig) (*TursoSyncDb, error) {
	o, s, err := config.check()
	if err != nil {
		return nil, err
	}
	stop, err := newCanceller()
	if err != nil {
		return nil, err
	}
	db := &TursoSyncDb{source: s, stop: stop, turn: make(chan struct{}, 1), closing: make(chan struct{})}
	err = guarded(ctx, stop.cancel, func() (err error) {
		db.database, err = openDatabase(o, stop)
		return err
	})
	if err != nil {
		stop.free()
		return nil, err
	}
	return db, nil
}

// Connect gives a pool of connections to the replica. It may be called more than once; close each pool when it is no
// longer needed.
func (d *TursoSyncDb) Connect(ctx context.Context) (*sql.DB, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.users.Done()
	if ctx.Err() != nil {
		return nil, &Error{Code: codeInterrupt, Message: "interrupted", cause: endOf(ctx)}
	}
	return sql.OpenDB(&syncConnector{d}), nil
}

// Pull brings the remote's changes and puts local ones that were not pushed back on top. True when something came.
func (d *TursoSyncDb) Pull(ctx context.Context) (changed bool, err error) {
	err = d.alone(ctx, func() (err error) {
		changed, err = d.database.pull()
		return err
	})
	return changed, err
}

// Push sends local changes to the remote, whole transactions in order. What the remote confirmed is done, also when the
// push fails later.
func (d *TursoSyncDb) Push(ctx context.Context) error {
	return d.alone(ctx, func() error { return d.database.push() })
}

// Checkpoint moves what is in the write-ahead log into the database file, as far as readers allow.
func (d *TursoSyncDb) Checkpoint(ctx context.Context) error {
	return d.alone(ctx, func() error { return d.database.checkpoint() })
}

// Hydrate fetches absent pages: all of them where query is "", or those that a SELECT touches when the remote runs it. progress,
// which may be nil, is told how many pages of how many were fetched (of 0: not known how many); it runs during the call, perhaps on another
// thread, and cannot use the database. The end of ctx breaks it off; what has come stays.
func (d *TursoSyncDb) Hydrate(ctx context.Context, query string, progress func(done, total int)) (did TursoHydrated, err error) {
	err = d.alone(ctx, func() (err error) {
		did, err = d.database.hydrate(query, progress)
		return err
	})
	return did, err
}

// DiscardChange gives up a local change (see [Error.Change]): it is neither pushed nor put back, and what it did is gone
// from here with the next pull. The way out when the remote refuses it. False when there is no such change.
func (d *TursoSyncDb) DiscardChange(ctx context.Context, change int64) (found bool, err error) {
	err = d.alone(ctx, func() (err error) {
		found, err = d.database.discardChange(change)
		return err
	})
	return found, err
}

// DiscardChangeWithDependents does the same, and gives up every later change that cannot stay without it: of the same row,
// of rows that refer to it by a foreign key, and for a schema change of whatever it made or altered. It says how many
// changes that were.
func (d *TursoSyncDb) DiscardChangeWithDependents(ctx context.Context, change int64) (discarded int, err error) {
	err = d.alone(ctx, func() (err error) {
		discarded, err = d.database.discardChangeWithDependents(change)
		return err
	})
	return discarded, err
}

// Stats are counters and sizes. It asks nothing of the remote.
func (d *TursoSyncDb) Stats(ctx context.Context) (TursoSyncDbStats, error) {
	if err := d.enter(); err != nil {
		return TursoSyncDbStats{}, err
	}
	defer d.users.Done()
	if ctx.Err() != nil {
		return TursoSyncDbStats{}, &Error{Code: codeInterrupt, Message: "interrupted", cause: endOf(ctx)}
	}
	return d.database.stats()
}

// Close waits for calls that are under way and closes the replica; its files are given back when the pools that Connect
// gave are closed too. Closing twice does nothing. A function of the database cannot close it.
func (d *TursoSyncDb) Close() error {
	d.mu.Lock()
	err := d.database.mayWait()
	if err == nil && !d.isClosing() {
		close(d.closing)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	d.users.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.database.handle != nil {
		d.database.settle()
		d.database.close()
		d.stop.free()
	}
	return nil
}

func (d *TursoSyncDb) isClosing() bool {
	select {
	case <-d.closing:
		return true
	default:
		return false
	}
}

// enter begins a call that uses the database, which ends with users.Done.
func (d *TursoSyncDb) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.database.mayWait(); err != nil {
		return err
	}
	if d.isClosing() {
		return ErrTursoConnClosed
	}
	d.users.Add(1)
	return nil
}

// alone runs one call at a time, as the engine does: the canceller breaks whatever runs, which must not be another
// goroutine's call.
func (d *TursoSyncDb) alone(ctx context.Context, call func() error) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.users.Done()
	select {
	case d.turn <- struct{}{}:
	case <-d.closing:
		return ErrTursoConnClosed
	case <-ctx.Done():
		return &Error{Code: codeInterrupt, Message: "interrupted while waiting for another pull, push or checkpoint", cause: endOf(ctx)}
	}
	defer func() { <-d.turn }()
	return guarded(ctx, d.stop.cancel, call)
}
