//! ATTACH on a replica. The VFS of this project refuses to open another replica for a statement; here it is made sure that
//! the file is opened by that VFS. The name is looked at before the file is: closing a database that should not have been
//! opened can change it.

use partial_sync_vfs::sqlite::{Conn, Step, Stmt, ValueRef};

use super::classify::internal;
use crate::{
    change::tokens::tokens,
    error::{Error, Result},
};

/// Refuses an ATTACH that is about to run if its file would be opened by another VFS.
pub(super) fn check(conn: &Conn, stmt: &Stmt) -> Result<()> {
    let sql = stmt.expanded_sql().unwrap_or_else(|| stmt.sql().into_owned());
    let Some(file) = file_of(conn, &sql)? else {
        return Ok(());
    };
    match vfs_of(&file) {
        // Databases in memory that connections share by name.
        None | Some("memdb") => Ok(()),
        Some(vfs) => Err(Error::Unsupported {
            what: format!("attaching a database with vfs={vfs} to a replica"),
            why: "the file could be a replica, and nothing would keep it whole; leave out the vfs",
        }),
    }
}

/// The file that `ATTACH [DATABASE] expression AS name` names, values written out.
fn file_of(conn: &Conn, sql: &str) -> Result<Option<String>> {
    let tokens = tokens(sql);
    let from = match &tokens[..] {
        [_, database, next, ..] if database.is("DATABASE") && !next.is("AS") => 2,
        _ => 1,
    };
    let mut depth = 0;
    let mut to = None;
    for (i, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ if depth == 0 && i > from && token.is("AS") => to = Some(i),
            _ => {}
        }
    }
    let Some(expression) = to.and_then(|to| tokens.get(from..to)) else {
        return Ok(None);
    };
    // A bare name is a string there.
    if let [only] = expression
        && let Some(name) = only.name()
    {
        return Ok(Some(name));
    }
    let (Some(first), Some(last)) = (expression.first(), expression.last()) else {
        return Ok(None);
    };
    let select = format!("SELECT {}", &sql[first.start..last.end()]);
    let mut select = internal(|| conn.prepare_one(&select))?;
    Ok(match internal(|| select.step())? {
        Step::Row => match select.value(0)? {
            ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        },
        Step::Done => None,
    })
}

/// The VFS that a `file:` URI asks for.
fn vfs_of(file: &str) -> Option<&str> {
    let (_, query) = file.strip_prefix("file:")?.split_once('?')?;
    let query = query.split('#').next().unwrap_or_default();
    query.split('&').find_map(|parameter| {
        let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        is_vfs(key).then_some(value)
    })
}

/// Whether a parameter's name, any character of which may be written as `%XX`, is `vfs`.
fn is_vfs(key: &str) -> bool {
    let mut bytes = key.bytes();
    let decoded: Vec<u8> = std::iter::from_fn(|| match bytes.next()? {
        b'%' => {
            let digits = [bytes.next()?, bytes.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        }
        byte => Some(byte),
    })
    .collect();
    decoded == b"vfs"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h4_the_file_of_an_attach_is_found_however_it_is_written() {
        let conn = Conn::open(":memory:", &Default::default()).unwrap();
        for sql in [
            "ATTACH 'a.db' AS x",
            "attach database \"a.db\" as \"as\"",
            "ATTACH [a.db] AS x",
            "ATTACH ('a' || '.db') AS x",
            "ATTACH CAST('a.db' AS TEXT) AS x;",
            "ATTACH (SELECT 'a.db' AS y) AS x KEY 'k'",
        ] {
            assert_eq!(file_of(&conn, sql).unwrap().as_deref(), Some("a.db"), "{sql}");
        }
        assert_eq!(
            file_of(&conn, "ATTACH database AS x").unwrap().as_deref(),
            Some("database")
        );
    }

    #[test]
    fn h4_a_vfs_in_a_uri_is_found() {
        assert_eq!(vfs_of("file:a.db?vfs=unix"), Some("unix"));
        assert_eq!(
            vfs_of("file:///a.db?mode=ro&%76f%73=unix-none#x"),
            Some("unix-none")
        );
        assert_eq!(vfs_of("file:a.db?mode=ro"), None);
        assert_eq!(vfs_of("a.db?vfs=unix"), None);
        assert_eq!(vfs_of("file:a.db#?vfs=unix"), Some("unix"), "rather too careful");
    }
}
