/*
 * Functions of the caller: what they are asked and how they answer, and that none of them can make its database wait for
 * itself. Everything that a function calls of its own database fails at once and says why.
 */
#include "support.h"

#include <unistd.h>

struct asked {
    const char *url, *token, *problem;
    int urls, tokens, inserts, updates, released;
};

static void answer_url(void *user_data, PartialSyncAnswer *answer)
{
    struct asked *asked = user_data;
    asked->urls++;
    if (asked->problem)
        partial_sync_answer_fail(answer, asked->problem);
    else if (asked->url)
        partial_sync_answer_text(answer, asked->url, -1);
}

static void answer_token(void *user_data, PartialSyncAnswer *answer)
{
    struct asked *asked = user_data;
    asked->tokens++;
    if (asked->token)
        partial_sync_answer_text(answer, asked->token, -1);
    else
        partial_sync_answer_fail(answer, "nobody is signed in");
}

static void transform(void *user_data, const PartialSyncMutation *mutation, PartialSyncAnswer *answer)
{
    struct asked *asked = user_data;
    EXPECT(mutation->change_time > 1600000000);
    if (strcmp(mutation->table_name, "names") != 0)
        return;
    if (mutation->change == PARTIAL_SYNC_CHANGE_INSERT) {
        asked->inserts++;
        EXPECT(mutation->before == NULL && mutation->updates == NULL && mutation->after_count == 2);
        EXPECT(mutation->has_id && mutation->id == mutation->after[0].value.integer);
        EXPECT(strcmp(mutation->after[0].name, "id") == 0 && strcmp(mutation->after[1].name, "name") == 0);
        if (mutation->after[1].value.length == 6 && memcmp(mutation->after[1].value.bytes, "secret", 6) == 0)
            partial_sync_answer_skip(answer);
        if (mutation->after[1].value.length == 4 && memcmp(mutation->after[1].value.bytes, "loud", 4) == 0) {
            uint8_t values[32];
            size_t length = (size_t)(put_text(values, "LOUD") - values);
            partial_sync_answer_rewrite(answer, "INSERT INTO names VALUES (901, ?)", -1, values, length);
        }
        if (mutation->after[1].value.length == 3)
            partial_sync_answer_fail(answer, "three letters are not enough");
    } else {
        asked->updates++;
        EXPECT(mutation->change == PARTIAL_SYNC_CHANGE_DELETE && mutation->after == NULL);
        EXPECT(mutation->before_count == 2);
    }
}

static void release(void *user_data)
{
    struct asked *asked = user_data;
    asked->released++;
}

void functions_of_the_caller_are_asked(const char *url)
{
    struct asked asked = {.url = url, .token = "none-is-needed"};
    PartialSyncConfig config = {
        .size = sizeof config,
        .path = in_folder("asks.db"),
        .bootstrap_prefix = 16 * 1024,
        .url_function = answer_url,
        .token_function = answer_token,
        .transform = transform,
        .user_data = &asked,
        .release = release,
    };
    PartialSyncDatabase *db = NULL;
    OK(partial_sync_open(&config, &db, &error));
    EXPECT(asked.urls > 0 && asked.tokens > 0 && asked.released == 0);
    PartialSyncConnection *conn = connect_to(db);
    OK(partial_sync_execute_batch(
        conn, "INSERT INTO names VALUES (900, 'secret'), (902, 'loud'), (903, 'plain'); DELETE FROM names WHERE id = 903",
        -1, &error));
    asked.url = NULL;
    EXPECT(partial_sync_push(db, &error) != PARTIAL_SYNC_CODE_OK);
    EXPECT(strstr(partial_sync_error_message(error), "paused") != NULL);
    partial_sync_error_free(&error);
    asked.url = url;
    asked.problem = "no settings yet";
    FAILS(partial_sync_push(db, &error), PARTIAL_SYNC_CODE_CALLBACK, "the url function failed: no settings yet");
    asked.problem = NULL;
    asked.token = NULL;
    EXPECT(partial_sync_push(db, &error) != PARTIAL_SYNC_CODE_OK);
    EXPECT(strstr(partial_sync_error_message(error), "nobody is signed in") != NULL);
    partial_sync_error_free(&error);
    asked.token = "none-is-needed";
    OK(partial_sync_push(db, &error));
    EXPECT(asked.inserts >= 3 && asked.updates >= 1);
    OK(partial_sync_pull(db, NULL, &error));
    EXPECT(number(conn, "SELECT count(*) FROM names WHERE id BETWEEN 900 AND 910") == 1);
    EXPECT(number(conn, "SELECT id FROM names WHERE name = 'LOUD'") == 901);
    OK(partial_sync_execute_batch(conn, "INSERT INTO names VALUES (904, 'abc')", -1, &error));
    EXPECT(partial_sync_push(db, &error) != PARTIAL_SYNC_CODE_OK);
    EXPECT(strstr(partial_sync_error_message(error), "three letters") != NULL);
    partial_sync_error_free(&error);
    partial_sync_close(&db);
    EXPECT(asked.released == 0);
    partial_sync_connection_close(&conn);
    EXPECT(asked.released == 1);

    config.url = url;
    FAILS(partial_sync_open(&config, &db, &error), PARTIAL_SYNC_CODE_MISUSE, "url_function: set one of them");
    EXPECT(asked.released == 2);
}

