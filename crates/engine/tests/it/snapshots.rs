//! Every read transaction sees one state: of the remote at one revision, plus the local changes committed before it;
//! also where most pages are absent, and while pulls, pushes, local commits and remote commits continue all the time.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use crate::support::*;
use partial_sync::{Connection, Database};
use partial_sync_core::Revision;
use partial_sync_server::Retention;
use partial_sync_transport::{Fault, Faulty, PageSelector, PagesRequest, RemoteErrorKind};

/// Accounts in groups of eight whose members lie far from each other. The balances of a group sum up to 800, always:
/// members 0 to 3 trade with each other on the remote, 4 to 7 on the replica. `twin_a` and `twin_b` are always equal and
/// are written by the remote, `twin_c` and `twin_d` by the replica. `tick` counts the remote's commits.
const BANK: &str = "pragma page_size = 1024;
    create table account(id integer primary key, grp integer not null, balance integer not null, pad blob);
    with recursive c(x) as (select 0 union all select x + 1 from c where x < 9999)
    insert into account select x, x % 1250, 100, zeroblob(300) from c;
    create index by_group on account(grp, balance);
    create table twin_a(id integer primary key, n integer, pad blob);
    create table twin_b(id text primary key, n integer, pad blob) without rowid;
    create table twin_c(id integer primary key, n integer, pad blob);
    create table twin_d(id text primary key, n integer, pad blob) without rowid;
    with recursive c(x) as (select 0 union all select x + 1 from c where x < 999)
    insert into twin_a select x, 0, zeroblob(200) from c;
    insert into twin_b select id, n, pad from twin_a;
    insert into twin_c select id, n, pad from twin_a;
    insert into twin_d select id, n, pad from twin_a;
    create table tick(n integer);
    insert into tick values (0);
    create table churn(id integer primary key, pad blob);";

const GROUPS: i64 = 1250;
const TWINS: i64 = 1000;
const READERS: usize = 16;
/// How long a run takes: `PARTIAL_SYNC_SECONDS`, or a few.
fn budget() -> Duration {
    let seconds =
        std::env::var("PARTIAL_SYNC_SECONDS").map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds.unwrap_or(6))
}

/// On a slow machine a run takes this much longer, until it has had the least that means something.
const PATIENCE: Duration = Duration::from_secs(40);
const MIN_PULLS: u64 = 10;
const MIN_READS: u64 = 200;
const ENOUGH_PULLS: u64 = 400;

/// What the threads of a run share.
struct Run {
    end: Instant,
    stop: AtomicBool,
    reads: AtomicU64,
    /// Pulls that brought something.
    pulls: Mutex<u64>,
    pulled: Condvar,
    local: AtomicU64,
    remote: AtomicU64,
    /// Pulls after which most pages were absent.
    mostly_absent: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        let now = Instant::now();
        let too_little = || self.reads.load(Relaxed) < MIN_READS || *self.pulls.lock().unwrap() < MIN_PULLS;
        !self.stop.load(Relaxed) && (now < self.end || (now < self.end + PATIENCE && too_little()))
    }

    /// Keeps a thread from running away from the pulls: it may do `each` things for each of them.
    fn keep_pace(&self, done: u64, each: u64) {
        loop {
            let pulls = self.pulls.lock().unwrap();
            if done <= (*pulls + 4) * each {
                return;
            }
            drop(
                self.pulled
                    .wait_timeout(pulls, Duration::from_millis(100))
                    .unwrap(),
            );
            if !self.goes_on() {
                return;
            }
        }
    }
}

fn integers(conn: &Connection, sql: &str) -> Vec<Option<i64>> {
    match conn.query::<(Option<i64>,)>(sql, ()) {
        Ok(rows) => rows.into_iter().map(|(n,)| n).collect(),
        Err(error) => panic!("{sql}: {error}"),
    }
}

fn integer(conn: &Connection, sql: &str) -> i64 {
    integers(conn, sql)[0].unwrap_or_else(|| panic!("{sql} answered NULL"))
}

fn members(group: i64) -> String {
    let ids: Vec<String> = (0..8).map(|k| (group + k * GROUPS).to_string()).collect();
    ids.join(", ")
}

fn twins(conn: &Connection, a: &str, b: &str, id: i64) {
    let one = integers(conn, &format!("select n from {a} where id = {id}"));
    let other = integers(conn, &format!("select n from {b} where id = '{id}'"));
    assert_eq!(one.len(), 1);
    assert_eq!(one, other, "{a} and {b} differ at {id} within one transaction");
}

