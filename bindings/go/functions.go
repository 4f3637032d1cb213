//go:build cgo

package turso

// Functions of the program that the library calls: for the url, for the token, what shall become of a change, and how far a
// hydration is. They run on threads of the library and during calls of this package, also several at a time.

/*
#include <stdlib.h>
#include "partial_sync.h"

extern void partialSyncGoUrl(void *user_data, PartialSyncAnswer *answer);
extern void partialSyncGoToken(void *user_data, PartialSyncAnswer *answer);
extern void partialSyncGoTransform(void *user_data, PartialSyncMutation *mutation, PartialSyncAnswer *answer);
extern void partialSyncGoRelease(void *user_data);
extern void partialSyncGoProgress(void *user_data, uint32_t done, uint32_t total);
*/
import "C"

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"runtime/cgo"
	"strings"
	"unsafe"
)

// TursoMutation is a local change of a row that is about to be pushed, or put back by a pull. Integers are int64, other
// numbers float64, texts string, blobs []byte, NULL nil.
type TursoMutation struct {
	// ChangeTime is when it was made, in seconds since 1970.
	ChangeTime int64
	// TableName is the table.
	TableName string
	// Id is the row's key where that is one integer, else nil.
	Id *int64
	// ChangeType is insert, update or delete.
	ChangeType string
	// Before is the row before, by column; nil when it is new.
	Before map[string]any
	// After is the row after; nil when it is gone.
	After map[string]any
	// Updates are, of an update, the new values of the columns that changed.
	Updates map[string]any
}

// TursoTransformResult is what becomes of a change: it is left out, or a statement takes its place.
type TursoTransformResult struct {
	// Skip leaves the change out.
	Skip bool
	// Sql is the statement.
	Sql string
	// Values are those of the statement's parameters.
	Values []any
}

// functions are those of one database.
type functions struct {
	url       func() (string, error)
	token     func() (string, error)
	transform func(TursoMutation) (*TursoTransformResult, error)
}

// register lets the library call the functions until it releases them, which it does once, also when opening fails.
func (f *functions) register(config *C.PartialSyncConfig) {
	if f.url == nil && f.token == nil && f.transform == nil {
		return
	}
	config.user_data = hand(f)
	config.release = C.PartialSyncReleaseFunction(C.partialSyncGoRelease)
	if f.url != nil {
		config.url_function = C.PartialSyncUrlFunction(C.partialSyncGoUrl)
	}
	if f.token != nil {
		config.token_function = C.PartialSyncTokenFunction(C.partialSyncGoToken)
	}
	if f.transform != nil {
		config.transform = C.PartialSyncTransformFunction(C.partialSyncGoTransform)
	}
}

// hand gives C something to know a Go value by, until it is taken back. A handle is a number; it is kept in C's own memory.
func hand(value any) unsafe.Pointer {
	data := (*C.uintptr_t)(C.malloc(C.sizeof_uintptr_t))
	*data = C.uintptr_t(cgo.NewHandle(value))
	return unsafe.Pointer(data)
}

func handed(data unsafe.Pointer) cgo.Handle { return cgo.Handle(*(*C.uintptr_t)(data)) }

func takeBack(data unsafe.Pointer) {
	handed(data).Delete()
	C.free(data)
}

//export partialSyncGoRelease
func partialSyncGoRelease(data unsafe.Pointer) { takeBack(data) }

//export partialSyncGoUrl
func partialSyncGoUrl(data unsafe.Pointer, answer *C.PartialSyncAnswer) {
	answerText(answer, "RemoteUrlFunction", handed(data).Value().(*functions).url)
}

//export partialSyncGoToken
func partialSyncGoToken(data unsafe.Pointer, answer *C.PartialSyncAnswer) {
	answerText(answer, "RemoteAuthTokenFunction", handed(data).Value().(*functions).token)
}

//export partialSyncGoTransform
func partialSyncGoTransform(data unsafe.Pointer, m *C.PartialSyncMutation, answer *C.PartialSyncAnswer) {
	defer failOnPanic(answer, "Transform")
	mutation := TursoMutation{
		ChangeTime: int64(m.change_time),
		TableName:  C.GoString(m.table_name),
		ChangeType: [...]string{
			C.PARTIAL_SYNC_CHANGE_INSERT: "insert", C.PARTIAL_SYNC_CHANGE_UPDATE: "update", C.PARTIAL_SYNC_CHANGE_DELETE: "delete",
		}[m.change],
		Before:  fields(m.before, m.before_count),
		After:   fields(m.after, m.after_count),
		Updates: fields(m.updates, m.updates_count),
	}
	if m.has_id {
		id := int64(m.id)
		mutation.Id = &id
	}
	result, err := handed(data).Value().(*functions).transform(mutation)
	if err == nil && result != nil {
		err = decide(answer, result)
	}
	if err != nil {
		fail(answer, err.Error())
	}
}

