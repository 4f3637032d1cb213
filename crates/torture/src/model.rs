//! The model: plain SQLite. What the remote should hold, what each replica should show, and the contents of a database as
//! text, so that two can be compared.
//!
//! Keys that nobody chose are left out of the comparison: two clients may both take the next one, and what is promised is
//! that no row is lost, doubled or overwritten, not which number it has.

use std::{collections::BTreeMap, sync::Arc};

use rusqlite::{Connection, types::ValueRef};

use crate::{oracle::Failure, workload::compared};

/// Rows of a table as text, sorted.
pub type Rows = Vec<String>;

/// The contents of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// By table; what is not a table begins with `#`.
    pub tables: BTreeMap<String, Rows>,
}

/// Something that answers queries.
pub trait Ask {
    /// What it fails with.
    type Error;
    /// Rows as text, in the order they come.
    fn rows(&self, sql: &str) -> Result<Rows, Self::Error>;
}

const OBJECTS: &str = "SELECT type, name, tbl_name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' AND tbl_name NOT LIKE \
     'partial_sync_%' AND name NOT LIKE 'partial_sync_%' AND tbl_name <> 'turso_sync_last_change_id' AND tbl_name NOT LIKE 'turso_cdc%'";
const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE \
     'partial_sync_%' AND name <> 'turso_sync_last_change_id' AND name NOT LIKE 'turso_cdc%' AND name NOT LIKE '%fts_%'";

/// One table; `#` names are of the database. A table that is not there is an error of the one that is asked.
pub fn table<A: Ask>(ask: &A, name: &str) -> Result<Rows, A::Error> {
    let mut rows = match name {
        "#objects" => ask.rows(OBJECTS)?,
        "#user_version" => ask.rows("PRAGMA user_version")?,
        "#application_id" => ask.rows("PRAGMA application_id")?,
        _ => ask.rows(&compared(name))?,
    };
    rows.sort();
    Ok(rows)
}

/// Everything.
pub fn state<A: Ask>(ask: &A) -> Result<State, A::Error> {
    let mut tables = BTreeMap::new();
    for name in ["#objects", "#user_version", "#application_id"] {
        tables.insert(name.to_owned(), table(ask, name)?);
    }
    for name in ask.rows(TABLES)? {
        let name = name.trim_matches('\'').to_owned();
        let rows = table(ask, &name)?;
        tables.insert(name, rows);
    }
    Ok(State { tables })
}

impl State {
    /// A failure that names the tables in which the contents differ.
    pub fn differs(&self, expected: &State, what: &str) -> Failure {
        let mut names: Vec<&str> = self
            .tables
            .keys()
            .chain(expected.tables.keys())
            .map(String::as_str)
            .collect();
        names.retain(|name| self.tables.get(*name) != expected.tables.get(*name));
        names.sort_unstable();
        names.dedup();
        Failure::new(format!("{what}: {}", names.join(" ")), self.difference(expected))
    }

    /// The first differences, for a person.
    pub fn difference(&self, expected: &State) -> String {
        let mut out = vec![];
        for name in self.tables.keys().chain(expected.tables.keys()) {
            let (is, should) = (self.tables.get(name), expected.tables.get(name));
            if is != should
                && !out
                    .iter()
                    .any(|line: &String| line.starts_with(&format!("{name}:")))
            {
                out.push(format!("{name}: {}", rows_difference(is, should)));
            }
        }
        out.join("\n  ")
    }
}

/// The first differences of two tables.
pub fn rows_difference(is: Option<&Rows>, should: Option<&Rows>) -> String {
    let short = |row: &String| match row.chars().count() {
        n if n > 120 => format!("{}... ({n})", row.chars().take(120).collect::<String>()),
        _ => row.clone(),
    };
    match (is, should) {
        (None, _) => "is missing".to_owned(),
        (_, None) => "should not be there".to_owned(),
        (Some(is), Some(should)) => {
            let less = minus(should, is);
            let more = minus(is, should);
            let show =
                |rows: Vec<&String>| rows.into_iter().take(4).map(short).collect::<Vec<_>>().join(", ");
            format!("missing [{}], too many [{}]", show(less), show(more))
        }
    }
}

fn minus<'a>(a: &'a Rows, b: &Rows) -> Vec<&'a String> {
    let mut left = b.clone();
    let mut out = vec![];
    for row in a {
        match left.iter().position(|other| other == row) {
            Some(at) => drop(left.swap_remove(at)),
            None => out.push(row),
        }
    }
    out
}