/// Read transactions, until the end.
fn reader(db: &Database, run: &Run, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let conn = db.connection().unwrap();
    let mut newest = 0;
    while run.goes_on() {
        conn.execute_batch("begin").unwrap();
        let tick = integer(&conn, "select n from tick");
        assert!(
            tick >= newest,
            "the remote's commit {newest} was here, now it is {tick}"
        );
        newest = tick;
        let mut seen = vec![];
        for _ in 0..random.usize(1..4) {
            let group = random.i64(0..GROUPS);
            let by_index =
                format!("select sum(balance) from account indexed by by_group where grp = {group}");
            let by_key = format!(
                "select sum(balance) from account where id in ({})",
                members(group)
            );
            assert_eq!(
                integer(&conn, &by_index),
                800,
                "group {group} by its index at {tick}"
            );
            assert_eq!(
                integer(&conn, &by_key),
                800,
                "group {group} by its keys at {tick}"
            );
            let rows = format!(
                "select group_concat(id || ':' || balance) from \
                 (select id, balance from account where grp = {group} order by balance, id)"
            );
            seen.push((rows.clone(), conn.query::<(String,)>(&rows, ()).unwrap()));
        }
        twins(&conn, "twin_a", "twin_b", random.i64(0..TWINS));
        twins(&conn, "twin_c", "twin_d", random.i64(0..TWINS));
        for (sql, before) in seen {
            assert_eq!(
                conn.query::<(String,)>(&sql, ()).unwrap(),
                before,
                "{sql} changed within one transaction"
            );
        }
        assert_eq!(
            integer(&conn, "select n from tick"),
            tick,
            "the tick moved within one transaction"
        );
        conn.execute_batch("commit").unwrap();
        let reads = run.reads.fetch_add(1, Relaxed);
        run.keep_pace(reads, 8);
    }
}

/// Moves money between two members of a group out of four, and writes a row of two twins.
fn trade(random: &mut fastrand::Rng, first: i64, twins: (&str, &str), n: u64) -> String {
    let group = random.i64(0..GROUPS);
    let from = random.i64(0..4);
    let to = (from + random.i64(1..4)) % 4;
    let (from, to) = (group + (first + from) * GROUPS, group + (first + to) * GROUPS);
    let amount = random.i64(1..50);
    let row = random.i64(0..TWINS);
    let (a, b) = twins;
    format!(
        "update account set balance = balance - {amount} where id = {from};
         update account set balance = balance + {amount} where id = {to};
         update {a} set n = {n} where id = {row};
         update {b} set n = {n} where id = '{row}';"
    )
}

fn local_writer(db: &Database, run: &Run, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let conn = db.connection().unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    while run.goes_on() {
        let n = run.local.fetch_add(1, Relaxed);
        let changes = trade(&mut random, 4, ("twin_c", "twin_d"), n);
        let end = if random.u32(0..8) == 0 {
            "rollback"
        } else {
            "commit"
        };
        if let Err(error) = conn.execute_batch(&format!("begin immediate; {changes} {end};")) {
            panic!("a local transaction failed: {error}");
        }
        run.keep_pace(n, 2);
    }
}

fn remote_writer(conn: &rusqlite::Connection, run: &Run, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    conn.pragma_update(None, "synchronous", "off").unwrap();
    conn.busy_timeout(Duration::from_secs(20)).unwrap();
    while run.goes_on() {
        let n = run.remote.fetch_add(1, Relaxed) + 1;
        let changes = trade(&mut random, 0, ("twin_a", "twin_b"), n);
        // The file grows and shrinks, and pages change what they are for.
        let churn = match random.u32(0..30) {
            0 => "delete from churn".to_owned(),
            1 => "create index if not exists churned on churn(pad)".to_owned(),
            2 => "drop index if exists churned".to_owned(),
            _ => format!(
                "insert into churn(pad) values (randomblob({}))",
                random.u32(1..3000)
            ),
        };
        let script = format!("begin immediate; {changes} update tick set n = {n}; {churn}; commit;");
        conn.execute_batch(&script).unwrap();
        if n.is_multiple_of(13) {
            conn.execute_batch("vacuum").unwrap();
        }
        run.keep_pace(n, 2);
    }
}

