/*
 * Partial sync for SQLite: open and use a remote database without downloading it.
 *
 * A replica is a local SQLite database that holds some pages of a remote one. A query that touches a page that is not
 * here fetches it in the middle of that query; writes commit locally and are pushed as SQL; a pull brings the remote's
 * changes and puts unpushed ones back on top.
 *
 * Errors. A function that can fail returns a PartialSyncCode, PARTIAL_SYNC_CODE_OK (0) when it did not, and takes as its
 * last parameter the address of a PartialSyncError *, or NULL where the code is enough. That variable is always set: to
 * NULL, or to an error which you own and release with partial_sync_error_free. It is not released for you before it is
 * set again.
 *
 * Handles. What a function puts in a variable of yours is yours to release, with the function that its comment names.
 * Such a function takes the variable's address, releases, and sets the variable to NULL; where that is NULL already it
 * does nothing. So releasing twice is harmless as long as there is one variable; after copying a handle, release one
 * copy and forget the others. Handles may be released in any order: a statement keeps its connection open, a connection
 * its database.
 *
 * NULL. Every function accepts NULL for a handle: it returns PARTIAL_SYNC_CODE_MISUSE, or 0 or NULL where it has no code.
 *
 * Text is UTF-8; text that is not is refused with PARTIAL_SYNC_CODE_MISUSE. Inputs are copied. Text and blobs that a
 * statement hands out belong to the statement.
 *
 * Threads. A database and a connection may be shared by threads, a statement is used by one at a time. Connections work
 * in parallel; threads that share one take turns. partial_sync_interrupt and partial_sync_cancel are there to be called
 * from other threads. No thread may use a handle while another one releases it. After fork, the child must not use
 * handles of its parent.
 *
 * Signals. The library installs no handler. SIGPIPE is blocked on its own threads, and on yours during calls that use
 * the network, so that a remote that closes a connection does not end the program.
 *
 * Time. Every call returns when it is done. What waits for a network or a lock has a deadline (see PartialSyncConfig).
 */


#ifndef PARTIAL_SYNC_H
#define PARTIAL_SYNC_H

