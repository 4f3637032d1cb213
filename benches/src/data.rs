//! The database that everything is measured on: towns with two indexes, about 38 MB in pages of 4 KiB, made from a seed.

use std::path::Path;

use crate::result::Result;

/// Rows of `towns`.
pub(crate) const TOWNS: i64 = 170_000;

/// One town: name, country, population (different for each), and a note of ordinary words.
pub(crate) fn town(id: i64) -> (String, String, i64, String) {
    let mut random = fastrand::Rng::with_seed(id as u64);
    let word = |random: &mut fastrand::Rng| {
        let syllables = [
            "ka", "lo", "ri", "ten", "mar", "sho", "bel", "dun", "ves", "por", "ni", "gra", "um", "ost",
        ];
        (0..random.usize(1..4))
            .map(|_| syllables[random.usize(..syllables.len())])
            .collect::<String>()
    };
    let name = format!("{} {}", word(&mut random), word(&mut random));
    let country = format!("{}{}", random.char('A'..='N'), random.char('A'..='N'));
    let note: Vec<String> = (0..26).map(|_| word(&mut random)).collect();
    (name, country, population(id), note.join(" "))
}

/// The population of a town. No two have the same (the modulus is a prime above their number), and neighbours by
/// population lie far apart by id.
pub(crate) fn population(id: i64) -> i64 {
    id * 48_271 % 1_000_003
}

/// Makes the database.
pub(crate) fn make(path: &Path) -> Result<()> {
    let mut conn = rusqlite::Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
         CREATE TABLE towns(id INTEGER PRIMARY KEY, name TEXT, country TEXT, population INTEGER, note TEXT);",
    )?;
    let transaction = conn.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT INTO towns VALUES (?, ?, ?, ?, ?)")?;
        for id in 1..=TOWNS {
            let (name, country, population, note) = town(id);
            insert.execute((id, name, country, population, note))?;
        }
    }
    transaction.execute_batch(
        "CREATE INDEX towns_population ON towns(population);
         CREATE INDEX towns_country ON towns(country, population);",
    )?;
    transaction.commit()?;
    conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    Ok(())
}
