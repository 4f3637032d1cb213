//! Bad input of every kind: each is a typed error whose text says what to do; the replica is usable afterwards, what was
//! local stays local, and a first connect that fails leaves no file behind.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::Arc,
    time::Duration,
};

use crate::support::*;
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, future::BoxFuture};
use partial_sync::{Bootstrap, Builder, Database, Error, PartialSync, options::OptionError};
use partial_sync_core::{
    PageCount, Revision,
    chunk::{Bits, Chunk},
};
use partial_sync_server::Server;
use partial_sync_transport::{
    ApplyMode, Fault, Faulty, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind, RemotePage,
    TransferStats,
    hrana::{Batch, BatchResult},
    wire::{Packer, PageEncoding, PullUpdatesHeader, encode_frame},
};

const SMALL: &str = "create table t(id integer primary key, v text);
    with recursive c(x) as (select 1 union all select x + 1 from c where x < 300)
    insert into t select x, 'row ' || x || hex(zeroblob(100)) from c;";

/// The error of a first connect, which must leave nothing.
fn refused(replicas: &Replicas, builder: Builder) -> Error {
    let before = replicas.files();
    let described = format!("{builder:?}");
    let Err(error) = builder.timeout(Duration::from_secs(2)).connect() else {
        panic!("{described} was opened");
    };
    assert_eq!(replicas.files(), before, "{error}: files were left behind");
    error
}

fn says(error: &Error, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}

fn kind(error: &Error) -> RemoteErrorKind {
    error
        .remote()
        .unwrap_or_else(|| panic!("{error:?} has no remote error"))
        .kind
}

/// A web server that answers everything with this.
fn web_server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buf = [0; 65536];
            let _ = stream.read(&mut buf);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[test]
fn a_first_connect_to_what_is_no_remote_says_so_and_leaves_no_file() {
    let replicas = Replicas::new();
    let partial = || prefix(4096, 4096);
    let error = refused(
        &replicas,
        replicas.builder("a.db").remote(nobody()).partial(partial()),
    );
    assert_eq!(kind(&error), RemoteErrorKind::Unreachable);
    assert!(error.is_transient());
    says(&error, &["127.0.0.1", "network"]);

    let error = refused(
        &replicas,
        replicas
            .builder("a.db")
            .remote(web_server("404 Not Found", "no"))
            .partial(partial()),
    );
    assert_eq!(kind(&error), RemoteErrorKind::NotFound);
    says(&error, &["no database at that url"]);

    let html = web_server("200 OK", "<html><body>Welcome to our shop</body></html>");
    let error = refused(
        &replicas,
        replicas.builder("a.db").remote(html).partial(partial()),
    );
    assert_eq!(kind(&error), RemoteErrorKind::Protocol);
    assert!(!error.is_transient());

    let error = refused(
        &replicas,
        replicas
            .builder("a.db")
            .remote("ftp://example.org/x")
            .partial(partial()),
    );
    assert_eq!(kind(&error), RemoteErrorKind::InvalidUrl);
    says(&error, &["ftp"]);
}

#[test]
fn a_wrong_token_says_so_at_connect_and_later_and_the_replica_goes_on() {
    let mut served = Served::new(SMALL);
    served.stop();
    let server = Server::builder(&served.file)
        .authenticator(partial_sync_server::auth::StaticToken::new(
            "right",
            partial_sync_server::access::Access::Full,
        ))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let url = format!("http://{}", server.addr());
    let replicas = Replicas::new();
    for token in [None, Some("wrong")] {
        let mut builder = replicas
            .builder("a.db")
            .remote(url.clone())
            .partial(prefix(4096, 4096));
        if let Some(token) = token {
            builder = builder.auth_token(token);
        }
        let error = refused(&replicas, builder);
        assert!(error.is_unauthorized(), "{error:?}");
        says(&error, &["token"]);
    }
    let open = |token: &str| {
        replicas
            .builder("a.db")
            .remote(url.clone())
            .auth_token(token.to_owned())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap()
    };
    drop(open("right"));
    let db = open("wrong");
    let conn = db.connection().unwrap();
    let error = rows(&conn, "select count(*) from t").unwrap_err();
    assert!(error.is_unauthorized() && error.page().is_some(), "{error:?}");
    assert!(db.pull().unwrap_err().is_unauthorized());
    drop((conn, db));
    let db = open("right");
    assert_eq!(
        rows(&db.connection().unwrap(), "select count(*) from t").unwrap(),
        ["Integer(300)"]
    );
}

