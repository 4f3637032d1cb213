//! Foreign keys that are enforced and do not act: for anyone who writes rows as they came out elsewhere, actions included, and
//! wants to know whether every reference still holds.

use rusqlite::{Connection, ffi};

/// From here on every foreign key of the connection, if they are enforced at all, is treated as if it said `NO ACTION`; or as
/// it says.
///
/// SQLite keeps the programs of actions that a connection has compiled, and runs those in any case: call this on a connection
/// whose foreign keys were never enforced otherwise.
pub fn take_no_action(conn: &Connection, on: bool) {
    // SAFETY: the handle is that of an open connection, which `conn` borrows, and a `Connection` is used by one thread at a
    // time. The operation takes the handle and an int, and sets a flag of the connection.
    unsafe {
        ffi::sqlite3_test_control(
            ffi::SQLITE_TESTCTRL_FK_NO_ACTION,
            conn.handle(),
            std::ffi::c_int::from(on),
        );
    }
}

/// Whether a deferred foreign key is violated at this moment of the transaction.
pub fn is_violated(conn: &Connection) -> bool {
    let (mut violated, mut unused) = (0, 0);
    // SAFETY: the handle is that of an open connection, which `conn` borrows; both pointers are to ints that outlive the call.
    let code = unsafe {
        ffi::sqlite3_db_status(
            conn.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &raw mut violated,
            &raw mut unused,
            0,
        )
    };
    code == ffi::SQLITE_OK && violated != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_take_no_action_are_counted_until_the_commit() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "PRAGMA foreign_keys = OFF; CREATE TABLE p(id INTEGER PRIMARY KEY, u UNIQUE);
             CREATE TABLE a(p REFERENCES p ON DELETE CASCADE); CREATE TABLE b(u REFERENCES p(u) ON UPDATE SET NULL);
             CREATE TABLE c(p REFERENCES p ON DELETE RESTRICT);
             INSERT INTO p VALUES (1, 'x'), (2, 'y'); INSERT INTO a VALUES (1); INSERT INTO b VALUES ('y'); INSERT INTO c VALUES (1);",
        )
        .unwrap();
        take_no_action(&conn, true);
        conn.execute_batch(
            "PRAGMA foreign_keys = ON; BEGIN; PRAGMA defer_foreign_keys = ON; DELETE FROM p WHERE id = 1",
        )
        .unwrap();
        assert!(is_violated(&conn));
        let error = conn.execute_batch("COMMIT").unwrap_err();
        assert_eq!(
            error.sqlite_error().unwrap().extended_code,
            ffi::SQLITE_CONSTRAINT_FOREIGNKEY
        );
        conn.execute_batch("DELETE FROM a; UPDATE p SET u = 'z' WHERE id = 2; DELETE FROM c")
            .unwrap();
        assert!(is_violated(&conn), "nothing became NULL");
        conn.execute_batch("UPDATE b SET u = 'z'").unwrap();
        assert!(!is_violated(&conn));
        conn.execute_batch("COMMIT").unwrap();
        // And then they act again.
        take_no_action(&conn, false);
        conn.execute_batch("INSERT INTO a VALUES (2); DELETE FROM b; DELETE FROM p")
            .unwrap();
        let left: i64 = conn
            .query_row("SELECT count(*) FROM a", [], |r| r.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }
}
