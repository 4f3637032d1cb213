//! Random histories of rows whose keys move: two replicas and somebody else on the remote, given and chosen keys,
//! references of every type, index entries, deletes and new rows, batches that are late and answers that are lost, pulls
//! and restarts in between. Each client changes its own rows only, so the end is known: every row that was written is
//! there with its own values and its own children, and nothing else is. `PARTIAL_SYNC_SEED` repeats a failure.

use std::{collections::BTreeMap, sync::Arc};

use partial_sync::{Connection, Database, Error};

use crate::{late_batches::Slow, support::*};

const SCHEMA: &str = "create table t(id integer primary key, word, n);
    create table c(id integer primary key, word, plain references t on update cascade on delete cascade,
        txt text references t on update cascade on delete cascade, num real references t on update cascade on delete cascade,
        whole integer references t on update cascade on delete cascade);
    create virtual table own using fts5(word);
    create virtual table ext using fts5(word, content = 't', content_rowid = 'id');
    insert into t values (1, 'base', 0); insert into ext(rowid, word) values (1, 'base');";
const REFERENCES: [&str; 4] = ["plain", "txt", "num", "whole"];

/// A child, and the columns by which it refers to its parent.
type Child = (String, Vec<usize>);

struct Client {
    name: &'static str,
    slow: Arc<Slow>,
    /// `None` only while it is opened again.
    open: Option<(Database, Connection)>,
    /// Its rows: the number that each has, and its children.
    rows: BTreeMap<String, (u32, Vec<Child>)>,
    made: u32,
}

impl Client {
    fn new(replicas: &Replicas, served: &Served, name: &'static str) -> Self {
        let mut client = Self {
            name,
            slow: Slow::new(served.http()),
            open: None,
            rows: BTreeMap::new(),
            made: 0,
        };
        client.reopen(replicas);
        client
    }

    fn reopen(&mut self, replicas: &Replicas) {
        self.open = None;
        let db = replicas
            .builder(self.name)
            .remote_with(self.slow.clone())
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        conn.execute_batch("pragma foreign_keys = on").unwrap();
        self.open = Some((db, conn));
    }

    fn db(&self) -> &Database {
        &self.open.as_ref().unwrap().0
    }