#[test]
fn invariant_5_a_damaged_answer_is_an_error_at_connect_at_a_miss_and_at_a_pull() {
    let short: fn(RemotePage) -> RemotePage = |page| RemotePage {
        data: page.data.slice(..512),
        ..page
    };
    let odd: fn(RemotePage) -> RemotePage = |page| RemotePage {
        data: page.data.slice(..1000),
        ..page
    };
    for fault in [
        Fault::CutAfterPages(0),
        Fault::CutAfterPages(1),
        Fault::CutAfterBytes(4096),
        Fault::CutAfterBytes(5000),
        Fault::WrongPage(0, odd),
        Fault::WrongPage(1, short),
        Fault::HangAfterPages(1),
    ] {
        let served = Served::new(SMALL);
        let faulty = Arc::new(Faulty::new(served.http()));
        let replicas = Replicas::new();
        let builder = || {
            replicas
                .builder("a.db")
                .remote_with(faulty.clone())
                .partial(prefix(2 * 4096, 16 * 1024))
                .timeout(Duration::from_millis(500))
        };
        faulty.fail_nth(1, fault.clone());
        let before = replicas.files();
        let Err(error) = builder().connect() else {
            panic!("{fault:?}: connected");
        };
        assert!(
            matches!(error, Error::Remote(_) | Error::UnusableDatabase { .. }),
            "{fault:?}: {error:?}"
        );
        assert_eq!(replicas.files(), before, "{fault:?}");

        let db = builder().connect().unwrap();
        let conn = db.connection().unwrap();
        faulty.fail_from(1, fault.clone());
        // A fault that lets a page through each time may let a whole scan through, page by page; never a wrong answer.
        let lets_pages_through = !matches!(fault, Fault::CutAfterPages(0) | Fault::WrongPage(0, _));
        match rows(&conn, "select sum(length(v)) from t") {
            Ok(answer) => {
                let expected = stock_rows(&served.sqlite(), "select sum(length(v)) from t").unwrap();
                assert!(lets_pages_through && answer == expected, "{fault:?}: {answer:?}");
            }
            Err(error) => assert!(
                matches!(error, Error::Sqlite(_)) && error.page().is_some()
                    || error.to_string().contains("page"),
                "{fault:?}: {error:?}"
            ),
        }
        faulty.heal();
        let sum = "select sum(length(v)) from t";
        // A page that an earlier fetch is still waiting for may time out once more with it.
        let here = (0..5).find_map(|_| rows(&conn, sum).ok());
        assert_eq!(
            here.unwrap(),
            stock_rows(&served.sqlite(), sum).unwrap(),
            "{fault:?}"
        );

        conn.execute("insert into t values (1000, 'mine')", ()).unwrap();
        served.execute("update t set v = 'theirs' where id % 2 = 0");
        faulty.fail_from(1, fault.clone());
        let error = db.pull().unwrap_err();
        assert!(
            matches!(error, Error::Remote(_) | Error::UnusableDatabase { .. }),
            "{fault:?}: {error:?}"
        );
        faulty.heal();
        assert_eq!(
            rows(&conn, "select v from t where id = 1000").unwrap(),
            ["Text(\"mine\")"]
        );
        assert!(db.pull().unwrap());
        db.push().unwrap();
        db.pull().unwrap();
        assert!(contents(&conn) == stock_contents(&served.sqlite()), "{fault:?}");
    }
}

#[test]
fn what_is_no_replica_is_left_as_it_is() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let path = replicas.path("mine.db");
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("create table precious(x); insert into precious values (1)")
        .unwrap();
    let text = replicas.path("notes.txt");
    std::fs::write(&text, "a shopping list").unwrap();
    for (name, path) in [("mine.db", &path), ("notes.txt", &text)] {
        let bytes = std::fs::read(path).unwrap();
        let error = refused(
            &replicas,
            replicas
                .builder(name)
                .remote(served.url())
                .partial(prefix(4096, 4096)),
        );
        assert!(matches!(error, Error::NotAReplica { .. }), "{error:?}");
        says(&error, &["another path"]);
        assert_eq!(std::fs::read(path).unwrap(), bytes);
    }
}

