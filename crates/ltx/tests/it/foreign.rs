//! The programs that the format is from agree: `ltx` and `litestream` take what is written here, and what they write is read here.
//! `scripts/test-ltx` runs these tests: they need the programs at the paths that `LTX`, `LITESTREAM` and `LEGACY_LTX` say, and the
//! sqlite3 shell.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use partial_sync_core::{PageCount, PageNo, PageSize};
use partial_sync_ltx::{Checksum, Contents, Header, Position, PreApply, Reader, TxId, TxRange, Writer};
use tempfile::TempDir;

use crate::support::{Content, assert_same, checksum, header, ids, page, pages_of, read, read_by_ranges};

fn page_sizes() -> impl Iterator<Item = PageSize> {
    (9..=16).map(|power| PageSize::new(1 << power).unwrap())
}

/// Runs a program that an environment variable names; gives what it printed.
fn run(variable: &str, arguments: &[&str]) -> String {
    let path =
        std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run scripts/test-ltx"));
    let output = Command::new(path).args(arguments).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{variable} {arguments:?}:\n{out}{err}");
    out.into_owned()
}

/// A sqlite3 shell that keeps its connection.
struct Shell {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Shell {
    fn open(database: &Path, page_size: PageSize) -> Self {
        let mut child = Command::new("sqlite3")
            .arg("-bail")
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the sqlite3 shell is needed");
        let (to, from) = (
            child.stdin.take().unwrap(),
            BufReader::new(child.stdout.take().unwrap()),
        );
        let mut shell = Self { child, to, from };
        shell.run(&format!("PRAGMA page_size = {};", page_size.bytes()));
        shell
    }