fn puller(db: &Database, run: &Run) {
    while run.goes_on() {
        match db.pull() {
            Ok(true) => {
                let done = {
                    let mut pulls = run.pulls.lock().unwrap();
                    *pulls += 1;
                    *pulls
                };
                run.pulled.notify_all();
                let stats = db.stats().unwrap();
                if stats.pages_present * 2 < stats.pages_total {
                    run.mostly_absent.fetch_add(1, Relaxed);
                }
                if done.is_multiple_of(7)
                    && let Err(error) = db.push()
                {
                    panic!("push failed: {error}");
                }
                if done.is_multiple_of(23) {
                    db.checkpoint().unwrap();
                }
                if done >= ENOUGH_PULLS {
                    run.stop.store(true, Relaxed);
                }
            }
            Ok(false) => {}
            Err(error) => panic!("pull failed: {error}"),
        }
    }
}

fn everybody_at_once(open: impl Fn(&Served, &Replicas) -> Database) {
    let seed = seed();
    let served = Served::new(BANK);
    let replicas = Replicas::new();
    let db = open(&served, &replicas);
    let run = Arc::new(Run {
        end: Instant::now() + budget(),
        stop: AtomicBool::new(false),
        reads: AtomicU64::new(0),
        pulls: Mutex::new(0),
        pulled: Condvar::new(),
        local: AtomicU64::new(0),
        remote: AtomicU64::new(0),
        mostly_absent: AtomicU64::new(0),
    });
    let (done, finished) = mpsc::channel();
    let mut threads = 0;
    let mut start = |work: Box<dyn FnOnce(&Run) + Send>| {
        threads += 1;
        let (run, done) = (run.clone(), done.clone());
        std::thread::spawn(move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&run)));
            run.stop.store(true, Relaxed);
            // Nobody listens any more when another thread hung.
            let _ = done.send(result.is_ok());
        });
    };
    for n in 0..READERS as u64 {
        let db = db.clone();
        start(Box::new(move |run| reader(&db, run, seed.wrapping_add(n))));
    }
    let writer = db.clone();
    start(Box::new(move |run| {
        local_writer(&writer, run, seed.wrapping_add(100))
    }));
    let remote = served.sqlite();
    start(Box::new(move |run| {
        remote_writer(&remote, run, seed.wrapping_add(101))
    }));
    let pulling = db.clone();
    start(Box::new(move |run| puller(&pulling, run)));
    drop(done);
    let latest = Instant::now() + budget() + PATIENCE + Duration::from_secs(30);
    let mut all_well = true;
    for n in 0..threads {
        let left = latest.saturating_duration_since(Instant::now());
        all_well &= finished
            .recv_timeout(left)
            .unwrap_or_else(|_| panic!("{} threads hang (seed {seed})", threads - n));
    }
    assert!(all_well, "a thread failed, see above (seed {seed})");
    let (reads, pulls) = (run.reads.load(Relaxed), *run.pulls.lock().unwrap());
    println!(
        "{reads} read transactions, {pulls} pulls ({} with most pages absent), {} local and {} remote commits",
        run.mostly_absent.load(Relaxed),
        run.local.load(Relaxed),
        run.remote.load(Relaxed),
    );
    assert!(pulls >= MIN_PULLS && reads >= MIN_READS, "too little happened");
    assert!(
        run.mostly_absent.load(Relaxed) > 0,
        "most pages should have been absent for a while"
    );
    db.push().unwrap();
    db.pull().unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    assert_eq!(integer(&conn, "select sum(balance) from account"), 100 * 10_000);
}

#[test]
fn invariant_4_a_file_replica_shows_one_state_while_everybody_writes_and_pulls() {
    everybody_at_once(|served, replicas| {
        let builder = replicas.builder("a.db").remote(served.url());
        builder.partial(prefix(8 * 1024, 1024)).connect().unwrap()
    });
}

#[test]
fn invariant_4_a_memory_replica_shows_one_state_while_everybody_writes_and_pulls() {
    everybody_at_once(|served, _| {
        let builder = Database::builder(":memory:").remote(served.url());
        builder.partial(prefix(8 * 1024, 4096)).connect().unwrap()
    });
}

/// One row a page, so that each row is absent or here by itself.
const WIDE: &str = "pragma page_size = 4096;
    create table t(id integer primary key, v integer, pad blob);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 500)
    insert into t select x, 0, zeroblob(3000) from c;";

fn value(conn: &Connection, id: i64) -> partial_sync::Result<i64> {
    conn.query_row("select v from t where id = ?", (id,), |row| row.get(0))
}

