//! Starts of servers in processes of their own, and many of them at random.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::Command,
};

use bytes::Bytes;
use partial_sync_core::Revision;
use partial_sync_transport::{PageSelector, PagesRequest};
use rusqlite::Connection;

use super::live::{Live, pulled};
use crate::pages::{
    restart,
    support::{Client, TestDb, dump, ids, shell},
};

const ROWS: i64 = 3000;

/// A database of more pages than are compared at once, a row on each.
fn database() -> TestDb {
    let db = TestDb::new();
    shell(
        &db.path,
        &format!(
            "PRAGMA journal_mode=delete; PRAGMA page_size=512; VACUUM;
             WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO t SELECT i, zeroblob(400) FROM n"
        ),
    );
    db
}

/// SQL that changes some rows, often to what they were before.
fn change(random: &mut fastrand::Rng) -> String {
    let (modulus, value) = (random.u32(2..900), random.u8(0..3));
    match random.u8(0..10) {
        0 => format!("DELETE FROM t WHERE id % {modulus} = 1; VACUUM"),
        1 => format!("INSERT INTO t(v) SELECT zeroblob(400) FROM t LIMIT {modulus}"),
        _ => format!("UPDATE t SET v = CAST(zeroblob(399) || {value} AS BLOB) WHERE id % {modulus} = 0"),
    }
}

/// Everything that was shown to a client is what is said of it later, or it has expired.
#[tokio::test]
async fn v20_random_lives_of_a_server_show_no_revision_that_never_was() {
    for seed in 0..3 {
        let mut random = fastrand::Rng::with_seed(seed);
        let db = database();
        let mut server = Live::start(&db).await;
        let mut states: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
        let (mut exact, mut expired) = (0, 0);
        for step in 0..40 {
            let name = format!("seed {seed}, step {step}");
            match random.u8(0..12) {
                0 => {
                    drop(server);
                    server = Live::start(&db).await;
                }
                1 => {
                    drop(server);
                    shell(&db.path, &change(&mut random));
                    server = Live::start(&db).await;
                }
                2 => {
                    server.stop().await;
                    if random.bool() {
                        shell(&db.path, &change(&mut random));
                    }
                    server = Live::start(&db).await;
                }
                3 | 4 => drop(server.compare().await),
                5 | 6 => while server.compare().await {},
                7 | 8 => drop(shell(&db.path, &change(&mut random))),
                _ => {
                    let value = random.u8(0..3);
                    server
                        .sql(&format!(
                            "UPDATE t SET v = CAST(zeroblob(399) || {value} AS BLOB) WHERE id % 50 = 7"
                        ))
                        .await;
                }
            }
            let now = server.latest().await;
            assert!(now.whole() == dump(&db.path), "{name}");
            states.insert(now.revision.as_str().to_owned(), now.whole());
            let (revision, state) = states.iter().nth(random.usize(0..states.len())).unwrap();
            let revision = Revision::new(revision.as_str()).unwrap();
            match server.since(&revision, PageSelector::All).await {
                Ok(changed) => {
                    assert!(pulled(state, &changed) == now.whole(), "{name}: since {revision}");
                    exact += 1;
                }
                Err(refused) => {
                    assert_eq!(refused.code, "REVISION_EXPIRED", "{name}: {}", refused.message);
                    expired += 1;
                }
            }
            for _ in 0..20 {
                let id = random.u32(0..state.len() as u32);
                match server.at(&revision, ids([id])).await {
                    Ok(page) => assert!(
                        page.pages[&id] == state[id as usize],
                        "{name}: page {id} at {revision}"
                    ),
                    Err(refused) => {
                        assert_eq!(refused.code, "REVISION_EXPIRED", "{name}: {}", refused.message)
                    }
                }
            }
        }
        assert!(exact > 12, "seed {seed}: {exact} exact, {expired} expired");
        server.stop().await;
    }
}

