//go:build cgo

package turso

// Everything that crosses into the C library, and nothing else does: handles become Go values with methods, codes become
// errors. scripts/build-go-lib puts the library and its header where the lines below look for them.

/*
#cgo CFLAGS: -I${SRCDIR}
#cgo linux,amd64 LDFLAGS: ${SRCDIR}/lib/linux_amd64/libpartial_sync.a -lm -ldl -lpthread
#cgo linux,arm64 LDFLAGS: ${SRCDIR}/lib/linux_arm64/libpartial_sync.a -lm -ldl -lpthread
#cgo darwin,amd64 LDFLAGS: ${SRCDIR}/lib/darwin_amd64/libpartial_sync.a -framework Security -framework CoreFoundation -framework SystemConfiguration -liconv
#cgo darwin,arm64 LDFLAGS: ${SRCDIR}/lib/darwin_arm64/libpartial_sync.a -framework Security -framework CoreFoundation -framework SystemConfiguration -liconv

// Only what never asks for a page: before a page is fetched, the url function is called on the thread that needs it.
#cgo noescape partial_sync_describe
#cgo nocallback partial_sync_describe

#include <stdlib.h>
#include "partial_sync.h"
*/
import "C"

import (
	"strings"
	"unsafe"
)

// inGo spells the names of the C API that messages mention as this package does.
var inGo = strings.NewReplacer("partial_sync_discard_change", "DiscardChange",
	"accept_new_url", "AcceptNewUrl", "bootstrap_if_empty", "BootstrapIfEmpty")

// take turns what a call said into an error. It owns e.
func take(code C.enum_PartialSyncCode, e *C.PartialSyncError) error {
	if code == C.PARTIAL_SYNC_CODE_OK {
		return nil
	}
	defer C.partial_sync_error_free(&e)
	return &Error{
		Code:         ErrorCode(code),
		ExtendedCode: int(C.partial_sync_error_sqlite_code(e)),
		Message:      inGo.Replace(C.GoString(C.partial_sync_error_message(e))),
		Page:         uint32(C.partial_sync_error_page(e)),
		Change:       int64(C.partial_sync_error_change(e)),
		transient:    bool(C.partial_sync_error_is_transient(e)),
	}
}

// cText makes a C text of a Go one; "" gives NULL. A NUL inside would silently cut it.
func cText(what, text string) (*C.char, error) {
	if text == "" {
		return nil, nil
	}
	if strings.Contains(text, "\x00") {
		return nil, misuse("%s %q holds a NUL character", what, text)
	}
	return C.CString(text), nil
}

// checkNumber holds the value of an option against the engine's table.
func checkNumber(name string, value int) error { return checkOption(name, nil, value) }

// checkText does the same with a text.
func checkText(name, value string) error {
	// A NUL is not part of any word.
	text := C.CString(strings.ReplaceAll(value, "\x00", "\\x00"))
	defer C.free(unsafe.Pointer(text))
	return checkOption(name, text, 0)
}

func checkOption(name string, text *C.char, number int) error {
	language, option := C.CString("go"), C.CString(strings.ReplaceAll(name, "\x00", "\\x00"))
	defer C.free(unsafe.Pointer(language))
	defer C.free(unsafe.Pointer(option))
	var e *C.PartialSyncError
	return take(C.partial_sync_option_check(language, option, text, C.int64_t(number), &e), e)
}

// sameOption is the error about two names of one option that were given different values.
func sameOption(first, second string) error {
	one, two := C.CString(first), C.CString(second)
	defer C.free(unsafe.Pointer(one))
	defer C.free(unsafe.Pointer(two))
	var e *C.PartialSyncError
	return take(C.partial_sync_option_same(one, two, &e), e)
}

// canceller stops the network calls of the database that is opened with it.
type canceller struct{ handle *C.PartialSyncCancel }

func newCanceller() (canceller, error) {
	var c canceller
	var e *C.PartialSyncError
	return c, take(C.partial_sync_cancel_new(&c.handle, &e), e)
}

