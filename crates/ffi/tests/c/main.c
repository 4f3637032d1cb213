/*
 * The C ABI as a C program sees it; functions of the caller are in callbacks.c, what a program can do wrong in hostile.c.
 * Run by tests/it/c_abi.rs, which serves two urls: one of a database that answers, and one behind a proxy that can be told to
 * keep silent. What to do is asked for on stdout, line by line; each line is answered on stdin when it is done.
 *
 *     main URL HANGING-URL UNREACHABLE-URL GUARDED-URL FOLDER
 */
#include "support.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static void versions(void)
{
    EXPECT(strchr(partial_sync_version(), '.') != NULL);
    EXPECT(partial_sync_sqlite_version()[0] == '3');
}

static void null_is_an_error_and_never_a_crash(void)
{
    PartialSyncDatabase *db = NULL;
    PartialSyncConnection *conn = NULL;
    PartialSyncStatement *stmt = NULL;
    PartialSyncInterrupt *interrupt = NULL;
    PartialSyncVerified verified;
    PartialSyncStats stats = {.size = sizeof stats};
    PartialSyncConfig config = {.size = sizeof config};
    char *string = NULL;
    bool row = true;

    FAILS(partial_sync_open(NULL, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "config is NULL");
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "config.path");
    config.path = ":memory:";
    FAILS(partial_sync_open(&config, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "database is NULL");
    FAILS(partial_sync_connect(NULL, &conn, &error), PARTIAL_SYNC_CODE_MISUSE, "database is NULL");
    FAILS(partial_sync_push(NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_pull(NULL, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_pull_waiting(NULL, 1, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_checkpoint(NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_hydrate(NULL, NULL, NULL, NULL, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_verify(NULL, NULL, NULL, &verified, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_discard_change(NULL, 1, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_set_auth_token(NULL, "x", &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_revision(NULL, &string, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_stats(NULL, &stats, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_execute_batch(NULL, "SELECT 1", -1, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_prepare(NULL, "SELECT 1", -1, &stmt, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_busy_timeout(NULL, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_interrupt_new(NULL, &interrupt, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_step(NULL, &row, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_execute(NULL, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_bind_null(NULL, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_row(NULL, NULL, 0, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    EXPECT(partial_sync_step(NULL, NULL, NULL) == PARTIAL_SYNC_CODE_MISUSE);

    EXPECT(partial_sync_error_code(NULL) == PARTIAL_SYNC_CODE_OK);
    EXPECT(partial_sync_error_message(NULL) == NULL && partial_sync_error_sqlite_code(NULL) == 0);
    EXPECT(!partial_sync_error_is_transient(NULL) && partial_sync_error_change(NULL) == 0);
    EXPECT(partial_sync_error_page(NULL) == 0);
    EXPECT(!partial_sync_is_replica(NULL) && partial_sync_is_autocommit(NULL));
    EXPECT(partial_sync_changes(NULL) == 0 && partial_sync_total_changes(NULL) == 0);
    EXPECT(partial_sync_last_insert_rowid(NULL) == 0);
    EXPECT(partial_sync_column_count(NULL) == 0 && partial_sync_column_name(NULL, 0) == NULL);
    EXPECT(partial_sync_column_decltype(NULL, 0) == NULL && partial_sync_sql(NULL) == NULL);
    EXPECT(partial_sync_column_type(NULL, 0) == PARTIAL_SYNC_TYPE_NULL);
    EXPECT(partial_sync_column_int64(NULL, 0) == 0 && partial_sync_column_double(NULL, 0) == 0);
    EXPECT(partial_sync_column_text(NULL, 0, NULL) == NULL);
    EXPECT(partial_sync_column_blob(NULL, 0, NULL) == NULL);
    EXPECT(partial_sync_parameter_count(NULL) == 0 && partial_sync_parameter_index(NULL, ":a") == 0);
    EXPECT(partial_sync_parameter_name(NULL, 1) == NULL && partial_sync_is_readonly(NULL));
    partial_sync_reset(NULL);
    partial_sync_clear_bindings(NULL);
    partial_sync_interrupt(NULL);
    partial_sync_interrupt_now(NULL);
    partial_sync_cancel(NULL);

    /* Releasing nothing, and releasing twice. */
    partial_sync_error_free(NULL);
    partial_sync_error_free(&error);
    partial_sync_close(NULL);
    partial_sync_close(&db);
    partial_sync_connection_close(&conn);
    partial_sync_finalize(&stmt);
    partial_sync_interrupt_free(&interrupt);
    partial_sync_string_free(&string);
    partial_sync_string_free(NULL);
}

static void a_config_of_another_version_is_read_as_what_it_is(void)
{
    PartialSyncDatabase *db = NULL;
    struct {
        PartialSyncConfig known;
        uint64_t field_of_a_later_version;
    } later = {.known = {.size = sizeof later, .path = ":memory:"}};
    OK(partial_sync_open(&later.known, &db, &error));
    EXPECT(!partial_sync_is_replica(db));
    partial_sync_close(&db);
    partial_sync_close(&db);
    later.field_of_a_later_version = 1;
    FAILS(partial_sync_open(&later.known, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "older than the header");

    struct {
        size_t size;
        const char *path;
    } earlier = {.size = sizeof earlier, .path = ":memory:"};
    OK(partial_sync_open((PartialSyncConfig *)&earlier, &db, &error));
    struct {
        size_t size;
        uint64_t cdc_operations, guard;
    } stats = {.size = 16, .cdc_operations = 7, .guard = 7};
    OK(partial_sync_stats(db, (PartialSyncStats *)&stats, &error));
    EXPECT(stats.size == 16 && stats.cdc_operations == 0 && stats.guard == 7);
    partial_sync_close(&db);

    PartialSyncConfig config = {.size = 0, .path = ":memory:"};
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "sizeof");
    config = (PartialSyncConfig){.size = sizeof config, .path = "\xff\xfe"};
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "not UTF-8");
    config = (PartialSyncConfig){
        .size = sizeof config, .path = ":memory:", .bootstrap_prefix = 1, .bootstrap_query = "SELECT 1"};
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "one of them");
    EXPECT(db == NULL);
}

static void b1_a_statement_that_writes_is_committed_before_its_first_row(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:"};
    PartialSyncDatabase *db;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db), *other = connect_to(db);
    OK(partial_sync_execute_batch(conn,
        "PRAGMA foreign_keys = ON; CREATE TABLE p(id INTEGER PRIMARY KEY);"
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p REFERENCES p DEFERRABLE INITIALLY DEFERRED)", -1, &error));
    bool row = true;
    PartialSyncStatement *stmt = prepare(conn, "INSERT INTO c(p) VALUES (7), (8) RETURNING id");
    FAILS(partial_sync_step(stmt, &row, &error), PARTIAL_SYNC_CODE_CONSTRAINT, "FOREIGN KEY");
    EXPECT(!row && partial_sync_is_autocommit(conn));
    EXPECT(partial_sync_finalize(&stmt) == PARTIAL_SYNC_CODE_OK);
    EXPECT(number(conn, "SELECT count(*) FROM c") == 0);

    stmt = prepare(conn, "INSERT INTO p VALUES (7), (8) RETURNING id");
    PartialSyncBatch batch;
    EXPECT(step(stmt) && partial_sync_column_int64(stmt, 0) == 7);
    EXPECT(number(other, "SELECT count(*) FROM p") == 2);
    EXPECT(partial_sync_finalize(&stmt) == PARTIAL_SYNC_CODE_OK && stmt == NULL);

    stmt = prepare(conn, "UPDATE p SET id = id + 2 RETURNING id");
    OK(partial_sync_run(stmt, NULL, 0, 1, 0, &batch, &error));
    EXPECT(batch.rows == 1 && number(other, "SELECT max(id) FROM p") == 10);
    EXPECT(partial_sync_reset(stmt) == PARTIAL_SYNC_CODE_OK);
    partial_sync_finalize(&stmt);
    partial_sync_connection_close(&other);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

/* SQLite's locks are the parent's: what a forked child writes to a file that the parent has open would be lost. */
static void b7_a_forked_child_does_not_open_what_its_parent_has_open(const char *url)
{
    if (under_valgrind())
        return; /* It would check the child for leaks too. */
    char path[4096];
    for (int replica = 0; replica < 2; replica++) {
        snprintf(path, sizeof path, "%s", in_folder(replica ? "forked-replica.db" : "forked.db"));
        PartialSyncConfig config = {.size = sizeof config, .path = path, .url = replica ? url : NULL};
        PartialSyncDatabase *db;
        OK(partial_sync_open(&config, &db, &error));
        PartialSyncConnection *conn = connect_to(db);
        OK(partial_sync_execute_batch(conn, "CREATE TABLE IF NOT EXISTS forked(id)", -1, &error));
        pid_t child = fork();
        EXPECT(child >= 0);
        if (child == 0) {
            PartialSyncDatabase *its = NULL;
            PartialSyncConnection *opened = NULL;
            PartialSyncCode code = partial_sync_open(&config, &its, &error);
            if (code == PARTIAL_SYNC_CODE_OK)
                code = partial_sync_connect(its, &opened, &error);
            _exit(code != PARTIAL_SYNC_CODE_OK && strstr(partial_sync_error_message(error), "forked") ? 0 : 1);
        }
        int status = 1;
        EXPECT(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
        OK(partial_sync_execute_batch(conn, "INSERT INTO forked VALUES (1)", -1, &error));
        partial_sync_connection_close(&conn);
        partial_sync_close(&db);
    }
}

static void b3_a_transaction_that_was_rolled_back_takes_nothing_until_it_is_ended(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:"};
    PartialSyncDatabase *db;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db);
    OK(partial_sync_execute_batch(conn, "CREATE TABLE t(id INTEGER PRIMARY KEY)", -1, &error));
    for (int i = 0; i < 2; i++) {
        const char *end = i == 0 ? "ROLLBACK" : "COMMIT";
        OK(partial_sync_execute_batch(conn, "BEGIN; INSERT INTO t VALUES (1)", -1, &error));
        FAILS(partial_sync_execute_batch(conn, "INSERT OR ROLLBACK INTO t VALUES (1)", -1, &error),
              PARTIAL_SYNC_CODE_CONSTRAINT, "UNIQUE");
        EXPECT(!partial_sync_is_autocommit(conn));
        FAILS(partial_sync_execute_batch(conn, "INSERT INTO t VALUES (2)", -1, &error),
              PARTIAL_SYNC_CODE_TRANSACTION_LOST, "end it with ROLLBACK");
        FAILS(partial_sync_execute_batch(conn, "BEGIN", -1, &error), PARTIAL_SYNC_CODE_TRANSACTION_LOST, "UNIQUE");
        PartialSyncCode ended = partial_sync_execute_batch(conn, end, -1, NULL);
        EXPECT(ended == (i == 0 ? PARTIAL_SYNC_CODE_OK : PARTIAL_SYNC_CODE_TRANSACTION_LOST));
        EXPECT(partial_sync_is_autocommit(conn) && number(conn, "SELECT count(*) FROM t") == 0);
    }
    OK(partial_sync_execute_batch(conn, "BEGIN; INSERT INTO t VALUES (3); COMMIT", -1, &error));
    EXPECT(number(conn, "SELECT count(*) FROM t") == 1);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

static void every_type_goes_in_and_out(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:"};
    PartialSyncDatabase *db;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db);
    OK(partial_sync_execute_batch(
        conn, "CREATE TABLE v(i INTEGER, r REAL, s TEXT, b BLOB, n); CREATE TABLE u(k UNIQUE)", -1, &error));

    PartialSyncStatement *stmt = prepare(conn, "INSERT INTO v VALUES (?1, :r, @s, $b, ?)");
    EXPECT(partial_sync_parameter_count(stmt) == 5);
    EXPECT(strcmp(partial_sync_parameter_name(stmt, 2), ":r") == 0);
    EXPECT(partial_sync_parameter_name(stmt, 5) == NULL);
    EXPECT(partial_sync_parameter_index(stmt, "$b") == 4 && partial_sync_parameter_index(stmt, "b") == 0);
    EXPECT(!partial_sync_is_readonly(stmt) && partial_sync_column_count(stmt) == 0);
    OK(partial_sync_bind_int64(stmt, 1, INT64_MIN, &error));
    OK(partial_sync_bind_double(stmt, partial_sync_parameter_index(stmt, ":r"), 0.5, &error));
    OK(partial_sync_bind_text(stmt, 3, "gr\xc3\xbc\xc3\x9f\0e and more", 8, &error));
    OK(partial_sync_bind_blob(stmt, 4, (const uint8_t *)"\xff\0\xfe", 3, &error));
    OK(partial_sync_bind_null(stmt, 5, &error));
    FAILS(partial_sync_bind_text(stmt, 3, "\xc3(", -1, &error), PARTIAL_SYNC_CODE_MISUSE, "not UTF-8");
    FAILS(partial_sync_bind_text(stmt, 3, NULL, -1, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_bind_blob(stmt, 4, NULL, 3, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_bind_int64(stmt, 6, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "no parameter 6");
    FAILS(partial_sync_bind_int64(stmt, 0, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "no parameter 0");
    FAILS(partial_sync_bind_int64(stmt, SIZE_MAX, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "no parameter");
    uint64_t changes = 9;
    OK(partial_sync_execute(stmt, &changes, &error));
    EXPECT(changes == 1 && partial_sync_changes(conn) == 1 && partial_sync_last_insert_rowid(conn) == 1);
    partial_sync_clear_bindings(stmt);
    OK(partial_sync_bind_text(stmt, 3, NULL, 0, &error));
    OK(partial_sync_bind_blob(stmt, 4, NULL, 0, &error));
    OK(partial_sync_bind_double(stmt, 5, NAN, &error));
    EXPECT(!step(stmt));
    EXPECT(partial_sync_total_changes(conn) == 2);
    partial_sync_finalize(&stmt);
    EXPECT(stmt == NULL);
    partial_sync_finalize(&stmt);

    stmt = prepare(conn, "SELECT i, r, s, b, n, 1 + 1 AS two FROM v ORDER BY rowid");
    EXPECT(partial_sync_is_readonly(stmt));
    EXPECT(strcmp(partial_sync_sql(stmt), "SELECT i, r, s, b, n, 1 + 1 AS two FROM v ORDER BY rowid") == 0);
    EXPECT(partial_sync_column_count(stmt) == 6);
    const char *name = partial_sync_column_name(stmt, 5);
    EXPECT(strcmp(name, "two") == 0 && partial_sync_column_name(stmt, 5) == name);
    EXPECT(strcmp(partial_sync_column_decltype(stmt, 1), "REAL") == 0);
    EXPECT(partial_sync_column_decltype(stmt, 5) == NULL && partial_sync_column_name(stmt, 6) == NULL);
    EXPECT(partial_sync_column_type(stmt, 0) == PARTIAL_SYNC_TYPE_NULL);

    size_t length = 99;
    EXPECT(step(stmt));
    EXPECT(partial_sync_column_type(stmt, 0) == PARTIAL_SYNC_TYPE_INTEGER);
    EXPECT(partial_sync_column_int64(stmt, 0) == INT64_MIN && partial_sync_column_double(stmt, 0) < -9e18);
    EXPECT(partial_sync_column_double(stmt, 1) == 0.5 && partial_sync_column_int64(stmt, 1) == 0);
    const char *text = partial_sync_column_text(stmt, 2, &length);
    EXPECT(length == 8 && memcmp(text, "gr\xc3\xbc\xc3\x9f\0e", 9) == 0);
    EXPECT(partial_sync_column_text(stmt, 2, NULL) == text && partial_sync_column_int64(stmt, 2) == 0);
    const uint8_t *blob = partial_sync_column_blob(stmt, 3, &length);
    EXPECT(length == 3 && memcmp(blob, "\xff\0\xfe", 3) == 0);
    EXPECT(partial_sync_column_text(stmt, 3, &length) == NULL && length == 0);
    EXPECT(partial_sync_column_type(stmt, 4) == PARTIAL_SYNC_TYPE_NULL);
    EXPECT(partial_sync_column_blob(stmt, 4, &length) == NULL && length == 0);

    PartialSyncValue row[6];
    FAILS(partial_sync_row(stmt, row, 5, &error), PARTIAL_SYNC_CODE_MISUSE, "6 columns");
    OK(partial_sync_row(stmt, row, 6, &error));
    EXPECT(row[0].type == PARTIAL_SYNC_TYPE_INTEGER && row[0].integer == INT64_MIN);
    EXPECT(row[1].type == PARTIAL_SYNC_TYPE_REAL && row[1].real == 0.5);
    EXPECT(row[2].type == PARTIAL_SYNC_TYPE_TEXT && row[2].length == 8 && row[2].bytes[0] == 'g');
    EXPECT(row[3].type == PARTIAL_SYNC_TYPE_BLOB && row[3].length == 3);
    EXPECT(row[4].type == PARTIAL_SYNC_TYPE_NULL && row[4].bytes == NULL && row[5].integer == 2);

    EXPECT(step(stmt));
    EXPECT(partial_sync_column_type(stmt, 0) == PARTIAL_SYNC_TYPE_NULL);
    EXPECT(strcmp(partial_sync_column_text(stmt, 2, &length), "") == 0 && length == 0);
    EXPECT(partial_sync_column_blob(stmt, 3, &length) != NULL && length == 0);
    EXPECT(partial_sync_column_type(stmt, 4) == PARTIAL_SYNC_TYPE_NULL);
    EXPECT(!step(stmt));
    FAILS(partial_sync_row(stmt, row, 6, &error), PARTIAL_SYNC_CODE_MISUSE, "not on a row");
    EXPECT(step(stmt));
    partial_sync_reset(stmt);
    partial_sync_finalize(&stmt);

    /* A script, statement by statement. */
    const char *script = "INSERT INTO u VALUES (1);  -- then\n SELECT 1; -- done\n";
    size_t tail;
    OK(partial_sync_prepare(conn, script, -1, &stmt, &tail, &error));
    EXPECT(stmt != NULL && tail == 36);
    OK(partial_sync_execute(stmt, NULL, &error));
    partial_sync_finalize(&stmt);
    script += tail;
    OK(partial_sync_prepare(conn, script, (int64_t)strlen(script), &stmt, &tail, &error));
    EXPECT(stmt != NULL && tail == strlen(script));
    partial_sync_finalize(&stmt);
    OK(partial_sync_prepare(conn, " -- nothing", -1, &stmt, &tail, &error));
    EXPECT(stmt == NULL && tail == 11);

    /* What SQLite refuses. */
    EXPECT(partial_sync_execute_batch(conn, "INSERT INTO u VALUES (1)", -1, &error) ==
           PARTIAL_SYNC_CODE_CONSTRAINT);
    EXPECT(partial_sync_error_sqlite_code(error) == 2067 && !partial_sync_error_is_transient(error));
    partial_sync_error_free(&error);
    FAILS(partial_sync_execute_batch(conn, "SELECT * FROM nowhere", -1, &error), PARTIAL_SYNC_CODE_SQL, "nowhere");
    EXPECT(partial_sync_execute_batch(conn, "SELEC", -1, NULL) == PARTIAL_SYNC_CODE_SQL);
    FAILS(partial_sync_push(db, &error), PARTIAL_SYNC_CODE_NO_REMOTE, "without one");
    OK(partial_sync_checkpoint(db, &error));

    OK(partial_sync_execute_batch(conn, "BEGIN; DELETE FROM v", -1, &error));
    EXPECT(!partial_sync_is_autocommit(conn));
    OK(partial_sync_execute_batch(conn, "ROLLBACK", 8, &error));
    EXPECT(partial_sync_is_autocommit(conn) && number(conn, "SELECT count(*) FROM v") == 2);

    /* Releasing and ending nothing succeeds. */
    EXPECT(partial_sync_finalize(&stmt) == PARTIAL_SYNC_CODE_OK);
    EXPECT(partial_sync_reset(stmt) == PARTIAL_SYNC_CODE_OK);

    /* Released in the wrong order: each keeps what it needs. */
    stmt = prepare(conn, "SELECT count(*) FROM v");
    PartialSyncInterrupt *interrupt = NULL;
    OK(partial_sync_interrupt_new(conn, &interrupt, &error));
    partial_sync_close(&db);
    partial_sync_connection_close(&conn);
    EXPECT(step(stmt) && partial_sync_column_int64(stmt, 0) == 2);
    partial_sync_finalize(&stmt);
    partial_sync_interrupt_now(interrupt);
    partial_sync_interrupt_free(&interrupt);
}

static void a_locked_database_is_busy(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = in_folder("locked.db"), .busy_timeout_ms = -1};
    PartialSyncDatabase *db;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *one = connect_to(db), *two = connect_to(db);
    OK(partial_sync_execute_batch(one, "CREATE TABLE t(x); BEGIN IMMEDIATE", -1, &error));
    EXPECT(partial_sync_execute_batch(two, "BEGIN IMMEDIATE", -1, &error) == PARTIAL_SYNC_CODE_BUSY);
    EXPECT(partial_sync_error_is_transient(error));
    partial_sync_error_free(&error);
    OK(partial_sync_busy_timeout(two, 1, &error));
    FAILS(partial_sync_execute_batch(two, "BEGIN IMMEDIATE", -1, &error), PARTIAL_SYNC_CODE_BUSY, "locked");
    FAILS(partial_sync_busy_timeout(two, -2, &error), PARTIAL_SYNC_CODE_MISUSE, "-2");
    partial_sync_connection_close(&one);
    partial_sync_connection_close(&two);
    partial_sync_close(&db);
}

struct interrupting {
    PartialSyncConnection *conn;
    bool enough;
};

static void *interrupt_it(void *argument)
{
    struct interrupting *interrupting = argument;
    while (!__atomic_load_n(&interrupting->enough, __ATOMIC_ACQUIRE)) {
        partial_sync_interrupt(interrupting->conn);
        usleep(1000);
    }
    return NULL;
}

static void a_commit_that_is_broken_while_it_waits_commits_nothing_and_ends_nothing(void)
{
    PartialSyncDatabase *db = open_local(in_folder("waits.db"));
    PartialSyncConnection *one = connect_to(db), *two = connect_to(db);
    OK(partial_sync_execute_batch(one, "CREATE TABLE t(x); INSERT INTO t VALUES (1), (2)", -1, &error));
    for (int interrupted = 0; interrupted < 2; interrupted++) {
        PartialSyncStatement *reads = prepare(two, "SELECT x FROM t");
        EXPECT(step(reads));
        OK(partial_sync_busy_timeout(one, interrupted ? 15 * 1000 : 1, &error));
        OK(partial_sync_execute_batch(one, "BEGIN; INSERT INTO t VALUES (3)", -1, &error));
        struct interrupting interrupting = {.conn = one, .enough = !interrupted};
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, interrupt_it, &interrupting) == 0);
        EXPECT(partial_sync_execute_batch(one, "COMMIT", -1, &error) ==
               (interrupted ? PARTIAL_SYNC_CODE_INTERRUPT : PARTIAL_SYNC_CODE_BUSY));
        partial_sync_error_free(&error);
        __atomic_store_n(&interrupting.enough, true, __ATOMIC_RELEASE);
        EXPECT(pthread_join(thread, NULL) == 0);
        EXPECT(!partial_sync_is_autocommit(one));
        partial_sync_finalize(&reads);
        OK(partial_sync_execute_batch(one, "COMMIT", -1, &error));
        EXPECT(number(two, "SELECT count(*) FROM t") == 3 + interrupted);
    }
    partial_sync_connection_close(&one);
    partial_sync_connection_close(&two);
    partial_sync_close(&db);
}

static void progress(void *user_data, uint32_t done, uint32_t total)
{
    uint32_t *seen = user_data;
    EXPECT(done <= total);
    *seen = done;
}

static void what_one_replica_pushes_another_one_pulls(const char *url)
{
    PartialSyncDatabase *db = open_prefix(url, "one.db");
    PartialSyncDatabase *other = open_prefix(url, "two.db");
    EXPECT(partial_sync_is_replica(db));
    PartialSyncStats stats = {.size = sizeof stats};
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.pages_present >= 4 && stats.pages_present < stats.pages_total);
    EXPECT(stats.requests == 1 && stats.network_received_bytes > 0 && stats.page_size == 4096);
    EXPECT(stats.last_pull_unix_time > 0 && stats.last_push_unix_time == 0);

    PartialSyncConnection *conn = connect_to(db), *other_conn = connect_to(other);
    EXPECT(number(conn, "SELECT length(v) FROM t WHERE id = 4000") == 100);
    uint64_t requests = stats.requests;
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.requests > requests);
    EXPECT(partial_sync_settle(db, 20000) && !partial_sync_settle(NULL, 0));

    /* RETURNING is kept by the recorder: its text ends with NUL too. */
    PartialSyncStatement *stmt =
        prepare(conn, "INSERT INTO t(id, v) VALUES (?, ?) RETURNING id, 'got ' || v AS got, NULL, x'01'");
    OK(partial_sync_bind_int64(stmt, 1, 100001, &error));
    OK(partial_sync_bind_text(stmt, 2, "from C", -1, &error));
    EXPECT(step(stmt));
    size_t length;
    EXPECT(partial_sync_column_int64(stmt, 0) == 100001);
    EXPECT(strcmp(partial_sync_column_text(stmt, 1, &length), "got from C") == 0 && length == 10);
    EXPECT(partial_sync_column_type(stmt, 2) == PARTIAL_SYNC_TYPE_NULL);
    EXPECT(partial_sync_column_blob(stmt, 3, &length)[0] == 1 && length == 1);
    EXPECT(!step(stmt));
    EXPECT(partial_sync_changes(conn) == 1 && partial_sync_last_insert_rowid(conn) == 100001);
    partial_sync_finalize(&stmt);

    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.cdc_operations == 1 && stats.pages_dirty > 0);
    OK(partial_sync_push(db, &error));
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.cdc_operations == 0 && stats.last_push_unix_time > 0);

    bool changed = false;
    char *before = NULL, *after = NULL;
    OK(partial_sync_revision(other, &before, &error));
    OK(partial_sync_pull(other, &changed, &error));
    EXPECT(changed);
    OK(partial_sync_revision(other, &after, &error));
    EXPECT(strcmp(before, after) != 0);
    partial_sync_string_free(&before);
    partial_sync_string_free(&after);
    EXPECT(after == NULL);
    EXPECT(number(other_conn, "SELECT v = 'from C' FROM t WHERE id = 100001") == 1);
    OK(partial_sync_pull(other, &changed, &error));
    EXPECT(!changed);
    OK(partial_sync_pull_waiting(other, 1, &changed, &error));
    EXPECT(!changed);

    /* A change that the remote refuses. */
    OK(partial_sync_pull(db, NULL, &error));
    ask("take the name");
    OK(partial_sync_execute_batch(conn, "INSERT INTO names VALUES (2, 'taken')", -1, &error));
    EXPECT(partial_sync_push(db, &error) == PARTIAL_SYNC_CODE_PUSH_CONSTRAINT);
    EXPECT(partial_sync_error_sqlite_code(error) == 2067);
    int64_t change = partial_sync_error_change(error);
    EXPECT(change > 0 && strstr(partial_sync_error_message(error), "UNIQUE") != NULL);
    EXPECT(strstr(partial_sync_error_message(error), " partial_sync_discard_change(") != NULL);
    partial_sync_error_free(&error);
    bool found = false;
    OK(partial_sync_discard_change(db, change, &found, &error));
    EXPECT(found);
    OK(partial_sync_discard_change(db, change, &found, &error));
    EXPECT(!found);
    OK(partial_sync_push(db, &error));
    OK(partial_sync_pull(db, &changed, &error));
    EXPECT(changed && number(conn, "SELECT id FROM names WHERE name = 'taken'") == 1);

    /* Everything, and then nothing differs. */
    uint32_t seen = 0;
    PartialSyncHydrated hydrated;
    OK(partial_sync_hydrate(other, "SELECT v FROM t WHERE id = 2000", NULL, NULL, &hydrated, &error));
    EXPECT(hydrated.absent > 0);
    OK(partial_sync_hydrate(other, NULL, progress, &seen, &hydrated, &error));
    EXPECT(hydrated.absent == 0 && hydrated.fetched > 0 && seen == hydrated.fetched);
    PartialSyncVerified verified;
    OK(partial_sync_verify(other, progress, &seen, &verified, &error));
    EXPECT(verified.compared > 0 && verified.differing == 0 && verified.first_differing == 0);
    OK(partial_sync_checkpoint(other, &error));

    /* A second open joins the first, as far as both want the same. */
    PartialSyncConfig config = {.size = sizeof config, .path = in_folder("one.db"), .url = url};
    PartialSyncDatabase *third = NULL;
    OK(partial_sync_open(&config, &third, &error));
    OK(partial_sync_pull(third, NULL, &error));
    partial_sync_close(&third);
    config.segment_size = 8192;
    FAILS(partial_sync_open(&config, &third, &error), PARTIAL_SYNC_CODE_MISUSE, "another segment size");
    config.segment_size = 0;
    partial_sync_connection_close(&conn);
    partial_sync_connection_close(&other_conn);
    partial_sync_close(&db);
    partial_sync_close(&other);
    OK(partial_sync_open(&config, &third, &error));
    partial_sync_close(&third);
    config.url = "http://127.0.0.1:9/other";
    FAILS(partial_sync_open(&config, &third, &error), PARTIAL_SYNC_CODE_OTHER_REMOTE, "/other");
}

static void a_query_bootstrap_brings_its_pages(const char *url)
{
    const char *query = "SELECT v FROM t WHERE id BETWEEN 2000 AND 2010";
    PartialSyncConfig config = {
        .size = sizeof config, .path = in_folder("query.db"), .url = url, .bootstrap_query = query, .prefetch = 1};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db);
    PartialSyncStats stats = {.size = sizeof stats};
    OK(partial_sync_stats(db, &stats, &error));
    uint64_t requests = stats.requests;
    EXPECT(number(conn, query) == 0);
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.requests == requests && stats.pages_present < stats.pages_total);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
    config.path = in_folder("bad-query.db");
    config.bootstrap_query = "SELECT * FROM nowhere";
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_REMOTE_REFUSED, "nowhere");
    EXPECT(db == NULL);
}

static void a_replica_can_begin_without_the_remote(const char *url)
{
    PartialSyncConfig config = {
        .size = sizeof config, .path = in_folder("later.db"), .url = url, .bootstrap_prefix = 16 * 1024,
        .bootstrap_if_empty = -1};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncStats stats = {.size = sizeof stats};
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.requests == 0);
    bool changed = false;
    OK(partial_sync_pull(db, &changed, &error));
    EXPECT(changed);
    PartialSyncConnection *conn = connect_to(db);
    EXPECT(number(conn, "SELECT count(*) FROM users WHERE id = 7") == 1);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
    config.bootstrap_if_empty = 2;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"bootstrap_if_empty\" is 2; it must be 1 for yes, -1 for no, or 0 for the default");
}

static void an_option_out_of_range_is_named(const char *url)
{
    PartialSyncDatabase *db = NULL;
    const PartialSyncConfig good = {.size = sizeof good, .path = in_folder("never.db"), .url = url};
    PartialSyncConfig config = good;
    config.segment_size = 67108865;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"segment_size\" is 67108865; it must be a whole number of bytes, 1 to 67108864");
    config = good;
    config.busy_timeout_ms = -2;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"busy_timeout_ms\" is -2; it must be a whole number of milliseconds, 0 to 2147483647");
    config = good;
    config.encryption_key = "k";
    config.encryption_cipher = "rot13";
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"encryption_cipher\" is \"rot13\"; it must be one of 'aes256gcm', ");
    config = good;
    config.client_name = "";
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"client_name\" is \"\"; it must be a string that is not empty");
    config = good;
    config.prefetch = 7;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "option \"prefetch\" is 7; ");
    /* As libraries for other languages ask. */
    OK(partial_sync_option_check("go", "PushOperationsThreshold", NULL, 1, &error));
    FAILS(partial_sync_option_check("go", "PushOperationsThreshold", NULL, -1, &error), PARTIAL_SYNC_CODE_MISUSE,
          "option \"PushOperationsThreshold\" is -1; it must be a whole number of changes, 1 or more");
    FAILS(partial_sync_option_check("go", "?_txlok", "x", 0, &error), PARTIAL_SYNC_CODE_MISUSE,
          "unknown option \"_txlok\"; did you mean \"_txlock\"?");
    FAILS(partial_sync_option_check("node", "segment", NULL, 0, &error), PARTIAL_SYNC_CODE_MISUSE, "unknown option");
    FAILS(partial_sync_option_check("latin", "x", NULL, 0, &error), PARTIAL_SYNC_CODE_MISUSE, "\"latin\"");
    FAILS(partial_sync_option_check(NULL, NULL, NULL, 0, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    FAILS(partial_sync_option_same("A", "B", &error), PARTIAL_SYNC_CODE_MISUSE,
          "\"A\" and \"B\" are two names of one option");
    FAILS(partial_sync_option_same(NULL, "B", &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
}

static void an_error_of_the_network_names_the_url(const char *unreachable)
{
    PartialSyncConfig config = {
        .size = sizeof config, .path = in_folder("never.db"), .url = unreachable, .bootstrap_prefix = 4096};
    PartialSyncDatabase *db = NULL;
    EXPECT(partial_sync_open(&config, &db, &error) == PARTIAL_SYNC_CODE_NETWORK && db == NULL);
    EXPECT(strstr(partial_sync_error_message(error), unreachable) != NULL);
    EXPECT(partial_sync_error_is_transient(error) && partial_sync_error_sqlite_code(error) == 10);
    partial_sync_error_free(&error);
    config.url = "ftp://example.com";
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "ftp");
}

static void a_token_can_be_wrong_and_be_replaced(const char *guarded)
{
    PartialSyncConfig config = {.size = sizeof config, .path = in_folder("guarded.db"), .url = guarded,
                                .auth_token = "wrong", .bootstrap_prefix = 4096};
    PartialSyncDatabase *db = NULL;
    EXPECT(partial_sync_open(&config, &db, &error) == PARTIAL_SYNC_CODE_UNAUTHORIZED && db == NULL);
    partial_sync_error_free(&error);
    config.auth_token = "right";
    OK(partial_sync_open(&config, &db, &error));
    OK(partial_sync_set_auth_token(db, "expired", &error));
    EXPECT(partial_sync_pull(db, NULL, &error) == PARTIAL_SYNC_CODE_UNAUTHORIZED);
    partial_sync_error_free(&error);
    OK(partial_sync_set_auth_token(db, "right", &error));
    OK(partial_sync_pull(db, NULL, &error));
    partial_sync_close(&db);
}

static void a_replica_follows_its_database_to_a_new_url(const char *url, const char *moved)
{
    PartialSyncDatabase *db = open_prefix(url, "moved.db");
    PartialSyncConnection *conn = connect_to(db);
    OK(partial_sync_execute_batch(conn, "INSERT INTO t VALUES (200001, 'not pushed')", -1, &error));
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);

    PartialSyncConfig config = {.size = sizeof config, .path = in_folder("moved.db"), .url = moved, .auth_token = "right"};
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_OTHER_REMOTE, "accept_new_url");
    config.accept_new_url = 2;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "accept_new_url");
    config.accept_new_url = 1;
    OK(partial_sync_open(&config, &db, &error));
    OK(partial_sync_pull(db, NULL, &error));
    OK(partial_sync_push(db, &error));
    PartialSyncStats stats = {.size = sizeof stats};
    OK(partial_sync_stats(db, &stats, &error));
    EXPECT(stats.cdc_operations == 0);
    partial_sync_close(&db);

    /* Another replica of the new remote has the row. */
    config.path = in_folder("of-moved.db");
    OK(partial_sync_open(&config, &db, &error));
    conn = connect_to(db);
    EXPECT(number(conn, "SELECT v = 'not pushed' FROM t WHERE id = 200001") == 1);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

struct waiting {
    PartialSyncDatabase *db;
    PartialSyncConnection *conn;
    PartialSyncInterrupt *interrupt;
    PartialSyncStatement *in_use;
};

/* Waits until the silent server has a request, then breaks whatever waits for its answer. */
static void *break_it(void *argument)
{
    struct waiting *waiting = argument;
    ask("wait for a request");
    if (waiting->in_use) {
        /* Turned away, not let in. */
        PartialSyncError *mine = NULL;
        bool row = true;
        EXPECT(partial_sync_step(waiting->in_use, &row, &mine) == PARTIAL_SYNC_CODE_MISUSE && !row);
        EXPECT(strstr(partial_sync_error_message(mine), "another thread") != NULL);
        partial_sync_error_free(&mine);
        EXPECT(partial_sync_column_text(waiting->in_use, 0, NULL) == NULL);
        partial_sync_reset(waiting->in_use);
    }
    if (waiting->db)
        partial_sync_cancel(waiting->db);
    if (waiting->conn)
        partial_sync_interrupt(waiting->conn);
    partial_sync_interrupt_now(waiting->interrupt);
    return NULL;
}

static void what_waits_for_a_silent_remote_can_be_broken_by_another_thread(const char *hanging)
{
    PartialSyncDatabase *db = open_prefix(hanging, "hanging.db");
    PartialSyncConnection *conn = connect_to(db);
    PartialSyncInterrupt *interrupt = NULL;
    OK(partial_sync_interrupt_new(conn, &interrupt, &error));
    PartialSyncStatement *stmt = prepare(conn, "SELECT length(v) FROM t WHERE id = ?");
    PartialSyncStatement *write = prepare(conn, "UPDATE t SET v = 'x' WHERE id = 3500");
    OK(partial_sync_bind_int64(stmt, 1, 3000, &error));
    ask("hang");

    pthread_t thread;
    bool row = true;
    struct waiting by_connection = {.conn = conn, .in_use = stmt};
    EXPECT(pthread_create(&thread, NULL, break_it, &by_connection) == 0);
    EXPECT(partial_sync_step(stmt, &row, &error) == PARTIAL_SYNC_CODE_INTERRUPT && !row);
    partial_sync_error_free(&error);
    EXPECT(pthread_join(thread, NULL) == 0);

    struct waiting by_handle = {.interrupt = interrupt};
    EXPECT(pthread_create(&thread, NULL, break_it, &by_handle) == 0);
    EXPECT(partial_sync_step(write, &row, &error) == PARTIAL_SYNC_CODE_INTERRUPT);
    partial_sync_error_free(&error);
    EXPECT(pthread_join(thread, NULL) == 0);

    struct waiting by_database = {.db = db};
    EXPECT(pthread_create(&thread, NULL, break_it, &by_database) == 0);
    FAILS(partial_sync_pull(db, NULL, &error), PARTIAL_SYNC_CODE_INTERRUPT, "cancelled");
    EXPECT(pthread_join(thread, NULL) == 0);

    /* Everything is usable afterwards. */
    ask("answer");
    EXPECT(step(stmt) && partial_sync_column_int64(stmt, 0) == 100);
    partial_sync_reset(stmt);
    uint64_t changes;
    OK(partial_sync_execute(write, &changes, &error));
    EXPECT(changes == 1);
    OK(partial_sync_push(db, &error));
    OK(partial_sync_pull(db, NULL, &error));
    partial_sync_finalize(&stmt);
    partial_sync_finalize(&write);
    partial_sync_interrupt_free(&interrupt);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

static void a_silent_remote_is_a_timeout(const char *hanging)
{
    PartialSyncConfig config = {
        .size = sizeof config, .path = in_folder("hanging.db"), .url = hanging, .timeout_ms = 300};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db);
    ask("hang");
    EXPECT(partial_sync_execute_batch(conn, "SELECT v FROM t WHERE id = 1500", -1, &error) ==
           PARTIAL_SYNC_CODE_TIMEOUT);
    EXPECT(partial_sync_error_is_transient(error) && partial_sync_error_page(error) > 1);
    partial_sync_error_free(&error);
    ask("answer");
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

/* A C program that did not ask for it must not be ended by a connection that the remote closed. */
static void sigpipe_reaches_no_thread_that_writes_to_the_network(void)
{
    sigset_t mask;
    EXPECT(pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && !sigismember(&mask, SIGPIPE));
    /* Valgrind keeps masks of its own. */
    DIR *tasks = under_valgrind() ? NULL : opendir("/proc/self/task");
    if (!tasks)
        return;
    int found = 0;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        char path[512], line[256];
        bool ours = false;
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            unsigned long long blocked;
            if (strncmp(line, "Name:\tpartial-sync", 18) == 0)
                ours = true;
            if (ours && sscanf(line, "SigBlk: %llx", &blocked) == 1) {
                EXPECT(blocked >> (SIGPIPE - 1) & 1);
                found++;
            }
        }
        if (status)
            fclose(status);
    }
    closedir(tasks);
    EXPECT(found >= 2);
}

static void many_rows_come_in_one_call(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:"};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db), *another = connect_to(db);
    OK(partial_sync_execute_batch(conn, "CREATE TABLE n(x INTEGER, name TEXT)", -1, &error));

    PartialSyncStatement *stmt =
        prepare(conn, "INSERT INTO n SELECT value, :name FROM generate_series(1, 1000)");
    PartialSyncDescription description;
    OK(partial_sync_describe(stmt, &description, &error));
    EXPECT(description.columns == 0 && description.parameters == 1 && !description.readonly);
    EXPECT(description.length == 10 && memcmp(description.bytes, "\3\5\0\0\0:name", 10) == 0);
    uint8_t parameters[64];
    size_t length = (size_t)(put_text(parameters, "Ada") - parameters);
    PartialSyncBatch batch;
    OK(partial_sync_run(stmt, parameters, length, 0, 0, &batch, &error));
    EXPECT(batch.done && batch.rows == 0 && batch.changes == 1000 && batch.last_insert_rowid == 1000);
    FAILS(partial_sync_run(stmt, NULL, 0, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_MISUSE, "1 parameters, 0 values");
    FAILS(partial_sync_run(stmt, parameters, length - 1, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_MISUSE,
          "parameter 1 are not a value");
    parameters[length] = PARTIAL_SYNC_TYPE_NULL;
    FAILS(partial_sync_run(stmt, parameters, length + 1, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_MISUSE,
          "more values");
    partial_sync_finalize(&stmt);

    /* The other connection sees the same database. */
    stmt = prepare(another, "SELECT x FROM n");
    int64_t expected = 1;
    OK(partial_sync_run(stmt, NULL, 0, 10, 0, &batch, &error));
    for (;;) {
        const uint8_t *at = batch.bytes;
        EXPECT(batch.columns == 1 && batch.length == 9 * batch.rows);
        for (size_t i = 0; i < batch.rows; i++)
            EXPECT(take_integer(&at) == expected++);
        if (batch.done)
            break;
        EXPECT(batch.rows == (expected == 11 ? 10 : 12));
        OK(partial_sync_fetch(stmt, 0, 100, &batch, &error));
    }
    EXPECT(expected == 1001 && batch.changes == 0);
    OK(partial_sync_fetch(stmt, 0, 0, &batch, &error));
    EXPECT(batch.done && batch.rows == 0);
    partial_sync_finalize(&stmt);

    /* What was right before an error is handed out before it. */
    stmt = prepare(conn, "SELECT abs(value) FROM (SELECT 7 AS value UNION ALL SELECT -9223372036854775807 - 1)");
    OK(partial_sync_run(stmt, NULL, 0, 10, 0, &batch, &error));
    EXPECT(batch.rows == 1 && !batch.done);
    FAILS(partial_sync_fetch(stmt, 10, 0, &batch, &error), PARTIAL_SYNC_CODE_SQL, "overflow");
    OK(partial_sync_run(stmt, NULL, 0, 1, 0, &batch, &error));
    partial_sync_reset(stmt);
    OK(partial_sync_fetch(stmt, 10, 0, &batch, &error));
    EXPECT(batch.done && batch.rows == 0);
    partial_sync_finalize(&stmt);

    /* A schema change between two executions. */
    stmt = prepare(conn, "SELECT * FROM n LIMIT 1");
    OK(partial_sync_describe(stmt, &description, &error));
    OK(partial_sync_execute_batch(conn, "ALTER TABLE n ADD COLUMN more DEFAULT 3", -1, &error));
    OK(partial_sync_run(stmt, NULL, 0, 2, 0, &batch, &error));
    EXPECT(batch.columns == 3 && batch.rows == 1 && batch.compiled > description.compiled);
    partial_sync_finalize(&stmt);
    partial_sync_connection_close(&conn);
    partial_sync_connection_close(&another);
    partial_sync_close(&db);
}

/* A first connect has no database yet that could be told to stop. */
static void *cancel_it(void *argument)
{
    ask("wait for a request");
    partial_sync_cancel_now(argument);
    return NULL;
}

static void a_first_connect_can_be_broken(const char *hanging)
{
    PartialSyncCancel *cancel = NULL;
    OK(partial_sync_cancel_new(&cancel, &error));
    PartialSyncConfig config = {
        .size = sizeof config, .path = in_folder("never.db"), .url = hanging, .cancel = cancel};
    PartialSyncDatabase *db = NULL;
    ask("hang");
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, cancel_it, cancel) == 0);
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_INTERRUPT, "cancelled");
    EXPECT(pthread_join(thread, NULL) == 0 && db == NULL);
    ask("answer");
    partial_sync_cancel_free(&cancel);
    partial_sync_cancel_now(NULL);
    partial_sync_cancel_free(&cancel);
}

int main(int argc, char **argv)
{
    if (argc == 2) { /* What a wait that does not end comes to. */
        start_watchdog();
        PartialSyncConfig config = {.size = sizeof config, .path = ":memory:", .url = argv[1], .timeout_ms = 60 * 1000};
        PartialSyncDatabase *db = NULL;
        partial_sync_open(&config, &db, NULL);
    }
    EXPECT(argc == 6);
    const char *url = argv[1], *hanging = argv[2], *unreachable = argv[3], *guarded = argv[4];
    folder = argv[5];
    start_watchdog();
    versions();
    null_is_an_error_and_never_a_crash();
    a_config_of_another_version_is_read_as_what_it_is();
    every_type_goes_in_and_out();
    b1_a_statement_that_writes_is_committed_before_its_first_row();
    b3_a_transaction_that_was_rolled_back_takes_nothing_until_it_is_ended();
    b7_a_forked_child_does_not_open_what_its_parent_has_open(url);
    a_locked_database_is_busy();
    a_commit_that_is_broken_while_it_waits_commits_nothing_and_ends_nothing();
    many_rows_come_in_one_call();
    functions_of_the_caller_are_asked(url);
    b8_a_function_that_uses_its_own_database_is_refused_at_once(url);
    b8_the_function_that_is_told_of_the_end_cannot_use_the_database(url);
    what_a_program_can_do_wrong(url);
    what_one_replica_pushes_another_one_pulls(url);
    sigpipe_reaches_no_thread_that_writes_to_the_network();
    a_query_bootstrap_brings_its_pages(url);
    a_replica_can_begin_without_the_remote(url);
    an_option_out_of_range_is_named(url);
    an_error_of_the_network_names_the_url(unreachable);
    a_token_can_be_wrong_and_be_replaced(guarded);
    a_replica_follows_its_database_to_a_new_url(url, guarded);
    what_waits_for_a_silent_remote_can_be_broken_by_another_thread(hanging);
    a_first_connect_can_be_broken(hanging);
    a_silent_remote_is_a_timeout(hanging);
    return 0;
}
