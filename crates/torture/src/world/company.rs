//! What happens during a pull, push or hydration. The call runs on a thread of its own; each of its requests waits until this
//! thread has run the steps that belong there, so a history stays the same from run to run. Only company `beside` runs
//! freely.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Instant,
};

use partial_sync::{Database, Error};

use super::{
    World,
    sql::read_table,
    sync::{Before, call},
};
use crate::{
    faults::OnItsWay,
    model::{Rows, State},
    oracle::{Excuses, Failure, Outcome, guarded, is_allowed, refused},
    steps::{Line as CaseLine, Step},
};

enum Event {
    Request(OnItsWay),
    Done(Outcome<Result<(), Error>>),
}

/// What a thread beside found: what it read, table by table, or why it could not.
type Beside = Outcome<Result<Vec<(String, Option<Rows>)>, Error>>;

/// Rounds that one thread beside runs at most, should the call not end.
const ROUNDS: usize = 100_000;

impl World {
    pub(super) fn company(&mut self, r: usize, line: &CaseLine) -> Outcome {
        if !self.can_sync(r) {
            return Ok(());
        }
        self.counts.step(&line.step);
        self.replicas[r].shown = vec![self.replicas[r].committed.clone()];
        let before = self.before(r);
        let database = self.replicas[r].handles[0].clone();
        let stop = Arc::new(AtomicBool::new(false));
        let beside: Vec<JoinHandle<Beside>> = line
            .beside
            .iter()
            .map(|step| {
                let (database, step, stop) = (database.clone(), step.clone(), stop.clone());
                std::thread::spawn(move || beside(&database, &step, &stop))
            })
            .collect();
        let (send, receive) = mpsc::channel();
        let requests = send.clone();
        let hook: crate::faults::Hook = Arc::new(move |request| drop(requests.send(Event::Request(request))));
        if !line.meanwhile.is_empty() {
            self.replicas[r].line.watch(hook.clone());
        }
        let step = line.step.clone();
        std::thread::spawn(move || {
            let result = guarded(|| call(&database, &step));
            // Who waits for the result may want to see everything closed.
            drop(database);
            drop(send.send(Event::Done(result)));
        });
        let (mut nth, mut cancelled, mut slow) = (0, false, false);
        let mut failed = Ok(());
        let result = loop {
            match receive.recv() {
                Ok(Event::Done(result)) => break result,
                Ok(Event::Request(request)) => {
                    nth += 1;
                    let began = Instant::now();
                    // What these steps ask the remote themselves does not wait.
                    self.replicas[r].line.unwatch();
                    self.replicas[r].is_pulling = matches!(line.step, Step::Pull(..));
                    for (at, step) in &line.meanwhile {
                        if *at == nth && failed.is_ok() && !self.replicas[r].has_stopped() {
                            cancelled |= matches!(step, Step::Cancel(_));
                            failed = self.step(step);
                        }
                    }
                    self.replicas[r].is_pulling = false;
                    // The request waits for them as for a slow line.
                    slow |= began.elapsed() > self.replicas[r].timeout / 3;
                    self.replicas[r].line.watch(hook.clone());
                    let _ = request.go.send(());
                }
                Err(_) => break Err(Failure::new("a call vanished", line.step.to_string())),
            }
        };
        self.replicas[r].line.unwatch();
        drop(receive);
        stop.store(true, SeqCst);
        self.replicas[r].line.quiet();
        let found: Vec<Beside> = beside
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new("panic beside", "")))
            })
            .collect();
        failed?;
        let before = Before {
            cancelled,
            slow,
            ..before
        };
        self.synced(r, &line.step, &before, result?)?;
        for found in found {
            self.judge_beside(r, found?)?;
        }
        Ok(())
    }

    fn judge_beside(&self, r: usize, found: Result<Vec<(String, Option<Rows>)>, Error>) -> Outcome {
        let replica = &self.replicas[r];
        match found {
            Err(_) if replica.has_stopped() => Ok(()),
            Err(e) => {
                let expired = self.states.iter().any(|state| state.expired);
                let excuses = Excuses {
                    line: replica.line.faults() > 0,
                    expired,
                    busy: true,
                    ..Excuses::default()
                };
                match is_allowed(&e, excuses) {
                    true => Ok(()),
                    false => Err(refused("beside", &e)),
                }
            }
            Ok(reads) => {
                // A pull may have committed before the disk stopped, and not have said so.
                let coming = match replica.has_stopped() {
                    true => Some(
                        self.expected(r, self.states.len().checked_sub(1), replica.log.len(), None)?
                            .1,
                    ),
                    false => None,
                };
                for (table, rows) in reads {
                    let is_that = |state: &State| state.tables.get(&table) == rows.as_ref();
                    if !replica.shown.iter().any(|state| is_that(state))
                        && !coming.as_ref().is_some_and(is_that)
                    {
                        let expected = replica.shown[0].tables.get(&table);
                        let detail = crate::model::rows_difference(rows.as_ref(), expected);
                        return Err(Failure::new(format!("a read of {table} beside differs"), detail));
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reads, or asks for statistics, over and over.
fn beside(database: &Database, step: &Step, stop: &AtomicBool) -> Beside {
    let mut reads: Vec<(String, Option<Rows>)> = vec![];
    for _ in 0..ROUNDS {
        let done = match step {
            Step::Read(_, _, table) => match read_twice(database, table)? {
                Ok(rows) => {
                    if reads.last().is_none_or(|(_, last)| *last != rows) {
                        reads.push((table.clone(), rows));
                    }
                    Ok(())
                }
                Err(e) => Err(e),
            },
            _ => guarded(|| database.stats())?.map(drop),
        };
        if let Err(e) = done {
            return Ok(Err(e));
        }
        if stop.load(SeqCst) {
            break;
        }
    }
    Ok(Ok(reads))
}

fn read_twice(database: &Database, table: &str) -> Outcome<Result<Option<Rows>, Error>> {
    let begun = guarded(|| {
        let conn = database.connection()?;
        // The snapshot begins with the first statement that is compiled, and one that says "no such table" is not.
        conn.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema")?;
        Ok(conn)
    })?;
    let conn = match begun {
        Ok(conn) => conn,
        Err(e) => return Ok(Err(e)),
    };
    let (first, second) = match (read_table(&conn, table)?, read_table(&conn, table)?) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(e), _) | (_, Err(e)) => return Ok(Err(e)),
    };
    if first != second {
        return Err(Failure::new("a transaction shows two states", table));
    }
    Ok(Ok(first))
}