func (c *canceller) cancel() { C.partial_sync_cancel_now(c.handle) }
func (c *canceller) free()   { C.partial_sync_cancel_free(&c.handle) }

// options is what a database is opened with, checked and with both spellings merged.
type options struct {
	path, url, token, clientName           string
	bootstrapPrefix                        uint64
	bootstrapQuery                         string
	segmentSize                            uint64
	prefetch                               int32 // 1 yes, -1 no, 0 as the replica was opened before
	busyTimeoutMs                          int32
	queryTimeoutMs                         uint32
	longPollMs, timeoutMs                  uint64
	encryptionKey, encryptionCipher        string
	pushOperationsThreshold, pullThreshold uint64
	skipBootstrap                          bool
	acceptNewUrl                           bool
	functions                              functions
}

// database is an open database.
type database struct{ handle *C.PartialSyncDatabase }

func openDatabase(o *options, stop canceller) (database, error) {
	var d database
	config := (*C.PartialSyncConfig)(C.calloc(1, C.sizeof_PartialSyncConfig))
	defer C.free(unsafe.Pointer(config))
	config.size = C.sizeof_PartialSyncConfig
	for _, text := range []struct {
		what, value string
		field       **C.char
	}{
		{"Path", o.path, &config.path},
		{"RemoteUrl", o.url, &config.url},
		{"RemoteAuthToken", o.token, &config.auth_token},
		{"ClientName", o.clientName, &config.client_name},
		{"BootstrapStrategyQuery", o.bootstrapQuery, &config.bootstrap_query},
		{"RemoteEncryptionKey", o.encryptionKey, &config.encryption_key},
		{"RemoteEncryptionCipher", o.encryptionCipher, &config.encryption_cipher},
	} {
		c, err := cText(text.what, text.value)
		if err != nil {
			return d, err
		}
		defer C.free(unsafe.Pointer(c))
		*text.field = c
	}
	config.bootstrap_prefix = C.uint64_t(o.bootstrapPrefix)
	config.segment_size = C.uint64_t(o.segmentSize)
	config.prefetch = C.int32_t(o.prefetch)
	config.busy_timeout_ms = C.int32_t(o.busyTimeoutMs)
	config.query_timeout_ms = C.uint32_t(o.queryTimeoutMs)
	config.long_poll_ms = C.uint64_t(o.longPollMs)
	config.timeout_ms = C.uint64_t(o.timeoutMs)
	config.push_operations_threshold = C.uint64_t(o.pushOperationsThreshold)
	config.pull_bytes_threshold = C.uint64_t(o.pullThreshold)
	if o.skipBootstrap {
		config.bootstrap_if_empty = -1
	}
	if o.acceptNewUrl {
		config.accept_new_url = 1
	}
	config.cancel = stop.handle
	o.functions.register(config)
	var e *C.PartialSyncError
	return d, take(C.partial_sync_open(config, &d.handle, &e), e)
}

// settle waits a moment for pages that are still streaming in, so that they are not asked for again next time.
func (d database) settle() { C.partial_sync_settle(d.handle, 200) }

func (d *database) close() { C.partial_sync_close(&d.handle) }

// mayWait fails when this goroutine runs a function of the database, which would wait for what is called there.
func (d database) mayWait() error {
	if d.handle == nil {
		return nil
	}
	var e *C.PartialSyncError
	return take(C.partial_sync_may_wait(d.handle, &e), e)
}

func (d database) pull() (bool, error) {
	var changed C.bool
	var e *C.PartialSyncError
	err := take(C.partial_sync_pull(d.handle, &changed, &e), e)
	return bool(changed), err
}

func (d database) push() error {
	var e *C.PartialSyncError
	return take(C.partial_sync_push(d.handle, &e), e)
}

func (d database) checkpoint() error {
	var e *C.PartialSyncError
	return take(C.partial_sync_checkpoint(d.handle, &e), e)
}