    fn run(&self, sql: &str) {
        println!("{}: {sql}", self.name);
        let conn = &self.open.as_ref().unwrap().1;
        conn.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn one(&self, sql: &str) -> i64 {
        let found = rows(&self.open.as_ref().unwrap().1, sql).unwrap();
        let only = found.first().unwrap_or_else(|| panic!("{sql}: nothing"));
        only.trim_start_matches("Integer(")
            .trim_end_matches(')')
            .parse()
            .unwrap()
    }

    fn word(&mut self) -> String {
        self.made += 1;
        format!("{}{}", &self.name[..1], self.made)
    }

    fn key(&self, word: &str) -> i64 {
        self.one(&format!("select id from t where word = '{word}'"))
    }

    /// A statement that makes a child of the row with this key.
    fn child(&mut self, random: &mut fastrand::Rng, of: &str, key: &str) -> String {
        let word = self.word();
        let by: Vec<usize> = (0..REFERENCES.len()).filter(|_| random.bool()).collect();
        let mut value = |_: &usize| match random.u32(0..4) {
            0 => format!("' ' || {key}"),
            1 => format!("{key} * 1.0"),
            2 => format!("cast({key} as text)"),
            _ => key.to_owned(),
        };
        let values: Vec<String> = by.iter().map(&mut value).collect();
        let columns: Vec<&str> = by.iter().map(|&i| REFERENCES[i]).collect();
        let comma = if by.is_empty() { "" } else { ", " };
        let sql = format!(
            "insert into c(word{comma}{}) values ('{word}'{comma}{});",
            columns.join(", "),
            values.join(", ")
        );
        if !by.is_empty() {
            self.rows.get_mut(of).unwrap().1.push((word, by));
        } else {
            // Refers to nothing, and so is there for good.
            let orphans = self.rows.entry(String::new()).or_default();
            orphans.1.push((word, by));
        }
        sql
    }

    fn insert(&mut self, random: &mut fastrand::Rng) {
        let (word, n) = (self.word(), random.u32(0..100));
        self.rows.insert(word.clone(), (n, Vec::new()));
        let chosen = random.u32(0..5) == 0;
        let id = match chosen {
            // Nobody else's.
            true => format!(
                "-{}{:03}",
                if self.name.starts_with('a') { 1 } else { 2 },
                self.made
            ),
            false => "null".into(),
        };
        self.run(&format!("begin; insert into t values ({id}, '{word}', {n})"));
        let key = self.key(&word).to_string();
        self.run(&format!(
            "insert into own(rowid, word) values ({key}, '{word}'); insert into ext(rowid, word) values ({key}, '{word}')"
        ));
        for _ in 0..random.u32(0..3) {
            let child = self.child(random, &word, &key);
            self.run(&child);
        }
        self.run("commit");
    }

    fn change(&mut self, random: &mut fastrand::Rng) {
        let words: Vec<String> = self.rows.keys().filter(|w| !w.is_empty()).cloned().collect();
        let Some(word) = random.choice(words) else {
            return;
        };
        let (key, n) = (self.key(&word), random.u32(0..100));
        let delete = format!(
            "delete from own where rowid = {key}; insert into ext(ext, rowid, word) values ('delete', {key}, '{word}');"
        );
        match random.u32(0..8) {
            0 | 1 => {
                self.rows.remove(&word);
                self.run(&format!("begin; {delete} delete from t where id = {key}; commit"));
            }
            2 => {
                // Its children go with it.
                self.rows.insert(word.clone(), (n, Vec::new()));
                self.run(&format!(
                    "begin; {delete} delete from t where id = {key}; insert into t values ({key}, '{word}', {n});
                     insert into own(rowid, word) values ({key}, '{word}'); insert into ext(rowid, word) values ({key}, '{word}');
                     commit"
                ));
            }
            3 => {
                self.made += 1;
                let to = format!(
                    "-{}{:03}",
                    if self.name.starts_with('a') { 1 } else { 2 },
                    self.made
                );
                self.run(&format!(
                    "begin; {delete} update t set id = {to} where id = {key}; insert into own(rowid, word) values ({to}, '{word}');
                     insert into ext(rowid, word) values ({to}, '{word}'); commit"
                ));
            }
            4 | 5 => {
                let child = self.child(random, &word, &key.to_string());
                self.run(&child);
            }
            _ => {
                self.rows.get_mut(&word).unwrap().0 = n;
                self.run(&format!("update t set n = {n} where id = {key}"));
            }
        }
    }

    fn push(&self) {
        let pushed = self.db().push();
        println!(
            "{}: push: {:?}",
            self.name,
            pushed.as_ref().map_err(ToString::to_string)
        );
        match pushed {
            Ok(()) | Err(Error::Remote(_)) => {}
            Err(Error::Unsendable { message, .. }) if message.contains("pull first") => self.pull(),
            Err(error) => panic!("{}: push: {error}", self.name),
        }
    }

    fn pull(&self) {
        let pulled = self.db().pull();
        println!(
            "{}: pull: {:?}",
            self.name,
            pulled.as_ref().map_err(ToString::to_string)
        );
        match pulled {
            Ok(_) | Err(Error::Remote(_)) => {}
            Err(error) => panic!("{}: pull: {error}", self.name),
        }
    }

    /// What has to be found of it: its rows, its children with their parents.
    fn expected(&self) -> (Vec<String>, Vec<String>) {
        let mut all = (Vec::new(), Vec::new());
        for (word, (n, children)) in &self.rows {
            if !word.is_empty() {
                all.0.push(format!("Text({word:?})|Integer({n})"));
            }
            for (child, by) in children {
                let parent = |i| match by.contains(&i) {
                    true => format!("Text({word:?})"),
                    false => "Null".to_owned(),
                };
                let parents: Vec<String> = (0..REFERENCES.len()).map(parent).collect();
                all.1.push(format!("Text({child:?})|{}", parents.join("|")));
            }
        }
        all
    }
}

fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let served = Served::new(SCHEMA);
    let replicas = Replicas::new();
    let mut clients = ["a.db", "b.db"].map(|name| Client::new(&replicas, &served, name));
    for step in 0..60 {
        let client = &mut clients[random.usize(0..2)];
        match random.u32(0..20) {
            0..=5 => client.insert(&mut random),
            6..=10 => client.change(&mut random),
            11 | 12 => client.push(),
            13 => {
                client.slow.stick(true);
                client.push();
                client.slow.stick(false);
            }
            14 => {
                client.slow.lose_answers(true);
                client.push();
                client.slow.lose_answers(false);
            }
            15 => client.slow.deliver(),
            16 | 17 => client.pull(),
            18 => client.reopen(&replicas),
            _ => served.execute(&format!(
                "delete from t where word like 'x%' and n % 3 = {}; insert into t(word, n) values ('x{step}', {step})",
                random.u32(0..3)
            )),
        }
    }
    served.execute("delete from t where word like 'x%'");
    for _ in 0..2 {
        for client in &clients {
            client.slow.deliver();
            client.pull();
            client.db().push().unwrap();
            assert_eq!(client.db().stats().unwrap().cdc_operations, 0);
        }
    }
    let remote = served.sqlite();
    let query = |sql: &str| stock_rows(&remote, sql).unwrap();
    let (mut expected, mut children) = (vec!["Text(\"base\")|Integer(0)".to_owned()], Vec::new());
    for client in &clients {
        let (rows, with) = client.expected();
        expected.extend(rows);
        children.extend(with);
    }
    expected.sort();
    children.sort();
    assert_same(&query("select word, n from t order by word"), &expected, "rows");
    let parent = |column: &&str| format!("(select word from t where t.id = c.{column})");
    let parents: Vec<String> = REFERENCES.iter().map(parent).collect();
    let sql = format!("select word, {} from c order by word", parents.join(", "));
    assert_same(&query(&sql), &children, "children");
    assert_eq!(query("pragma foreign_key_check"), [""; 0]);
    let indexed = "select word from t where word <> 'base' order by word";
    assert_same(
        &query("select own.word from own join t on t.id = own.rowid and t.word = own.word order by 1"),
        &query(indexed),
        "entries",
    );
    assert_eq!(
        query("select count(*) from own"),
        query(&format!("select count(*) from ({indexed})"))
    );
    remote
        .execute_batch("insert into ext(ext, rank) values ('integrity-check', 1)")
        .expect("an index that fits its content");
    for client in &clients {
        client.pull();
        let conn = &client.open.as_ref().unwrap().1;
        assert_same(
            &contents(conn),
            &stock_contents(&remote),
            "a replica and the remote",
        );
    }
}

#[test]
fn h7_random_histories_lose_and_mix_up_no_row() {
    let seed = seed();
    for round in 0..6 {
        let seed = seed.wrapping_add(round);
        println!("a history of its own: PARTIAL_SYNC_SEED={seed}");
        history(seed);
    }
}
