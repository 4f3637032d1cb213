//go:build cgo

package turso

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// What errors.Is tells apart. Every error that comes from the database is an [*Error] and is one of these.
var (
	// ErrTursoGeneric: SQLite refused the statement: a syntax error, a table that is not there, ...
	ErrTursoGeneric = errors.New("turso: error")
	// ErrTursoBusy: a lock was held for too long by another connection, or by another pull or push. Try again.
	ErrTursoBusy = errors.New("turso: database is busy")
	// ErrTursoConstraint: a constraint failed; [Error.ExtendedCode] says which kind.
	ErrTursoConstraint = errors.New("turso: constraint failed")
	// ErrTursoInterrupt: the context ended during the call, or QueryTimeoutMs was over. Nothing is lost; the handles stay usable.
	ErrTursoInterrupt = errors.New("turso: interrupted")
	// ErrTursoReadOnly: the database, or the transaction, cannot be written to.
	ErrTursoReadOnly = errors.New("turso: database is readonly")
	// ErrTursoCorrupt: a file of the database is damaged.
	ErrTursoCorrupt = errors.New("turso: database is corrupt")
	// ErrTursoNotADb: what is at the path is neither a database nor a replica.
	ErrTursoNotADb = errors.New("turso: not a database")
	// ErrTursoFull: the disk is full.
	ErrTursoFull = errors.New("turso: database is full")
	// ErrTursoIo: the file system failed.
	ErrTursoIo = errors.New("turso: input/output error")
	// ErrTursoNoMemory: out of memory.
	ErrTursoNoMemory = errors.New("turso: out of memory")
	// ErrTursoTooBig: a text, blob or statement is larger than SQLite allows.
	ErrTursoTooBig = errors.New("turso: too big")
	// ErrTursoMisuse: a wrong option, a parameter without a value, ...: the calling program must change.
	ErrTursoMisuse = errors.New("turso: API misuse")
	// ErrTursoNetwork: the remote could not be reached, failed, or did not answer in time.
	ErrTursoNetwork = errors.New("turso: network error")
	// ErrTursoTimeout: the remote did not answer in time; such an error is an ErrTursoNetwork too.
	ErrTursoTimeout = errors.New("turso: timed out")
	// ErrTursoUnauthorized: the token is missing, wrong, expired, or not good for this.
	ErrTursoUnauthorized = errors.New("turso: unauthorized")
	// ErrTursoNotFound: the remote has no database at the url.
	ErrTursoNotFound = errors.New("turso: remote database not found")
	// ErrTursoProtocol: what answers at the url does not speak the protocol.
	ErrTursoProtocol = errors.New("turso: protocol error")
	// ErrTursoRemoteRefused: the remote refused the request, for example a bootstrap query that it cannot run.
	ErrTursoRemoteRefused = errors.New("turso: refused by the remote")
	// ErrTursoRevisionExpired: the remote no longer keeps the revision that is needed: pull, then repeat the call.
	ErrTursoRevisionExpired = errors.New("turso: revision expired")
	// ErrTursoPushRefused: the remote refused a local change; [Error.Change] says which.
	ErrTursoPushRefused = errors.New("turso: push refused")
	// ErrTursoPullConflict: a local change does not fit what the remote has now; [Error.Change] says which.
	ErrTursoPullConflict = errors.New("turso: pull conflict")
	// ErrTursoDiverged: remote and replica disagree about what was pushed: one of them was restored from a backup.
	ErrTursoDiverged = errors.New("turso: remote and replica have diverged")
	// ErrTursoNoRemote: the call needs a remote, and the database has none.
	ErrTursoNoRemote = errors.New("turso: no remote")
	// ErrTursoOtherRemote: the replica at the path belongs to another remote.
	ErrTursoOtherRemote = errors.New("turso: replica of another remote")
	// ErrTursoUnsupported: not possible on a replica, or not with this remote.
	ErrTursoUnsupported = errors.New("turso: not supported")
	// ErrTursoInternal: a bug in the library. Please report it.
	ErrTursoInternal = errors.New("turso: internal error")
	// ErrTursoTransactionLost: the transaction was rolled back by SQLite when a statement before this one failed: after a
	// timeout, a full disk, OR ROLLBACK, a page that could not be had, ... Nothing is run in it until it is ended.
	ErrTursoTransactionLost = errors.New("turso: transaction rolled back")
	// ErrTursoCannotOpen: a file does not exist, or permission is denied; such an error is an ErrTursoIo too.
	ErrTursoCannotOpen = errors.New("turso: cannot open")
	// ErrTursoConversion: a value is not of the type that was asked for; such an error is an ErrTursoMisuse too.
	ErrTursoConversion = errors.New("turso: conversion failed")
	// ErrTursoPushConstraint: a constraint on the remote refused a local change; such an error is an ErrTursoPushRefused and
	// an ErrTursoConstraint too.
	ErrTursoPushConstraint = errors.New("turso: push refused by a constraint")
	// ErrTursoNotPulledYet: the call needs the remote's database, and nothing of it was fetched yet: pull first.
	ErrTursoNotPulledYet = errors.New("turso: not pulled yet")
	// ErrTursoUnsendable: a local change cannot be sent as it is; the text says what to do. It is an ErrTursoUnsupported too.
	ErrTursoUnsendable = errors.New("turso: cannot be sent")
	// ErrTursoCallback: a function of the program failed.
	ErrTursoCallback = errors.New("turso: callback failed")

	// ErrTursoDatabaseFull is another name of [ErrTursoFull].
	ErrTursoDatabaseFull = ErrTursoFull
	// ErrTursoConnClosed: the connection or database was closed before.
	ErrTursoConnClosed = errors.New("turso: connection closed")
	// ErrTursoStmtClosed: the statement was closed before.
	ErrTursoStmtClosed = errors.New("turso: statement closed")
	// ErrTursoRowsClosed: the rows were closed before.
	ErrTursoRowsClosed = errors.New("turso: rows closed")
	// ErrTursoTxDone: the transaction was committed or rolled back before.
	ErrTursoTxDone = errors.New("turso: transaction done")
)