#[test]
fn damaged_side_files_are_named_and_nothing_is_removed() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .connect()
    };
    let db = open().unwrap();
    db.connection()
        .unwrap()
        .execute("insert into t values (1000, 'mine')", ())
        .unwrap();
    drop(db);
    // Before the records of a page map there are two heads, of which one is enough.
    for (suffix, word, records) in [("-info", "info", 0), ("-pages", "page map", 8192)] {
        let file = replicas.path(&format!("a.db{suffix}"));
        let good = std::fs::read(&file).unwrap();
        let mut flipped = good.clone();
        flipped[(records + good.len()) / 2] ^= 0x80;
        for bad in [
            b"".to_vec(),
            b"rubbish".to_vec(),
            good[..good.len() / 2].to_vec(),
            flipped,
            vec![0xff; 5000],
        ] {
            std::fs::write(&file, &bad).unwrap();
            let before = replicas.files();
            let error = open().unwrap_err();
            assert!(matches!(error, Error::NotAReplica { .. }), "{suffix}: {error:?}");
            says(&error, &[word]);
            assert_eq!(replicas.files(), before);
        }
        std::fs::write(&file, &good).unwrap();
    }
    std::fs::remove_file(replicas.path("a.db-pages")).unwrap();
    says(&open().unwrap_err(), &["-pages", "missing"]);
}

#[test]
fn the_file_of_a_pull_that_is_damaged_is_a_pull_that_did_not_happen() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let open = || {
        replicas
            .builder("a.db")
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap()
    };
    open()
        .connection()
        .unwrap()
        .execute("insert into t values (1000, 'mine')", ())
        .unwrap();
    for bytes in [
        vec![],
        b"rubbish".to_vec(),
        vec![0xff; 100],
        vec![0; 100],
        vec![1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0],
    ] {
        std::fs::write(replicas.path("a.db-changes"), bytes).unwrap();
        let db = open();
        assert_eq!(
            rows(&db.connection().unwrap(), "select v from t where id = 1000").unwrap(),
            ["Text(\"mine\")"]
        );
        assert!(!replicas.files().contains(&"a.db-changes".to_owned()));
    }
}

#[test]
fn invariant_11_a_forged_page_map_that_names_billions_of_pages_does_no_harm() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let open = |name| {
        replicas
            .builder(name)
            .remote(served.url())
            .partial(prefix(4096, 4096))
            .connect()
    };
    drop(open("b.db").unwrap());
    drop(open("a.db").unwrap());
    let file = replicas.path("a.db-pages");
    let all = PageCount(u32::MAX);
    let good = partial_sync_core::SavedPageMap::decode(&std::fs::read(&file).unwrap(), all).unwrap();
    // Each names what the good one does in its first chunk, and all that there can be after it.
    let mut first = [0; 64];
    for id in good.map.present() {
        first[id as usize / 64] |= 1 << (id % 64);
    }
    let forge = |name: &str, present: Bits, dirty: Bits| {
        let chunk = |first, count, present, dirty| Chunk {
            first,
            count,
            present,
            dirty,
        };
        let chunks = [
            chunk(0, 1, Bits::of(first), dirty.clone()),
            chunk(1, (1 << 20) - 2, present, dirty),
        ];
        let (bytes, _) = partial_sync_core::saved_map::whole(&chunks, good.page_size, good.db_size);
        assert!(bytes.len() < 20_000);
        std::fs::write(replicas.path(name), bytes).unwrap();
    };
    // What lies beyond the end of the file is absent.
    forge("b.db-pages", Bits::Full, Bits::Empty);
    let db = open("b.db").unwrap();
    let stats = db.stats().unwrap();
    assert!(stats.pages_present <= stats.pages_total);
    // Dirty pages that no file has do no harm.
    forge("a.db-pages", Bits::Empty, Bits::Full);
    let db = open("a.db").unwrap();
    assert!(db.stats().unwrap().pages_dirty < 100);
    served.execute("update t set v = 'theirs'");
    db.pull().unwrap();
    assert!(contents(&db.connection().unwrap()) == stock_contents(&served.sqlite()));
}

