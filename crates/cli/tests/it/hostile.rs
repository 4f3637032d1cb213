//! Files that an attacker made, given to the real server and the real client (docs/security.md).

use crate::support::*;

/// Serves a file and asks for all of its rows by SQL and through a replica; whatever comes of it, the server must still be there.
fn survives(place: &Place, what: &str) {
    let mut served = Serving::file(&place.remote);
    for text in [
        "select sum(people) from town",
        "select count(*) from town indexed by by_people where people > 5",
        "pragma integrity_check",
        "update town set name = name || 'x' where id % 7 = 0",
        "insert into town select id + 10000, name, people from town",
    ] {
        let (status, answer) = sql(&served.url, "", text);
        assert!(status == 200 || status == 503, "{what}: {text}: {answer}");
    }
    let replica = place.path("a.replica");
    for arguments in [
        &[
            "query",
            &replica,
            "--url",
            &served.url,
            "--bootstrap-prefix",
            "16k",
            "select sum(people) from town",
        ][..],
        &["query", &replica, "select * from town order by people limit 3"],
        &["hydrate", &replica],
        &["pull", &replica],
        &["inspect", &replica],
        &["verify", &replica],
    ] {
        let said = run(arguments);
        assert!(
            said.code == 0 || said.code == 1,
            "{what}: {arguments:?}: {} {}",
            said.code,
            said.err
        );
    }
    assert_eq!(served.child.try_wait().unwrap(), None, "{what}");
    let (status, answer) = sql(&served.url, "", "select 1");
    assert!(status == 200 || status == 503, "{what}: {answer}");
}

#[test]
fn a_database_with_damaged_pages_harms_neither_server_nor_client() {
    let good = Place::new();
    rusqlite::Connection::open(&good.remote)
        .unwrap()
        .execute_batch("pragma journal_mode = delete")
        .unwrap();
    let bytes = std::fs::read(&good.remote).unwrap();
    let mut random = 1_u64;
    let mut next = move |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..5 {
        let place = Place::new();
        let mut bytes = bytes.clone();
        // From page 2 on: cells, pointers, types of pages; then the list of free pages in the header.
        for _ in 0..200 {
            let at = 4096 + next(bytes.len() - 4096);
            bytes[at] = next(256) as u8;
        }
        match round {
            3 => bytes[32..40].copy_from_slice(&[0, 0, 0, 3, 0, 0xff, 0xff, 0xff]),
            // Every interior page points to itself.
            4 => (1..bytes.len() / 4096).for_each(|page| {
                let at = page * 4096;
                if bytes[at] == 5 {
                    bytes[at + 8..at + 12].copy_from_slice(&(page as u32 + 1).to_be_bytes());
                }
            }),
            _ => {}
        }
        std::fs::write(&place.remote, &bytes).unwrap();
        survives(&place, &format!("round {round}"));
    }
}

#[test]
fn a_schema_made_to_reach_out_of_its_database_reaches_nothing() {
    let place = Place::new();
    let outside = place.path("outside");
    rusqlite::Connection::open(&place.remote)
        .unwrap()
        .execute_batch(
            "create trigger loads after update on town begin select load_extension('/tmp/x'); end;
             create view loading as select load_extension('/tmp/x') as x;
             create view raw as select * from sqlite_dbpage;
             create trigger writes after delete on town begin update town set name = 'gone'; end;",
        )
        .unwrap();
    let served = Serving::file(&place.remote);
    for text in ["update town set people = 1 where id = 1", "select * from loading"] {
        let (status, answer) = sql(&served.url, "", text);
        assert!(
            status == 200 && (answer.contains("SQLITE_AUTH") || answer.contains("unsafe use")),
            "{text}: {answer}"
        );
    }
    // Readable by its own name, and not through what somebody has put into the schema.
    let (_, answer) = sql(&served.url, "", "select count(*) from raw");
    assert!(answer.contains("unsafe use"), "{answer}");
    let replica = place.replica("a.replica", &served.url);
    for text in [
        "update town set people = 1 where id = 1".to_owned(),
        "select * from loading".to_owned(),
        format!("select writefile('{outside}', 'x')"),
    ] {
        let said = run(&["query", &replica, &text]);
        assert_eq!(said.code, 1, "{text}: {}{}", said.out, said.err);
    }
    assert!(!std::path::Path::new(&outside).exists());
}

/// Was red: the server waited for somebody to write to it, and so did a backup that was to replace it.
#[test]
fn a_pipe_is_neither_a_database_nor_a_backup() {
    let place = Place::new();
    let pipe = place.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let said = run(&["serve", &pipe, "--listen", "127.0.0.1:0"]);
    assert!(
        said.code == 1 && said.err.contains("it is not a file"),
        "{}",
        said.err
    );
    let said = run(&["backup", place.remote.to_str().unwrap(), &pipe, "--force"]);
    assert!(
        said.code != 0 && said.err.contains("is not a backup"),
        "{}",
        said.err
    );
}

#[test]
fn a_file_that_is_not_a_database_is_refused_by_name() {
    let place = Place::new();
    let mut larger_than_it_is = std::fs::read(&place.remote).unwrap();
    larger_than_it_is[28..32].copy_from_slice(&u32::MAX.to_be_bytes());
    for bytes in [
        b"not a database at all, but long enough to be looked at: ".repeat(100),
        vec![0xff; 8192],
        larger_than_it_is,
    ] {
        std::fs::write(&place.remote, bytes).unwrap();
        let said = run(&["serve", place.remote.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
        assert_eq!(said.code, 1, "{}", said.err);
        assert!(said.err.contains("remote.db"), "{}", said.err);
    }
}
