//! What a statement is going to do, as SQLite's authorizer tells while it is compiled, and what a replica must refuse.
//!
//! The authorizer is called on the thread that prepares (or re-prepares) a statement. What it is told is collected per
//! thread in [`observe`]; refusals apply always, except inside [`internal`], where the project runs
//! its own statements. This module only classifies: it never runs anything.

use std::cell::{Cell, RefCell};

use partial_sync_transport::bookkeeping::{LAST_CHANGE_ID, is_own};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::{pragma, refusal::Refusal};
use crate::{
    change::{
        StatementKind,
        migration::Migration,
        tokens::{Token, TokenKind, own_table, tokens},
    },
    sql::transaction::Control,
};

/// An INSERT, UPDATE or DELETE inside a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub table: String,
    pub op: WriteOp,
    pub main: bool,
    /// The trigger whose program does it; `None` for the statement itself and for foreign-key actions.
    pub trigger: Option<String>,
    /// The column that the statement itself updates.
    pub column: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum WriteOp {
    Insert,
    Update,
    Delete,
}

/// A change of `main` that is recorded as the statement: of the schema, or of what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ddl {
    pub kind: StatementKind,
    /// The table, view, index, trigger or pragma.
    pub name: String,
    /// `CREATE TABLE ... AS SELECT`: recorded as the table it made and its rows.
    pub as_select: bool,
}

/// How a statement is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatementClass {
    /// Straight: it changes nothing that is recorded.
    Plain,
    /// It begins, ends or divides a transaction.
    Control(Control),
    Attach,
    /// It writes rows of `main`, itself or by triggers.
    Write(Vec<Target>),
    Ddl(Ddl),
}

impl StatementClass {
    pub(crate) fn is_plain(&self) -> bool {
        *self == StatementClass::Plain
    }

