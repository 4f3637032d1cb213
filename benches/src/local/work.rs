//! The work that is timed, written once and compiled twice: for a connection of stock SQLite and for one of a replica.
//! The two have the same names, so the text is the same; what differs is what it costs.

/// Values that the work needs, drawn before the clock starts.
pub(super) struct Draw {
    /// Keys of rows that are there.
    pub ids: Vec<i64>,
    /// Populations of rows that are there.
    pub populations: Vec<i64>,
    /// The first id that no row has.
    pub free_id: i64,
    /// A text of an ordinary length.
    pub text: String,
}

macro_rules! work {
    ($(#[$doc:meta])* $module:ident, $connection:ty) => {
        $(#[$doc])*
        pub(crate) mod $module {
            use crate::local::work::{BULK, Draw};
            use crate::result::Result;

            /// Runs a script.
            pub(crate) fn script(conn: &$connection, sql: &str) -> Result<()> {
                Ok(conn.execute_batch(sql)?)
            }

            /// A row by its key, for each id.
            pub(crate) fn by_key(conn: &$connection, draw: &Draw) -> Result<i64> {
                let mut select = conn.prepare("SELECT population FROM towns WHERE id = ?")?;
                let mut sum = 0;
                for id in &draw.ids {
                    let population: i64 = select.query_row((id,), |row| row.get(0))?;
                    sum += population;
                }
                Ok(sum)
            }

            /// The same in one transaction: no locks are taken between the lookups.
            pub(crate) fn by_key_in_one_transaction(conn: &$connection, draw: &Draw) -> Result<i64> {
                conn.execute_batch("BEGIN")?;
                let sum = by_key(conn, draw)?;
                conn.execute_batch("COMMIT")?;
                Ok(sum)
            }

            /// A row by an indexed column, for each population.
            pub(crate) fn by_index(conn: &$connection, draw: &Draw) -> Result<i64> {
                let mut select = conn.prepare("SELECT id, length(note) FROM towns WHERE population = ?")?;
                let mut sum = 0;
                for population in &draw.populations {
                    let length: i64 = select.query_row((population,), |row| row.get(1))?;
                    sum += length;
                }
                Ok(sum)
            }

            /// Every row, within SQLite.
            pub(crate) fn scan(conn: &$connection, _: &Draw) -> Result<i64> {
                let mut select = conn.prepare("SELECT sum(length(note)) FROM towns")?;
                let sum: i64 = select.query_row((), |row| row.get(0))?;
                Ok(sum)
            }

            /// Every row, handed to the program.
            pub(crate) fn scan_rows(conn: &$connection, _: &Draw) -> Result<i64> {
                let mut select = conn.prepare("SELECT id, name, population FROM towns")?;
                let mut rows = select.query(())?;
                let mut sum = 0;
                while let Some(row) = rows.next()? {
                    let id: i64 = row.get(0)?;
                    let name: String = row.get(1)?;
                    let population: i64 = row.get(2)?;
                    sum += id + name.len() as i64 + population;
                }
                Ok(sum)
            }

            /// One row each, in a transaction each.
            pub(crate) fn insert(conn: &$connection, draw: &Draw) -> Result<i64> {
                let mut insert = conn.prepare("INSERT INTO towns VALUES (?, ?, ?, ?, ?)")?;
                let mut changed = 0;
                for i in 0..draw.ids.len() as i64 {
                    let id = draw.free_id + i;
                    changed += insert.execute((id, "new town", "ZZ", id, &draw.text))? as i64;
                }
                Ok(changed)
            }

            /// One row each, in a transaction each; a column without an index.
            pub(crate) fn update(conn: &$connection, draw: &Draw) -> Result<i64> {
                let mut update = conn.prepare("UPDATE towns SET note = ? WHERE id = ?")?;
                let mut changed = 0;
                for id in &draw.ids {
                    changed += update.execute((&draw.text, id))? as i64;
                }
                Ok(changed)
            }

            /// Takes away what `insert` with the same values put there.
            pub(crate) fn delete(conn: &$connection, draw: &Draw) -> Result<i64> {
                let mut delete = conn.prepare("DELETE FROM towns WHERE id = ?")?;
                let mut changed = 0;
                for i in 0..draw.ids.len() as i64 {
                    changed += delete.execute((draw.free_id + i,))? as i64;
                }
                Ok(changed)
            }

            /// 300,000 rows in one transaction.
            pub(crate) fn bulk(conn: &$connection, draw: &Draw) -> Result<i64> {
                conn.execute_batch("BEGIN")?;
                let mut insert = conn.prepare("INSERT INTO visits VALUES (?, ?, ?)")?;
                for i in 0..BULK {
                    insert.execute((draw.free_id + i, i * 7919 % 100_003, &draw.text[..40]))?;
                }
                drop(insert);
                conn.execute_batch("COMMIT")?;
                Ok(BULK)
            }
        }
    };
}

/// Rows of the bulk insert.
pub(super) const BULK: i64 = 300_000;

work!(
    /// Stock SQLite through `rusqlite`, on the default VFS.
    stock,
    rusqlite::Connection
);
work!(
    /// A replica.
    replica,
    partial_sync::Connection
);
