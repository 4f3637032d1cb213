//! Records a statement by its plan (`plan.rs`), and makes the plan.

use std::sync::Arc;

use partial_sync_vfs::sqlite::Stmt;

use super::{
    arguments::Arguments,
    classify::{Target, WriteOp, internal},
    given::{self, Giver},
    hook::{SEQUENCE, Seen},
    plan::{Plan, PlannedTable},
    run::{Recording, lost_transaction},
    schema::Known,
    units::{Back, Units},
};
use crate::{
    change::{Cause, row_bytes, tokens::tokens},
    error::Result,
};

#[cfg(test)]
thread_local! {
    static USE_PLANS: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

/// Whether statements that run on this thread from here on are recorded by their plans.
#[cfg(test)]
pub(super) fn use_plans(use_them: bool) {
    USE_PLANS.set(use_them);
}

impl Recording<'_> {
    /// Records what the hook saw by the statement's plan; false when there is none, or it did more than that.
    pub(super) fn record_by_plan(
        &mut self,
        stmt: &Stmt,
        seen: &mut Seen,
        targets: &[Target],
        arguments: &Arguments,
    ) -> Result<bool> {
        self.look_at_log()?;
        #[cfg(test)]
        if !USE_PLANS.get() {
            return Ok(false);
        }
        if seen.deep || seen.raw_text {
            return Ok(false);
        }
        let Some(plan) = self.plan(stmt, targets)? else {
            return Ok(false);
        };
        if !seen.tables().all(|table| plan.table(table).is_some()) || (seen.old && plan.reals) {
            return Ok(false);
        }
        let tables = seen.by_table(|table| {
            let planned = plan.table(table)?;
            Some((planned, planned.giver.is_sqlite(arguments)))
        });
        let mut units = Units::of_statement(plan.displaces);
        let mut back = Back::default();
        let time = self.now();
        while let Some(row) = seen.next()? {
            let (planned, adds) = tables[row.table].ok_or_else(lost_transaction)?;
            let op = row.op[0];
            let unit = units.next(0, op == row_bytes::DELETE);
            let (op, cause) = match op {
                row_bytes::INSERT if adds => (row_bytes::ADD, Cause::Statement),
                row_bytes::INSERT => (op, Cause::Statement),
                _ => (op, planned.cause),
            };
            self.wait_row(&planned.table, op, row.op, cause, (time, back.of(unit)))?;
        }
        Ok(true)
    }

    fn plan(&mut self, stmt: &Stmt, targets: &[Target]) -> Result<Option<Arc<Plan>>> {
        let text = stmt.sql_bytes();
        if let Some(plan) = self.state.schema.plans.get(text, targets) {
            return Ok(Some(plan));
        }
        let plan = self.make_plan(&stmt.sql(), targets)?.map(Arc::new);
        if let Some(plan) = &plan {
            self.state.schema.plans.keep(text, plan);
        }
        Ok(plan)
    }

    fn make_plan(&mut self, sql: &str, targets: &[Target]) -> Result<Option<Plan>> {
        if targets.iter().any(|target| target.trigger.is_some()) {
            return Ok(None);
        }
        let tokens = tokens(sql);
        let (mut tables, mut reals): (Vec<PlannedTable>, _) = (Vec::new(), false);
        for target in targets.iter().filter(|target| target.main) {
            let Known::Ordinary(table) = self.known(&target.table)? else {
                return Ok(None);
            };
            if table.name == SEQUENCE || table.columns.iter().any(|column| column.generated) {
                return Ok(None);
            }
            if tables.iter().any(|planned| planned.table.name == table.name) {
                continue;
            }
            reals |= !internal(|| self.state.schema.reals(self.conn, &table))?.is_empty();
            let by_values = internal(|| self.state.schema.has_keys_of_triggers(self.conn, &table))?;
            let key = internal(|| self.state.schema.indexes(self.conn, &table))?.rowid_key;
            let inserts =
                |t: &Target| t.main && t.op == WriteOp::Insert && t.table.eq_ignore_ascii_case(&table.name);
            let giver = match key {
                None => Giver::Statement,
                Some(key) if targets.iter().any(inserts) => given::by_statement(&tokens, &table, key),
                Some(_) => Giver::Sqlite,
            };
            tables.push(PlannedTable {
                cause: match by_values {
                    true => Cause::StatementByValues,
                    false => Cause::Statement,
                },
                giver,
                table,
            });
        }
        Ok(Some(Plan {
            targets: targets.to_vec(),
            displaces: !given::is_delete(&tokens),
            reals,
            tables,
        }))
    }
}