/* A function of a database, and everything of that database that it can get hold of. */
struct nosy {
    const char *path, *url;
    bool is_asked; /* nosy_token and nosy_url answer only, otherwise */
    PartialSyncDatabase *db, *spare_db;
    PartialSyncConnection *conn, *spare_conn; /* conn is the one that waits for the function */
    PartialSyncStatement *stmt, *spare_stmt;  /* of conn */
    int called, released;
};

/* Another spelling of the folder. */
static void link_folder(void)
{
    char target[4096];
    snprintf(target, sizeof target, "%s", in_folder("."));
    unlink(in_folder("link"));
    EXPECT(symlink(target, in_folder("link")) == 0);
}

/* Each of these would wait for the function that calls it. */
static void use_everything(struct nosy *nosy)
{
#define REFUSED(call) FAILS(call, PARTIAL_SYNC_CODE_MISUSE, "its own database")
    PartialSyncDatabase *db = NULL;
    PartialSyncConnection *conn = NULL;
    PartialSyncStatement *stmt = NULL;
    PartialSyncBatch batch;
    PartialSyncDescription description;
    PartialSyncVerified verified;
    PartialSyncStats stats = {.size = sizeof stats};
    PartialSyncValue value;
    char *revision = NULL;
    bool row;
    nosy->called++;
    char spelled[3][8192];
    const char *name = strrchr(nosy->path, '/') + 1;
    snprintf(spelled[0], sizeof spelled[0], "%s", nosy->path);
    snprintf(spelled[1], sizeof spelled[1], "%.*s./%s", (int)(name - nosy->path), nosy->path, name);
    snprintf(spelled[2], sizeof spelled[2], "%.*slink/%s", (int)(name - nosy->path), nosy->path, name);
    for (int i = 0; i < 3; i++) {
        struct asked unasked = {.url = nosy->url};
        PartialSyncConfig again = {
            .size = sizeof again, .path = spelled[i], .url_function = answer_url, .user_data = &unasked, .release = release};
        REFUSED(partial_sync_open(&again, &db, &error));
        EXPECT(unasked.urls == 0 && unasked.released == 1);
    }
    if (nosy->db) {
        REFUSED(partial_sync_connect(nosy->db, &conn, &error));
        REFUSED(partial_sync_may_wait(nosy->db, &error));
        REFUSED(partial_sync_pull(nosy->db, NULL, &error));
        REFUSED(partial_sync_pull_waiting(nosy->db, 1, NULL, &error));
        REFUSED(partial_sync_push(nosy->db, &error));
        REFUSED(partial_sync_checkpoint(nosy->db, &error));
        REFUSED(partial_sync_hydrate(nosy->db, NULL, NULL, NULL, NULL, &error));
        REFUSED(partial_sync_verify(nosy->db, NULL, NULL, &verified, &error));
        REFUSED(partial_sync_discard_change(nosy->db, 1, NULL, &error));
        REFUSED(partial_sync_discard_change_with_dependents(nosy->db, 1, NULL, &error));
        REFUSED(partial_sync_stats(nosy->db, &stats, &error));
        REFUSED(partial_sync_revision(nosy->db, &revision, &error));
        EXPECT(!partial_sync_settle(nosy->db, 60 * 1000));
        EXPECT(partial_sync_is_replica(nosy->db));
    }
    if (nosy->conn) {
        REFUSED(partial_sync_execute_batch(nosy->conn, "SELECT * FROM t", -1, &error));
        REFUSED(partial_sync_prepare(nosy->conn, "SELECT 1", -1, &stmt, NULL, &error));
        REFUSED(partial_sync_busy_timeout(nosy->conn, 1, &error));
        partial_sync_changes(nosy->conn);
        partial_sync_total_changes(nosy->conn);
        partial_sync_last_insert_rowid(nosy->conn);
        partial_sync_is_autocommit(nosy->conn);
        PartialSyncInterrupt *interrupt = NULL;
        OK(partial_sync_interrupt_new(nosy->conn, &interrupt, &error));
        partial_sync_interrupt_free(&interrupt);
    }
    if (nosy->stmt) {
        REFUSED(partial_sync_step(nosy->stmt, &row, &error));
        REFUSED(partial_sync_execute(nosy->stmt, NULL, &error));
        REFUSED(partial_sync_run(nosy->stmt, NULL, 0, 0, 0, &batch, &error));
        REFUSED(partial_sync_fetch(nosy->stmt, 0, 0, &batch, &error));
        REFUSED(partial_sync_describe(nosy->stmt, &description, &error));
        REFUSED(partial_sync_bind_null(nosy->stmt, 1, &error));
        REFUSED(partial_sync_row(nosy->stmt, &value, 1, &error));
        EXPECT(partial_sync_reset(nosy->stmt) == PARTIAL_SYNC_CODE_MISUSE);
        partial_sync_clear_bindings(nosy->stmt);
        EXPECT(partial_sync_column_count(nosy->stmt) == 0 && partial_sync_sql(nosy->stmt) == NULL);
        EXPECT(partial_sync_column_text(nosy->stmt, 0, NULL) == NULL);
    }
    /* Releasing works, in any order. */
    partial_sync_close(&nosy->spare_db);
    partial_sync_connection_close(&nosy->spare_conn);
    EXPECT(partial_sync_finalize(&nosy->spare_stmt) == PARTIAL_SYNC_CODE_OK);
    EXPECT(!nosy->spare_db && !nosy->spare_conn && !nosy->spare_stmt);
    /* Another database may be used. */
    db = open_local(":memory:");
    conn = connect_to(db);
    run(conn, "SELECT 1");
    partial_sync_connection_close(&conn);
    partial_sync_close(&db);
}

