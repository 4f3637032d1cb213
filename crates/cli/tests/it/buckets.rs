//! Databases in a bucket: `log`, `verify`, `restore` of a state, and replicas that read from one without a server.

use std::{num::NonZeroU64, path::Path, time::Duration};

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_store::{Begin, New, Writer};
use rusqlite::Connection;

use crate::support::*;

/// A bucket in a folder, with three states of a database: each has a row more.
struct InBucket {
    folder: tempfile::TempDir,
    url: String,
    /// The database's files, and when each was committed.
    states: Vec<(Vec<u8>, i64)>,
}

fn pages(file: &[u8]) -> Vec<(PageNo, Vec<u8>)> {
    let size = PageSize::DEFAULT.as_usize();
    (1..)
        .filter_map(PageNo::new)
        .zip(file.chunks(size).map(<[u8]>::to_vec))
        .collect()
}

impl InBucket {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("source.db");
        let connection = Connection::open(&database).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 4096; CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(9000))",
            )
            .unwrap();
        let url = format!("file://{}", folder.path().join("bucket").display());
        let bucket = partial_sync_store::open(&url, Vec::new()).unwrap();
        let mut states = vec![(std::fs::read(&database).unwrap(), 1_700_000_000_000)];
        let (first, time) = (pages(&states[0].0), states[0].1);
        let begin = Begin {
            node: NonZeroU64::new(7).unwrap(),
            url: None,
            new: New {
                lineage: NonZeroU64::new(8).unwrap(),
                after: None,
                retention: Duration::from_secs(3600),
            },
            now: time,
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let commit = PageCount(first.len() as u32);
        let create = Writer::create(bucket, begin, PageSize::DEFAULT, commit, move |put| {
            first.iter().try_for_each(|(page, bytes)| put(*page, bytes))
        });
        let mut writer = runtime.block_on(create).unwrap();
        for n in 1..3 {
            connection
                .execute_batch("INSERT INTO t VALUES (randomblob(9000))")
                .unwrap();
            let (file, time) = (std::fs::read(&database).unwrap(), 1_700_000_000_000 + n * 60_000);
            let all = pages(&file);
            let commit = PageCount(all.len() as u32);
            let all = all.iter().map(|(page, bytes)| Ok((*page, bytes)));
            runtime.block_on(writer.append(all, commit, time)).unwrap();
            states.push((file, time));
        }
        Self { folder, url, states }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn states_of_a_bucket_are_listed_the_newest_first() {
    let bucket = InBucket::new();
    let said = ok(&["log", &bucket.url]).out;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with("0000000000000003  2023-11-14T22:15:20.000Z"),
        "{said}"
    );
    let told = ok(&["log", &bucket.url, "--json", "--limit", "2"]).json();
    assert_eq!(told[0]["id"], "0000000000000003");
    assert_eq!(told[0]["bytes"], bucket.states[2].0.len());
    assert_eq!(told.as_array().unwrap().len(), 2);
}

#[test]
fn a_state_is_restored_by_its_id_or_time_in_the_place_of_a_database() {
    let bucket = InBucket::new();
    let to = bucket.path("restored.db");
    let is = |n: usize| {
        let there = std::fs::read(&to).unwrap();
        let count: i64 = Connection::open(&to)
            .unwrap()
            .query_row("SELECT count(*) FROM t", (), |row| row.get(0))
            .unwrap();
        assert_eq!(count, n as i64 + 1);
        assert_eq!(there.len(), bucket.states[n].0.len());
    };
    ok(&["restore", &bucket.url, &to]);
    is(2);
    for (at, n) in [
        ("0000000000000001", 0),
        ("0000000000000002", 1),
        ("2023-11-14T22:13:20Z", 0),
        ("2023-11-14 22:15:19", 1),
        ("2030-01-01T00:00:00Z", 2),
    ] {
        ok(&["restore", &bucket.url, &to, "--at", at, "--yes"]);
        is(n);
    }
    // Nothing is left beside it, and what is not there says where to look.
    let hidden = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with('.');
    let beside = std::fs::read_dir(bucket.folder.path()).unwrap();
    assert!(
        beside
            .map(|entry| entry.unwrap().path())
            .all(|path| !hidden(&path))
    );
    for at in ["0000000000000009", "2020-01-01T00:00:00Z"] {
        let said = run(&["restore", &bucket.url, &to, "--at", at, "--yes"]);
        assert_eq!(said.code, 1);
        assert!(said.err.contains("partial-sync log file://"), "{}", said.err);
        is(2);
    }
    for wrong in ["yesterday", "12"] {
        let said = run(&["restore", &bucket.url, &to, "--at", wrong, "--yes"]);
        assert!(
            said.code == 2 && said.err.contains("2026-11-30T17:30:00Z"),
            "{}",
            said.err
        );
    }
    let said = run(&[
        "restore",
        &to,
        &bucket.path("other.db"),
        "--at",
        "0000000000000001",
    ]);
    assert!(
        said.code == 2 && said.err.contains("--at needs the url of a bucket"),
        "{}",
        said.err
    );
}

