//! Litestream restores what is in a folder, whatever has been compacted and collected. `scripts/test-ltx` runs this: it needs the program
//! at the path that `LITESTREAM` says.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use partial_sync_core::PageNo;
use partial_sync_store::{
    Bucket, Claim, Folder, Found, Layout, ReadOptions, Reader, Writer, object_store::path::Path as ObjectPath,
};

use crate::support::{SIZE, TestClock, Troubled, append, begin, collect_all, create, own, page};

fn litestream(arguments: &[&str]) {
    let program = std::env::var("LITESTREAM").expect("LITESTREAM is not set: run scripts/test-ltx");
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// What Litestream makes of the folder, up to a transaction.
fn restored_file(folder: &Path, id: &str) -> Vec<u8> {
    let out = tempfile::tempdir().unwrap();
    let (to, url) = (out.path().join("db"), format!("file://{}", folder.display()));
    litestream(&["restore", "-o", to.to_str().unwrap(), "-txid", id, &url]);
    std::fs::read(to).unwrap()
}

/// The same, a byte for each page.
fn restored(folder: &Path, id: &str) -> Vec<u8> {
    let bytes = restored_file(folder, id);
    let pages = bytes.chunks(SIZE.as_usize());
    pages
        .map(|bytes| {
            assert!(bytes == page(bytes[0]));
            bytes[0]
        })
        .collect()
}

#[tokio::test]
#[ignore = "scripts/test-ltx"]
async fn litestream_restores_a_log_that_is_kept_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = Troubled::new(Arc::new(Folder::new(folder.path()).unwrap()));
    let bucket =
        Bucket::new(store.clone(), ObjectPath::default(), Layout::Plain, "file").with_clock(TestClock::new());
    let mut random = fastrand::Rng::with_seed(11);
    let mut database = vec![1; 20];
    let mut writer = create(&bucket, 7, &database).await.unwrap();
    for step in 0..90_u64 {
        database.resize(random.usize(10..30), 0);
        let changed: BTreeMap<u32, u8> = (0..random.u32(0..4))
            .map(|_| (random.u32(1..=database.len() as u32), random.u8(1..)))
            .collect();
        for (page, byte) in &changed {
            database[PageNo::new(*page).unwrap().id().0 as usize] = *byte;
        }
        let changed: Vec<_> = changed.into_iter().collect();
        append(&mut writer, &changed, database.len() as u32)
            .await
            .unwrap();
        match step % 30 {
            9 => while writer.keeper().compact(writer.last()).await.unwrap() {},
            19 => drop(collect_all(&store, &mut writer).await),
            29 => {
                let own = own(&[step / 30 + 7]);
                writer = Writer::take_over(bucket.clone(), begin(step / 30 + 8), own)
                    .await
                    .unwrap();
            }
            _ => {}
        }
        if step % 5 == 4 {
            assert_eq!(
                restored(folder.path(), &writer.last().to_string()),
                database,
                "step {step}"
            );
        }
    }
}

#[tokio::test]
#[ignore = "scripts/test-ltx"]
async fn litestream_restores_a_database_that_keeps_files_for_a_branch_and_the_branch_once_it_is_detached() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("parent"), folder.path().join("branch"));
    let url = |path: &Path| format!("file://{}", path.display());
    let store = Troubled::new(Arc::new(Folder::new(&from).unwrap()));
    let parent = Bucket::new(store.clone(), ObjectPath::default(), Layout::Plain, url(&from))
        .with_clock(TestClock::new());
    let branch = partial_sync_store::open(&url(&to), Vec::new()).unwrap();
    let mut writer = create(&parent, 7, &[1; 20]).await.unwrap();
    let compact = async |writer: &Writer| while writer.keeper().compact(writer.last()).await.unwrap() {};
    let mut database = vec![1; 20];
    for n in 0..45_u8 {
        append(&mut writer, &[(u32::from(n % 20) + 1, n)], 20)
            .await
            .unwrap();
        database[usize::from(n % 20)] = n;
        compact(&writer).await;
    }
    let reader = Reader::open(parent.clone(), ReadOptions::default())
        .await
        .unwrap();
    reader.branch(reader.latest(), false, &branch).await.unwrap();
    // What it reads stays in the middle of what its parent removes.
    for n in 0..120_u8 {
        append(&mut writer, &[(1, n)], 20).await.unwrap();
        compact(&writer).await;
    }
    collect_all(&store, &mut writer).await;
    let of_parent = [&[119], &database[1..]].concat();
    assert_eq!(restored(&from, &writer.last().to_string()), of_parent);

    let mut writer = Writer::take_over(branch.clone(), begin(8), Claim::TakeOver)
        .await
        .unwrap();
    for n in 0..40_u8 {
        append(&mut writer, &[(20, n)], 20).await.unwrap();
        if n == 20 {
            assert!(branch.detach().await.unwrap());
        }
        compact(&writer).await;
        if n >= 20 {
            database[19] = n;
            assert_eq!(restored(&to, &writer.last().to_string()), database);
        }
    }
}