static void nosy_url(void *user_data, PartialSyncAnswer *answer)
{
    struct nosy *nosy = user_data;
    if (nosy->is_asked)
        use_everything(nosy);
    partial_sync_answer_text(answer, nosy->url, -1);
}

static void nosy_token(void *user_data, PartialSyncAnswer *answer)
{
    struct nosy *nosy = user_data;
    if (nosy->is_asked)
        use_everything(nosy);
    partial_sync_answer_text(answer, "any", -1);
}

static void nosy_transform(void *user_data, const PartialSyncMutation *mutation, PartialSyncAnswer *answer)
{
    (void)mutation, (void)answer;
    use_everything(user_data);
}

static void nosy_progress(void *user_data, uint32_t done, uint32_t total)
{
    (void)done, (void)total;
    use_everything(user_data);
}

static void nosy_release(void *user_data)
{
    struct nosy *nosy = user_data;
    nosy->released++;
}

/* Fills in what the next call of the function can release. */
static void give_spares(struct nosy *nosy)
{
    PartialSyncConfig config = {.size = sizeof config, .path = nosy->path};
    if (!nosy->spare_db)
        OK(partial_sync_open(&config, &nosy->spare_db, &error));
    if (!nosy->spare_conn)
        nosy->spare_conn = connect_to(nosy->db);
    if (!nosy->spare_stmt) {
        nosy->spare_stmt = prepare(nosy->conn, "INSERT INTO names VALUES (?, 'spare') RETURNING id");
        EXPECT(partial_sync_column_count(nosy->spare_stmt) == 1);
    }
    nosy->called = 0;
}