#[test]
fn a_bucket_is_verified_and_a_damaged_file_of_it_is_named() {
    let bucket = InBucket::new();
    let said = ok(&["verify", &bucket.url]).out;
    assert!(
        said.contains("read 3 files") && said.contains("up to transaction 0000000000000003"),
        "{said}"
    );
    assert_eq!(ok(&["verify", &bucket.url, "--json"]).json()["files"], 3);
    let file = bucket.path("bucket/ltx/0/0000000000000002-0000000000000002.ltx");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let said = run(&["verify", &bucket.url]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("0000000000000002"), "{}", said.err);
    let to = bucket.path("restored.db");
    assert_eq!(run(&["restore", &bucket.url, &to]).code, 1);
    assert!(!Path::new(&to).exists());
    let said = run(&["log", "s3://"]);
    assert!(
        said.code == 2 && said.err.contains("s3://BUCKET/PATH"),
        "{}",
        said.err
    );
}

#[test]
fn a_branch_is_listed_verified_and_restored_without_a_file_of_its_own_and_detached() {
    let bucket = InBucket::new();
    let new = format!("file://{}", bucket.path("branch"));
    let second = "0000000000000002";
    let said = ok(&["branch", &bucket.url, &new, "--at", second]).out;
    assert!(said.contains(second) && said.contains("--take-over"), "{said}");
    assert!(!Path::new(&bucket.path("branch/ltx")).exists());
    let again = ok(&["branch", &bucket.url, &new, "--at", second, "--json"]).json();
    assert_eq!(
        (&again["was_there"], &again["id"]),
        (&true.into(), &second.into())
    );
    let states = ok(&["log", &new, "--json"]).json();
    let ids: Vec<_> = states
        .as_array()
        .unwrap()
        .iter()
        .map(|state| state["id"].clone())
        .collect();
    assert_eq!(ids, [second, "0000000000000001"]);
    assert_eq!(ok(&["verify", &new, "--json"]).json()["files"], 2);
    let to = bucket.path("restored.db");
    ok(&["restore", &new, &to]);
    assert_eq!(std::fs::read(&to).unwrap().len(), bucket.states[1].0.len());
    ok(&["verify", &new, &to]);

    let listed = ok(&["branches", &bucket.url]).out;
    assert!(listed.contains(second) && listed.contains(&new), "{listed}");
    let told = ok(&["branches", &bucket.url, "--json"]).json();
    assert_eq!(told["branches"][0]["standing"], "reads");
    assert_eq!(ok(&["detach", &new, "--json"]).json()["detached"], true);
    assert!(ok(&["detach", &new]).out.contains("nothing was done"));
    assert_eq!(ok(&["branches", &bucket.url]).out, "");
    std::fs::remove_dir_all(bucket.path("bucket")).unwrap();
    ok(&["verify", &new, &to]);

    // What is not there, and what cannot be, is said.
    let said = run(&["branch", &bucket.url, &bucket.path("plain")]);
    assert!(
        said.code == 2 && said.err.contains("file:///FOLDER"),
        "{}",
        said.err
    );
    let said = run(&["branch", &new, "memory:///x"]);
    assert!(
        said.code == 1 && said.err.contains("the same kind of store"),
        "{}",
        said.err
    );
    let said = run(&["branch", &new, &bucket.url, "--at", "0000000000000009"]);
    assert!(
        said.code == 1 && said.err.contains("partial-sync log file://"),
        "{}",
        said.err
    );
}

#[test]
fn a_branch_that_was_removed_keeps_its_files_until_it_is_pruned() {
    let bucket = InBucket::new();
    let new = format!("file://{}", bucket.path("branch"));
    ok(&["branch", &bucket.url, &new]);
    std::fs::remove_dir_all(bucket.path("branch")).unwrap();
    let listed = ok(&["branches", &bucket.url]).out;
    assert!(listed.contains("--prune"), "{listed}");
    assert_eq!(ok(&["branches", &bucket.url, "--prune"]).out, "removed 1 pin\n");
    let told = ok(&["branches", &bucket.url, "--prune", "--json"]).json();
    assert_eq!(told["pruned"], 0);
    assert_eq!(told["branches"].as_array().unwrap().len(), 0);
}

