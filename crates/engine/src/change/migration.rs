//! Schema changes that cannot be made safe to run twice by IF [NOT] EXISTS, and how to tell that one has been made already:
//! several replicas of one application run the same migrations.

use super::{
    Change, ChangeKind, StatementKind,
    tokens::{Token, tokens},
};

/// What an `ALTER TABLE` does, as far as its outcome can be recognised. Names are unquoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Migration {
    RenameTable { from: String, to: String },
    RenameColumn { table: String, from: String, to: String },
    DropColumn { table: String, column: String },
}

impl Migration {
    /// Of a statement's tokens; `None` for anything else.
    pub(crate) fn of(all: &[Token<'_>]) -> Option<Self> {
        let [alter, table, rest @ ..] = all else {
            return None;
        };
        if !alter.is("ALTER") || !table.is("TABLE") {
            return None;
        }
        let rest = match rest {
            [_, dot, rest @ ..] if dot.text == "." => rest,
            rest => rest,
        };
        let [table, verb, rest @ ..] = rest else {
            return None;
        };
        let table = table.name()?;
        let rest_is_column = rest.len() > 1 && rest[0].is("COLUMN") && !rest[1].is("TO");
        let without_keyword = if rest_is_column { &rest[1..] } else { rest };
        if verb.is("DROP") {
            let [column, after @ ..] = without_keyword else {
                return None;
            };
            let ends = after.iter().all(|t| t.text == ";");
            return Some(Self::DropColumn {
                table,
                column: column.name()?,
            })
            .filter(|_| ends);
        }
        if !verb.is("RENAME") {
            return None;
        }
        match rest {
            [to, name, ..] if to.is("TO") && !name.is("TO") => Some(Self::RenameTable {
                from: table,
                to: name.name()?,
            }),
            _ => match without_keyword {
                [from, to, name, ..] if to.is("TO") => Some(Self::RenameColumn {
                    table,
                    from: from.name()?,
                    to: name.name()?,
                }),
                _ => None,
            },
        }
    }

    /// Of a recorded change.
    pub(crate) fn of_change(change: &Change) -> Option<Self> {
        match &change.kind {
            ChangeKind::Statement(s)
                if matches!(s.kind, StatementKind::AlterOther | StatementKind::AlterLegacy) =>
            {
                Self::of(&tokens(&s.sql))
            }
            _ => None,
        }
    }

    /// Whether a refusal with this message can mean that it was made already.
    pub(crate) fn may_explain(&self, message: &str) -> bool {
        let message = message.to_ascii_lowercase();
        match self {
            Self::RenameTable { .. } => message.contains("no such table"),
            Self::RenameColumn { .. } | Self::DropColumn { .. } => message.contains("no such column"),
        }
    }

    /// The tables whose columns [`is_made`](Self::is_made) wants to know.
    pub(crate) fn tables(&self) -> Vec<&str> {
        match self {
            Self::RenameTable { from, to } => vec![from, to],
            Self::RenameColumn { table, .. } | Self::DropColumn { table, .. } => vec![table],
        }
    }

    /// Whether it has been made, given the columns of each of [`tables`](Self::tables), empty where there is none.
    pub(crate) fn is_made(&self, columns: &[Vec<String>]) -> bool {
        let has = |wanted: &str| {
            columns[0]
                .iter()
                .any(|column| column.eq_ignore_ascii_case(wanted))
        };
        match self {
            Self::RenameTable { .. } => columns[0].is_empty() && !columns[1].is_empty(),
            Self::RenameColumn { from, to, .. } => !has(from) && has(to),
            Self::DropColumn { column, .. } => !columns[0].is_empty() && !has(column),
        }
    }

    /// The question for the columns of a table: a row per column, the name second.
    pub(crate) fn question(table: &str) -> String {
        format!("PRAGMA table_info({})", super::sql::quoted(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Option<Migration> {
        Migration::of(&tokens(sql))
    }

    #[test]
    fn s6_migrations_are_told_apart() {
        let table = |from: &str, to: &str| {
            Some(Migration::RenameTable {
                from: from.into(),
                to: to.into(),
            })
        };
        let column = |from: &str, to: &str| {
            Some(Migration::RenameColumn {
                table: "t".into(),
                from: from.into(),
                to: to.into(),
            })
        };
        let dropped = |column: &str| {
            Some(Migration::DropColumn {
                table: "t".into(),
                column: column.into(),
            })
        };
        assert_eq!(of("ALTER TABLE t RENAME TO u"), table("t", "u"));
        assert_eq!(
            of("alter table main.[a b] rename to \"c d\";"),
            table("a b", "c d")
        );
        assert_eq!(of("ALTER TABLE t RENAME COLUMN a TO b"), column("a", "b"));
        assert_eq!(of("ALTER TABLE t RENAME a TO b"), column("a", "b"));
        assert_eq!(of("ALTER TABLE t RENAME COLUMN TO b"), column("COLUMN", "b"));
        assert_eq!(of("ALTER TABLE \"main\".t RENAME `a` TO [b]"), column("a", "b"));
        assert_eq!(of("ALTER TABLE t DROP COLUMN a"), dropped("a"));
        assert_eq!(of("ALTER TABLE t DROP a;"), dropped("a"));
        assert_eq!(of("ALTER TABLE t ADD COLUMN a"), None);
        assert_eq!(of("ALTER TABLE t DROP CONSTRAINT c"), None);
        assert_eq!(of("CREATE TABLE t(a)"), None);
        assert_eq!(of("ALTER TABLE t RENAME"), None);
    }

    #[test]
    fn s6_only_what_a_migration_leaves_behind_says_that_it_was_made() {
        let made = |sql: &str, columns: &[&[&str]]| {
            let columns: Vec<Vec<String>> = columns
                .iter()
                .map(|c| c.iter().map(|&c| c.to_owned()).collect())
                .collect();
            of(sql).unwrap().is_made(&columns)
        };
        let rename = "ALTER TABLE t RENAME COLUMN a TO b";
        assert!(made(rename, &[&["id", "B"]]));
        assert!(!made(rename, &[&["id", "a", "b"]]) && !made(rename, &[&["id"]]) && !made(rename, &[&[]]));
        let table = "ALTER TABLE t RENAME TO u";
        assert!(made(table, &[&[], &["id"]]));
        assert!(!made(table, &[&["id"], &["id"]]) && !made(table, &[&[], &[]]));
        let drop = "ALTER TABLE t DROP COLUMN a";
        assert!(made(drop, &[&["id"]]) && !made(drop, &[&["A"]]) && !made(drop, &[&[]]));
    }
}