void b8_a_function_that_uses_its_own_database_is_refused_at_once(const char *url)
{
    link_folder();
    for (int by_token = 0; by_token < 2; by_token++) {
        char path[4096];
        snprintf(path, sizeof path, "%s", in_folder(by_token ? "nosy-token.db" : "nosy-url.db"));
        struct nosy nosy = {.path = path, .url = url, .is_asked = true};
        PartialSyncConfig config = {
            .size = sizeof config, .path = path, .bootstrap_prefix = 4096, .segment_size = 4096,
            .url_function = by_token ? NULL : nosy_url, .token_function = by_token ? nosy_token : NULL,
            .url = by_token ? url : NULL, .transform = nosy_transform, .user_data = &nosy, .release = nosy_release};
        OK(partial_sync_open(&config, &nosy.db, &error));
        EXPECT(nosy.called > 0);

        /* A page fetch, which holds the connection, in a query and in a write. */
        nosy.conn = connect_to(nosy.db);
        nosy.stmt = prepare(nosy.conn, "SELECT count(*) FROM t WHERE id > ?");
        give_spares(&nosy);
        EXPECT(number(nosy.conn, "SELECT length(v) FROM t WHERE id = 2000") == 100 && nosy.called > 0);
        give_spares(&nosy);
        run(nosy.conn, "UPDATE t SET v = v || '.' WHERE id = 4444");
        EXPECT(nosy.called > 0);
        /* A push asks transform too, and so does a pull, about what was not pushed. */
        give_spares(&nosy);
        OK(partial_sync_push(nosy.db, &error));
        EXPECT(nosy.called > 1);
        run(nosy.conn, "UPDATE t SET v = 'nosy again' WHERE id = 4444");
        give_spares(&nosy);
        OK(partial_sync_pull(nosy.db, NULL, &error));
        EXPECT(nosy.called > 1);
        /* And what tells how far it is. */
        nosy.is_asked = false;
        give_spares(&nosy);
        PartialSyncHydrated hydrated;
        OK(partial_sync_hydrate(nosy.db, NULL, nosy_progress, &nosy, &hydrated, &error));
        EXPECT(nosy.called > 0 && hydrated.absent == 0);
        give_spares(&nosy);
        PartialSyncVerified verified;
        OK(partial_sync_verify(nosy.db, nosy_progress, &nosy, &verified, &error));
        EXPECT(nosy.called > 0 && verified.differing == 0);

        EXPECT(number(nosy.conn, "SELECT v = 'nosy again' FROM t WHERE id = 4444") == 1);
        partial_sync_finalize(&nosy.spare_stmt);
        partial_sync_finalize(&nosy.stmt);
        partial_sync_connection_close(&nosy.spare_conn);
        partial_sync_connection_close(&nosy.conn);
        partial_sync_close(&nosy.spare_db);
        EXPECT(nosy.released == 0);
        partial_sync_close(&nosy.db);
        EXPECT(nosy.released == 1);
    }
}

/* It is called in the middle of the closing. */
static void open_again(void *user_data)
{
    struct nosy *nosy = user_data;
    use_everything(nosy);
    nosy->released++;
}

void b8_the_function_that_is_told_of_the_end_cannot_use_the_database(const char *url)
{
    link_folder();
    char path[4096];
    snprintf(path, sizeof path, "%s", in_folder("released.db"));
    struct nosy nosy = {.path = path, .url = url};
    PartialSyncConfig config = {
        .size = sizeof config, .path = path, .url = url, .bootstrap_prefix = 4096, .token_function = nosy_token,
        .user_data = &nosy, .release = open_again};
    for (int i = 0; i < 2; i++) {
        OK(partial_sync_open(&config, &nosy.db, &error));
        PartialSyncConnection *conn = connect_to(nosy.db);
        partial_sync_close(&nosy.db);
        EXPECT(nosy.released == i);
        partial_sync_connection_close(&conn);
        EXPECT(nosy.released == i + 1);
    }
}