func (d database) discardChange(change int64) (bool, error) {
	var found C.bool
	var e *C.PartialSyncError
	err := take(C.partial_sync_discard_change(d.handle, C.int64_t(change), &found, &e), e)
	return bool(found), err
}

func (d database) discardChangeWithDependents(change int64) (int, error) {
	var discarded C.uint64_t
	var e *C.PartialSyncError
	err := take(C.partial_sync_discard_change_with_dependents(d.handle, C.int64_t(change), &discarded, &e), e)
	return int(discarded), err
}

func (d database) stats() (TursoSyncDbStats, error) {
	var e *C.PartialSyncError
	s := C.PartialSyncStats{size: C.sizeof_PartialSyncStats}
	if err := take(C.partial_sync_stats(d.handle, &s, &e), e); err != nil {
		return TursoSyncDbStats{}, err
	}
	var revision *C.char
	if err := take(C.partial_sync_revision(d.handle, &revision, &e), e); err != nil {
		return TursoSyncDbStats{}, err
	}
	defer C.partial_sync_string_free(&revision)
	return TursoSyncDbStats{
		CdcOperations:        int64(s.cdc_operations),
		MainWalSize:          int64(s.main_wal_size),
		RevertWalSize:        int64(s.revert_wal_size),
		LastPullUnixTime:     int64(s.last_pull_unix_time),
		LastPushUnixTime:     int64(s.last_push_unix_time),
		NetworkSentBytes:     int64(s.network_sent_bytes),
		NetworkReceivedBytes: int64(s.network_received_bytes),
		Revision:             C.GoString(revision),
		PageSize:             int64(s.page_size),
		PagesTotal:           int64(s.pages_total),
		PagesPresent:         int64(s.pages_present),
		PagesDirty:           int64(s.pages_dirty),
		Requests:             int64(s.requests),
		PrefetchHits:         int64(s.prefetch_hits),
		PrefetchWasted:       int64(s.prefetch_wasted),
	}, nil
}

// connection is a connection with what interrupts it. It is used by one goroutine at a time; interrupt may be called by
// any at any time before close.
type connection struct {
	handle   *C.PartialSyncConnection
	breaking *C.PartialSyncInterrupt
}

func (d database) connect() (connection, error) {
	var c connection
	var e *C.PartialSyncError
	if err := take(C.partial_sync_connect(d.handle, &c.handle, &e), e); err != nil {
		return c, err
	}
	if err := take(C.partial_sync_interrupt_new(c.handle, &c.breaking, &e), e); err != nil {
		c.close()
		return c, err
	}
	return c, nil
}

func (c *connection) close() {
	C.partial_sync_connection_close(&c.handle)
	C.partial_sync_interrupt_free(&c.breaking)
}

func (c *connection) interrupt()          { C.partial_sync_interrupt_now(c.breaking) }
func (c *connection) inTransaction() bool { return !bool(C.partial_sync_is_autocommit(c.handle)) }

// undo rolls back the transaction that is open, if one is. What an interrupt keeps from being undone, because rows are unread, is
// undone before the next statement.
func (c *connection) undo() error {
	var e *C.PartialSyncError
	return take(C.partial_sync_undo_transaction(c.handle, &e), e)
}

func (c *connection) busyTimeout(ms int32) error {
	var e *C.PartialSyncError
	return take(C.partial_sync_busy_timeout(c.handle, C.int32_t(ms), &e), e)
}

// prepare compiles the first statement of sql; nil when there is none. The second answer is where the rest begins.
func (c *connection) prepare(sql string) (*statement, int, error) {
	var s statement
	var tail C.size_t
	var e *C.PartialSyncError
	code := C.partial_sync_prepare(c.handle, (*C.char)(unsafe.Pointer(unsafe.StringData(sql))), C.int64_t(len(sql)),
		&s.handle, &tail, &e)
	if err := take(code, e); err != nil {
		return nil, 0, err
	}
	if s.handle == nil {
		return nil, int(tail), nil
	}
	if err := s.describe(); err != nil {
		s.finalize()
		return nil, 0, err
	}
	return &s, int(tail), nil
}

