/*
 * Opens a remote database without downloading it, reads a row, changes it, pushes the change.
 *
 *     cargo build --release -p partial-sync-ffi
 *     cc -o quickstart examples/c/quickstart.c -Icrates/ffi/include -Ltarget/release \
 *        -l:libpartial_sync_ffi.a -lpthread -ldl -lm
 *     ./quickstart http://127.0.0.1:8080 app.db
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "partial_sync.h"

static PartialSyncError *error;

/* Ends the program with the error's message, which says what can be done. */
static void check(PartialSyncCode code)
{
    if (code == PARTIAL_SYNC_CODE_OK)
        return;
    fprintf(stderr, "%s\n", partial_sync_error_message(error));
    partial_sync_error_free(&error);
    exit(1);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s URL REPLICA\n", argv[0]);
        return 2;
    }
    PartialSyncConfig config = {
        .size = sizeof config,
        .path = argv[2],
        .url = argv[1],
        .auth_token = getenv("PARTIAL_SYNC_TOKEN"),
        .bootstrap_prefix = 128 * 1024,
    };
    PartialSyncDatabase *db;
    PartialSyncConnection *conn;
    PartialSyncStatement *stmt;
    check(partial_sync_open(&config, &db, &error));
    check(partial_sync_connect(db, &conn, &error));

    /* Pages that the query needs and that are not here are fetched in the middle of the step. */
    check(partial_sync_prepare(conn, "SELECT id, name FROM users WHERE id = ?", -1, &stmt, NULL, &error));
    check(partial_sync_bind_int64(stmt, 1, 7, &error));
    for (;;) {
        bool row;
        check(partial_sync_step(stmt, &row, &error));
        if (!row)
            break;
        printf("%" PRId64 ": %s\n", partial_sync_column_int64(stmt, 0), partial_sync_column_text(stmt, 1, NULL));
    }
    partial_sync_finalize(&stmt);

    /* A write commits here; the push sends it; the pull brings what others wrote. */
    check(partial_sync_execute_batch(conn, "UPDATE users SET name = 'Ada' WHERE id = 7", -1, &error));
    check(partial_sync_push(db, &error));
    check(partial_sync_pull(db, NULL, &error));

    PartialSyncStats stats = {.size = sizeof stats};
    check(partial_sync_stats(db, &stats, &error));
    printf("%" PRIu32 " of %" PRIu32 " pages are here, after %" PRIu64 " requests\n",
           stats.pages_present, stats.pages_total, stats.requests);

    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
    return 0;
}