#[test]
fn options_that_cannot_be_are_named() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    for size in [0, u64::MAX] {
        let error = refused(
            &replicas,
            replicas
                .builder("a.db")
                .remote(served.url())
                .partial(prefix(4096, size)),
        );
        assert!(
            matches!(error, Error::Option(OptionError::Range { .. })),
            "{error:?}"
        );
        says(&error, &["segment"]);
    }
    for query in [
        "delete from t",
        "select * from nothing_like_it",
        "not sql at all",
        "select 1; select 2",
    ] {
        let partial = PartialSync {
            bootstrap: Some(Bootstrap::query(query)),
            ..PartialSync::default()
        };
        let error = refused(
            &replicas,
            replicas.builder("a.db").remote(served.url()).partial(partial),
        );
        assert!(
            matches!(error, Error::BootstrapQuery { .. }),
            "{query}: {error:?}"
        );
        says(&error, &["SELECT"]);
    }
    assert_eq!(
        stock_rows(&served.sqlite(), "select count(*) from t").unwrap(),
        ["Integer(300)"]
    );
}

#[test]
fn what_would_break_a_replica_is_refused() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas
        .builder("a.db")
        .remote(served.url())
        .partial(prefix(4096, 4096))
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (1000, 'mine')", ()).unwrap();
    for (sql, word) in [
        ("vacuum", "VACUUM"),
        ("pragma journal_mode = delete", "journal_mode"),
        ("pragma main.journal_mode = off", "journal_mode"),
    ] {
        let error = conn.execute_batch(sql).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{sql}: {error:?}");
        says(&error, &[word]);
    }
    assert_eq!(rows(&conn, "pragma journal_mode").unwrap(), ["Text(\"wal\")"]);
    assert_eq!(rows(&conn, "select count(*) from t").unwrap(), ["Integer(301)"]);
    db.push().unwrap();
}

#[test]
fn invariant_12_a_replica_that_is_open_is_open_nowhere_else() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    // In this process only in the same way, with a remote of its own not.
    let error = replicas
        .builder("a.db")
        .remote_with(served.http())
        .connect()
        .unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error:?}");
    says(&error, &["close it there first"]);
    conn.execute("insert into t values (1000, 'mine')", ()).unwrap();
    // Another process, where there is the shell: it neither reads nor writes.
    for sql in ["insert into t values (1001, 'theirs')", "select count(*) from t"] {
        let shell = Command::new("sqlite3")
            .arg(replicas.path("a.db"))
            .arg(sql)
            .output();
        if let Ok(out) = shell {
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.contains("database is locked"), "{sql}: {said:?}");
        }
    }
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    assert_eq!(
        rows(&conn, "select id from t where id >= 1000").unwrap(),
        ["Integer(1000)"]
    );
    drop((conn, db));
    replicas
        .builder("a.db")
        .remote_with(served.http())
        .connect()
        .unwrap();
}

#[test]
fn a_replica_of_another_remote_is_not_mixed_up() {
    let (one, other) = (
        Served::new(SMALL),
        Served::new("create table t(id integer primary key, v text)"),
    );
    let replicas = Replicas::new();
    drop(replicas.builder("a.db").remote(one.url()).connect().unwrap());
    let error = replicas
        .builder("a.db")
        .remote(other.url())
        .connect()
        .unwrap_err();
    assert!(matches!(error, Error::OtherRemote { .. }), "{error:?}");
    says(&error, &[&one.url(), &other.url(), "another path"]);
    let db = replicas.builder("a.db").remote(one.url()).connect().unwrap();
    assert_eq!(
        rows(&db.connection().unwrap(), "select count(*) from t").unwrap(),
        ["Integer(300)"]
    );
}