// ErrorCode is the number of an error's kind; those of the C header, PARTIAL_SYNC_CODE_*.
type ErrorCode int

// The kinds of errors that this package makes itself.
const (
	codeBusy        ErrorCode = 2
	codeInterrupt   ErrorCode = 4
	codeMisuse      ErrorCode = 12
	codeTimeout     ErrorCode = 14
	codeUnsupported ErrorCode = 25
	codeCallback    ErrorCode = 33
)

var kinds = [...]error{
	1:  ErrTursoGeneric,
	2:  ErrTursoBusy,
	3:  ErrTursoConstraint,
	4:  ErrTursoInterrupt,
	5:  ErrTursoReadOnly,
	6:  ErrTursoCorrupt,
	7:  ErrTursoNotADb,
	8:  ErrTursoFull,
	9:  ErrTursoIo,
	10: ErrTursoNoMemory,
	11: ErrTursoTooBig,
	12: ErrTursoMisuse,
	13: ErrTursoNetwork,
	14: ErrTursoTimeout,
	15: ErrTursoUnauthorized,
	16: ErrTursoNotFound,
	17: ErrTursoProtocol,
	18: ErrTursoRemoteRefused,
	19: ErrTursoRevisionExpired,
	20: ErrTursoPushRefused,
	21: ErrTursoPullConflict,
	22: ErrTursoDiverged,
	23: ErrTursoNoRemote,
	24: ErrTursoOtherRemote,
	25: ErrTursoUnsupported,
	26: ErrTursoInternal,
	27: ErrTursoTransactionLost,
	28: ErrTursoCannotOpen,
	29: ErrTursoConversion,
	30: ErrTursoPushConstraint,
	31: ErrTursoNotPulledYet,
	32: ErrTursoUnsendable,
	33: ErrTursoCallback,
}

// also is what an error of a kind is besides.
var also = map[error][]error{
	ErrTursoTimeout:        {ErrTursoNetwork},
	ErrTursoCannotOpen:     {ErrTursoIo},
	ErrTursoConversion:     {ErrTursoMisuse},
	ErrTursoUnsendable:     {ErrTursoUnsupported},
	ErrTursoCallback:       {ErrTursoMisuse},
	ErrTursoPushConstraint: {ErrTursoPushRefused, ErrTursoConstraint},
}

// kind is the sentinel of a code. The library may be newer than this package.
func (c ErrorCode) kind() error {
	if c > 0 && int(c) < len(kinds) {
		return kinds[c]
	}
	return ErrTursoGeneric
}

// Error is why a call failed. Use errors.Is with the ErrTurso... variables to test its kind.
type Error struct {
	// Code is the number of the kind.
	Code ErrorCode
	// ExtendedCode is SQLite's extended result code (SQLITE_CONSTRAINT_UNIQUE is 2067); its low byte is the primary one.
	// For an error that did not come through SQLite it is the code of its kind; 0 for one that this package makes itself.
	ExtendedCode int
	// Message is the engine's text: what was being done, what happened, and what can be done about it.
	Message string
	// Page is the page (from 1) that could not be had; 0 when the error is about something else.
	Page uint32
	// Change is the local change that a push or pull failed at, for [TursoSyncDb.DiscardChange]; 0 when it was not one.
	Change int64

	transient bool
	cause     error
}

// Error is the engine's text, and why the context ended where it did.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

// Is tells whether the error is of a kind: one of the ErrTurso... variables.
func (e *Error) Is(target error) bool {
	kind := e.Code.kind()
	return target == kind || slices.Contains(also[kind], target)
}

// Unwrap gives the context's error where it ended the call.
func (e *Error) Unwrap() error { return e.cause }

// Temporary tells whether the same call may succeed later without anyone changing anything: the network, a timeout, a
// lock.
func (e *Error) Temporary() bool { return e.transient }

// Timeout tells whether somebody took too long: the remote, or the call for its context's deadline.
func (e *Error) Timeout() bool {
	return e.Code == codeTimeout || errors.Is(e.cause, context.DeadlineExceeded)
}

func misuse(format string, arguments ...any) error {
	return &Error{Code: codeMisuse, Message: fmt.Sprintf(format, arguments...)}
}