// decide answers with what becomes of a change.
func decide(answer *C.PartialSyncAnswer, result *TursoTransformResult) error {
	switch {
	case result.Skip && (result.Sql != "" || len(result.Values) > 0):
		return errors.New("Transform gave Skip and a statement: give one of them")
	case result.Skip:
		C.partial_sync_answer_skip(answer)
		return nil
	case result.Sql == "":
		return errors.New("Transform gave neither Skip nor a statement: give nil for a change that stays as it is")
	}
	var values []byte
	for _, value := range result.Values {
		given := driver.NamedValue{Value: value}
		err := checkValue(&given)
		if err == nil {
			values, err = encode(values, given.Value)
		}
		if err != nil {
			return err
		}
	}
	sql := C.CString(result.Sql)
	defer C.free(unsafe.Pointer(sql))
	C.partial_sync_answer_rewrite(answer, sql, C.int64_t(len(result.Sql)),
		(*C.uint8_t)(unsafe.Pointer(unsafe.SliceData(values))), C.size_t(len(values)))
	return nil
}

// fields is a row by column.
func fields(start *C.PartialSyncField, count C.size_t) map[string]any {
	if start == nil {
		return nil
	}
	row := make(map[string]any, count)
	for _, field := range unsafe.Slice(start, count) {
		row[C.GoString(field.name)] = valueOf(&field.value)
	}
	return row
}

func valueOf(v *C.PartialSyncValue) any {
	switch v._type {
	case C.PARTIAL_SYNC_TYPE_INTEGER:
		return int64(v.integer)
	case C.PARTIAL_SYNC_TYPE_REAL:
		return float64(v.real)
	case C.PARTIAL_SYNC_TYPE_TEXT:
		return string(unsafe.Slice((*byte)(unsafe.Pointer(v.bytes)), v.length))
	case C.PARTIAL_SYNC_TYPE_BLOB:
		return append([]byte{}, unsafe.Slice((*byte)(unsafe.Pointer(v.bytes)), v.length)...)
	default:
		return nil
	}
}

// answerText answers with what the function gives; for "" there is none.
func answerText(answer *C.PartialSyncAnswer, name string, function func() (string, error)) {
	defer failOnPanic(answer, name)
	text, err := function()
	switch {
	case err != nil:
		fail(answer, err.Error())
	case text != "":
		c := C.CString(text)
		defer C.free(unsafe.Pointer(c))
		C.partial_sync_answer_text(answer, c, C.int64_t(len(text)))
	}
}

func fail(answer *C.PartialSyncAnswer, message string) {
	c := C.CString(strings.ToValidUTF8(strings.ReplaceAll(message, "\x00", "\\x00"), "\uFFFD"))
	defer C.free(unsafe.Pointer(c))
	C.partial_sync_answer_fail(answer, c)
}

// failOnPanic keeps a panic of the program's function from crossing into the library.
func failOnPanic(answer *C.PartialSyncAnswer, name string) {
	if panicked := recover(); panicked != nil {
		fail(answer, panicText(name, panicked))
	}
}

func panicText(name string, panicked any) string {
	return fmt.Sprintf("%s panicked: %v", name, panicked)
}

// progress is a function that is told how far a call is.
type progress struct {
	database database
	tell     func(done, total int)
	err      error // of a panic, which ends the call
}

//export partialSyncGoProgress
func partialSyncGoProgress(data unsafe.Pointer, done, total C.uint32_t) {
	p := handed(data).Value().(*progress)
	defer func() {
		if panicked := recover(); panicked != nil {
			p.err = &Error{Code: codeCallback, Message: panicText("the progress function", panicked)}
			C.partial_sync_cancel(p.database.handle)
		}
	}()
	p.tell(int(done), int(total))
}

// hydrate fetches what is absent; query "": all.
func (d database) hydrate(query string, tell func(done, total int)) (TursoHydrated, error) {
	sql, err := cText("the query", query)
	if err != nil {
		return TursoHydrated{}, err
	}
	defer C.free(unsafe.Pointer(sql))
	p := &progress{database: d, tell: tell}
	var function C.PartialSyncProgress
	var data unsafe.Pointer
	if tell != nil {
		function, data = C.PartialSyncProgress(C.partialSyncGoProgress), hand(p)
		defer takeBack(data)
	}
	var did C.PartialSyncHydrated
	var e *C.PartialSyncError
	err = take(C.partial_sync_hydrate(d.handle, sql, function, data, &did, &e), e)
	if p.err != nil {
		err = p.err
	}
	return TursoHydrated{Fetched: int(did.fetched), Absent: int(did.absent)}, err
}
