/*
 * What the C tests share: checks, handles made in one line, the conversation with tests/it/c_abi.rs, and a watchdog that ends
 * the program, with the stacks of all threads, where nothing was checked for more than 20 seconds.
 */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partial_sync.h"

extern _Thread_local PartialSyncError *error;
extern const char *folder;

/* Each check is a sign of life for the watchdog. */
extern unsigned long signs_of_life;
#define ALIVE() ((void)__atomic_add_fetch(&signs_of_life, 1, __ATOMIC_RELAXED))

#define EXPECT(condition)                                                                     \
    do {                                                                                      \
        ALIVE();                                                                              \
        if (!(condition)) {                                                                   \
            fprintf(stderr, "%s:%d: not so: %s (error: %s)\n", __FILE__, __LINE__, #condition, \
                    error ? partial_sync_error_message(error) : "none");                      \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)
#define OK(call) EXPECT((call) == PARTIAL_SYNC_CODE_OK && error == NULL)
/* Fails with this code, and the message has this part. */
#define FAILS(call, expected, part)                                              \
    do {                                                                         \
        EXPECT((call) == (expected));                                            \
        EXPECT(partial_sync_error_code(error) == (expected));                    \
        EXPECT(strstr(partial_sync_error_message(error), (part)) != NULL);       \
        partial_sync_error_free(&error);                                         \
        EXPECT(error == NULL);                                                   \
    } while (0)

void start_watchdog(void);
bool under_valgrind(void);

/* Asks the test around this program to do something and waits until it is done. */
void ask(const char *what);
/* Valid until the thread calls it again. */
const char *in_folder(const char *name);

PartialSyncDatabase *open_local(const char *path);
PartialSyncDatabase *open_prefix(const char *url, const char *name);
PartialSyncConnection *connect_to(PartialSyncDatabase *db);
PartialSyncStatement *prepare(PartialSyncConnection *conn, const char *sql);
bool step(PartialSyncStatement *stmt);
void run(PartialSyncConnection *conn, const char *sql);
/* The first value of the first row. */
int64_t number(PartialSyncConnection *conn, const char *sql);
/* Appends a text in the format of PartialSyncBatch. */
uint8_t *put_text(uint8_t *to, const char *text);
/* Takes an integer in the format of PartialSyncBatch. */
int64_t take_integer(const uint8_t **from);

/* callbacks.c */
void functions_of_the_caller_are_asked(const char *url);
void b8_a_function_that_uses_its_own_database_is_refused_at_once(const char *url);
void b8_the_function_that_is_told_of_the_end_cannot_use_the_database(const char *url);

/* hostile.c */
void what_a_program_can_do_wrong(const char *url);

#endif
