//! The work of `bulk`: the same statements on stock SQLite and on a replica.

use std::path::Path;

use partial_sync::Database;
use partial_sync_server::Server;

use crate::result::Result;

/// How much of each is done.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub rows: i64,
    pub lookups: i64,
    pub scans: i64,
}

pub(super) const SIZES: Sizes = Sizes {
    rows: 200_000,
    lookups: 50_000,
    scans: 5,
};
/// What is timed, and what the ratio to stock SQLite should not be above.
pub(super) const WORK: [(&str, f64); 6] = [
    ("bulk insert of 200,000 rows", 1.4),
    ("UPDATE of 200,000 rows in one statement", 2.0),
    ("50,000 point reads", 0.5),
    ("50,000 point reads in one transaction", 1.05),
    ("5 scans", 1.2),
    ("fetching 200,000 rows", 0.9),
];
pub(super) const MAKE: &str = "CREATE TABLE bulk(id INTEGER PRIMARY KEY, k INTEGER, body TEXT)";
pub(super) const FRESH: &str = "DELETE FROM bulk";

/// The same statements on either side; a check value comes out of each.
macro_rules! work {
    ($module:ident, $connection:ty) => {
        pub(super) mod $module {
            use crate::bulk::work::Sizes;
            use crate::result::Result;

            /// Does part `which` of `WORK`.
            pub(crate) fn run(conn: &$connection, which: usize, sizes: Sizes) -> Result<i64> {
                match which {
                    0 => insert(conn, sizes),
                    1 => {
                        conn.execute_batch("UPDATE bulk SET k = k + 1")?;
                        Ok(sizes.rows)
                    }
                    2 => points(conn, sizes),
                    3 => {
                        conn.execute_batch("BEGIN")?;
                        let sum = points(conn, sizes)?;
                        conn.execute_batch("COMMIT")?;
                        Ok(sum)
                    }
                    4 => {
                        let mut select = conn.prepare("SELECT sum(length(body)) FROM bulk")?;
                        let mut sum = 0;
                        for _ in 0..sizes.scans {
                            let length: i64 = select.query_row((), |row| row.get(0))?;
                            sum += length;
                        }
                        Ok(sum)
                    }
                    _ => fetch(conn),
                }
            }

            fn insert(conn: &$connection, sizes: Sizes) -> Result<i64> {
                conn.execute_batch("BEGIN")?;
                let mut insert = conn.prepare("INSERT INTO bulk VALUES (?, ?, ?)")?;
                for id in 1..=sizes.rows {
                    insert.execute((
                        id,
                        id * 7,
                        "a text of an ordinary length, as a message or a note has it",
                    ))?;
                }
                conn.execute_batch("COMMIT")?;
                Ok(sizes.rows)
            }

            fn points(conn: &$connection, sizes: Sizes) -> Result<i64> {
                let mut select = conn.prepare("SELECT id + length(body) FROM bulk WHERE id = ?")?;
                let mut sum = 0;
                for i in 0..sizes.lookups {
                    let found: i64 = select.query_row((i * 7919 % sizes.rows + 1,), |row| row.get(0))?;
                    sum += found;
                }
                Ok(sum)
            }

            fn fetch(conn: &$connection) -> Result<i64> {
                let mut select = conn.prepare("SELECT id, k, body FROM bulk")?;
                let mut rows = select.query(())?;
                let mut sum = 0;
                while let Some(row) = rows.next()? {
                    let (id, body): (i64, String) = (row.get(0)?, row.get(2)?);
                    sum += id + body.len() as i64;
                }
                Ok(sum)
            }
        }
    };
}

work!(stock, rusqlite::Connection);
work!(replica, partial_sync::Connection);

/// A replica with every page, of a remote that has no rows yet, and a stock database; both with the same settings.
pub(super) fn sides(
    folder: &Path,
    name: &str,
) -> Result<(rusqlite::Connection, Database, partial_sync::Connection)> {
    const SETTINGS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL";
    let remote = folder.join(format!("{name}-remote.db"));
    let own = folder.join(format!("{name}-stock.db"));
    for file in [&remote, &own] {
        rusqlite::Connection::open(file)?.execute_batch(MAKE)?;
    }
    let server = Server::builder(&remote).start_blocking("127.0.0.1:0")?;
    let database = Database::builder(folder.join(format!("{name}-replica.db")))
        .remote(server.url())
        .connect()?;
    server.shutdown_blocking();
    let replica = database.connection()?;
    replica.execute_batch(SETTINGS)?;
    let stock = rusqlite::Connection::open(own)?;
    stock.execute_batch(SETTINGS)?;
    Ok((stock, database, replica))
}
