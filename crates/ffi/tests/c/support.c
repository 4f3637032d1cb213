#include "support.h"

#include <execinfo.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

_Thread_local PartialSyncError *error;
const char *folder;
unsigned long signs_of_life;

bool under_valgrind(void)
{
    return getenv("UNDER_VALGRIND") != NULL;
}

/* On the thread that is asked: its stack, as module and offset where a function has no name to the linker. */
static void tell_stack(int signal)
{
    void *frames[64];
    char name[64] = "";
    (void)signal;
    pthread_getname_np(pthread_self(), name, sizeof name);
    dprintf(STDERR_FILENO, "-- a thread (%s)\n", name);
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
}

static void tell_all_stacks(void)
{
#ifdef __linux__
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks && (task = readdir(tasks)) != NULL;) {
        long thread = atol(task->d_name);
        if (thread <= 0 || thread == syscall(SYS_gettid))
            continue;
        syscall(SYS_tgkill, getpid(), thread, SIGUSR2);
        usleep(100 * 1000); /* One after the other. */
    }
    if (tasks)
        closedir(tasks);
#endif
}

static void *watch(void *argument)
{
    int limit = *(int *)argument, silent = 0;
    for (unsigned long seen = 0;; sleep(1)) {
        unsigned long now = __atomic_load_n(&signs_of_life, __ATOMIC_RELAXED);
        silent = now == seen ? silent + 1 : 0;
        seen = now;
        if (silent > limit) {
            fprintf(stderr, "watchdog: nothing has happened for %d seconds\n", limit);
            tell_all_stacks();
            _exit(3);
        }
    }
    return NULL;
}

void start_watchdog(void)
{
    static int limit;
    limit = under_valgrind() ? 200 : 20;
    if (getenv("WATCHDOG_SECONDS"))
        limit = atoi(getenv("WATCHDOG_SECONDS"));
    void *warm_up[1];
    backtrace(warm_up, 1); /* The first call loads a library, which a signal handler must not. */
    signal(SIGUSR2, tell_stack);
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, watch, &limit) == 0);
    pthread_detach(thread);
}

void ask(const char *what)
{
    char answer[64];
    printf("%s\n", what);
    fflush(stdout);
    EXPECT(fgets(answer, sizeof answer, stdin) != NULL);
}

const char *in_folder(const char *name)
{
    static _Thread_local char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

PartialSyncDatabase *open_local(const char *path)
{
    PartialSyncConfig config = {.size = sizeof config, .path = path};
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    return db;
}

PartialSyncDatabase *open_prefix(const char *url, const char *name)
{
    PartialSyncConfig config = {
        .size = sizeof config,
        .path = in_folder(name),
        .url = url,
        .client_name = "c",
        .bootstrap_prefix = 16 * 1024,
        .segment_size = 16 * 1024,
    };
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    EXPECT(db != NULL);
    return db;
}

PartialSyncConnection *connect_to(PartialSyncDatabase *db)
{
    PartialSyncConnection *conn = NULL;
    OK(partial_sync_connect(db, &conn, &error));
    return conn;
}

PartialSyncStatement *prepare(PartialSyncConnection *conn, const char *sql)
{
    PartialSyncStatement *stmt = NULL;
    size_t tail = 0;
    OK(partial_sync_prepare(conn, sql, -1, &stmt, &tail, &error));
    EXPECT(stmt != NULL && tail == strlen(sql));
    return stmt;
}

bool step(PartialSyncStatement *stmt)
{
    bool row;
    OK(partial_sync_step(stmt, &row, &error));
    return row;
}

void run(PartialSyncConnection *conn, const char *sql)
{
    OK(partial_sync_execute_batch(conn, sql, -1, &error));
}

int64_t number(PartialSyncConnection *conn, const char *sql)
{
    PartialSyncStatement *stmt = prepare(conn, sql);
    EXPECT(step(stmt));
    int64_t value = partial_sync_column_int64(stmt, 0);
    partial_sync_finalize(&stmt);
    return value;
}

uint8_t *put_text(uint8_t *to, const char *text)
{
    uint32_t length = (uint32_t)strlen(text);
    *to++ = PARTIAL_SYNC_TYPE_TEXT;
    for (int i = 0; i < 4; i++)
        *to++ = (uint8_t)(length >> 8 * i);
    memcpy(to, text, length);
    return to + length;
}

int64_t take_integer(const uint8_t **from)
{
    uint64_t value = 0;
    EXPECT(*(*from)++ == PARTIAL_SYNC_TYPE_INTEGER);
    for (int i = 0; i < 8; i++)
        value |= (uint64_t) * (*from)++ << 8 * i;
    return (int64_t)value;
}