/* Made by cbindgen from crates/ffi/src. Do not edit: UPDATE_HEADER=1 cargo test -p partial-sync-ffi writes it. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// How a call ended. `PARTIAL_SYNC_CODE_OK` is 0. Later versions may add codes: treat one that you do not know as
// `PARTIAL_SYNC_CODE_SQL`.
typedef enum PartialSyncCode {
  // It was done.
  PARTIAL_SYNC_CODE_OK = 0,
  // SQLite refused the statement: a syntax error, a table that is not there, ...
  PARTIAL_SYNC_CODE_SQL = 1,
  // A lock was held for too long by another connection, by another pull or push, or (when opening) by somebody else
  // who has the replica open. Try again.
  PARTIAL_SYNC_CODE_BUSY = 2,
  // A constraint failed; `partial_sync_error_sqlite_code` says which kind.
  PARTIAL_SYNC_CODE_CONSTRAINT = 3,
  // Interrupted or cancelled. Nothing is lost; the handles stay usable.
  PARTIAL_SYNC_CODE_INTERRUPT = 4,
  // The database cannot be written to.
  PARTIAL_SYNC_CODE_READ_ONLY = 5,
  // The database, its change log or the file of a pull under way is damaged.
  PARTIAL_SYNC_CODE_CORRUPT = 6,
  // What is at the path is not a database, not a replica, or was changed by another program.
  PARTIAL_SYNC_CODE_NOT_A_DATABASE = 7,
  // The disk is full.
  PARTIAL_SYNC_CODE_FULL = 8,
  // The file system failed.
  PARTIAL_SYNC_CODE_IO = 9,
  // Out of memory.
  PARTIAL_SYNC_CODE_NO_MEMORY = 10,
  // A text, blob or statement is larger than SQLite allows.
  PARTIAL_SYNC_CODE_TOO_BIG = 11,
  // A NULL handle, an index out of range, text that is not UTF-8, ...: the calling program has a bug.
  PARTIAL_SYNC_CODE_MISUSE = 12,
  // The remote could not be reached, or failed.
  PARTIAL_SYNC_CODE_NETWORK = 13,
  // The remote took longer than the timeout.
  PARTIAL_SYNC_CODE_TIMEOUT = 14,
  // The token is missing, wrong, expired, or not good for this.
  PARTIAL_SYNC_CODE_UNAUTHORIZED = 15,
  // The remote has no database at the url.
  PARTIAL_SYNC_CODE_NOT_FOUND = 16,
  // What answers at the url does not speak the protocol, or broke it.
  PARTIAL_SYNC_CODE_PROTOCOL = 17,
  // The remote refused the request, for example a bootstrap query that it cannot run.
  PARTIAL_SYNC_CODE_REMOTE_REFUSED = 18,
  // The remote no longer keeps the revision that is needed: pull, then repeat the call.
  PARTIAL_SYNC_CODE_REVISION_EXPIRED = 19,
  // The remote refused a local change, not for a constraint; `partial_sync_error_change` says which.
  PARTIAL_SYNC_CODE_PUSH_REFUSED = 20,
  // A local change does not fit what the remote has now; `partial_sync_error_change` says which.
  PARTIAL_SYNC_CODE_PULL_CONFLICT = 21,
  // Remote and replica disagree about what was pushed: one of them was restored from a backup.
  PARTIAL_SYNC_CODE_DIVERGED = 22,
  // The call needs a remote, and the database has none.
  PARTIAL_SYNC_CODE_NO_REMOTE = 23,
  // The replica belongs to another remote than the one given.
  PARTIAL_SYNC_CODE_OTHER_REMOTE = 24,
  // Not possible on a replica, or not with this remote.
  PARTIAL_SYNC_CODE_UNSUPPORTED = 25,
  // A bug in this library; nothing that was committed is lost. Please report it.
  PARTIAL_SYNC_CODE_INTERNAL = 26,
  // The transaction was rolled back by SQLite when a statement before this one failed. This one was not run, and none
  // is until the transaction is ended: with `ROLLBACK`, or with `COMMIT`, which fails with this code too.
  PARTIAL_SYNC_CODE_TRANSACTION_LOST = 27,
  // A file cannot be opened: it does not exist, or permission is denied.
  PARTIAL_SYNC_CODE_CANNOT_OPEN = 28,
  // A value is not of the type that was asked for.
  PARTIAL_SYNC_CODE_CONVERSION = 29,
  // A constraint on the remote refused a local change; `partial_sync_error_change` says which change, and
  // `partial_sync_error_sqlite_code` which kind of constraint.
  PARTIAL_SYNC_CODE_PUSH_CONSTRAINT = 30,
  // The call needs the remote's database, and nothing of it was fetched yet: pull first.
  PARTIAL_SYNC_CODE_NOT_PULLED_YET = 31,
  // A local change cannot be sent as it is; the message says what to do: to pull first, to push again, ...
  PARTIAL_SYNC_CODE_UNSENDABLE = 32,
  // A function of the program (token, url, ...) failed.
  PARTIAL_SYNC_CODE_CALLBACK = 33,
} PartialSyncCode;

// What happened to a row.
typedef enum PartialSyncChange {
  // A new row.
  PARTIAL_SYNC_CHANGE_INSERT = 1,
  // A row changed.
  PARTIAL_SYNC_CHANGE_UPDATE = 2,
  // A row is gone.
  PARTIAL_SYNC_CHANGE_DELETE = 3,
} PartialSyncChange;

// The type of a value; the numbers are SQLite's.
typedef enum PartialSyncType {
  // A 64-bit integer.
  PARTIAL_SYNC_TYPE_INTEGER = 1,
  // A floating-point number.
  PARTIAL_SYNC_TYPE_REAL = 2,
  // Text. What another program stored need not be UTF-8.
  PARTIAL_SYNC_TYPE_TEXT = 3,
  // Bytes.
  PARTIAL_SYNC_TYPE_BLOB = 4,
  // NULL. Also: no such column, no row.
  PARTIAL_SYNC_TYPE_NULL = 5,
} PartialSyncType;

// What a function of yours answers. It belongs to the library and is valid until the function returns. The last answer
// counts; without one the default does, which each function's comment names.
typedef struct PartialSyncAnswer PartialSyncAnswer;

// Stops the network calls of the database that is opened with it (`config.cancel`), `partial_sync_open` included, from
// any thread at any time. It keeps nothing open, may outlive the database, and may be released before it.
typedef struct PartialSyncCancel PartialSyncCancel;

// A connection. It keeps its database open. Threads may share it and then take turns, in one transaction; threads that
// work at the same time take one each.
typedef struct PartialSyncConnection PartialSyncConnection;

// An open database: a replica of a remote, or a plain local one. Threads may share the handle. Its files are given back
// when it is closed and its last connection and statement are gone too, in whatever order.
typedef struct PartialSyncDatabase PartialSyncDatabase;

// Why a call failed. Owned by anyone who gave the variable that it was put in; release it with
// `partial_sync_error_free`. It never changes, so threads may share it.
typedef struct PartialSyncError PartialSyncError;

// Interrupts a connection from any thread at any time, also when that is closed already. It keeps nothing open.
typedef struct PartialSyncInterrupt PartialSyncInterrupt;

// A prepared statement. It keeps its connection open. It may move between threads; a call while another thread is in
// one fails with `PARTIAL_SYNC_CODE_MISUSE`, or gives nothing where it cannot fail.
typedef struct PartialSyncStatement PartialSyncStatement;

// Asked for the url before each request: answer with `partial_sync_answer_text`, or with `partial_sync_answer_fail`, which
// makes the request fail. Without an answer sync is paused: requests fail, and local reads and writes continue. It must
// answer at once, and name the same remote every time.
typedef void (*PartialSyncUrlFunction)(void *user_data, struct PartialSyncAnswer *answer);

// Asked for the bearer token before each request, retries included: answer with `partial_sync_answer_text`, or with
// `partial_sync_answer_fail`, which makes the request fail. Without an answer no token is sent. It runs on a thread of its own
// and may take its time, within the timeout; a call that is broken off does not wait for it.
typedef void (*PartialSyncTokenFunction)(void *user_data, struct PartialSyncAnswer *answer);

// A value of a row. Only what belongs to its type is set; the rest is 0.
typedef struct PartialSyncValue {
  // The type.
  enum PartialSyncType type;
  // Of an integer.
  int64_t integer;
  // Of a floating-point number.
  double real;
  // Of a text or blob: the bytes, without NUL behind them; never NULL, also when there are none.
  const uint8_t *bytes;
  // How many bytes.
  size_t length;
} PartialSyncValue;

// A column of a row with its value.
typedef struct PartialSyncField {
  // Name of the column.
  const char *name;
  // The value.
  struct PartialSyncValue value;
} PartialSyncField;

// A local change of a row. All of it is valid until the function returns. Generated columns are left out; columns come
// in the order of their names.
typedef struct PartialSyncMutation {
  // When it was made, in seconds since 1970.
  int64_t change_time;
  // The table.
  const char *table_name;
  // What happened.
  enum PartialSyncChange change;
  // Whether the row's key is one integer.
  bool has_id;
  // That integer: before the change, or of the new row.
  int64_t id;
  // The row before; NULL when it is new.
  const struct PartialSyncField *before;
  // How many columns.
  size_t before_count;
  // The row after; NULL when it is gone.
  const struct PartialSyncField *after;
  // How many columns.
  size_t after_count;
  // Of an update: the new values of the columns that changed; NULL otherwise.
  const struct PartialSyncField *updates;
  // How many columns.
  size_t updates_count;
} PartialSyncMutation;

// Asked about each local change before it is pushed, and before a pull puts it back: answer with
// `partial_sync_answer_skip` to leave it out, `partial_sync_answer_rewrite` to run another statement in its place, or
// `partial_sync_answer_fail` to stop the push or pull. Without an answer the change is sent as it is.
typedef void (*PartialSyncTransformFunction)(void *user_data,
                                             const struct PartialSyncMutation *mutation,
                                             struct PartialSyncAnswer *answer);

// Told that nothing will use `user_data` any more. It cannot use the database, which is being closed.
typedef void (*PartialSyncReleaseFunction)(void *user_data);

// What to open. Set `size` and `path`, leave zero what shall be as usual:
//
//     PartialSyncConfig config = {.size = sizeof config, .path = "app.db", .url = "libsql://db.example.com"};
//
// Everything is copied: the struct and its texts may go as soon as the call returns.
//
// Partial sync is on when one of `bootstrap_prefix`, `bootstrap_query`, `segment_size` and `prefetch` is set; otherwise
// the first connect downloads everything. The bootstrap counts only when the replica is made: one that exists is opened
// without asking the remote for anything.
typedef struct PartialSyncConfig {
  // `sizeof(PartialSyncConfig)`: tells which version of this struct the program was built with.
  size_t size;
  // The database file, UTF-8; `":memory:"` leaves no file, and is one database for all connections.
  const char *path;
  // The remote: `libsql://`, `turso://`, `https://` or `http://`. NULL: a plain local database, or the replica at the
  // path, offline.
  const char *url;
  // The bearer token; NULL for none. `partial_sync_set_auth_token` replaces it later.
  const char *auth_token;
  // How this client is called on the remote; a random part is added. NULL: `partial-sync`.
  const char *client_name;
  // Bytes at the beginning of the remote's file to fetch at the first connect; at least one page. 0: none.
  uint64_t bootstrap_prefix;
  // A SELECT whose pages to fetch at the first connect. NULL: none. At most one of the two bootstraps.
  const char *bootstrap_query;
  // Bytes to fetch around an absent page, a power of two. 0: 128 KiB, or as the replica was opened before.
  uint64_t segment_size;
  // What comes along with an absent page: 1 also what a query is expected to want next; -1 its segment alone; 0 as the replica was
  // opened before, and for a new one, where the remote can, what the SELECT touches, which is sent with its values.
  int32_t prefetch;
  // Milliseconds that a statement waits for another connection's lock. 0: 5000; -1: not at all.
  int32_t busy_timeout_ms;
  // Milliseconds that a query waits for an absent page, and a request for each next piece of its answer. 0: 30000.
  uint64_t timeout_ms;
  // Milliseconds that a pull lets the remote wait for a change. 0: not at all.
  uint64_t long_poll_ms;
  // Most changes in one push request; a transaction is never split. 0: 10000.
  uint64_t push_operations_threshold;
  // Bootstraps everything in requests of about this many bytes. 0: in one.
  uint64_t pull_bytes_threshold;
  // Key of a remote that encrypts; NULL for none.
  const char *encryption_key;
  // Cipher that goes with the key; NULL lets the remote choose.
  const char *encryption_cipher;
  // What stops the network calls of this database, the first connect included; NULL for none. Used during the call
  // only; the database keeps what it needs of it.
  const struct PartialSyncCancel *cancel;
  // Asked for the url before each request, in place of `url`; NULL for none.
  PartialSyncUrlFunction url_function;
  // Asked for the token before each request, in place of `auth_token`; NULL for none.
  PartialSyncTokenFunction token_function;
  // Asked about each local change before it is pushed or put back; NULL for none.
  //
  // The functions are called during calls that you make, and on threads of the library; also several at a time. They
  // must return normally (no `longjmp`, no C++ exception) and, but for that of the token, soon. What they call of their
  // own database, of its connections and statements fails with `PARTIAL_SYNC_CODE_MISUSE` at once, or gives nothing: it
  // could wait for them. They may release handles. On a thread of yours for which a function waits they are not known:
  // what is called there waits for the function, until the timeout. They are called as long as the database, or a
  // connection to it, is open.
  PartialSyncTransformFunction transform;
  // What the functions are given as their first argument.
  void *user_data;
  // Called once with `user_data`, on any thread, when none of the functions will be called any more: after closing, and
  // when opening fails, but for a config that is NULL or whose `size` is wrong. NULL for none.
  PartialSyncReleaseFunction release;
  // Whether the first connect asks the remote for the bootstrap: 1 and 0 yes; -1 makes an empty replica without asking
  // the remote, and the first pull brings the rest.
  int32_t bootstrap_if_empty;
  // Whether a replica that is here may continue with another remote than it was made from, because its database has moved to
  // a new url or was restored from a backup: 1 yes, 0 and -1 no. After the next pull pages that are not here can be read again;
  // changes that were not pushed stay.
  int32_t accept_new_url;
  // Milliseconds that one call may run statements of a connection, see `partial_sync_query_timeout`. 0: no limit.
  uint32_t query_timeout_ms;
} PartialSyncConfig;

// Told how far a hydration or verification is: `done` pages of `total` (0: not known). It runs during the call, perhaps
// on another thread, and must return soon. It may call `partial_sync_cancel`; what else it calls of the database fails with
// `PARTIAL_SYNC_CODE_MISUSE`, as for the functions of `PartialSyncConfig`.
// It must return normally: no `longjmp`, no C++ exception.
typedef void (*PartialSyncProgress)(void *user_data, uint32_t done, uint32_t total);

// What a hydration did.
typedef struct PartialSyncHydrated {
  // Pages that it fetched.
  uint32_t fetched;
  // Pages of the remote's database that are still absent.
  uint32_t absent;
} PartialSyncHydrated;

// What a verification found, in pages.
typedef struct PartialSyncVerified {
  // Compared with the remote's.
  uint32_t compared;
  // Not compared, because local transactions wrote them.
  uint32_t dirty_skipped;
  // Not here.
  uint32_t absent;
  // Different from the remote's: 0 is what one wants.
  uint32_t differing;
  // The first that differs, as SQLite counts from 1; 0 when none does.
  uint32_t first_differing;
} PartialSyncVerified;

// Counters and sizes of a database; zeros for a plain local one. Counters count from the moment it was opened.
typedef struct PartialSyncStats {
  // `sizeof(PartialSyncStats)`, set by the caller.
  size_t size;
  // Local changes that were not pushed.
  uint64_t cdc_operations;
  // Bytes of the write-ahead log.
  uint64_t main_wal_size;
  // Bytes of the file of a pull under way.
  uint64_t revert_wal_size;
  // When the last pull brought something (or the bootstrap was), in seconds since 1970; 0 when never.
  int64_t last_pull_unix_time;
  // When the last push was confirmed, in seconds since 1970; 0 when never.
  int64_t last_push_unix_time;
  // Bytes of request bodies.
  uint64_t network_sent_bytes;
  // Bytes of answer bodies.
  uint64_t network_received_bytes;
  // HTTP requests.
  uint64_t requests;
  // Pages that prefetch added and a query read later.
  uint64_t prefetch_hits;
  // Pages that prefetch added and no query has read.
  uint64_t prefetch_wasted;
  // Bytes of a page.
  uint32_t page_size;
  // Pages of the database.
  uint32_t pages_total;
  // Pages that are here.
  uint32_t pages_present;
  // Pages that local transactions wrote since the last pull.
  uint32_t pages_dirty;
} PartialSyncStats;

// Rows that a statement gave, as one run of bytes.
//
// The values of the first row from left to right, then those of the second, and so on, without anything between them. A
// value is one byte that tells its type (the numbers of `PartialSyncType`), and behind it
//
// - an integer: its 8 bytes, the lowest first;
// - a floating-point number: the 8 bytes of the IEEE 754 double, the lowest first;
// - a text or blob: its length in bytes as 4 bytes, the lowest first, and its bytes, without NUL behind them;
// - NULL: nothing.
//
// Parameters (see `partial_sync_run`) have the same format.
typedef struct PartialSyncBatch {
  // The values; never NULL where `length` is not 0. They belong to the statement and are valid until a call other
  // than `partial_sync_describe` takes it.
  const uint8_t *bytes;
  // How many bytes.
  size_t length;
  // How many rows.
  size_t rows;
  // How many values a row has.
  size_t columns;
  // Whether these were the last rows; the statement is then reset.
  bool done;
  // How often the statement was compiled again because the schema had changed. When it differs from what
  // `partial_sync_describe` said, names and types of columns may be others now.
  int32_t compiled;
  // When `done`: rows that the statement changed; 0 for one that changes none.
  uint64_t changes;
  // When `done`: rowid of the last row inserted on the connection.
  int64_t last_insert_rowid;
} PartialSyncBatch;

// What a statement looks like.
typedef struct PartialSyncDescription {
  // In the format of `PartialSyncBatch`: for each column its name and its declared type (NULL for expressions), then
  // for each parameter its name with the prefix (NULL for a plain `?`). Valid until a call takes the statement.
  const uint8_t *bytes;
  // How many bytes.
  size_t length;
  // Number of columns; 0 for a statement that gives no rows.
  size_t columns;
  // Number of parameters: the largest index.
  size_t parameters;
  // How often the statement was compiled again because the schema had changed.
  int32_t compiled;
  // Whether the statement itself changes nothing in any database.
  bool readonly;
} PartialSyncDescription;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, `"0.8.0"`. Static: do not free it.
const char *partial_sync_version(void);

// The version of the SQLite inside, `"3.51.0"`. Static: do not free it.
const char *partial_sync_sqlite_version(void);

// The code that the failed call returned; `PARTIAL_SYNC_CODE_OK` for NULL.
enum PartialSyncCode partial_sync_error_code(const struct PartialSyncError *error);

// SQLite's extended result code (`SQLITE_CONSTRAINT_UNIQUE` is 2067); its low byte is the primary one. For an error that
// did not come through SQLite it is the code that docs/errors.md gives its kind. 0 for NULL.
int32_t partial_sync_error_sqlite_code(const struct PartialSyncError *error);

// What was being done, what happened, and what can be done about it. Valid until the error is freed; NULL for NULL.
const char *partial_sync_error_message(const struct PartialSyncError *error);

// True when the same call may succeed later without anyone changing anything: the network, a timeout, a lock.
bool partial_sync_error_is_transient(const struct PartialSyncError *error);

// The local change that a push or pull failed at, for `partial_sync_discard_change`; 0 when it was not one change.
int64_t partial_sync_error_change(const struct PartialSyncError *error);

// The page (as SQLite counts, from 1) that could not be had; 0 when the error is about something else.
uint32_t partial_sync_error_page(const struct PartialSyncError *error);

// Releases the error in `*error` and sets `*error` to NULL. Does nothing where `error` or `*error` is NULL.
void partial_sync_error_free(struct PartialSyncError **error);

// Puts a new one in `*cancel`. Release it with `partial_sync_cancel_free`.
enum PartialSyncCode partial_sync_cancel_new(struct PartialSyncCancel **cancel,
                                             struct PartialSyncError **error);

// Breaks the network waits of what runs now: opening, a pull, push, hydration or verification; that call fails with
// `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched: where the call may be about to begin, repeat this
// until it returns. Statements are broken with `partial_sync_interrupt`. Does nothing for NULL.
void partial_sync_cancel_now(const struct PartialSyncCancel *cancel);

// Releases what is in `*cancel` and sets `*cancel` to NULL.
void partial_sync_cancel_free(struct PartialSyncCancel **cancel);

// Answers with a text: a url or a token. `length` is in bytes, or negative: up to NUL. The text is copied.
void partial_sync_answer_text(struct PartialSyncAnswer *answer,
                              const char *text,
                              int64_t length);

// Leaves the change out.
void partial_sync_answer_skip(struct PartialSyncAnswer *answer);

// Puts one statement in the place of the change. `length` is that of `sql` in bytes, or negative: up to NUL. `values` are
// those of its parameters, `values_length` bytes in the format of `PartialSyncBatch`. All is copied.
void partial_sync_answer_rewrite(struct PartialSyncAnswer *answer,
                                 const char *sql,
                                 int64_t length,
                                 const uint8_t *values,
                                 size_t values_length);

// Makes what asked fail with this message.
void partial_sync_answer_fail(struct PartialSyncAnswer *answer, const char *message);

// Checks the value of an option as another language spells it: `text`, or where that is NULL `number`. The error is the one that
// every language has for it; of an option that is not known it names the one that was probably meant.
//
// `language` is `"go"`, `"node"`, `"python"`, `"c"` or `"rust"`. For libraries that stand on this one; `partial_sync_open` checks
// a config by itself.
enum PartialSyncCode partial_sync_option_check(const char *language,
                                               const char *name,
                                               const char *text,
                                               int64_t number,
                                               struct PartialSyncError **error);

// Fails with the error about two names of one option that were given with different values.
enum PartialSyncCode partial_sync_option_same(const char *first,
                                              const char *second,
                                              struct PartialSyncError **error);

// Opens a database and puts its handle in `*database`; close it with `partial_sync_close`. A replica that is not there
// yet is made first, which asks the remote for the bootstrap.
enum PartialSyncCode partial_sync_open(const struct PartialSyncConfig *config,
                                       struct PartialSyncDatabase **database,
                                       struct PartialSyncError **error);

// Closes the database in `*database` and sets `*database` to NULL. Connections and statements that are still there go
// on working; the files are given back when they are gone. No other thread may be using the handle. A function of the
// database may call it, as `partial_sync_finalize`.
void partial_sync_close(struct PartialSyncDatabase **database);

// Waits, for at most `wait_ms` milliseconds, for pages that are still streaming in: a query continues as soon as its own page
// has come, and the pages around it come later. For programs that end after a query, before closing. False when they have
// not come in time, at once for a function of the database, and for NULL.
bool partial_sync_settle(const struct PartialSyncDatabase *database,
                         uint64_t wait_ms);

// Opens a connection and puts its handle in `*connection`; close it with `partial_sync_connection_close`. Take one for
// each thread that works at the same time.
enum PartialSyncCode partial_sync_connect(const struct PartialSyncDatabase *database,
                                          struct PartialSyncConnection **connection,
                                          struct PartialSyncError **error);

// Whether the database is a replica of a remote, reachable or not, and no plain local one. False for NULL.
bool partial_sync_is_replica(const struct PartialSyncDatabase *database);

// Fails with `PARTIAL_SYNC_CODE_MISUSE` when this thread runs a function of the database, which would wait for what is called
// there. For libraries that stand on this one and have waits of their own; this one's own functions ask by themselves.
enum PartialSyncCode partial_sync_may_wait(const struct PartialSyncDatabase *database,
                                           struct PartialSyncError **error);

// Replaces the bearer token, from any thread; the next request carries it, a retry included. Only for a database that
// was opened with a token (`""` counts, and sends none).
enum PartialSyncCode partial_sync_set_auth_token(const struct PartialSyncDatabase *database,
                                                 const char *token,
                                                 struct PartialSyncError **error);

// Puts the revision of the remote that the replica is at in `*revision`: an opaque text, NULL for a plain local
// database. Release it with `partial_sync_string_free`.
enum PartialSyncCode partial_sync_revision(const struct PartialSyncDatabase *database,
                                           char **revision,
                                           struct PartialSyncError **error);

// Releases a text that a function of this library gave away, and sets `*string` to NULL.
void partial_sync_string_free(char **string);

// Brings the remote's changes and puts local ones that were not pushed back on top. `*changed` (may be NULL) tells
// whether anything came.
enum PartialSyncCode partial_sync_pull(const struct PartialSyncDatabase *database,
                                       bool *changed,
                                       struct PartialSyncError **error);

// The same, letting the remote wait `wait_ms` milliseconds for a change before it answers that there is none.
enum PartialSyncCode partial_sync_pull_waiting(const struct PartialSyncDatabase *database,
                                               uint64_t wait_ms,
                                               bool *changed,
                                               struct PartialSyncError **error);

// Sends local changes to the remote, whole transactions in order. What the remote confirmed is done, also when a later
// batch fails.
enum PartialSyncCode partial_sync_push(const struct PartialSyncDatabase *database,
                                       struct PartialSyncError **error);

// Gives up one local change: it is neither pushed nor put back, and what it did is gone from here with the next pull. The
// way out when the remote refuses it. `*found` (may be NULL): whether there was such a change.
enum PartialSyncCode partial_sync_discard_change(const struct PartialSyncDatabase *database,
                                                 int64_t change,
                                                 bool *found,
                                                 struct PartialSyncError **error);

// The same, with every later change that cannot stay without it: of the same row, of rows that refer to it by a foreign
// key, and for a schema change of whatever it made or altered. `*discarded` (may be NULL): how many changes that were.
enum PartialSyncCode partial_sync_discard_change_with_dependents(const struct PartialSyncDatabase *database,
                                                                 int64_t change,
                                                                 uint64_t *discarded,
                                                                 struct PartialSyncError **error);

// Moves what is in the write-ahead log into the database file, as far as readers allow.
enum PartialSyncCode partial_sync_checkpoint(const struct PartialSyncDatabase *database,
                                             struct PartialSyncError **error);

// Fetches absent pages: all of them (`query` NULL), or those that a SELECT touches when the remote runs it. `progress`
// and `hydrated` may be NULL.
enum PartialSyncCode partial_sync_hydrate(const struct PartialSyncDatabase *database,
                                          const char *query,
                                          PartialSyncProgress progress,
                                          void *user_data,
                                          struct PartialSyncHydrated *hydrated,
                                          struct PartialSyncError **error);

// Compares every page that is here and not written locally with the remote's. Changes nothing and fetches no page.
// `progress` may be NULL.
enum PartialSyncCode partial_sync_verify(const struct PartialSyncDatabase *database,
                                         PartialSyncProgress progress,
                                         void *user_data,
                                         struct PartialSyncVerified *verified,
                                         struct PartialSyncError **error);

// Breaks the network waits of a pull, push, hydration or verification that runs now, from any thread; that call fails
// with `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched. Does nothing for NULL and for a plain local
// database. Statements are broken with `partial_sync_interrupt`.
void partial_sync_cancel(const struct PartialSyncDatabase *database);

// Fills in `*stats`, whose `size` the caller has set; the text of the revision is `partial_sync_revision`.
enum PartialSyncCode partial_sync_stats(const struct PartialSyncDatabase *database,
                                        struct PartialSyncStats *stats,
                                        struct PartialSyncError **error);

// Closes the connection in `*connection` and sets `*connection` to NULL. An open transaction is rolled back once the
// connection's statements are finalized too. No other thread may be using the handle. A function of its database may call
// it, as `partial_sync_finalize`.
void partial_sync_connection_close(struct PartialSyncConnection **connection);

// Runs every statement of `sql` and throws rows away; stops at the first error. `length` is in bytes, or negative: up
// to NUL.
enum PartialSyncCode partial_sync_execute_batch(const struct PartialSyncConnection *connection,
                                                const char *sql,
                                                int64_t length,
                                                struct PartialSyncError **error);

// Compiles the first statement of `sql` and puts its handle in `*statement`: NULL, and no error, when only white space
// and comments are left. `*tail` (may be NULL) is the byte at which the next statement begins, or the length of `sql`
// where none does. `length` is in bytes, or negative: up to NUL. Release the statement with `partial_sync_finalize`; it
// keeps the connection open.
enum PartialSyncCode partial_sync_prepare(const struct PartialSyncConnection *connection,
                                          const char *sql,
                                          int64_t length,
                                          struct PartialSyncStatement **statement,
                                          size_t *tail,
                                          struct PartialSyncError **error);

// Rows that the last finished INSERT, UPDATE or DELETE changed itself. 0 for NULL, and for a function of its database.
uint64_t partial_sync_changes(const struct PartialSyncConnection *connection);

// Rows changed since the connection was opened, by triggers and foreign keys too. 0 for NULL, and for a function of its
// database.
uint64_t partial_sync_total_changes(const struct PartialSyncConnection *connection);

// Rowid of the last row inserted into a table with rowids. 0 for NULL, and for a function of its database.
int64_t partial_sync_last_insert_rowid(const struct PartialSyncConnection *connection);

// True outside of transactions, for NULL, and for a function of its database. A transaction that SQLite has rolled back by
// itself counts until it is ended, see `PARTIAL_SYNC_CODE_TRANSACTION_LOST`.
bool partial_sync_is_autocommit(const struct PartialSyncConnection *connection);

// Rolls back the transaction that is open, if one is, for a caller who has another error to tell. Unlike `ROLLBACK` it ends the
// transaction in any case: what an interrupt keeps from being undone, because a query of the connection is unread, is undone before
// the next statement.
enum PartialSyncCode partial_sync_undo_transaction(const struct PartialSyncConnection *connection,
                                                   struct PartialSyncError **error);

// Sets how many milliseconds a statement waits for a lock that another connection holds. 0 and -1: not at all.
enum PartialSyncCode partial_sync_busy_timeout(const struct PartialSyncConnection *connection,
                                               int32_t ms,
                                               struct PartialSyncError **error);

// Sets how many milliseconds one call may run statements of the connection, waits for the network and for locks included: a call of
// `partial_sync_execute_batch`, `partial_sync_step`, `partial_sync_execute`, `partial_sync_run` or `partial_sync_fetch`. One that takes longer fails
// with `PARTIAL_SYNC_CODE_INTERRUPT`, as if it were interrupted. 0: for ever.
enum PartialSyncCode partial_sync_query_timeout(const struct PartialSyncConnection *connection,
                                                uint32_t ms,
                                                struct PartialSyncError **error);

// Breaks what runs on the connection now, a network wait included, from any thread; it fails with
// `PARTIAL_SYNC_CODE_INTERRUPT`. What begins later is not touched. The connection must not be closed meanwhile: where
// that cannot be ruled out, use a `PartialSyncInterrupt`. Does nothing for NULL.
void partial_sync_interrupt(const struct PartialSyncConnection *connection);

// Puts something that interrupts the connection, and that may outlive it, in `*interrupt`. Release it with
// `partial_sync_interrupt_free`.
enum PartialSyncCode partial_sync_interrupt_new(const struct PartialSyncConnection *connection,
                                                struct PartialSyncInterrupt **interrupt,
                                                struct PartialSyncError **error);

// Breaks what runs on the connection now, like `partial_sync_interrupt`. Does nothing when the connection is closed,
// and for NULL.
void partial_sync_interrupt_now(const struct PartialSyncInterrupt *interrupt);

// Releases what is in `*interrupt` and sets `*interrupt` to NULL.
void partial_sync_interrupt_free(struct PartialSyncInterrupt **interrupt);

// Releases the statement in `*statement` and sets `*statement` to NULL, also when it fails: with what ending its current
// execution failed with, which `partial_sync_step` has not told. No other thread may be using the handle. A function of its
// database may call it: the statement is then released as soon as the database does not wait for the function any more.
enum PartialSyncCode partial_sync_finalize(struct PartialSyncStatement **statement);

// Runs until the next row: `*row` is true when there is one, false at the end. After the end it starts over. After an
// error it is reset, and may be stepped again.
//
// A statement that writes runs to its end before its first row (of `RETURNING`) is handed out: when this succeeds, it has
// made all its changes, and outside of a transaction they are committed.
//
// This is where the network may be waited for: an absent page is fetched in the middle of the step.
enum PartialSyncCode partial_sync_step(const struct PartialSyncStatement *statement,
                                       bool *row,
                                       struct PartialSyncError **error);

// Steps to the end, throws rows away, and resets. `*changes` (may be NULL) is the number of rows that it changed.
enum PartialSyncCode partial_sync_execute(const struct PartialSyncStatement *statement,
                                          uint64_t *changes,
                                          struct PartialSyncError **error);

// Ends the current execution; parameters stay bound. Fails when what was executed could not be ended well. Does nothing
// for NULL.
enum PartialSyncCode partial_sync_reset(const struct PartialSyncStatement *statement);

// Makes every parameter NULL. Does nothing for NULL.
void partial_sync_clear_bindings(const struct PartialSyncStatement *statement);

// Number of parameters: the largest index. 0 for NULL.
size_t partial_sync_parameter_count(const struct PartialSyncStatement *statement);

// Name of parameter `index` (from 1) with its prefix; NULL for a plain `?`. Valid until the statement is stepped, reset
// or finalized.
const char *partial_sync_parameter_name(const struct PartialSyncStatement *statement,
                                        size_t index);

// Index (from 1) of the parameter called `name`, with its prefix (`":a"`, `"@a"`, `"$a"`); 0 when there is none. With it
// every `partial_sync_bind_*` binds by name.
size_t partial_sync_parameter_index(const struct PartialSyncStatement *statement,
                                    const char *name);

// Binds NULL to parameter `index` (from 1).
enum PartialSyncCode partial_sync_bind_null(const struct PartialSyncStatement *statement,
                                            size_t index,
                                            struct PartialSyncError **error);

// Binds an integer to parameter `index` (from 1).
enum PartialSyncCode partial_sync_bind_int64(const struct PartialSyncStatement *statement,
                                             size_t index,
                                             int64_t value,
                                             struct PartialSyncError **error);

// Binds a floating-point number to parameter `index` (from 1); NaN binds NULL, as SQLite has none.
enum PartialSyncCode partial_sync_bind_double(const struct PartialSyncStatement *statement,
                                              size_t index,
                                              double value,
                                              struct PartialSyncError **error);

// Binds a copy of a text to parameter `index` (from 1). `length` is in bytes, or negative: up to NUL. The text must be
// UTF-8. To bind no text, use `partial_sync_bind_null`: a NULL `value` is an error, unless the length is 0.
enum PartialSyncCode partial_sync_bind_text(const struct PartialSyncStatement *statement,
                                            size_t index,
                                            const char *value,
                                            int64_t length,
                                            struct PartialSyncError **error);

// Binds a copy of `length` bytes to parameter `index` (from 1). No bytes are an empty blob, not NULL.
enum PartialSyncCode partial_sync_bind_blob(const struct PartialSyncStatement *statement,
                                            size_t index,
                                            const uint8_t *value,
                                            size_t length,
                                            struct PartialSyncError **error);

// True when the statement itself changes nothing in any database, and for NULL.
bool partial_sync_is_readonly(const struct PartialSyncStatement *statement);

// The text of this statement alone. Valid until it is finalized; NULL for NULL.
const char *partial_sync_sql(const struct PartialSyncStatement *statement);

// Number of columns; 0 for a statement that gives no rows, and for NULL.
size_t partial_sync_column_count(const struct PartialSyncStatement *statement);

// Name of a column (from 0); NULL when there is none. Valid until the statement is stepped, reset or finalized.
const char *partial_sync_column_name(const struct PartialSyncStatement *statement,
                                     size_t column);

// Declared type of the table column behind a column (from 0); NULL for expressions. Valid until the statement is
// stepped, reset or finalized.
const char *partial_sync_column_decltype(const struct PartialSyncStatement *statement,
                                         size_t column);

// Type of a value of the current row (column from 0).
enum PartialSyncType partial_sync_column_type(const struct PartialSyncStatement *statement,
                                              size_t column);

// A number of the current row as an integer: a floating-point one is cut towards zero, at most as large as fits. 0 for
// other types: CAST in the query where text shall become a number.
int64_t partial_sync_column_int64(const struct PartialSyncStatement *statement,
                                  size_t column);

// A number of the current row as a floating-point one; 0 for other types.
double partial_sync_column_double(const struct PartialSyncStatement *statement, size_t column);

// A text of the current row, with NUL behind it; NULL for other types. `*length` (may be NULL) is its length in bytes:
// it may hold NUL too. Valid until the statement is stepped, reset or finalized.
const char *partial_sync_column_text(const struct PartialSyncStatement *statement,
                                     size_t column,
                                     size_t *length);

// The bytes of a blob or text of the current row, not copied; NULL for other types, never NULL for an empty one.
// `*length` (may be NULL) tells how many. Valid until the statement is stepped, reset or finalized.
const uint8_t *partial_sync_column_blob(const struct PartialSyncStatement *statement,
                                        size_t column,
                                        size_t *length);

// The current row at once: fills in `values[0]` to `values[count - 1]`, which must be the number of columns. Pointers
// in them are valid until the statement is stepped, reset or finalized. For callers to whom a call is expensive.
enum PartialSyncCode partial_sync_row(const struct PartialSyncStatement *statement,
                                      struct PartialSyncValue *values,
                                      size_t count,
                                      struct PartialSyncError **error);

// Binds all parameters and runs the statement from its beginning: fills in `*batch` with at most `rows` rows. With 0 rows
// it runs to its end and throws rows away. One call is a whole execution, or the first part of one that
// `partial_sync_fetch` continues with.
//
// `parameters` are `length` bytes in the format of `PartialSyncBatch`: one value for each parameter, in the order of
// their indexes. Bytes of texts are bound as they are, also where they are not UTF-8.
//
// A statement that writes runs to its end before its first row (of `RETURNING`) is handed out, and outside of a
// transaction is committed then.
//
// The batch has at least one row unless the statement is done. It ends early when it holds `bytes` bytes or more (0:
// 64 KiB), or when the rows take long to come.
//
// After an error the statement is reset, and may be run again. An error behind rows of a batch comes from the next fetch.
enum PartialSyncCode partial_sync_run(const struct PartialSyncStatement *statement,
                                      const uint8_t *parameters,
                                      size_t length,
                                      size_t rows,
                                      size_t bytes,
                                      struct PartialSyncBatch *batch,
                                      struct PartialSyncError **error);

// Goes on with what `partial_sync_run` began: fills in `*batch` with at most `rows` more rows (0: as many as fit), as
// described there. When the statement was done already, the batch has no row.
enum PartialSyncCode partial_sync_fetch(const struct PartialSyncStatement *statement,
                                        size_t rows,
                                        size_t bytes,
                                        struct PartialSyncBatch *batch,
                                        struct PartialSyncError **error);

// Fills in `*description`: names and declared types of the columns, names of the parameters.
enum PartialSyncCode partial_sync_describe(const struct PartialSyncStatement *statement,
                                           struct PartialSyncDescription *description,
                                           struct PartialSyncError **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* PARTIAL_SYNC_H */
