/*
 * What a program can do wrong, or at a bad moment: it gets an error or nothing, and what it has written is as it was told. Under
 * valgrind this also looks for memory that is used after it was given back.
 */
#include "support.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define ENDLESS "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"

static void count_release(void *user_data)
{
    ++*(int *)user_data;
}

static void no_token(void *user_data, PartialSyncAnswer *answer)
{
    (void)user_data, (void)answer;
}

/* What belongs to the program is given back whatever is wrong with the call. */
static void the_callers_data_is_released_however_opening_fails(void)
{
    int released = 0;
    PartialSyncDatabase *db = NULL;
    struct {
        PartialSyncConfig known;
        uint64_t later;
    } config = {
        .known = {.size = sizeof config.known, .path = ":memory:", .token_function = no_token,
                  .user_data = &released, .release = count_release}};
    FAILS(partial_sync_open(&config.known, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "database is NULL");
    EXPECT(released == 1);
    config.known.path = NULL;
    FAILS(partial_sync_open(&config.known, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "config.path");
    EXPECT(released == 2);
    config.known.path = "\xff";
    FAILS(partial_sync_open(&config.known, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "UTF-8");
    EXPECT(released == 3);
    config.known.path = ":memory:";
    config.known.size = sizeof config;
    config.later = 1;
    FAILS(partial_sync_open(&config.known, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "older than the header");
    EXPECT(released == 4);
}

/* Lengths that no memory has, that SQLite does not allow, and that are 0; a NUL where none belongs. */
static void lengths_are_what_they_are(void)
{
    PartialSyncDatabase *db = open_local(":memory:");
    PartialSyncConnection *conn = connect_to(db);
    run(conn, "CREATE TABLE t(v)");
    PartialSyncStatement *stmt = prepare(conn, "INSERT INTO t VALUES (?)"), *none = NULL;
    PartialSyncBatch batch;
    size_t tail = 7;

    OK(partial_sync_prepare(conn, NULL, 0, &none, &tail, &error));
    EXPECT(none == NULL && tail == 0);
    OK(partial_sync_prepare(conn, "SELECT 1", 0, &none, &tail, &error));
    EXPECT(none == NULL && tail == 0);
    OK(partial_sync_execute_batch(conn, NULL, 0, &error));
    FAILS(partial_sync_prepare(conn, "SELECT 1\0; DELETE FROM t", 24, &none, NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NUL");
    FAILS(partial_sync_execute_batch(conn, "SELECT 1;\0DELETE FROM t", 23, &error), PARTIAL_SYNC_CODE_MISUSE, "NUL");
    OK(partial_sync_bind_text(stmt, 1, "abc", 0, &error));
    OK(partial_sync_execute(stmt, NULL, &error));
    EXPECT(number(conn, "SELECT typeof(v) = 'text' AND v = '' FROM t") == 1);
    FAILS(partial_sync_bind_blob(stmt, 1, (const uint8_t *)"x", SIZE_MAX, &error), PARTIAL_SYNC_CODE_MISUSE, "bytes");
    FAILS(partial_sync_run(stmt, (const uint8_t *)"x", SIZE_MAX / 2 + 1, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_MISUSE,
          "bytes");
    /* The length inside says more than there is. */
    FAILS(partial_sync_run(stmt, (const uint8_t *)"\x03\xff\xff\xff\xff", 5, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_MISUSE,
          "not a value");
    EXPECT(number(conn, "SELECT count(*) FROM t") == 1);

    const size_t much = (size_t)5 << 29; /* 2.5 GiB that are never written to, and so take no memory. */
    char *zeros = under_valgrind() ? MAP_FAILED
                                   : mmap(NULL, much, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zeros != MAP_FAILED) {
        FAILS(partial_sync_bind_text(stmt, 1, zeros, (int64_t)much, &error), PARTIAL_SYNC_CODE_TOO_BIG, "");
        FAILS(partial_sync_bind_blob(stmt, 1, (const uint8_t *)zeros, much, &error), PARTIAL_SYNC_CODE_TOO_BIG, "");
        EXPECT(partial_sync_prepare(conn, zeros, (int64_t)much, &none, NULL, NULL) != PARTIAL_SYNC_CODE_OK && !none);
        OK(partial_sync_execute(stmt, NULL, &error));
        EXPECT(number(conn, "SELECT v IS NULL FROM t WHERE rowid = 2") == 1);
        munmap(zeros, much);
    }
    partial_sync_finalize(&stmt);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

/* What was handed out stays what it was until the statement itself continues; an error outlives everything. */
static void what_is_handed_out_stays(void)
{
    PartialSyncDatabase *db = open_local(":memory:");
    PartialSyncConnection *conn = connect_to(db);
    run(conn, "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one'), (2, x'02'), (3, 'three')");
    PartialSyncStatement *stmt = prepare(conn, "SELECT id, v AS called FROM t");
    PartialSyncValue row[2];
    EXPECT(step(stmt));
    OK(partial_sync_row(stmt, row, 2, &error));
    const char *name = partial_sync_column_name(stmt, 1), *text = partial_sync_column_text(stmt, 1, NULL);
    const char *sql = partial_sync_sql(stmt);
    const uint8_t *blob = partial_sync_column_blob(stmt, 1, NULL);
    run(conn, "BEGIN; UPDATE t SET v = 'another'; DELETE FROM t WHERE id > 1; ROLLBACK; CREATE TABLE u(x)");
    EXPECT(partial_sync_column_count(stmt) == 2 && partial_sync_column_decltype(stmt, 1) != text);
    EXPECT(partial_sync_execute_batch(conn, "SELECT * FROM nowhere", -1, NULL) != PARTIAL_SYNC_CODE_OK);
    EXPECT(strcmp(text, "one") == 0 && memcmp(blob, "one", 3) == 0 && memcmp(row[1].bytes, "one", 3) == 0);
    EXPECT(strcmp(name, "called") == 0 && strncmp(sql, "SELECT id", 9) == 0);

    PartialSyncError *kept = NULL, *another = NULL;
    EXPECT(partial_sync_execute_batch(conn, "SELECT * FROM nowhere", -1, &kept) == PARTIAL_SYNC_CODE_SQL);
    EXPECT(partial_sync_execute_batch(conn, "SELECT * FROM anywhere", -1, &another) == PARTIAL_SYNC_CODE_SQL);
    partial_sync_finalize(&stmt);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
    EXPECT(strstr(partial_sync_error_message(kept), "nowhere") && strstr(partial_sync_error_message(another), "anywhere"));
    partial_sync_error_free(&another);
    EXPECT(strstr(partial_sync_error_message(kept), "nowhere") != NULL);
    partial_sync_error_free(&kept);
    partial_sync_error_free(&kept);
}

static void an_interrupt_beside_an_unread_query_keeps_no_transaction_open(void)
{
    PartialSyncDatabase *db = open_local(":memory:");
    PartialSyncConnection *conn = connect_to(db), *other = connect_to(db);
    run(conn, "CREATE TABLE t(id INTEGER PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)");
    PartialSyncStatement *unread = prepare(conn, ENDLESS);
    EXPECT(step(unread));
    partial_sync_interrupt(conn);
    FAILS(partial_sync_execute_batch(conn, "ROLLBACK", -1, &error), PARTIAL_SYNC_CODE_INTERRUPT, "");
    EXPECT(!partial_sync_is_autocommit(conn));
    OK(partial_sync_undo_transaction(conn, &error));
    EXPECT(partial_sync_is_autocommit(conn));
    FAILS(partial_sync_execute_batch(conn, "INSERT INTO t VALUES (2)", -1, &error), PARTIAL_SYNC_CODE_INTERRUPT, "interrupted");
    partial_sync_finalize(&unread);
    run(conn, "INSERT INTO t VALUES (3)");
    EXPECT(number(other, "SELECT count(*) FROM t") == 1);
    OK(partial_sync_undo_transaction(conn, &error));
    EXPECT(number(other, "SELECT count(*) FROM t") == 1);
    FAILS(partial_sync_undo_transaction(NULL, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    partial_sync_connection_close(&other);
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

static void a_call_takes_no_longer_than_the_query_timeout(void)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:", .query_timeout_ms = 20};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    PartialSyncConnection *conn = connect_to(db);
    run(conn, "CREATE TABLE t(x)");
    PartialSyncStatement *endless = prepare(conn, "INSERT INTO t " ENDLESS);
    PartialSyncBatch batch;
    bool row;
    for (int i = 0; i < 2; i++) {
        FAILS(partial_sync_step(endless, &row, &error), PARTIAL_SYNC_CODE_INTERRUPT, "interrupted");
        FAILS(partial_sync_execute(endless, NULL, &error), PARTIAL_SYNC_CODE_INTERRUPT, "interrupted");
        FAILS(partial_sync_run(endless, NULL, 0, 0, 0, &batch, &error), PARTIAL_SYNC_CODE_INTERRUPT, "interrupted");
        FAILS(partial_sync_execute_batch(conn, "INSERT INTO t " ENDLESS, -1, &error), PARTIAL_SYNC_CODE_INTERRUPT, "interrupted");
    }
    partial_sync_finalize(&endless);
    /* The time is that of a call, not of an execution: one that is read slowly continues. */
    PartialSyncStatement *slow = prepare(conn, ENDLESS);
    OK(partial_sync_query_timeout(conn, 200, &error));
    OK(partial_sync_run(slow, NULL, 0, 1, 0, &batch, &error));
    for (int i = 0; i < 3; i++) {
        usleep(90 * 1000);
        OK(partial_sync_fetch(slow, 1, 0, &batch, &error));
        EXPECT(batch.rows == 1);
    }
    partial_sync_finalize(&slow);
    OK(partial_sync_query_timeout(conn, 0, &error));
    run(conn, "INSERT INTO t VALUES (1)");
    EXPECT(number(conn, "SELECT count(*) FROM t") == 1);
    FAILS(partial_sync_query_timeout(NULL, 1, &error), PARTIAL_SYNC_CODE_MISUSE, "NULL");
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

/* A database that a thread keeps as its own, and that goes with it. */
static pthread_key_t key;

static void close_it(void *database)
{
    PartialSyncDatabase *db = database;
    partial_sync_close(&db);
}

static void *open_and_end(void *data)
{
    PartialSyncConfig config = {.size = sizeof config, .path = ":memory:", .token_function = no_token, .user_data = data,
                                .release = count_release};
    PartialSyncDatabase *db = NULL, *first = NULL;
    OK(partial_sync_open(&config, &first, &error));
    partial_sync_close(&first); /* This thread has run a function, and so has noted something. */
    OK(partial_sync_open(&config, &db, &error));
    EXPECT(pthread_setspecific(key, db) == 0);
    return NULL;
}

static void a_thread_that_ends_gives_back_what_it_has(void)
{
    int released = 0;
    pthread_t thread;
    EXPECT(pthread_key_create(&key, close_it) == 0);
    EXPECT(pthread_create(&thread, NULL, open_and_end, &released) == 0 && pthread_join(thread, NULL) == 0);
    EXPECT(released == 2);
    pthread_key_delete(key);
}

/* One statement and one connection between threads: a statement turns the second thread away, a connection lets it wait. */
struct shared {
    PartialSyncConnection *conn;
    PartialSyncStatement *stmt;
    int turned_away, added;
};

static void *use_shared(void *argument)
{
    struct shared *shared = argument;
    for (int i = 0; i < 200; i++) {
        bool row;
        PartialSyncBatch batch;
        PartialSyncCode code = i % 2 ? partial_sync_step(shared->stmt, &row, &error)
                                     : partial_sync_run(shared->stmt, NULL, 0, 3, 0, &batch, &error);
        EXPECT(code == PARTIAL_SYNC_CODE_OK || code == PARTIAL_SYNC_CODE_MISUSE);
        if (code != PARTIAL_SYNC_CODE_OK) {
            EXPECT(strstr(partial_sync_error_message(error), "another thread") != NULL);
            __atomic_add_fetch(&shared->turned_away, 1, __ATOMIC_RELAXED);
        }
        partial_sync_error_free(&error);
        partial_sync_column_text(shared->stmt, 0, NULL);
        partial_sync_reset(shared->stmt);
        run(shared->conn, "INSERT INTO t VALUES (NULL)");
        __atomic_add_fetch(&shared->added, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void threads_share_a_statement_and_get_errors_at_worst(void)
{
    PartialSyncDatabase *db = open_local(":memory:");
    struct shared shared = {.conn = connect_to(db)};
    run(shared.conn, "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t SELECT value FROM generate_series(1, 500)");
    shared.stmt = prepare(shared.conn, "SELECT id, count(*) OVER () FROM t");
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, use_shared, &shared) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(number(shared.conn, "SELECT count(*) FROM t") == 500 + shared.added);
    partial_sync_finalize(&shared.stmt);
    partial_sync_connection_close(&shared.conn);
    partial_sync_close(&db);
}

/*
 * Random calls on few handles, released in any order and at any moment. A program in C keeps book of what it was told: what a
 * call has committed is there at the end, what it has not is not.
 */
enum { HANDLES = 3 };

static unsigned long long seed;

static unsigned below(unsigned n)
{
    seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(seed >> 33) % n;
}

static const char *const STATEMENTS[] = {
    "SELECT id, v FROM random",
    "SELECT id FROM random WHERE id > ?",
    "INSERT INTO random(v) VALUES (?) RETURNING id",
    "INSERT INTO random(v) SELECT value FROM generate_series(1, 20)",
    "UPDATE random SET v = ? WHERE id % 3 = 0",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "INSERT OR ROLLBACK INTO random(id, v) VALUES (1, 'again')",
    "SELECT abs(-9223372036854775808)",
    "CREATE TABLE IF NOT EXISTS more(x)",
    "DROP TABLE IF EXISTS more",
    "SELECT * FROM more",
    "PRAGMA user_version",
};

static void random_calls(const char *url, int rounds)
{
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder(url ? "random-replica.db" : "random.db"));
    PartialSyncConfig config = {.size = sizeof config, .path = path, .url = url, .busy_timeout_ms = -1, .timeout_ms = 300};
    PartialSyncDatabase *dbs[HANDLES] = {NULL};
    PartialSyncConnection *conns[HANDLES] = {NULL};
    PartialSyncStatement *stmts[HANDLES] = {NULL};
    PartialSyncInterrupt *interrupts[HANDLES] = {NULL};
    PartialSyncDatabase *judge_db = NULL;
    OK(partial_sync_open(&config, &judge_db, &error));
    PartialSyncConnection *judge = connect_to(judge_db);
    if (!url)
        run(judge, "PRAGMA journal_mode = WAL"); /* Readers and writers do not wait for each other. */
    run(judge, "CREATE TABLE IF NOT EXISTS random(id INTEGER PRIMARY KEY, v); INSERT OR IGNORE INTO random VALUES (1, 'first');"
               "CREATE TABLE told(n INTEGER PRIMARY KEY)");
    int64_t told = 0;
    for (int i = 0; i < rounds; i++) {
        unsigned at = below(HANDLES);
        PartialSyncBatch batch;
        PartialSyncDescription description;
        PartialSyncValue row[2];
        bool is_row = false;
        size_t length = 0;
        PartialSyncCode code = PARTIAL_SYNC_CODE_OK;
        switch (below(24)) {
        case 0:
            if (!dbs[at])
                code = partial_sync_open(&config, &dbs[at], &error);
            break;
        case 1:
            partial_sync_close(&dbs[at]);
            break;
        case 2:
        case 3:
            if (!conns[at])
                code = partial_sync_connect(dbs[below(HANDLES)], &conns[at], &error);
            break;
        case 4:
            if (below(4) == 0)
                partial_sync_connection_close(&conns[at]);
            break;
        case 5:
        case 6:
        case 7:
            partial_sync_finalize(&stmts[at]);
            code = partial_sync_prepare(conns[below(HANDLES)], STATEMENTS[below(sizeof STATEMENTS / sizeof *STATEMENTS)], -1,
                                        &stmts[at], &length, &error);
            break;
        case 8:
            partial_sync_finalize(&stmts[at]);
            break;
        case 9:
        case 10:
        case 11:
            code = partial_sync_step(stmts[at], &is_row, &error);
            if (is_row) {
                const char *text = partial_sync_column_text(stmts[at], below(3), &length);
                EXPECT(text == NULL || strlen(text) == length);
                partial_sync_row(stmts[at], row, partial_sync_column_count(stmts[at]) == 2 ? 2 : 0, NULL);
            }
            break;
        case 12:
            code = partial_sync_run(stmts[at], (const uint8_t *)"\x05", below(2), below(4), below(2) * 10, &batch, &error);
            break;
        case 13:
            code = partial_sync_fetch(stmts[at], below(4), 0, &batch, &error);
            EXPECT(code != PARTIAL_SYNC_CODE_OK || batch.bytes != NULL);
            break;
        case 14:
            code = partial_sync_execute(stmts[at], NULL, &error);
            break;
        case 15:
            code = partial_sync_bind_text(stmts[at], below(3), "bound", below(6), &error);
            break;
        case 16:
            partial_sync_reset(stmts[at]);
            break;
        case 17:
            code = partial_sync_describe(stmts[at], &description, &error);
            break;
        case 18:
            if (!interrupts[at])
                code = partial_sync_interrupt_new(conns[at], &interrupts[at], &error);
            else if (below(2))
                partial_sync_interrupt_now(interrupts[at]);
            else
                partial_sync_interrupt_free(&interrupts[at]);
            break;
        case 19:
            if (below(3) == 0)
                code = partial_sync_undo_transaction(conns[at], &error);
            break;
        case 20:
            if (url && below(3) == 0)
                code = below(2) ? partial_sync_push(dbs[at], &error) : partial_sync_pull(dbs[at], NULL, &error);
            break;
        case 21:
            code = partial_sync_checkpoint(dbs[at], &error);
            break;
        default:
            /* Said to be done outside of a transaction: so it is committed. */
            if (conns[at] && partial_sync_is_autocommit(conns[at])) {
                char sql[64];
                snprintf(sql, sizeof sql, "INSERT INTO told VALUES (%" PRId64 ")", told);
                PartialSyncCode wrote = partial_sync_execute_batch(conns[at], sql, -1, NULL);
                snprintf(sql, sizeof sql, "SELECT count(*) FROM told WHERE n = %" PRId64, told++);
                EXPECT(number(judge, sql) == (wrote == PARTIAL_SYNC_CODE_OK));
            }
        }
        EXPECT((code == PARTIAL_SYNC_CODE_OK) == (error == NULL) && code != PARTIAL_SYNC_CODE_INTERNAL);
        EXPECT(error == NULL || partial_sync_error_message(error)[0] != 0);
        partial_sync_error_free(&error);
    }
    for (int at = 0; at < HANDLES; at++) {
        partial_sync_close(&dbs[at]);
        partial_sync_interrupt_free(&interrupts[at]);
        partial_sync_connection_close(&conns[at]);
        partial_sync_finalize(&stmts[at]);
    }
    EXPECT(number(judge, "SELECT count(*) = 1 FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1);
    EXPECT(told > rounds / 100);
    run(judge, "DROP TABLE told");
    partial_sync_connection_close(&judge);
    partial_sync_close(&judge_db);
}

void what_a_program_can_do_wrong(const char *url)
{
    the_callers_data_is_released_however_opening_fails();
    lengths_are_what_they_are();
    what_is_handed_out_stays();
    an_interrupt_beside_an_unread_query_keeps_no_transaction_open();
    a_call_takes_no_longer_than_the_query_timeout();
    a_thread_that_ends_gives_back_what_it_has();
    threads_share_a_statement_and_get_errors_at_worst();
    int rounds = under_valgrind() ? 300 : 5000;
    if (getenv("ROUNDS"))
        rounds = atoi(getenv("ROUNDS"));
    seed = getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1;
    random_calls(NULL, rounds);
    random_calls(url, rounds / 5);
}