/// A value as text that tells types apart.
pub fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "null".into(),
        ValueRef::Integer(n) => n.to_string(),
        ValueRef::Real(f) => format!("{f:?}"),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => format!("'{}'", text.replace('\0', "\\0")),
            Err(_) => format!("text {bytes:02x?}"),
        },
        ValueRef::Blob(bytes) => {
            let digit = |n: u8| char::from_digit(n.into(), 16).unwrap_or_default();
            let digits = bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]);
            std::iter::once('x').chain(digits).collect()
        }
    }
}

impl Ask for Connection {
    type Error = rusqlite::Error;

    fn rows(&self, sql: &str) -> rusqlite::Result<Rows> {
        let mut statement = self.prepare_cached(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(())?;
        let mut out = vec![];
        while let Some(row) = rows.next()? {
            let values: rusqlite::Result<Vec<_>> = (0..columns).map(|i| row.get_ref(i).map(shown)).collect();
            out.push(values?.join("|"));
        }
        Ok(out)
    }
}

impl Ask for partial_sync::Connection {
    type Error = partial_sync::Error;

    fn rows(&self, sql: &str) -> partial_sync::Result<Rows> {
        let mut statement = self.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = statement.query(())?;
        let mut out = vec![];
        while let Some(row) = rows.next()? {
            let values: partial_sync::Result<Vec<_>> =
                (0..columns).map(|i| row.get_ref(i).map(shown)).collect();
            out.push(values?.join("|"));
        }
        Ok(out)
    }
}

/// A transaction: its statements, and whether each of them succeeded.
pub type Transaction = Vec<(String, bool)>;

/// A database in memory, by plain SQLite.
#[derive(Debug)]
pub struct Stock {
    conn: Connection,
    pragmas: Vec<String>,
}

fn open() -> rusqlite::Result<Connection> {
    let conn = Connection::open_in_memory()?;
    // Replicas have it.
    rusqlite::vtab::series::load_module(&conn)?;
    Ok(conn)
}

impl Stock {
    /// Made by a script.
    pub fn new(script: &str, pragmas: &[String]) -> rusqlite::Result<Self> {
        let conn = open()?;
        conn.execute_batch("PRAGMA foreign_keys = off")?;
        conn.execute_batch(script)?;
        let this = Self {
            conn,
            pragmas: pragmas.to_vec(),
        };
        this.apply_pragmas()?;
        Ok(this)
    }

    /// A copy of a database.
    pub fn from_image(image: &[u8], pragmas: &[String]) -> rusqlite::Result<Self> {
        let mut conn = open()?;
        conn.deserialize_read_exact("main", image, image.len(), false)?;
        conn.execute_batch("PRAGMA foreign_keys = off")?;
        let this = Self {
            conn,
            pragmas: pragmas.to_vec(),
        };
        this.apply_pragmas()?;
        Ok(this)
    }

    fn apply_pragmas(&self) -> rusqlite::Result<()> {
        apply_pragmas(&self.conn, &self.pragmas)
    }

    /// Its bytes.
    pub fn image(&mut self) -> rusqlite::Result<Arc<[u8]>> {
        Ok(Arc::from(&*self.conn.serialize("main")?))
    }

    /// Runs SQL.
    pub fn run(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.execute_batch(sql)
    }

    /// Runs a transaction again. `false` = a statement that succeeded then fails now.
    pub fn replay(&self, transaction: &Transaction) -> bool {
        let mut same = self.run("BEGIN").is_ok();
        for (sql, succeeded) in transaction {
            same &= self.run(sql).is_ok() == *succeeded;
        }
        same & (self.run("COMMIT").is_ok() || self.conn.is_autocommit())
    }

    /// Whether no transaction is open.
    pub fn is_autocommit(&self) -> bool {
        self.conn.is_autocommit()
    }

    /// Everything that is in it.
    pub fn state(&self) -> rusqlite::Result<State> {
        state(&self.conn)
    }

    /// One table.
    pub fn table(&self, name: &str) -> rusqlite::Result<Rows> {
        table(&self.conn, name)
    }
}

/// Sets the pragmas of a history.
pub fn apply_pragmas(conn: &Connection, pragmas: &[String]) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA foreign_keys = off; PRAGMA recursive_triggers = off")?;
    pragmas
        .iter()
        .try_for_each(|pragma| conn.execute_batch(&format!("PRAGMA {pragma}")))
}