/// A replica with a local change, and the served file replaced behind the server's back.
fn replaced(script: &str) -> (Served, Replicas, Database) {
    let mut served = Served::new(SMALL);
    let replicas = Replicas::new();
    let db = replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let conn = db.connection().unwrap();
    conn.execute("insert into t values (1000, 'pushed')", ()).unwrap();
    db.push().unwrap();
    db.pull().unwrap();
    conn.execute("insert into t values (1001, 'mine')", ()).unwrap();
    served.stop();
    for entry in std::fs::read_dir(served.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    rusqlite::Connection::open(&served.file)
        .unwrap()
        .execute_batch(script)
        .unwrap();
    served.start();
    (served, replicas, db)
}

fn keeps_what_is_local(db: &Database) {
    let conn = db.connection().unwrap();
    assert_eq!(
        rows(&conn, "select v from t where id = 1001").unwrap(),
        ["Text(\"mine\")"]
    );
    assert_eq!(rows(&conn, "pragma integrity_check").unwrap(), ["Text(\"ok\")"]);
    conn.execute("insert into t values (1002, 'still works')", ())
        .unwrap();
}

#[test]
fn a_remote_whose_page_size_changed_is_an_error_that_says_to_connect_anew() {
    let (_served, _replicas, db) = replaced(&format!("pragma page_size = 8192; {SMALL}"));
    let error = db.pull().unwrap_err();
    assert_eq!(kind(&error), RemoteErrorKind::RevisionUnknown);
    says(&error, &["make a new replica"]);
    keeps_what_is_local(&db);
}

#[test]
fn a_remote_that_became_empty_is_an_error_that_says_to_connect_anew() {
    let (_served, _replicas, db) = replaced("");
    let error = db.pull().unwrap_err();
    assert!(
        matches!(error, Error::UnusableDatabase { .. } | Error::Remote(_)),
        "{error:?}"
    );
    keeps_what_is_local(&db);
}

#[test]
fn a_remote_restored_from_an_older_backup_is_a_typed_error_and_nothing_local_is_lost() {
    let (_served, _replicas, db) = replaced(SMALL);
    let pushed = db.push().unwrap_err();
    assert!(matches!(pushed, Error::Position(_)), "{pushed:?}");
    let pulled = db.pull().unwrap_err();
    assert_eq!(kind(&pulled), RemoteErrorKind::RevisionUnknown);
    for error in [pushed, pulled] {
        says(&error, &["restored from a backup", "new replica"]);
    }
    keeps_what_is_local(&db);
}

#[test]
fn a_replica_restored_from_an_older_copy_is_a_typed_error() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let open = || replicas.builder("a.db").remote(served.url()).connect().unwrap();
    let db = open();
    db.connection()
        .unwrap()
        .execute("insert into t values (1000, 'first')", ())
        .unwrap();
    drop(db);
    let copy: Vec<(String, Vec<u8>)> = replicas
        .files()
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(replicas.path(&name)).unwrap()))
        .collect();
    let db = open();
    let conn = db.connection().unwrap();
    for id in 2000..2005 {
        conn.execute(&format!("insert into t values ({id}, 'later')"), ())
            .unwrap();
    }
    db.push().unwrap();
    drop((conn, db));
    for name in replicas.files() {
        std::fs::remove_file(replicas.path(&name)).unwrap();
    }
    for (name, bytes) in copy {
        std::fs::write(replicas.path(&name), bytes).unwrap();
    }
    let db = open();
    let error = db.push().unwrap_err();
    assert!(matches!(error, Error::Position(_)), "{error:?}");
    says(&error, &["new replica"]);
    assert_eq!(
        rows(&db.connection().unwrap(), "select v from t where id = 1000").unwrap(),
        ["Text(\"first\")"]
    );
}

#[test]
fn a_revision_that_the_remote_does_not_keep_is_typed_at_a_miss() {
    for kind in [RemoteErrorKind::RevisionExpired, RemoteErrorKind::RevisionUnknown] {
        let served = Served::new(SMALL);
        let faulty = Arc::new(Faulty::new(served.http()));
        let replicas = Replicas::new();
        let db = replicas
            .builder("a.db")
            .remote_with(faulty.clone())
            .partial(prefix(4096, 4096))
            .connect()
            .unwrap();
        let conn = db.connection().unwrap();
        faulty.fail_from(1, Fault::Fail(kind));
        let error = rows(&conn, "select count(*) from t").unwrap_err();
        assert_eq!(error.remote().unwrap().kind, kind);
        assert_eq!(
            error.is_revision_expired(),
            kind == RemoteErrorKind::RevisionExpired
        );
        faulty.heal();
        assert_eq!(rows(&conn, "select count(*) from t").unwrap(), ["Integer(300)"]);
    }
}