/// The sqlite3 shell, which keeps the database open.
struct Shell {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn open(database: &Path) -> Self {
        let mut child = Command::new("sqlite3")
            .args(["-bail", database.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sqlite3 shell is needed");
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        Self { child, to, from }
    }

    fn run(&mut self, sql: &str) {
        writeln!(self.to, "{sql}\n.print done").unwrap();
        let mut line = String::new();
        while line.trim_end() != "done" {
            line.clear();
            assert!(
                self.from.read_line(&mut line).unwrap() > 0,
                "sqlite3 refused {sql}"
            );
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.to.write_all(b"\n.quit\n");
        let _ = self.child.wait();
    }
}

#[tokio::test]
#[ignore = "scripts/test-ltx"]
async fn what_litestream_writes_compacts_and_snapshots_is_read_as_it_restores_it() {
    let folder = tempfile::tempdir().unwrap();
    let (database, replica) = (folder.path().join("db"), folder.path().join("replica"));
    let url = format!("file://{}", replica.display());
    let mut shell = Shell::open(&database);
    shell.run("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB);");
    let clock = TestClock::new();
    let store = Troubled::new(Arc::new(Folder::new(&replica).unwrap()));
    let bucket = Bucket::new(store, ObjectPath::default(), Layout::Plain, "file").with_clock(clock.clone());
    let mut staying: Option<Reader> = None;
    let mut compared = 0;
    for step in 0..40 {
        let rows = 1 + step * 7 % 50;
        shell.run(&match step % 10 {
            8 => "DELETE FROM t WHERE id % 3 > 0; VACUUM;".to_owned(),
            _ => format!(
                "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                 INSERT INTO t (a) SELECT randomblob(700) FROM n; UPDATE t SET a = zeroblob(99) WHERE id % 17 = {};",
                step % 17
            ),
        });
        let more: &[&str] = match step % 7 {
            3 => &["-compact", "1"],
            5 => &["-compact", "3"],
            6 if step > 10 => &["-compact", "2", "-snapshot"],
            _ => &[],
        };
        litestream(&[&["replicate", "-once"], more, &[database.to_str().unwrap(), &url]].concat());
        clock.pass(Duration::from_secs(60));
        let fresh = Reader::open(bucket.clone(), ReadOptions::default())
            .await
            .unwrap();
        let latest = match &staying {
            Some(reader) => reader.advance().await.unwrap(),
            None => fresh.latest(),
        };
        assert_eq!(latest, fresh.latest(), "step {step}");
        fresh.verify().await.unwrap();
        let ids: Vec<_> = fresh.kept().collect();
        for (n, id) in ids
            .iter()
            .enumerate()
            .filter(|(n, id)| *n % 3 == 0 || **id == latest.id)
        {
            let Found::Kept(state) = fresh.state(*id).await.unwrap() else {
                panic!("{id}")
            };
            let expected = restored_file(&replica, &id.to_string());
            let to = folder.path().join(format!("restored-{step}-{n}"));
            fresh.restore(state, &to).await.unwrap();
            assert!(std::fs::read(&to).unwrap() == expected, "step {step} at {id}");
            for reader in staying.iter().chain([&fresh]) {
                let all: Vec<_> = state.size.iter().collect();
                let pages = reader.pages(state, &all).await.unwrap();
                assert!(pages.concat() == expected, "step {step} at {id}");
            }
            compared += 1;
        }
        staying.get_or_insert(fresh);
    }
    let levels = (0..=9)
        .filter(|level| replica.join(format!("ltx/{level}")).exists())
        .count();
    assert!(compared > 60 && levels >= 4, "{compared} states, {levels} levels");
}