/// Real processes, which compare in the background while others write, and are killed wherever they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v20_a_server_that_is_killed_again_and_again_while_others_write_loses_no_change() {
    let db = database();
    let mut random = fastrand::Rng::with_seed(20);
    let mut replica: Option<(Revision, Vec<Bytes>)> = None;
    for round in 0..12 {
        let mut server = restart::spawn(&db);
        let client = Client::new(&server.url);
        for _ in 0..random.u8(1..4) {
            if random.bool() {
                shell(&db.path, &change(&mut random));
            }
            let changed = match &replica {
                None => client.latest().await,
                Some((revision, _)) => match client.since(revision).await {
                    Ok(changed) => changed,
                    Err(refused) => {
                        assert_eq!(refused.code, "REVISION_EXPIRED", "{}", refused.message);
                        replica = None;
                        client.latest().await
                    }
                },
            };
            let state = replica.take().map(|(_, state)| state).unwrap_or_default();
            let state = pulled(&state, &changed);
            assert!(state == dump(&db.path), "round {round}");
            replica = Some((changed.revision, state));
        }
        if random.bool() {
            shell(&db.path, &change(&mut random));
        }
        server.kill();
        if random.bool() {
            shell(&db.path, &change(&mut random));
        }
    }
}

const TEN_GIGABYTES: u64 = 10 << 30;
const PAGE: u64 = 4096;
const CHILD: &str = "PARTIAL_SYNC_TEST_TEN_GIGABYTES";

/// Makes the database ten gigabytes large, nearly all of them holes.
fn enlarge(path: &Path) {
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut header = [0; 100];
    file.read_exact(&mut header).unwrap();
    header[28..32].copy_from_slice(&((TEN_GIGABYTES / PAGE) as u32).to_be_bytes());
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(TEN_GIGABYTES).unwrap();
}

/// Was red: each start read all of them. What is counted is what the process reads (where the system tells), not how long it takes.
#[test]
fn v20_ten_gigabytes_are_served_after_a_few_have_been_read() {
    let db = TestDb::new();
    Connection::open(&db.path)
        .unwrap()
        .execute_batch(
            "PRAGMA journal_mode=delete; INSERT INTO t(v) VALUES (randomblob(3000)), (randomblob(3000)), (randomblob(3000))",
        )
        .unwrap();
    enlarge(&db.path);
    // A first start; then, twice, one after a change that nobody saw.
    for life in 0..3 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "lifecycle::starts::the_child_process_answers_and_is_gone",
                "--nocapture",
            ])
            .env(CHILD, &db.path)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success(),
            "{said} {}",
            String::from_utf8_lossy(&child.stderr)
        );
        match life {
            0 => {}
            // What had been compared is told apart; what had not counts as changed.
            1 => {
                let all = [&[3][..], &(2_000_000..2_000_100).collect::<Vec<u32>>()].concat();
                assert!(said.contains(&format!("changed {all:?}\n")), "{said}");
            }
            // Its server was gone before it had compared everything.
            _ => assert!(said.contains("refused REVISION_EXPIRED\n"), "{said}"),
        }
        let number = |what: &str| -> u64 {
            let line = said.lines().find_map(|line| line.strip_prefix(what));
            line.unwrap_or_else(|| panic!("{what}: {said}"))
                .trim()
                .parse()
                .unwrap()
        };
        assert!(number("left ") > TEN_GIGABYTES / PAGE * 99 / 100, "{said}");
        let most = TEN_GIGABYTES / 200;
        assert!(number("read ") < most, "life {life}: {said}");
        shell(&db.path, "UPDATE t SET v = randomblob(3000) WHERE id = 2");
    }
}

#[test]
fn the_child_process_answers_and_is_gone() {
    let Some(path) = std::env::var_os(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = Path::new(&path);
        let server = Live::at_path(path).await;
        let first = server
            .ask(PagesRequest {
                select: ids(0..8),
                ..PagesRequest::default()
            })
            .await
            .unwrap();
        assert_eq!(u64::from(first.size), TEN_GIGABYTES / PAGE);
        // What the last life showed: the page that nobody saw changing has changed, no other.
        let shown = path.with_extension("shown");
        if let Ok(last) = std::fs::read_to_string(&shown) {
            let since = Revision::new(last).unwrap();
            let some: Vec<u32> = (0..8).chain(2_000_000..2_000_100).collect();
            match server.since(&since, ids(some)).await {
                Ok(changed) => println!("\nchanged {:?}", changed.ids()),
                Err(refused) => println!("\nrefused {}", refused.code),
            }
        }
        std::fs::write(&shown, first.revision.as_str()).unwrap();
        let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
        let read = io
            .lines()
            .find_map(|line| line.strip_prefix("rchar: "))
            .unwrap_or("0");
        println!("\nread {read}\nleft {}", server.left().await);
    });
}