#[test]
fn a_bucket_is_compared_with_a_file_and_the_pages_that_differ_are_named() {
    let bucket = InBucket::new();
    let file = bucket.path("source.db");
    let said = ok(&["verify", &bucket.url, &file]).out;
    assert!(
        said.contains("read 3 files") && said.ends_with("equal\n"),
        "{said}"
    );
    let told = ok(&["verify", &bucket.url, &file, "--json"]).json();
    assert_eq!(told["latest"], "0000000000000003");
    assert_eq!(told["differing"].as_array().unwrap().len(), 0);

    // One commit more, which is in the WAL only, with a page more.
    let writer = Connection::open(&file).unwrap();
    writer
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0")
        .unwrap();
    let before = std::fs::read(&file).unwrap();
    writer
        .execute_batch("INSERT INTO t VALUES (randomblob(9000))")
        .unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let said = run(&["verify", &bucket.url, &file]);
    assert_eq!(said.code, 1);
    assert!(said.out.contains("page 1 differs"), "{}", said.out);
    assert!(said.out.contains("here, absent in the bucket"), "{}", said.out);
    assert!(
        said.err.contains("not the latest state of the bucket"),
        "{}",
        said.err
    );
    let said = run(&["verify", &bucket.url, &file, "--json"]);
    let last = said.json()["differing"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert!(last["bucket"].is_null() && last["here"].is_string(), "{last}");

    let said = run(&["verify", &file, &file]);
    assert!(
        said.code == 2 && said.err.contains("compared with a bucket only"),
        "{}",
        said.err
    );
    let said = run(&["verify", &bucket.url, &bucket.path("missing.db")]);
    assert!(said.code == 1 && said.err.contains("missing.db"), "{}", said.err);
}

#[test]
fn a_replica_reads_from_a_bucket_without_a_server_and_a_push_asks_for_one() {
    let bucket = InBucket::new();
    let replica = bucket.path("replica.db");
    let count = || ok(&["query", &replica, "select count(*) as n from t", "--json"]).json()[0]["n"].clone();
    let first = "select count(*) as n, sum(length(a)) as bytes from t";
    let said = ok(&[
        "query",
        &replica,
        "--url",
        &bucket.url,
        "--bootstrap-prefix",
        "4k",
        "--json",
        first,
    ]);
    assert_eq!(
        (&said.json()[0]["n"], &said.json()[0]["bytes"]),
        (&3.into(), &27_000.into())
    );
    ok(&["query", &replica, "insert into t values ('mine')"]);
    ok(&["pull", &replica]);
    for _ in 0..2 {
        let refused = run(&["push", &replica]);
        assert_eq!(refused.code, 1, "{}", refused.err);
        assert!(
            refused.err.contains(&bucket.url) && refused.err.contains("a server of this database"),
            "{}",
            refused.err
        );
        assert_eq!(count(), 4);
    }
    ok(&["hydrate", &replica]);
    // A branch has no files of its own yet.
    let branch = format!("file://{}", bucket.path("branch"));
    ok(&["branch", &bucket.url, &branch, "--at", "0000000000000002"]);
    let said = ok(&[
        "query",
        &bucket.path("branch.db"),
        "--url",
        &branch,
        "--json",
        first,
    ]);
    assert_eq!(said.json()[0]["n"], 2);
    std::fs::remove_dir_all(bucket.folder.path().join("bucket")).unwrap();
    assert_eq!(count(), 4);
    let gone = run(&["query", &bucket.path("other.db"), "--url", &bucket.url, first]);
    assert!(gone.code == 1 && gone.err.contains("no database"), "{}", gone.err);
}

#[test]
fn the_query_of_a_first_connect_to_a_bucket_is_run_here() {
    let bucket = InBucket::new();
    let replica = bucket.path("replica.db");
    let wrong = run(&[
        "query",
        &replica,
        "--url",
        &bucket.url,
        "--bootstrap-query",
        "select * from nowhere",
        "select 1",
    ]);
    assert!(
        wrong.code == 1 && wrong.err.contains("no such table: nowhere"),
        "{}",
        wrong.err
    );
    let touches = "select length(hex(a)) as n from t where rowid = 2";
    ok(&[
        "query",
        &replica,
        "--url",
        &bucket.url,
        "--bootstrap-query",
        touches,
        "--segment-size",
        "4k",
        touches,
    ]);
    std::fs::remove_dir_all(bucket.folder.path().join("bucket")).unwrap();
    assert_eq!(ok(&["query", &replica, "--json", touches]).json()[0]["n"], 18_000);
    let other = run(&["query", &replica, "select length(hex(a)) from t where rowid = 3"]);
    assert!(
        other.code == 1 && other.err.contains(&bucket.url),
        "{}",
        other.err
    );
}