/// A remote whose database is this file, and its revision this text.
fn remote_at(revision: String, database: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut body = BytesMut::new();
    let pages: Vec<_> = (0..)
        .zip(database.chunks(4096).map(Bytes::copy_from_slice))
        .collect();
    let revision = Revision::new(revision).unwrap();
    let (size, mode) = (PageCount(pages.len() as u32), ApplyMode::Incremental);
    let header = PullUpdatesHeader::new(&revision, size, mode, PageEncoding::Raw);
    encode_frame(&header, &mut body);
    Packer::new(PageEncoding::Raw).pack(&pages, &mut body).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 65536]);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/protobuf\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    url
}

/// Was red: it was noted in a file that was too long to be read again, and nobody could open the replica any more, whatever was in it.
#[test]
fn invariant_1_a_revision_that_is_too_long_to_be_kept_is_refused() {
    let served = Served::new("create table t(v)");
    let database = std::fs::read(&served.file).unwrap();
    let replicas = Replicas::new();
    // A control character takes six bytes in the info file.
    for (length, is_kept) in [(16 << 10, true), ((16 << 10) + 1, false), (200_000, false)] {
        let url = remote_at("\u{1}".repeat(length), database.clone());
        let name = format!("{length}.db");
        let open = || replicas.builder(&name).remote(url.clone());
        if is_kept {
            for _ in 0..2 {
                let db = open().connect().unwrap();
                let conn = db.connection().unwrap();
                conn.execute("insert into t values (1)", ()).unwrap();
            }
        } else {
            let error = refused(&replicas, open());
            assert_eq!(kind(&error), RemoteErrorKind::Protocol);
            says(&error, &["revision is longer"]);
        }
    }
}

/// Says that its database has a billion pages.
#[derive(Debug)]
struct Boasting(Faulty);

impl Remote for Boasting {
    fn pages(&self, request: PagesRequest) -> BoxFuture<'_, Result<PageStream, RemoteError>> {
        async move {
            let mut answer = self.0.pages(request).await?;
            answer.header.db_size = PageCount(1 << 30);
            Ok(answer)
        }
        .boxed()
    }

    fn execute(
        &self,
        batch: Batch,
        deadline: Option<Duration>,
    ) -> BoxFuture<'_, Result<BatchResult, RemoteError>> {
        self.0.execute(batch, deadline)
    }

    fn url(&self) -> String {
        self.0.url()
    }

    fn transferred(&self) -> TransferStats {
        self.0.transferred()
    }
}

/// Was red: the numbers of all pages that were still to come took 4 GiB. They are few runs.
#[test]
fn invariant_11_a_remote_that_claims_a_billion_pages_costs_no_memory_for_each() {
    let served = Served::new(SMALL);
    let replicas = Replicas::new();
    let before = peak();
    let boasting = || Arc::new(Boasting(Faulty::new(served.http())));
    let remote = boasting();
    remote.0.fail_from(2, Fault::Fail(RemoteErrorKind::Unreachable));
    let first = replicas.builder("all.db").remote_with(remote.clone());
    let error = first.pull_bytes_threshold(16 * 1024).connect().unwrap_err();
    assert_eq!(kind(&error), RemoteErrorKind::Unreachable);
    assert_eq!(remote.0.requests(), 2);
    let remote = boasting();
    let partial = replicas.builder("part.db").remote_with(remote.clone());
    let db = partial.partial(prefix(4096, 4096)).connect().unwrap();
    remote.0.fail_from(1, Fault::Fail(RemoteErrorKind::Unreachable));
    let error = db.hydrate(|_| {}).unwrap_err();
    assert_eq!(kind(&error), RemoteErrorKind::Unreachable);
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after < before + (2 << 30), "{before} bytes, then {after}");
    }
}

/// The most memory that this process has had, where the system tells.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