    pub(crate) fn control(&self) -> Option<&Control> {
        match self {
            StatementClass::Control(control) => Some(control),
            _ => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Observed {
    targets: Vec<Target>,
    ddl: Option<(StatementKind, String)>,
    analyzes: bool,
    attaches: bool,
    pub refusal: Option<Refusal>,
}

/// `SQLITE_ATTACH`, as the authorizer is told.
const ATTACH: i32 = rusqlite::ffi::SQLITE_ATTACH;

thread_local! {
    static OBSERVED: RefCell<Option<Observed>> = const { RefCell::new(None) };
    static INTERNAL: Cell<bool> = const { Cell::new(false) };
    static RECOMPILED: Cell<Recompiled> = const { Cell::new(Recompiled::Anything) };
}

/// What a statement that is compiled again while it runs may do to `main`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recompiled {
    Anything,
    /// It was prepared as one that does not write there.
    NoWrite,
    /// As above, and it wanted to.
    Refused,
}

/// Runs `step`, a step of a statement that is not recorded because it does not write to `main`. SQLite compiles it again
/// when the schema has changed, and then it may: a temporary table gone that hid one of `main`, a TEMP trigger made. It is
/// refused then, before it has changed anything; `None`.
pub(crate) fn without_writing_main<T>(step: impl FnOnce() -> T) -> Option<T> {
    RECOMPILED.with(|recompiled| recompiled.set(Recompiled::NoWrite));
    let done = step();
    let recompiled = RECOMPILED.with(|recompiled| recompiled.replace(Recompiled::Anything));
    (recompiled != Recompiled::Refused).then_some(done)
}

/// Does `work` on this thread, and gives what was observed meanwhile; not what a function of SQL that runs in it has observed
/// for itself.
pub(crate) fn observe<T>(work: impl FnOnce() -> T) -> (T, Observed) {
    struct Restore(Option<Observed>);
    impl Drop for Restore {
        fn drop(&mut self) {
            OBSERVED.with(|observed| *observed.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(OBSERVED.with(|observed| observed.borrow_mut().replace(Observed::default())));
    let done = work();
    let observed = OBSERVED.with(|observed| observed.borrow_mut().take());
    (done, observed.unwrap_or_default())
}

/// Runs `work` as the project's own: nothing is collected, nothing is refused.
pub(crate) fn internal<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            INTERNAL.with(|flag| flag.set(self.0));
        }
    }
    let _restore = Restore(INTERNAL.with(|flag| flag.replace(true)));
    work()
}

/// The authorizer of a capturing connection.
pub(crate) fn authorize(context: AuthContext<'_>) -> Authorization {
    if INTERNAL.with(Cell::get) {
        return Authorization::Allow;
    }
    if RECOMPILED.with(Cell::get) != Recompiled::Anything && writes_main(&context) {
        RECOMPILED.with(|recompiled| recompiled.set(Recompiled::Refused));
        return Authorization::Deny;
    }
    let refusal = refuse(&context);
    let denied = refusal.is_some();
    OBSERVED.with(|observed| {
        if let Some(observed) = observed.borrow_mut().as_mut() {
            observed.observe(&context);
            if observed.refusal.is_none() {
                observed.refusal = refusal;
            }
        }
    });
    if denied {
        Authorization::Deny
    } else {
        Authorization::Allow
    }
}

impl Observed {
    fn observe(&mut self, context: &AuthContext<'_>) {
        use StatementKind as K;
        let main = is_main(context);
        let mut write = |table: &str, op, column: Option<&str>| {
            let target = Target {
                table: table.to_owned(),
                op,
                main,
                trigger: context.accessor.map(str::to_owned),
                column: column.filter(|_| context.accessor.is_none()).map(str::to_owned),
            };
            if !self.targets.contains(&target) {
                self.targets.push(target);
            }
        };
        let mut ddl = |kind, name: &str| {
            // ANALYZE makes sqlite_stat1, and a key its sqlite_autoindex.
            if main && self.ddl.is_none() && !name.starts_with("sqlite_") {
                self.ddl = Some((kind, name.to_owned()));
            }
        };
        match context.action {
            AuthAction::Insert { table_name } => write(table_name, WriteOp::Insert, None),
            AuthAction::Update {
                table_name,
                column_name,
            } => write(table_name, WriteOp::Update, Some(column_name)),
            AuthAction::Delete { table_name } => write(table_name, WriteOp::Delete, None),
            AuthAction::CreateTable { table_name } | AuthAction::CreateVtable { table_name, .. } => {
                ddl(K::CreateTable, table_name)
            }
            AuthAction::CreateIndex { index_name, .. } => ddl(K::CreateIndex, index_name),
            AuthAction::CreateTrigger { trigger_name, .. } => ddl(K::CreateTrigger, trigger_name),
            AuthAction::CreateView { view_name } => ddl(K::CreateView, view_name),
            AuthAction::DropTable { table_name } | AuthAction::DropVtable { table_name, .. } => {
                ddl(K::DropTable, table_name)
            }
            AuthAction::DropIndex { index_name, .. } => ddl(K::DropIndex, index_name),
            AuthAction::DropTrigger { trigger_name, .. } => ddl(K::DropTrigger, trigger_name),
            AuthAction::DropView { view_name } => ddl(K::DropView, view_name),
            AuthAction::Pragma {
                pragma_name,
                pragma_value: Some(_),
            } if main && pragma::is_recorded(pragma_name) => {
                self.ddl = Some((K::Pragma, pragma_name.to_ascii_lowercase()));
            }
            AuthAction::Analyze { .. } if main => self.analyzes = true,
            AuthAction::AlterTable {
                database_name,
                table_name,
            } if database_name.eq_ignore_ascii_case("main") && self.ddl.is_none() => {
                self.ddl = Some((K::AlterOther, table_name.to_owned()));
            }
            // A file name that is not a literal comes without a name.
            AuthAction::Attach { .. } | AuthAction::Unknown { code: ATTACH, .. } => self.attaches = true,
            _ => {}
        }
    }

    /// The writes that were observed while a statement ran, which means that SQLite compiled it again.
    pub(crate) fn into_targets(self) -> Vec<Target> {
        self.targets
    }

    /// How to run a statement that this was observed about, or why not.
    pub(crate) fn classify(
        self,
        sql: &str,
        readonly: bool,
        explain: bool,
    ) -> Result<StatementClass, Refusal> {
        if explain {
            return Ok(StatementClass::Plain);
        }
        if self.attaches {
            return Ok(StatementClass::Attach);
        }
        if readonly {
            return Ok(StatementClass::Plain);
        }
        if let Some((kind, name)) = self.ddl {
            let tokens = tokens(sql);
            let kind = match kind {
                StatementKind::AlterOther => alter(&tokens, &name),
                kind => kind,
            };
            let as_select = kind == StatementKind::CreateTable && is_create_as_select(&tokens);
            if !as_select && let Some(refusal) = refuse_names(&tokens) {
                return Err(refusal);
            }
            return Ok(StatementClass::Ddl(Ddl {
                kind,
                name,
                as_select,
            }));
        }
        if self.analyzes {
            return Ok(StatementClass::Ddl(Ddl {
                kind: StatementKind::Analyze,
                name: String::new(),
                as_select: false,
            }));
        }
        let first = tokens(sql).first().map(|t| t.text.to_ascii_uppercase());
        // An ANALYZE of nothing, or of another database; PRAGMA optimize.
        let gathers = matches!(first.as_deref(), Some("ANALYZE" | "PRAGMA"));
        if let Some(target) = self.targets.iter().find(|t| t.main && is_statistics(&t.table))
            && !gathers
        {
            return Err(statistics(&target.table));
        }
        // REINDEX writes too, but nothing that anybody else needs.
        if self.targets.iter().any(|t| t.main && is_recorded(&t.table)) {
            return Ok(StatementClass::Write(self.targets));
        }
        Ok(StatementClass::Plain)
    }
}

/// Whether what a statement writes to this table is recorded. Of SQLite's own tables, which a statement may write to,
/// only the counters of AUTOINCREMENT are part of the data.
fn is_recorded(table: &str) -> bool {
    !table.starts_with("sqlite_") || table == "sqlite_sequence"
}

/// The tables of ANALYZE.
fn is_statistics(table: &str) -> bool {
    table.starts_with("sqlite_stat")
}

fn statistics(table: &str) -> Refusal {
    Refusal {
        what: format!("changing {table}"),
        advice: "a pull would undo it; run ANALYZE, which is pushed, or change it on the remote",
    }
}

/// A schema change that names one of this project's tables, or gives something such a name.
fn refuse_names(tokens: &[Token<'_>]) -> Option<Refusal> {
    if let Some(name) = tokens.iter().find_map(own_table) {
        return Some(own(name));
    }
    let is_virtual = tokens.get(1).is_some_and(|t| t.is("VIRTUAL"));
    let named = match Migration::of(tokens) {
        Some(Migration::RenameTable { to, .. }) => Some(to),
        _ if is_virtual => virtual_table(tokens),
        _ => None,
    }?;
    // The tables behind a virtual table are named after it.
    (is_own(&named) || is_own(&format!("{named}_"))).then(|| own(&named))
}

/// The name in `CREATE VIRTUAL TABLE [IF NOT EXISTS] [schema.]name USING ...`.
fn virtual_table(tokens: &[Token<'_>]) -> Option<String> {
    let using = tokens.iter().position(|t| t.is("USING"))?;
    tokens.get(using.checked_sub(1)?)?.name()
}

/// `ALTER TABLE [schema.]t ADD [COLUMN] c ...` or something else.
fn alter(tokens: &[Token<'_>], table: &str) -> StatementKind {
    // ALTER TABLE name, or ALTER TABLE schema . name
    let mut rest = tokens.get(3..).unwrap_or_default();
    if rest.first().is_some_and(|t| t.text == ".") {
        rest = rest.get(2..).unwrap_or_default();
    }
    let [add, rest @ ..] = rest else {
        return StatementKind::AlterOther;
    };
    if !add.is("ADD") {
        return StatementKind::AlterOther;
    }
    let column = match rest {
        [keyword, column, ..] if keyword.is("COLUMN") => column,
        [keyword, ..]
            if ["CONSTRAINT", "CHECK", "UNIQUE", "FOREIGN", "PRIMARY"]
                .iter()
                .any(|k| keyword.is(k)) =>
        {
            return StatementKind::AlterOther;
        }
        [column, ..] => column,
        [] => return StatementKind::AlterOther,
    };
    match column.name() {
        Some(column) => StatementKind::AlterAddColumn {
            table: table.to_owned(),
            column,
        },
        None => StatementKind::AlterOther,
    }
}

fn is_create_as_select(tokens: &[Token<'_>]) -> bool {
    let after_name = tokens.iter().position(|t| t.is("TABLE")).map(|i| {
        let mut i = i + 1;
        if tokens.get(i).is_some_and(|t| t.is("IF")) && tokens.get(i + 1).is_some_and(|t| t.is("NOT")) {
            i += 3;
        }
        i += 1;
        if tokens.get(i).is_some_and(|t| t.text == ".") {
            i += 2;
        }
        i
    });
    after_name.and_then(|i| tokens.get(i)).is_some_and(|t| t.is("AS"))
}

/// A `VACUUM` that would rewrite the replica: every form but `VACUUM [schema] INTO file`.
pub(crate) fn refuse_vacuum(sql: &str) -> Option<Refusal> {
    // Most statements are told apart by their first letter; those that begin with a comment take the longer way.
    let start = sql.trim_start().as_bytes().first().copied()?;
    if start.is_ascii_alphabetic() && !start.eq_ignore_ascii_case(&b'v') {
        return None;
    }
    let tokens = tokens(sql);
    if !tokens.first().is_some_and(|t| t.is("VACUUM")) {
        return None;
    }
    let into = |i: usize| tokens.get(i).is_some_and(|t| t.is("INTO"));
    let other_schema = tokens.get(1).is_some_and(|t| {
        t.kind != TokenKind::Semicolon && !t.name().is_some_and(|name| name.eq_ignore_ascii_case("main"))
    });
    if into(1) || into(2) || other_schema {
        return None;
    }
    Some(Refusal {
        what: "VACUUM".into(),
        advice: "it would rewrite every page of the replica; run it on the remote, or use VACUUM INTO 'file' for a copy",
    })
}

/// Whether an action changes rows or the schema of `main` in a way that is recorded.
fn writes_main(context: &AuthContext<'_>) -> bool {
    let name = match context.action {
        AuthAction::Insert { table_name: name }
        | AuthAction::Update { table_name: name, .. }
        | AuthAction::Delete { table_name: name }
        | AuthAction::CreateTable { table_name: name }
        | AuthAction::CreateVtable { table_name: name, .. }
        | AuthAction::DropTable { table_name: name }
        | AuthAction::DropVtable { table_name: name, .. }
        | AuthAction::CreateIndex { index_name: name, .. }
        | AuthAction::DropIndex { index_name: name, .. }
        | AuthAction::CreateTrigger {
            trigger_name: name, ..
        }
        | AuthAction::DropTrigger {
            trigger_name: name, ..
        }
        | AuthAction::CreateView { view_name: name }
        | AuthAction::DropView { view_name: name } => name,
        AuthAction::AlterTable { database_name, .. } => return database_name.eq_ignore_ascii_case("main"),
        _ => return false,
    };
    is_main(context) && is_recorded(name)
}

fn is_main(context: &AuthContext<'_>) -> bool {
    context
        .database_name
        .is_none_or(|name| name.eq_ignore_ascii_case("main"))
}

fn refuse(context: &AuthContext<'_>) -> Option<Refusal> {
    if let AuthAction::CreateTempTrigger { table_name, .. } = context.action
        && is_own(table_name)
    {
        return Some(own(table_name));
    }
    let is_of_the_process = matches!(context.action, AuthAction::Pragma { pragma_name, .. } if pragma::is_of_the_process(pragma_name));
    if !is_main(context) && !is_of_the_process {
        return None;
    }
    let (name, on) = match context.action {
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name }
        | AuthAction::CreateVtable { table_name, .. }
        | AuthAction::DropTable { table_name }
        | AuthAction::DropVtable { table_name, .. }
        | AuthAction::AlterTable { table_name, .. } => (table_name, ""),
        AuthAction::CreateIndex {
            index_name,
            table_name,
        }
        | AuthAction::DropIndex {
            index_name,
            table_name,
        } => (index_name, table_name),
        AuthAction::CreateTrigger {
            trigger_name,
            table_name,
        }
        | AuthAction::DropTrigger {
            trigger_name,
            table_name,
        } => (trigger_name, table_name),
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => (view_name, ""),
        AuthAction::Pragma {
            pragma_name,
            pragma_value,
        } => return pragma::refuse(pragma_name, pragma_value),
        _ => return None,
    };
    if is_own(name) || is_own(on) {
        return Some(own(if is_own(name) { name } else { on }));
    }
    if is_statistics(name) && matches!(context.action, AuthAction::DropTable { .. }) {
        return Some(statistics(name));
    }
    if name.eq_ignore_ascii_case("sqlite_dbpage") {
        return Some(Refusal {
            what: "writing to sqlite_dbpage".into(),
            advice: "it would change pages without the change log; change rows instead",
        });
    }
    None
}

fn own(name: &str) -> Refusal {
    Refusal {
        what: format!("changing {name}"),
        advice: match name.eq_ignore_ascii_case(LAST_CHANGE_ID) {
            true => "it says how far this and other replicas have pushed; only a push writes it",
            false => "tables whose names start with partial_sync_ belong to the replica; use another name",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vacuum_into_leaves_the_replica_alone() {
        for sql in ["VACUUM", "vacuum;", "/* c */ VACUUM main", "VACUUM \"main\" ;"] {
            assert!(refuse_vacuum(sql).is_some(), "{sql}");
        }
        for sql in [
            "VACUUM INTO 'f'",
            "vacuum main into ?1",
            "VACUUM other",
            "VALUES (1)",
            "SELECT 'VACUUM'",
            "",
        ] {
            assert!(refuse_vacuum(sql).is_none(), "{sql}");
        }
    }

    #[test]
    fn alter_table_add_column_is_told_apart() {
        let kind = |sql| alter(&tokens(sql), "t");
        let add = StatementKind::AlterAddColumn {
            table: "t".into(),
            column: "a b".into(),
        };
        assert_eq!(kind("ALTER TABLE t ADD COLUMN \"a b\" INT"), add);
        assert_eq!(kind("alter table main . [t] add `a b`"), add);
        assert_eq!(
            kind("ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)"),
            StatementKind::AlterOther
        );
        assert_eq!(kind("ALTER TABLE t DROP COLUMN a"), StatementKind::AlterOther);
        assert_eq!(kind("ALTER TABLE t RENAME TO u"), StatementKind::AlterOther);
    }

    #[test]
    fn create_table_as_select_is_told_apart() {
        for sql in [
            "CREATE TABLE t AS SELECT 1",
            "create table if not exists main.\"as\" as values (1)",
        ] {
            assert!(is_create_as_select(&tokens(sql)), "{sql}");
        }
        for sql in [
            "CREATE TABLE t(a AS (1))",
            "CREATE TABLE t(\"AS\")",
            "CREATE TABLE \"table\"(a)",
        ] {
            assert!(!is_create_as_select(&tokens(sql)), "{sql}");
        }
    }
}
