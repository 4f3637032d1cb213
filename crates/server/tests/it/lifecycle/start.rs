//! A start after which pages are compared with the page history while the database is served: what requests are answered
//! with meanwhile.

use partial_sync_transport::{PageSelector, PagesRequest};
use rusqlite::Connection;

use super::live::{BY_A_REQUEST, Live, STEP, differ, is_expired, killed, large, pulled, update};
use crate::pages::support::{dump, ids, shell};

/// Was red: every page was read before the first request was answered.
#[tokio::test]
async fn v20_what_changed_while_nobody_looked_is_told_whole_before_and_after_all_is_compared() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let server = Live::start(&db).await;
    let left = server.left().await;
    assert_eq!(left, u64::from(before.size) - STEP);
    assert!(left > BY_A_REQUEST);
    let now = server.latest().await;
    assert!(now.whole() == dump(&db.path));
    let differ = differ(&before, &now);
    assert!(differ.len() >= 10);
    // Who has few pages does not wait for the others.
    let few: Vec<u32> = (0..now.size).step_by(4).collect();
    let changed = server.since(&before.revision, ids(few.clone())).await.unwrap();
    let wanted: Vec<u32> = differ.iter().copied().filter(|id| few.contains(id)).collect();
    assert_eq!(changed.ids(), wanted);
    assert_eq!(server.left().await, left);
    for _ in 0..2 {
        let changed = server.since(&before.revision, PageSelector::All).await.unwrap();
        assert_eq!(
            (
                changed.revision,
                changed.pages.keys().copied().collect::<Vec<_>>()
            ),
            (now.revision.clone(), differ.clone())
        );
        assert!(server.left().await <= BY_A_REQUEST);
        server.compare_all().await;
    }
    // A long poll has something to say at once.
    let poll = PagesRequest {
        since: Some(before.revision.clone()),
        long_poll: Some(std::time::Duration::from_secs(3600)),
        ..PagesRequest::default()
    };
    assert_eq!(server.ask(poll).await.unwrap().ids(), differ);
    server.stop().await;
}

