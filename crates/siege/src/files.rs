//! The databases that are served.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::result::Result;

/// Rows of the large table, of 3,000 bytes each.
pub(crate) const ROWS: u32 = 6000;
/// Databases besides the honest client's.
pub(crate) const MANY: u32 = 400;

/// Makes the honest client's database, one that is replaced, and many small ones.
pub(crate) fn make(data: &Path, many: u32) -> Result<()> {
    fs::create_dir_all(data)?;
    rusqlite::Connection::open(data.join("honest.db"))?.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB);
         CREATE TABLE pushed(id INTEGER PRIMARY KEY, v TEXT);
         CREATE TABLE foe(id INTEGER PRIMARY KEY, v);
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t SELECT i, randomblob(3000) FROM n"
    ))?;
    let small = data.join("victim.db");
    rusqlite::Connection::open(&small)?.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one')",
    )?;
    for n in 0..many {
        fs::copy(&small, data.join(format!("many-{n}.db")))?;
    }
    Ok(())
}

/// A small disk, which is unmounted when it is dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` = this user may not mount one.
    pub(crate) fn mount(at: &Path, megabytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(at)?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "siege"])
            .arg(at)
            .output();
        let mounted = mounted.is_ok_and(|ran| ran.status.success());
        Ok(mounted.then(|| Self(at.to_owned())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // It fails only if something on it is still open, which is told.
        if let Err(error) = Command::new("umount").arg(&self.0).status() {
            eprintln!("{} is still mounted: {error}", self.0.display());
        }
    }
}
