/*
 * Opens a replica, asks it and closes it, again and again; prints resident memory (KiB), open descriptors and threads as it
 * goes. Each cycle leaves some of what it has in the wrong order, in the middle of a row or of a transaction, or interrupted.
 *
 *     cycles PATH URL CYCLES
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partial_sync.h"

#define CHECK(call)                                                              \
    do {                                                                         \
        if ((call) != PARTIAL_SYNC_CODE_OK) {                                    \
            fprintf(stderr, "%s: %s\n", #call, partial_sync_error_message(error)); \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

static void token(void *user_data, PartialSyncAnswer *answer)
{
    (void)user_data;
    partial_sync_answer_text(answer, "any", -1);
}

static void *interrupt(void *argument)
{
    partial_sync_interrupt_now(argument);
    return NULL;
}

static void once(const char *path, const char *url)
{
    PartialSyncError *error = NULL;
    PartialSyncDatabase *db;
    PartialSyncConnection *conn, *other;
    PartialSyncStatement *rows, *failing;
    PartialSyncInterrupt *breaking;
    bool row;
    PartialSyncConfig config = {
        .size = sizeof config, .path = path, .url = url, .bootstrap_prefix = 4096, .token_function = token};
    CHECK(partial_sync_open(&config, &db, &error));
    CHECK(partial_sync_connect(db, &conn, &error));
    CHECK(partial_sync_connect(db, &other, &error));
    CHECK(partial_sync_interrupt_new(other, &breaking, &error));
    CHECK(partial_sync_prepare(conn, "SELECT v FROM t", -1, &rows, NULL, &error));
    CHECK(partial_sync_step(rows, &row, &error));
    if (partial_sync_column_text(rows, 0, NULL) == NULL)
        abort();
    /* An error, whose object is this program's to free. */
    if (partial_sync_prepare(conn, "SELECT * FROM nowhere", -1, &failing, NULL, &error) == PARTIAL_SYNC_CODE_OK)
        abort();
    partial_sync_error_free(&error);
    /* A transaction that nobody ends, and a query that another thread may break. */
    CHECK(partial_sync_execute_batch(conn, "BEGIN", -1, &error));
    pthread_t thread;
    if (pthread_create(&thread, NULL, interrupt, breaking) != 0)
        abort();
    partial_sync_execute_batch(other, "SELECT count(*) FROM t AS a JOIN t AS b ON a.v < b.v WHERE a.id < 20", -1, NULL);
    pthread_join(thread, NULL);
    /* In the wrong order. */
    partial_sync_close(&db);
    partial_sync_connection_close(&conn);
    partial_sync_finalize(&rows);
    partial_sync_connection_close(&other);
    partial_sync_interrupt_now(breaking);
    partial_sync_interrupt_free(&breaking);
}

static void print_what_is_held(long cycle)
{
    char line[256];
    long kib = 0, threads = 0, descriptors = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) {
        sscanf(line, "VmRSS: %ld", &kib);
        sscanf(line, "Threads: %ld", &threads);
    }
    if (status)
        fclose(status);
    DIR *open = opendir("/proc/self/fd");
    while (open && readdir(open))
        descriptors++;
    if (open)
        closedir(open);
    printf("%ld %ld %ld %ld\n", cycle, kib, descriptors, threads);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long cycles = atol(argv[3]);
    for (long cycle = 1; cycle <= cycles; cycle++) {
        once(argv[1], argv[2]);
        if (cycle % (cycles / 10) == 0)
            print_what_is_held(cycle);
    }
    return 0;
}