#[test]
fn invariant_4_a_reader_that_began_before_a_pull_goes_on_in_its_own_state() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let (old, new) = (db.connection().unwrap(), db.connection().unwrap());
    old.execute_batch("begin").unwrap();
    assert_eq!(value(&old, 1).unwrap(), 0);
    for n in 1..=3 {
        served.execute(&format!("update t set v = {n}"));
        assert!(db.pull().unwrap());
        // Absent for both; the newer one fills the page map, the older one must not take it from there.
        assert_eq!(value(&new, 100 * n).unwrap(), n);
        assert_eq!(value(&old, 100 * n).unwrap(), 0);
        assert_eq!(value(&old, 100 * n + 1).unwrap(), 0);
        assert_eq!(value(&new, 100 * n + 1).unwrap(), n);
    }
    served.execute("delete from t where id > 200; vacuum; update t set v = 4");
    assert!(db.pull().unwrap());
    assert_eq!(
        value(&old, 499).unwrap(),
        0,
        "a page beyond the end of the newer state"
    );
    assert_eq!(
        rows(&old, "select count(*), sum(v) from t").unwrap(),
        ["Integer(500)|Integer(0)"]
    );
    assert_eq!(
        rows(&new, "select count(*), sum(v) from t").unwrap(),
        ["Integer(200)|Integer(800)"]
    );
    old.execute_batch("commit").unwrap();
    assert_eq!(
        rows(&old, "select count(*), sum(v) from t").unwrap(),
        ["Integer(200)|Integer(800)"]
    );
}

/// Waits until the remote has let go of a revision.
pub(crate) fn until_expired(served: &Served, revision: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let remote = served.http();
    until("the revision has expired", || {
        let request = PagesRequest {
            revision: Revision::new(revision),
            select: PageSelector::Ids([0].into_iter().collect()),
            ..PagesRequest::default()
        };
        match runtime.block_on(remote.pages(request)) {
            Ok(_) => false,
            Err(error) => error.kind == RemoteErrorKind::RevisionExpired,
        }
    });
}

pub(crate) const SHORT: Retention = Retention {
    age: Duration::ZERO,
    bytes: 0,
};

#[test]
fn invariant_4_a_reader_whose_revision_expired_is_told_so_and_works_again_in_a_new_transaction() {
    let served = Served::keeping(WIDE, SHORT);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch("begin").unwrap();
    assert_eq!(value(&conn, 1).unwrap(), 0);
    let revision = db.stats().unwrap().revision.unwrap();
    served.execute("update t set v = 1");
    assert!(db.pull().unwrap());
    until_expired(&served, &revision);
    let error = value(&conn, 300).unwrap_err();
    assert!(error.is_revision_expired(), "{error}");
    assert!(error.page().is_some());
    // SQLite ends a transaction in which a page could not be read; what follows is not part of it and waits for its end.
    assert!(value(&conn, 1).unwrap_err().is_transaction_lost());
    conn.execute_batch("rollback").unwrap();
    assert!(conn.is_autocommit());
    assert_eq!(value(&conn, 1).unwrap(), 1);
    assert_eq!(value(&conn, 300).unwrap(), 1);
}

#[test]
fn a_replica_whose_own_revision_expired_says_so_and_comes_back_with_a_pull() {
    let served = Served::keeping(WIDE, SHORT);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(value(&conn, 1).unwrap(), 0);
    conn.execute("update t set v = 7 where id = 1", ()).unwrap();
    let revision = db.stats().unwrap().revision.unwrap();
    served.execute("update t set v = 1");
    until_expired(&served, &revision);
    let error = value(&conn, 300).unwrap_err();
    assert!(error.is_revision_expired(), "{error}");
    assert_eq!(value(&conn, 1).unwrap(), 7, "what is here continues");
    assert!(db.pull().unwrap());
    assert_eq!(value(&conn, 300).unwrap(), 1);
    assert_eq!(value(&conn, 1).unwrap(), 7, "what was local stays local");
    db.push().unwrap();
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

#[test]
fn invariant_10_a_query_fails_within_its_deadline_when_the_remote_is_gone_and_works_when_it_is_back() {
    let mut served = Served::new(WIDE);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_millis(500))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    assert_eq!(value(&conn, 1).unwrap(), 0);
    served.stop();
    let began = Instant::now();
    let error = value(&conn, 300).unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        began.elapsed()
    );
    assert!(
        error.is_transient() && error.page().is_some() && error.remote().is_some(),
        "{error}"
    );
    assert_eq!(value(&conn, 1).unwrap(), 0, "what is here continues");
    conn.execute("update t set v = 5 where id = 1", ()).unwrap();
    assert_eq!(value(&db.connection().unwrap(), 1).unwrap(), 5);
    served.start();
    assert_eq!(value(&conn, 300).unwrap(), 0);
}