// statement is a compiled statement and what is known of it.
type statement struct {
	handle     *C.PartialSyncStatement
	columns    []column
	parameters []string // with their prefix; "" for a plain ?
	compiled   C.int32_t
	encoded    []byte // room for parameters, kept between executions
	isLarge    bool   // the library holds a large batch of it
	wasRun     bool
	// Where the library puts what run and fetch give: here, so that an execution allocates nothing for it.
	out struct {
		batch C.PartialSyncBatch
		err   *C.PartialSyncError
	}
}

func (s *statement) finalize() { C.partial_sync_finalize(&s.handle) }

// reset ends the current execution.
func (s *statement) reset() error {
	if code := C.partial_sync_reset(s.handle); code != C.PARTIAL_SYNC_CODE_OK {
		return &Error{Code: ErrorCode(code), Message: "the statement could not be ended well"}
	}
	return nil
}

// forget gives back what large parameters and rows took.
func (s *statement) forget() {
	if cap(s.encoded) > 64*1024 {
		s.encoded = nil
		C.partial_sync_clear_bindings(s.handle)
	}
	if s.isLarge {
		s.isLarge = false
		_ = s.reset() // it has ended
	}
}

func (s *statement) describe() error {
	var d C.PartialSyncDescription
	var e *C.PartialSyncError
	if err := take(C.partial_sync_describe(s.handle, &d, &e), e); err != nil {
		return err
	}
	values := bytesAt(d.bytes, d.length)
	text := func() string {
		var value any
		value, values = decode(values)
		text, _ := value.(string)
		return text
	}
	s.compiled = d.compiled
	s.columns = make([]column, d.columns)
	for i := range s.columns {
		name := text()
		s.columns[i] = newColumn(name, text())
	}
	s.parameters = make([]string, d.parameters)
	for i := range s.parameters {
		s.parameters[i] = text()
	}
	return nil
}

// batch is what run and fetch give. Its values are the library's memory, valid until the statement is used again.
type batch struct {
	values       []byte
	rows         int
	done         bool
	changes      int64
	lastInsertId int64
}

// run binds s.encoded and runs the statement from its beginning for this many rows; 0: to its end, without rows.
func (s *statement) run(rows int) (batch, error) {
	s.wasRun = true
	parameters := (*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(s.encoded)))
	code := C.partial_sync_run(s.handle, parameters, C.size_t(len(s.encoded)), C.size_t(rows), 0, &s.out.batch, &s.out.err)
	return s.batch(code)
}

// fetch continues with what run began.
func (s *statement) fetch(rows int) (batch, error) {
	return s.batch(C.partial_sync_fetch(s.handle, C.size_t(rows), 0, &s.out.batch, &s.out.err))
}

func (s *statement) batch(code C.enum_PartialSyncCode) (batch, error) {
	b := &s.out.batch
	if err := take(code, s.out.err); err != nil {
		s.out.err = nil
		return batch{done: true}, err
	}
	s.isLarge = s.isLarge || b.length > 1<<20
	return batch{
		values:       bytesAt(b.bytes, b.length),
		rows:         int(b.rows),
		done:         bool(b.done),
		changes:      int64(b.changes),
		lastInsertId: int64(b.last_insert_rowid),
	}, s.refresh(b)
}

// refresh learns the columns again after the schema has changed.
func (s *statement) refresh(b *C.PartialSyncBatch) error {
	if b.compiled == s.compiled {
		return nil
	}
	return s.describe()
}

// bytesAt is memory of the library.
func bytesAt(start *C.uint8_t, length C.size_t) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(start)), int(length))
}

// Version is the version of the library that this package is linked with.
func Version() string { return C.GoString(C.partial_sync_version()) }

// SQLiteVersion is the version of the SQLite inside it.
func SQLiteVersion() string { return C.GoString(C.partial_sync_sqlite_version()) }