    /// Returns when the statements are done; a wrong one ends the shell.
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

/// What a database goes through: it grows, changes here and there, has values that take many pages, shrinks, and grows again.
const STEPS: [&str; 6] = [
    "CREATE TABLE t (id INTEGER PRIMARY KEY, a, b);",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
     INSERT INTO t SELECT i, hex(randomblob(200)), i FROM n; CREATE INDEX t_b ON t (b);",
    "UPDATE t SET b = b + 1 WHERE id % 97 = 0; UPDATE t SET b = b + 1 WHERE id < 3; DELETE FROM t WHERE id = 400;",
    "INSERT INTO t SELECT 1000 + id, randomblob(70000), zeroblob(70000) FROM t LIMIT 5;",
    "DELETE FROM t WHERE id % 3 > 0; VACUUM;",
    "INSERT INTO t SELECT 2000 + id, a, b FROM t;",
];

/// The bytes of a database after each step, without a WAL.
fn states(folder: &Path, page_size: PageSize) -> Vec<Vec<u8>> {
    let path = folder.join("states.db");
    let mut shell = Shell::open(&path, page_size);
    let states: Vec<Vec<u8>> = STEPS
        .iter()
        .map(|step| {
            shell.run(step);
            fs::read(&path).unwrap()
        })
        .collect();
    assert!(states.iter().all(|state| state.len() % page_size.as_usize() == 0));
    assert!(states[4].len() < states[3].len(), "it did not shrink");
    states
}

/// What takes a database from `before` to `after` as transaction `id`.
fn delta(id: u64, before: &[u8], after: &[u8], size: PageSize, tracked: bool) -> Content {
    let commit = (after.len() / size.as_usize()) as u32;
    let pre_apply = match (tracked, id) {
        (false, _) => PreApply::Untracked,
        (true, 1) => PreApply::Nothing,
        (true, _) => PreApply::Of(checksum(before, size)),
    };
    let changed = pages_of(after, size).filter(|(page, bytes)| {
        let from = page.offset(size) as usize;
        id == 1 || before.get(from..from + bytes.len()) != Some(*bytes)
    });
    Content {
        header: Header {
            timestamp: 1_700_000_000_000 + id as i64 * 1000,
            node: 7,
            ..header(size.bytes(), commit, ids(id, id), pre_apply)
        },
        pages: changed.map(|(page, bytes)| (page, bytes.to_vec())).collect(),
        post_apply: tracked.then(|| checksum(after, size)),
    }
}

/// One for each state.
fn deltas(states: &[Vec<u8>], size: PageSize, tracked: bool) -> Vec<Content> {
    let before = [&[][..]].into_iter().chain(states.iter().map(Vec::as_slice));
    (1..)
        .zip(before.zip(states))
        .map(|(id, (before, after))| delta(id, before, after, size, tracked))
        .collect()
}

fn apply(content: &Content, database: &mut Vec<u8>) {
    let size = content.header.page_size;
    database.resize(content.header.commit.bytes(size) as usize, 0);
    for (page, bytes) in &content.pages {
        database[page.offset(size) as usize..][..bytes.len()].copy_from_slice(bytes);
    }
}

/// Puts files where Litestream looks for those of a level.
fn put(replica: &Path, level: u32, contents: &[Content]) {
    let folder = replica.join(format!("ltx/{level}"));
    fs::create_dir_all(&folder).unwrap();
    for content in contents {
        fs::write(folder.join(content.header.ids.file_name()), content.file()).unwrap();
    }
}

fn restore(replica: &Path, to: &Path, more: &[&str]) -> Vec<u8> {
    let url = format!("file://{}", replica.display());
    let _ = fs::remove_file(to);
    run(
        "LITESTREAM",
        &[&["restore", "-o", to.to_str().unwrap()], more, &[&url]].concat(),
    );
    fs::read(to).unwrap()
}

#[test]
#[ignore = "scripts/test-ltx"]
fn ltx_verifies_dumps_and_applies_what_is_written() {
    for size in page_sizes() {
        let folder = TempDir::new().unwrap();
        let states = states(folder.path(), size);
        for tracked in [false, true] {
            let database = folder.path().join(format!("applied-{tracked}"));
            for (content, state) in deltas(&states, size, tracked).iter().zip(&states) {
                let path = folder.path().join(content.header.ids.file_name());
                fs::write(&path, content.file()).unwrap();
                let path = path.to_str().unwrap();
                assert_eq!(run("LTX", &["verify", path]), "ok\n");
                let dump = run("LTX", &["dump", path]);
                for line in [
                    format!("Page size: {size}\n"),
                    format!("Commit:    {}\n", content.header.commit),
                    format!(
                        "Min TXID:  {0} ({1})\n",
                        content.header.ids.min(),
                        content.header.ids.min().get()
                    ),
                    format!("({})\n", content.header.timestamp),
                    format!(
                        "Post-apply:    {:016x}\n",
                        content.post_apply.map_or(0, Checksum::get)
                    ),
                ] {
                    assert!(dump.contains(&line), "{line:?} is not in the dump");
                }
                assert_eq!(dump.matches("Frame #").count(), content.pages.len());
                run("LTX", &["apply", "-db", database.to_str().unwrap(), path]);
                assert!(
                    fs::read(&database).unwrap() == *state,
                    "{size:?} {}",
                    content.header.ids
                );
            }
        }
    }
}

#[test]
#[ignore = "scripts/test-ltx"]
fn ltx_applies_pages_around_that_of_the_locks() {
    for size in page_sizes() {
        let folder = TempDir::new().unwrap();
        let lock = PageNo::lock_byte(size).get();
        let pages = [(lock - 1, 3), (lock + 1, 4)].map(|(no, byte)| (page(no), vec![byte; size.as_usize()]));
        let content = Content {
            header: header(size.bytes(), lock + 2, ids(2, 2), PreApply::Untracked),
            pages: pages.to_vec(),
            post_apply: None,
        };
        let (path, database) = (folder.path().join("file"), folder.path().join("database"));
        fs::write(&path, content.file()).unwrap();
        run("LTX", &["verify", path.to_str().unwrap()]);
        run(
            "LTX",
            &["apply", "-db", database.to_str().unwrap(), path.to_str().unwrap()],
        );
        let mut database = File::open(database).unwrap();
        assert_eq!(
            database.metadata().unwrap().len(),
            PageCount(lock + 2).bytes(size)
        );
        let mut around = vec![0; 4 * size.as_usize()];
        database
            .seek(SeekFrom::Start(page(lock - 1).offset(size)))
            .unwrap();
        database.read_exact(&mut around).unwrap();
        let expected = [3, 0, 4, 0].map(|byte| vec![byte; size.as_usize()]).concat();
        assert!(around == expected, "{size:?}");
    }
}

#[test]
#[ignore = "scripts/test-ltx"]
fn litestream_restores_what_is_written() {
    for size in page_sizes() {
        let folder = TempDir::new().unwrap();
        let states = states(folder.path(), size);
        let files = deltas(&states, size, false);
        let (replica, out) = (folder.path().join("replica"), folder.path().join("out"));
        // Every transaction by itself, to the last and to each.
        put(&replica, 0, &files);
        assert!(
            restore(&replica, &out, &[]) == *states.last().unwrap(),
            "{size:?}"
        );
        for (id, state) in (1u64..).zip(&states) {
            assert!(
                restore(&replica, &out, &["-txid", &format!("{id:016x}")]) == *state,
                "{size:?} {id}"
            );
        }
        // A transaction that changes no page, as a fence does, by another writer.
        let fence = Content {
            header: Header {
                ids: ids(STEPS.len() as u64 + 1, STEPS.len() as u64 + 1),
                node: 8,
                ..files[STEPS.len() - 1].header
            },
            pages: Vec::new(),
            post_apply: None,
        };
        put(&replica, 0, std::slice::from_ref(&fence));
        assert!(
            restore(&replica, &out, &["-txid", &fence.header.ids.max().to_string()])
                == *states.last().unwrap(),
            "{size:?} with a fence"
        );
        // A snapshot of the first four, then the others.
        let replica = folder.path().join("with-snapshot");
        let snapshot = delta(1, &[], &states[3], size, false);
        let snapshot = Content {
            header: Header {
                ids: ids(1, 4),
                ..snapshot.header
            },
            ..snapshot
        };
        put(&replica, 9, &[snapshot]);
        put(&replica, 0, &files[4..]);
        assert!(
            restore(&replica, &out, &[]) == *states.last().unwrap(),
            "{size:?}"
        );
    }
}

/// Every file of a level, in the order of their transactions.
fn files_of(replica: &Path, level: &str) -> Vec<PathBuf> {
    let Ok(folder) = fs::read_dir(replica.join("ltx").join(level)) else {
        return Vec::new();
    };
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
#[ignore = "scripts/test-ltx"]
fn what_litestream_replicates_is_read_and_is_what_it_restores() {
    for size in page_sizes() {
        let folder = TempDir::new().unwrap();
        let (database, replica, out) = (
            folder.path().join("db"),
            folder.path().join("replica"),
            folder.path().join("out"),
        );
        let url = format!("file://{}", replica.display());
        // The connection stays, so that the WAL does.
        let mut shell = Shell::open(&database, size);
        shell.run("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;");
        let mut restored = Vec::new();
        for step in STEPS {
            shell.run(step);
            run(
                "LITESTREAM",
                &["replicate", "-once", database.to_str().unwrap(), &url],
            );
            restored.push(restore(&replica, &out, &[]));
        }

        let (mut now, mut position) = (Vec::new(), None::<Position>);
        let (mut contents, mut sizes) = (Vec::new(), Vec::new());
        for path in files_of(&replica, "0") {
            let file = fs::read(&path).unwrap();
            let (content, read) = read(&file).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_same(&read_by_ranges(&file).unwrap(), &content);
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(TxRange::of_file_name(name), Some(content.header.ids));
            content.header.check_continues(position.as_ref()).unwrap();
            assert_eq!(content.header.pre_apply, PreApply::Untracked);
            apply(&content, &mut now);
            position = Some(read.position());
            sizes.push(content.header.commit);
            let id = content.header.ids.max().to_string();
            assert!(
                restore(&replica, &out, &["-txid", &id]) == now,
                "{size:?} at {id}"
            );
            contents.push(content);
        }
        assert!(now == *restored.last().unwrap(), "{size:?}");
        assert!(restored.iter().all(|state| !state.is_empty()));
        assert!(contents.len() >= STEPS.len(), "{} files", contents.len());
        assert!(!sizes.is_sorted(), "no file shrinks the database");
        assert!(contents.iter().all(|content| content.header.wal.is_some()));
        let mut later = contents
            .iter()
            .filter(|content| !content.header.ids.is_snapshot());
        assert!(
            later.any(|content| content.pages.len() < content.header.commit.0 as usize),
            "no file is a delta"
        );
        for level in 1..=9 {
            for path in files_of(&replica, &level.to_string()) {
                read(&fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }

        // What was read, written again, is restored to the same.
        let again = folder.path().join("again");
        put(&again, 0, &contents);
        assert!(restore(&again, &out, &[]) == now, "{size:?}");
        run(
            "LTX",
            &[
                &["verify"],
                &files_of(&again, "0")
                    .iter()
                    .map(|path| path.to_str().unwrap())
                    .collect::<Vec<_>>()[..],
            ]
            .concat(),
        );
    }
}

#[test]
#[ignore = "scripts/test-ltx"]
fn legacy_files_of_every_page_size_are_read() {
    for size in page_sizes() {
        let folder = TempDir::new().unwrap();
        let states = states(folder.path(), size);
        let paths = [0, 1].map(|n| folder.path().join(format!("state-{n}")));
        for (path, state) in paths.iter().zip(&states[3..]) {
            fs::write(path, state).unwrap();
        }
        let [before, after] = paths.each_ref().map(|path| path.to_str().unwrap());
        let out = folder.path().join("out");
        let (mut now, mut position) = (Vec::new(), None);
        for (arguments, state) in [(&[before][..], &states[3]), (&[after, before], &states[4])] {
            let arguments = [&arguments[..1], &[out.to_str().unwrap()], &arguments[1..]].concat();
            run("LEGACY_LTX", &arguments);
            let file = fs::read(&out).unwrap();
            // Not one frame says its size.
            assert_eq!(file[104..106], [0, 0]);
            let (content, read) = read(&file).unwrap();
            assert_same(&read_by_ranges(&file).unwrap(), &content);
            content.header.check_continues(position.as_ref()).unwrap();
            apply(&content, &mut now);
            assert!(now == *state, "{size:?}");
            assert_eq!(read.trailer.post_apply, Some(checksum(state, size)));
            position = Some(read.position());
        }
    }
}

/// Whether two files have the same bytes; they may be large.
fn assert_equal(a: &Path, b: &Path) {
    let (mut a, mut b) = (
        BufReader::new(File::open(a).unwrap()),
        BufReader::new(File::open(b).unwrap()),
    );
    let (mut piece, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    assert_eq!(
        a.get_ref().metadata().unwrap().len(),
        b.get_ref().metadata().unwrap().len()
    );
    loop {
        let n = a.read(&mut piece).unwrap();
        if n == 0 {
            break;
        }
        b.read_exact(&mut other[..n]).unwrap();
        assert!(piece[..n] == other[..n], "the files differ");
    }
}

/// A snapshot of a database that is too large to be a value here.
fn write_snapshot(database: &Path, to: &Path, size: PageSize) -> Contents {
    let commit = (database.metadata().unwrap().len() / u64::from(size.bytes())) as u32;
    let header = header(size.bytes(), commit, TxRange::one(TxId::FIRST), PreApply::Nothing);
    let mut writer = Writer::new(BufWriter::new(File::create(to).unwrap()), header).unwrap();
    let mut database = BufReader::new(File::open(database).unwrap());
    let mut bytes = vec![0; size.as_usize()];
    for page in PageCount(commit).iter() {
        database.read_exact(&mut bytes).unwrap();
        if !page.is_lock_byte_page(size) {
            writer.page(page, &bytes).unwrap();
        }
    }
    writer.finish(None).unwrap().1
}

#[test]
#[ignore = "scripts/test-ltx"]
fn a_database_beyond_the_page_of_the_locks_is_written_and_restored() {
    let size = PageSize::new(65536).unwrap();
    let folder = TempDir::new().unwrap();
    let database = folder.path().join("db");
    let mut shell = Shell::open(&database, size);
    shell.run(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE t (a);
        INSERT INTO t VALUES (zeroblob(900000000)), (zeroblob(180000000)), (randomblob(100000));",
    );
    drop(shell);
    let lock = PageNo::lock_byte(size);
    assert!(database.metadata().unwrap().len() > lock.offset(size) + 2 * u64::from(size.bytes()));

    let (replica, out) = (folder.path().join("replica"), folder.path().join("out"));
    fs::create_dir_all(replica.join("ltx/0")).unwrap();
    let path = replica.join("ltx/0").join(TxRange::one(TxId::FIRST).file_name());
    let written = write_snapshot(&database, &path, size);
    assert_eq!(written.index.range(lock), None);
    assert_eq!(written.index.len() as u32, written.header.commit.0 - 1);
    assert_eq!(
        Reader::new(File::open(&path).unwrap()).unwrap().finish().unwrap(),
        written
    );

    // The checksum of the database, which the program makes of the pages too.
    assert_eq!(run("LTX", &["verify", path.to_str().unwrap()]), "ok\n");
    run(
        "LTX",
        &["apply", "-db", out.to_str().unwrap(), path.to_str().unwrap()],
    );
    assert_equal(&database, &out);
    fs::remove_file(&out).unwrap();
    let url = format!("file://{}", replica.display());
    run("LITESTREAM", &["restore", "-o", out.to_str().unwrap(), &url]);
    assert_equal(&database, &out);
}