#[test]
fn invariant_10_a_query_that_waits_can_be_interrupted_while_other_connections_go_on() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let remote = Arc::new(Faulty::new(served.http()));
    let db = replicas
        .builder("a.db")
        .remote_with(remote.clone())
        .partial(prefix(4096, 4096))
        .timeout(Duration::from_secs(5))
        .connect()
        .unwrap();
    let (conn, other) = (db.connection().unwrap(), db.connection().unwrap());
    assert_eq!(value(&conn, 1).unwrap(), 0);
    remote.fail_from(1, Fault::Hang);
    let before = remote.requests();
    let handle = conn.interrupt_handle();
    let (told, tell) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        told.send(value(&conn, 300)).unwrap();
        conn
    });
    until("the query waits for its page", || remote.requests() > before);
    assert_eq!(value(&other, 1).unwrap(), 0);
    other.execute("update t set v = 9 where id = 1", ()).unwrap();
    assert_eq!(value(&other, 1).unwrap(), 9);
    let began = Instant::now();
    handle.interrupt();
    let answer = tell.recv_timeout(Duration::from_secs(20)).unwrap();
    let error = answer.unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it took {:?}",
        began.elapsed()
    );
    assert!(error.is_interrupted(), "{error}");
    let conn = waiting.join().unwrap();
    remote.heal();
    // The request that hangs may still have to run out; then the page is asked for again.
    until("the query works again", || match value(&conn, 300) {
        Ok(v) => v == 0,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            false
        }
    });
}

/// Pages that SQLite takes from the list of free pages are written without being read: they are in the WAL and nowhere
/// else. A pull used to forget them once they were pushed, and later pulls left them as they were.
#[test]
fn invariant_5_a_page_that_only_the_wal_has_is_brought_by_the_next_pull() {
    let served = Served::new(WIDE);
    served.execute("delete from t where id > 20");
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute_batch(
        "with recursive c(x) as (select 21 union all select x + 1 from c where x < 60)
         insert into t select x, 0, zeroblob(3000) from c",
    )
    .unwrap();
    db.push().unwrap();
    assert!(db.pull().unwrap());
    for n in 1..=2 {
        served.execute(&format!("update t set v = {n}"));
        assert!(db.pull().unwrap());
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
        db.checkpoint().unwrap();
        assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
    }
}

/// A pull tries the changes that it will put back on what it believes the new state to be. It used to take pages from
/// the main file where an earlier pull's newer copy was still in the WAL, and put back what was pushed already.
#[test]
fn invariant_2_a_pull_sees_what_earlier_pulls_brought_when_it_puts_changes_back() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    for n in 1..=4 {
        conn.execute("update t set v = ? where id = 7", (n,)).unwrap();
        db.push().unwrap();
        assert!(db.pull().unwrap());
        // Not pushed, so that the pull has something to put back and asks how far the remote is.
        conn.execute("update t set v = ? where id = 8", (n,)).unwrap();
        served.execute(&format!("update t set v = {n} where id = 400"));
        assert!(db.pull().unwrap());
        assert_eq!(db.stats().unwrap().cdc_operations, 1);
        db.push().unwrap();
    }
    db.pull().unwrap();
    assert_eq!(contents(&conn), stock_contents(&served.sqlite()));
}

/// Frames of pages beyond the end stay in the WAL when the database shrinks. They used to be read when a later pull made
/// it grow over them again, because such a pull brings the last page and leaves those before it absent.
#[test]
fn invariant_5_a_database_that_shrank_and_grows_again_shows_none_of_its_old_pages() {
    let served = Served::new(WIDE);
    let replicas = Replicas::new();
    let open = || {
        let builder = replicas.builder("a.db").remote(served.url());
        builder.partial(prefix(4096, 4096)).connect().unwrap()
    };
    let mut db = open();
    let mut conn = db.connection().unwrap();
    rows(&conn, "select sum(v) from t").unwrap();
    for round in 1..=4 {
        // Every page into the WAL, then off with most of them, and then others in their place.
        served.execute(&format!("update t set v = {round}"));
        assert!(db.pull().unwrap());
        served.execute("delete from t where id > 40; vacuum");
        assert!(db.pull().unwrap());
        if round == 2 {
            drop((conn, db));
            db = open();
            conn = db.connection().unwrap();
        }
        served.execute(&format!(
            "with recursive c(x) as (select 41 union all select x + 1 from c where x < 500)
             insert into t select x, x * {round}, zeroblob(2000) from c"
        ));
        assert!(db.pull().unwrap());
        let sql = "select count(*), sum(v), sum(length(pad)) from t";
        assert_eq!(
            rows(&conn, sql).unwrap(),
            stock_rows(&served.sqlite(), sql).unwrap()
        );
        assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    }
}
