//! Random statements with triggers, cascades and indexes over other tables' content; some are given up. What is left on
//! the replica and on the remote is what plain SQLite makes of the statements that stay.

use std::collections::{BTreeMap, HashSet};

use partial_sync_core::ChangeId;

use crate::{support::*, units::World};

/// A statement, and for each row that it changes itself a statement that does that alone.
struct Step {
    sql: String,
    each: Vec<String>,
}

fn step(rng: &mut fastrand::Rng) -> Step {
    let one = |sql: String| Step {
        each: vec![sql.clone()],
        sql,
    };
    let word = ["fox", "dog", "cat", "quick", "lazy"][rng.usize(..5)];
    let (id, other) = (rng.u8(1..7), rng.u8(1..7));
    match rng.u8(..20) {
        0 => one(format!("insert into p values ({id}, '{word}')")),
        1 => one(format!("update p set v = '{word}' where id = {id}")),
        2 => one(format!("update p set id = {other} where id = {id}")),
        3 => one(format!("delete from p where id = {id}")),
        4 => one(format!("insert or replace into p values ({id}, '{word}')")),
        5 => one(format!("insert into c values ({id}, {other}, '{word}')")),
        6 => one(format!("update c set w = '{word}' where id = {id}")),
        7 => one(format!("update c set p = {other} where id = {id}")),
        8 => one(format!("delete from c where id = {id}")),
        9 => one(format!("insert into n values ({id}, {other})")),
        10 => one(format!("insert into v values ({id}, '{word}')")),
        11 => one(format!(
            "insert into docs values ({id}, '{word}', 'first {word} {id}')"
        )),
        12 => one(format!(
            "update docs set body = body || ' {word}' where id = {id}"
        )),
        13 => one(format!("delete from docs where id = {id}")),
        14 => one(format!("update docs set id = {other} where id = {id}")),
        15 => {
            let each = [id, id + 10, id + 20]
                .map(|id| format!("insert into docs values ({id}, '{word}', '{word} {word}')"));
            let values = [id, id + 10, id + 20].map(|id| format!("({id}, '{word}', '{word} {word}')"));
            Step {
                sql: format!("insert into docs values {}", values.join(", ")),
                each: each.to_vec(),
            }
        }
        16 => one(format!("insert into pairs values ({id}, {other}, '{word}')")),
        17 => one(format!("replace into pairs values ({id}, {other}, '{word}')")),
        18 => one(format!("insert into u values ({id}, '{word}')")),
        _ => one(match rng.bool() {
            true => format!("delete from u where id = {id}"),
            false => format!("update or ignore u set k = '{word}' where id = {id}"),
        }),
    }
}

/// How many changes stayed after a discarded one, and how many went with it.
fn history(seed: u64) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World::new();
    if rng.u8(..4) == 0 {
        let counting = "create trigger counts after insert on c begin update count set n = n + 1; end";
        world.served.execute(counting);
        world.plain(counting);
        world.db.pull().unwrap();
    }
    let in_one = rng.u8(..3) == 0;
    if in_one {
        world.conn.execute_batch("begin").unwrap();
    }
    let mut each = vec![];
    for _ in 0..rng.usize(8..24) {
        let step = step(&mut rng);
        let before = world.conn.total_changes();
        if world.conn.execute_batch(&step.sql).is_ok() && world.conn.total_changes() > before {
            each.extend(step.each);
        }
    }
    if in_one {
        world.conn.execute_batch("commit").unwrap();
    }
    let mut units: Vec<ChangeId> = world.log().iter().map(|change| change.unit).collect();
    units.sort_unstable();
    units.dedup();
    assert_eq!(
        units.len(),
        each.len(),
        "seed {seed}: {each:#?}: {:#?}",
        world.log()
    );
    let steps: BTreeMap<ChangeId, String> = units.into_iter().zip(each).collect();
    let log = world.log();
    if log.is_empty() {
        return (0, 0);
    }
    let mut gone: HashSet<ChangeId> = HashSet::new();
    let mut first = None;
    for _ in 0..rng.usize(1..3) {
        let change = log[rng.usize(..log.len())].id;
        first = first.min(Some(change)).or(Some(change));
        gone.extend(world.db.discard_change_with_dependents(change).unwrap());
    }
    for (unit, sql) in &steps {
        // Of one that stays, what a foreign key did to a row that is gone went with that.
        if !gone.contains(unit) {
            world.plain(sql);
        } else {
            let mut all = log.iter().filter(|change| change.unit == *unit);
            assert!(
                all.all(|change| gone.contains(&change.id)),
                "seed {seed}: a part of {sql}"
            );
        }
    }
    let what = format!("seed {seed}: {:?} without {gone:?}", steps);
    world.settle(rng.bool(), &what);
    let after = log.iter().filter(|change| Some(change.id) > first).count();
    (after.saturating_sub(gone.len()), gone.len())
}

#[test]
fn random_changes_that_are_discarded_leave_what_plain_sqlite_makes_of_the_others() {
    let seed = seed();
    let (mut kept, mut gone) = (0, 0);
    for n in 0..60 {
        let (k, g) = history(seed.wrapping_add(n));
        kept += k;
        gone += g;
    }
    println!("{kept} changes stayed after a discarded one, {gone} went");
    assert!(kept > gone / 4, "what does not depend on it stays");
}