#[tokio::test]
async fn v20_a_page_of_a_revision_before_the_start_is_compared_when_it_is_asked_for() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(3, 1000));
    let server = Live::start(&db).await;
    let differ = differ(&before, &server.latest().await);
    let same: Vec<u32> = (0..before.size).filter(|id| !differ.contains(id)).collect();
    for compared in [false, true] {
        let left = server.left().await;
        assert_eq!(left == 0, compared);
        for some in same.chunks(700) {
            let answer = server.at(&before.revision, ids(some.to_vec())).await.unwrap();
            assert_eq!(answer.size, before.size);
            assert!(
                answer
                    .pages
                    .iter()
                    .eq(some.iter().map(|id| (id, &before.pages[id])))
            );
        }
        for id in &differ {
            is_expired(server.at(&before.revision, ids([*id])).await);
        }
        let mixed = [&same[5000..6000], &differ[differ.len() - 1..]].concat();
        is_expired(server.at(&before.revision, ids(mixed)).await);
        // A query reads what it touches.
        let query = |id: i64| PagesRequest {
            revision: Some(before.revision.clone()),
            query: Some(format!("SELECT v FROM t WHERE id = {id}")),
            ..PagesRequest::default()
        };
        assert!(server.ask(query(10_004)).await.is_ok());
        is_expired(server.ask(query(10_003)).await);
        assert_eq!(server.left().await, left);
        is_expired(server.at(&before.revision, PageSelector::All).await);
        server.compare_all().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn v20_commits_during_the_comparison_hide_nothing_of_what_was_changed_before_it() {
    let db = large();
    let before = killed(&db).await;
    shell(&db.path, &update(0, 7));
    let server = Live::start(&db).await;
    let first = server.latest().await;
    let lost = differ(&before, &first);
    // Another process, then SQL, over pages that were changed before, and others.
    shell(
        &db.path,
        &format!("{}; DELETE FROM t WHERE id % 100 = 1", update(0, 5)),
    );
    let second = server.latest().await;
    server.sql(&update(0, 3)).await;
    server.sql("INSERT INTO t(v) VALUES (randomblob(30000))").await;
    let now = server.latest().await;
    assert!(now.whole() == dump(&db.path));
    for compared in [false, true] {
        assert_eq!(server.left().await == 0, compared);
        for state in [&first, &second] {
            assert!(server.at(&state.revision, PageSelector::All).await.unwrap() == *state);
        }
        // In parts, which are compared by the request, and whole.
        for part in 0..4 {
            let some: Vec<u32> = (0..now.size).filter(|id| id % 4 == part).collect();
            let changed = server.since(&before.revision, ids(some.clone())).await.unwrap();
            for id in some {
                let page = changed.pages.get(&id).or(before.pages.get(&id));
                assert_eq!(page, now.pages.get(&id), "page {id}");
            }
        }
        let kept: Vec<u32> = (0..before.size)
            .filter(|id| !lost.contains(id) && now.pages.get(id) != before.pages.get(id))
            .take(2000)
            .collect();
        assert!(kept.len() > 1000);
        let answer = server.at(&before.revision, ids(kept.clone())).await.unwrap();
        assert!(
            answer
                .pages
                .iter()
                .eq(kept.iter().map(|id| (id, &before.pages[id])))
        );
        for id in lost.iter().rev().take(20) {
            is_expired(server.at(&before.revision, ids([*id])).await);
        }
        for earlier in [&before, &first, &second] {
            let changed = server.since(&earlier.revision, PageSelector::All).await.unwrap();
            assert!(pulled(&earlier.whole(), &changed) == now.whole());
        }
        server.compare_all().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn v20_a_history_of_release_0_1_is_taken_up() {
    let db = large();
    let before = killed(&db).await;
    let history = Connection::open(db.path.with_file_name("app.db-history")).unwrap();
    history
        .execute_batch(
            "DROP TABLE comparison; DROP TABLE gaps; UPDATE meta SET value = 1 WHERE key = 'format'",
        )
        .unwrap();
    drop(history);
    shell(&db.path, &update(3, 1000));
    let server = Live::start(&db).await;
    let now = server.latest().await;
    let changed = server.since(&before.revision, PageSelector::All).await.unwrap();
    assert_eq!(changed.ids(), differ(&before, &now));
    server.stop().await;
}

#[tokio::test]
async fn v20_a_new_history_is_served_before_its_pages_have_hashes() {
    let db = large();
    let server = Live::start(&db).await;
    let first = server.latest().await;
    assert_eq!(server.left().await, u64::from(first.size) - STEP);
    shell(&db.path, &update(3, 1000));
    let second = server.latest().await;
    assert!(server.at(&first.revision, PageSelector::All).await.unwrap() == first);
    let changed = server.since(&first.revision, PageSelector::All).await.unwrap();
    assert_eq!(changed.ids(), differ(&first, &second));
    assert_eq!(server.left().await, u64::from(first.size) - STEP);
    // Killed before it had them, what it does not know counts as changed.
    drop(server);
    shell(&db.path, "DELETE FROM t WHERE id > 10000; VACUUM");
    shell(&db.path, &update(5, 1000));
    let server = Live::start(&db).await;
    let now = server.latest().await;
    assert!(now.whole() == dump(&db.path));
    for _ in 0..2 {
        for earlier in [&first, &second] {
            let changed = server.since(&earlier.revision, PageSelector::All).await.unwrap();
            assert!(pulled(&earlier.whole(), &changed) == now.whole());
            is_expired(server.at(&earlier.revision, ids([earlier.size - 1])).await);
        }
        server.compare_all().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn v20_a_file_that_grew_or_shrank_before_or_during_the_comparison_is_told_whole() {
    const GROW: &str = "INSERT INTO t(v) SELECT randomblob(400) FROM t LIMIT 3000";
    const SHRINK: &str = "DELETE FROM t WHERE id % 3 = 0; VACUUM";
    for (unseen, seen) in [(GROW, SHRINK), (SHRINK, GROW), (SHRINK, SHRINK)] {
        let db = large();
        let before = killed(&db).await;
        shell(&db.path, unseen);
        let server = Live::start(&db).await;
        let first = server.latest().await;
        let unseen = differ(&before, &first);
        for id in (first.size..before.size).take(3) {
            is_expired(server.at(&before.revision, ids([id])).await);
        }
        for step in [None, Some(seen), Some(seen)] {
            step.into_iter().for_each(|sql| drop(shell(&db.path, sql)));
            let now = server.latest().await;
            assert!(now.whole() == dump(&db.path));
            for earlier in [&before, &first] {
                let changed = server.since(&earlier.revision, PageSelector::All).await.unwrap();
                assert!(pulled(&earlier.whole(), &changed) == now.whole());
            }
            assert!(server.at(&first.revision, PageSelector::All).await.unwrap() == first);
            let same: Vec<u32> = (0..before.size.min(first.size))
                .filter(|id| unseen.binary_search(id).is_err())
                .collect();
            let answer = server.at(&before.revision, ids(same.clone())).await.unwrap();
            assert!(
                answer
                    .pages
                    .iter()
                    .eq(same.iter().map(|id| (id, &before.pages[id])))
            );
            server.compare().await;
        }
        server.compare_all().await;
        is_expired(server.at(&before.revision, PageSelector::All).await);
        server.stop().await;
    }
}
