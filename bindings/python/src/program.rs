//! Whether a query can only end once it has given a row, read off the program that SQLite makes of it (`EXPLAIN`).
//!
//! On a replica the row after the one that a program asked for may be a thousand absent pages away, so it is not looked for
//! unasked. But a query by key, or a count, has no other row, and one that a cursor keeps open without need would hold the
//! snapshot that it began with. An instruction that is not known here means no: the query then stays open until its cursor
//! is read to the end, used again, closed or dropped.

use partial_sync::{Connection, Error};

/// One instruction.
struct Instruction {
    name: String,
    p1: i64,
    p2: i64,
}

pub(crate) fn ends_after_a_row(connection: &Connection, sql: &str) -> Result<bool, Error> {
    let program = connection.query::<(i64, String, i64, i64)>(&format!("EXPLAIN {sql}"), ());
    let program: Vec<_> = match program {
        Ok(rows) => rows
            .into_iter()
            .map(|(_, name, p1, p2)| Instruction { name, p1, p2 })
            .collect(),
        // For example of an EXPLAIN.
        Err(Error::Sqlite(_)) => return Ok(false),
        Err(error) => return Err(error),
    };
    Ok((0..program.len())
        .filter(|&at| program[at].name == "ResultRow")
        .all(|at| only_halts(&program, at + 1)))
}

/// Whether nothing is read from here on to the end.
fn only_halts(program: &[Instruction], mut at: usize) -> bool {
    // Every instruction continues at one place only, so a way that is longer than the program is a loop.
    for _ in 0..program.len() {
        let Some(instruction) = program.get(at) else {
            return false;
        };
        at = match instruction.name.as_str() {
            "Halt" => return true,
            "Goto" => usize::try_from(instruction.p2).unwrap_or(usize::MAX),
            // `LIMIT 1`: the counter, which is set once, goes down to 0.
            "DecrJumpZero" if is_one(program, instruction.p1) => {
                usize::try_from(instruction.p2).unwrap_or(usize::MAX)
            }
            "Close" | "Copy" | "SCopy" | "Integer" | "Null" | "Noop" | "ResetSorter" => at + 1,
            _ => return false,
        };
    }
    false
}

/// Whether a register that counts rows begins at 1.
fn is_one(program: &[Instruction], register: i64) -> bool {
    let mut sets = program
        .iter()
        .filter(|instruction| instruction.name == "Integer" && instruction.p2 == register);
    matches!((sets.next(), sets.next()), (Some(only), None) if only.p1 == 1)
}
