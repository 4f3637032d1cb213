//! Which changes a batch for the remote holds: whole local transactions, as many as fit, each written as SQL. What the batch
//! consists of besides is in [`batch`](super::batch); [`outcome`](super::outcome) reads its answer. Nothing here sends.

use super::{
    Change, Value,
    batch::{Statements, assemble},
    transform::{Entries, statements},
    written::SqlStatement,
};
pub use super::{
    batch::{PushBatch, PushLimits, PushOptions, Unsendable, wire_value},
    outcome::{Made, PushOutcome, PushPlan, is_key_taken, look, was_made},
    refused::{PushRefused, subject},
};

/// A batch of as many transactions as fit, from the first on; `None` when there are none.
///
/// A change that cannot be sent ends the batch before its transaction; it is an error only when that is the first.
pub fn build<'a, T: AsRef<[Change]>>(
    transactions: &'a [T],
    options: &PushOptions<'_>,
) -> Result<Option<PushBatch<'a>>, Unsendable> {
    let mut chosen: Vec<(&'a Change, Vec<SqlStatement>)> = Vec::new();
    let (mut taken, mut count, mut bytes) = (0, 0, 0);
    for transaction in transactions.iter().map(AsRef::as_ref) {
        let written = match write_transaction(transaction, options) {
            Ok(written) => written,
            Err(error) if taken == 0 => return Err(error),
            Err(_) => break,
        };
        let all = written.iter().flat_map(|(_, statements)| statements);
        let more = all.clone().count();
        let more_bytes: usize = all.map(wire_size).sum();
        let fits = count + more <= options.limits.statements && bytes + more_bytes <= options.limits.bytes;
        if taken > 0 && !fits {
            break;
        }
        chosen.extend(written);
        taken += 1;
        count += more;
        bytes += more_bytes;
    }
    let mut changes = transactions[..taken].iter().flat_map(AsRef::as_ref);
    let Some(first) = changes.next() else {
        return Ok(None);
    };
    let last = changes.last().unwrap_or(first);
    assemble(chosen, options, taken, first.id, last.id).map(Some)
}

fn write_transaction<'a>(
    changes: &'a [Change],
    options: &PushOptions<'_>,
) -> Result<Statements<'a>, Unsendable> {
    let entries = options
        .transform
        .map(|_| Entries::of(changes))
        .unwrap_or_default();
    changes
        .iter()
        .filter(|change| !options.skip.contains(&change.id))
        .map(
            |change| match statements(change, options.mode, options.transform.map(|f| (f, &entries))) {
                Ok(statements) => Ok((change, statements)),
                Err(source) => Err(Unsendable {
                    change_id: change.id,
                    source,
                }),
            },
        )
        .collect()
}

/// Roughly what a statement takes as JSON.
fn wire_size(statement: &SqlStatement) -> usize {
    let args: usize = statement
        .args
        .iter()
        .map(|value| match value {
            Value::Blob(bytes) => 40 + bytes.len().div_ceil(3) * 4,
            other => 40 + other.size(),
        })
        .sum();
    100 + statement.sql.len() + args
}
