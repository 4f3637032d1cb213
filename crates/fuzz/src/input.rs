//! What targets make of their input and of scripts.

/// The bytes of the database that a script makes.
pub(crate) fn database(script: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("made.db");
    let conn = rusqlite::Connection::open(&path).expect("a new file");
    conn.execute_batch(script).expect("good SQL");
    drop(conn);
    std::fs::read(path).expect("it was just made")
}

/// Takes numbers and pieces off the front of an input; what is missing is zero or empty.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// At most `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let len = len.min(self.0.len());
        self.0.split_off(..len).unwrap_or_default()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
