//! Conformance of `POST /pull-updates`.

use std::time::Duration;

use futures_util::future::join;
use roaring::RoaringBitmap;
use tokio::time::Instant;

use super::subject::{Subject, read, read_all};
use crate::remote::{ApplyMode, PageSelector, PagesRequest, RemoteErrorKind};
use partial_sync_core::Revision;

fn ids(of: impl IntoIterator<Item = u32>) -> PageSelector {
    PageSelector::Ids(of.into_iter().collect())
}

/// A request for everything brings each page of the database once, page 1 with a SQLite header.
pub async fn a_full_read_brings_every_page_once(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    assert!(all.header.db_size.0 >= 5, "the database has at least 5 pages");
    assert!(all.pages.keys().copied().eq(0..all.header.db_size.0));
    assert!(all.pages[&0].starts_with(b"SQLite format 3\0"));
}

/// After a change, the revision before it can still be read.
pub async fn a_pinned_read_after_a_change_brings_the_old_pages(subject: &dyn Subject) {
    let remote = subject.remote();
    let old = read_all(remote).await;
    subject.change().await;
    let pinned = PagesRequest {
        revision: Some(old.header.revision.clone()),
        ..PagesRequest::default()
    };
    let again = read(remote, pinned)
        .await
        .expect("the old revision is still kept");
    assert_eq!(again.header.revision, old.header.revision);
    assert_eq!(again.header.db_size, old.header.db_size);
    assert!(
        again.pages == old.pages,
        "the pages are those of the revision asked for"
    );
    let new = read_all(remote).await;
    assert_ne!(new.header.revision, old.header.revision);
    assert!(new.pages != old.pages, "the change shows in the latest revision");
}

/// A selector brings the selected pages and no others.
pub async fn a_selector_brings_just_its_pages(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    let some = PagesRequest {
        revision: Some(all.header.revision.clone()),
        select: ids([0, 2, 3]),
        ..PagesRequest::default()
    };
    let some = read(subject.remote(), some).await.expect("a selection works");
    assert_eq!(some.header.db_size, all.header.db_size);
    assert!(some.pages.keys().copied().eq([0, 2, 3]));
    assert!(some.pages.iter().all(|(id, page)| *page == all.pages[id]));
}

/// Selected ids that the database does not have are not an error.
pub async fn ids_beyond_the_end_are_left_out(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    let end = all.header.db_size.0;
    let request = PagesRequest {
        revision: Some(all.header.revision),
        select: ids([end - 1, end, end + 1, end + 1000]),
        ..PagesRequest::default()
    };
    let some = read(subject.remote(), request)
        .await
        .expect("ids beyond the end are not an error");
    assert!(some.pages.keys().copied().eq([end - 1]));
}

/// The answer to "what changed" brings a copy of the old revision to the new one.
pub async fn what_changed_turns_the_old_pages_into_the_new(subject: &dyn Subject) {
    let remote = subject.remote();
    let mut copy = read_all(remote).await;
    subject.change().await;
    let request = PagesRequest {
        since: Some(copy.header.revision.clone()),
        ..PagesRequest::default()
    };
    let changed = read(remote, request).await.expect("the old revision is known");
    let new = read_all(remote).await;
    assert_eq!(changed.header.revision, new.header.revision);
    assert_eq!(changed.header.db_size, new.header.db_size);
    assert_ne!(changed.header.revision, copy.header.revision);
    if changed.header.mode == ApplyMode::ReplaceBase {
        return;
    }
    copy.pages.split_off(&new.header.db_size.0);
    copy.pages.extend(changed.pages);
    assert!(
        copy.pages == new.pages,
        "old pages plus changed ones are the new pages"
    );
}

/// "What changed since the latest" has no pages and names the same revision.
pub async fn without_a_change_no_page_comes(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    let request = PagesRequest {
        since: Some(all.header.revision.clone()),
        ..PagesRequest::default()
    };
    let none = read(subject.remote(), request)
        .await
        .expect("the revision is known");
    assert!(none.pages.is_empty());
    assert_eq!(none.header.revision, all.header.revision);
    assert_eq!(none.header.db_size, all.header.db_size);
}

/// A change wakes a waiting poll long before its time is up.
pub async fn a_long_poll_returns_early_on_a_change(subject: &dyn Subject) {
    let patience = Duration::from_secs(60);
    let all = read_all(subject.remote()).await;
    let request = PagesRequest {
        since: Some(all.header.revision.clone()),
        long_poll: Some(patience),
        ..PagesRequest::default()
    };
    let started = Instant::now();
    let (changed, ()) = join(read(subject.remote(), request), subject.change()).await;
    let changed = changed.expect("a long poll works");
    assert_ne!(changed.header.revision, all.header.revision);
    assert!(started.elapsed() < patience / 2, "took {:?}", started.elapsed());
}

/// A poll that nothing wakes is answered with "no change".
pub async fn a_long_poll_is_empty_when_its_time_is_up(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    let request = PagesRequest {
        since: Some(all.header.revision.clone()),
        long_poll: Some(Duration::from_millis(200)),
        deadline: Some(Duration::from_secs(20)),
        ..PagesRequest::default()
    };
    let none = read(subject.remote(), request).await.expect("a long poll works");
    assert!(none.pages.is_empty());
    assert_eq!(none.header.revision, all.header.revision);
}

/// A revision that the remote never made is refused as such, pinned or as a base, and never read as "latest".
pub async fn an_unknown_revision_is_a_typed_error(subject: &dyn Subject) {
    let unknown = Revision::new("no revision of anybody");
    let pinned = PagesRequest {
        revision: unknown.clone(),
        ..PagesRequest::default()
    };
    let since = PagesRequest {
        since: unknown,
        ..PagesRequest::default()
    };
    for request in [pinned, since] {
        let error = read(subject.remote(), request)
            .await
            .err()
            .expect("an unknown revision is an error");
        assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown, "{error}");
    }
}

/// With `since` and a selection, changed pages outside the selection are not sent.
pub async fn changed_pages_that_are_not_selected_stay_away(subject: &dyn Subject) {
    let remote = subject.remote();
    let old = read_all(remote).await;
    subject.change().await;
    let since = PagesRequest {
        since: Some(old.header.revision.clone()),
        ..PagesRequest::default()
    };
    let changed = read(remote, since.clone())
        .await
        .expect("the old revision is known");
    let one = *changed.pages.keys().next().expect("a change changes a page");
    let select = PagesRequest {
        select: ids([one]),
        ..since
    };
    let selected = read(remote, select).await.expect("a selection works with since");
    assert!(selected.pages.keys().copied().eq([one]));
    assert_eq!(selected.pages[&one], changed.pages[&one]);
}

/// With [`Features::require`](crate::Features::require), required pages come although they did not change.
pub async fn required_pages_come_unchanged(subject: &dyn Subject) {
    let remote = subject.remote();
    let all = read_all(remote).await;
    if !all.header.features.require {
        return;
    }
    let request = PagesRequest {
        since: Some(all.header.revision.clone()),
        select: ids([]),
        require: Some([1, 3, 1_000_000].into_iter().collect()),
        ..PagesRequest::default()
    };
    let required = read(remote, request).await.expect("require works");
    assert!(required.pages.keys().copied().eq([1, 3]));
    assert!(required.pages.iter().all(|(id, page)| *page == all.pages[id]));
}

/// With [`Features::hydrate`](crate::Features::hydrate), pages that the client has are not sent.
pub async fn pages_the_client_has_are_left_out(subject: &dyn Subject) {
    let all = read_all(subject.remote()).await;
    if !all.header.features.hydrate {
        return;
    }
    let request = PagesRequest {
        revision: Some(all.header.revision),
        select: ids(0..4),
        have: Some([1, 2].into_iter().collect()),
        ..PagesRequest::default()
    };
    let rest = read(subject.remote(), request).await.expect("have works");
    assert!(rest.pages.keys().copied().eq([0, 3]));
}

/// A query brings pages that it touches; with what is selected and without what the client has where the remote
/// [hydrates](crate::Features::hydrate).
pub async fn a_query_brings_the_pages_it_touches_once(subject: &dyn Subject) {
    let Some(query) = subject.query() else { return };
    let all = read_all(subject.remote()).await;
    let request = PagesRequest {
        revision: Some(all.header.revision.clone()),
        query: Some(query),
        ..PagesRequest::default()
    };
    let touched = read(subject.remote(), request.clone())
        .await
        .expect("the query works");
    assert!(!touched.pages.is_empty());
    assert!(touched.pages.iter().all(|(id, page)| *page == all.pages[id]));
    if !all.header.features.hydrate {
        return;
    }
    let have: RoaringBitmap = touched.pages.keys().copied().collect();
    let last = all.header.db_size.0 - 1;
    let request = PagesRequest {
        select: ids([last]),
        have: Some(&have - &RoaringBitmap::from_iter([last])),
        ..request
    };
    let rest = read(subject.remote(), request).await.expect("hydration works");
    assert!(rest.pages.keys().copied().eq([last]));
}

/// With [`Features::list`](crate::Features::list), an answer names the pages that it would send otherwise, at the revision that
/// they would be sent at.
pub async fn the_pages_of_an_answer_are_listed_instead_of_sent(subject: &dyn Subject) {
    let remote = subject.remote();
    let old = read_all(remote).await;
    if !old.header.features.list {
        return;
    }
    let revision = Some(old.header.revision.clone());
    let without_news = PagesRequest {
        since: revision.clone(),
        ..PagesRequest::default()
    };
    subject.change().await;
    let mut requests = vec![
        PagesRequest {
            revision: revision.clone(),
            ..without_news.clone()
        },
        PagesRequest {
            require: Some([1, 1_000_000].into_iter().collect()),
            ..without_news.clone()
        },
        PagesRequest {
            select: ids([0, 2]),
            ..without_news.clone()
        },
        without_news,
        PagesRequest {
            revision: revision.clone(),
            select: ids([0, 3, 1_000_000]),
            have: Some([3].into_iter().collect()),
            ..PagesRequest::default()
        },
    ];
    if let Some(query) = subject.query() {
        requests.push(PagesRequest {
            revision,
            query: Some(query),
            ..PagesRequest::default()
        });
    }
    for request in requests {
        let sent = read(remote, request.clone()).await.expect("the pages come");
        let list = PagesRequest {
            list: true,
            ..request
        };
        let listed = read(remote, list.clone()).await.expect("the list comes");
        assert!(listed.pages.is_empty(), "{list:?}");
        assert_eq!(listed.header.revision, sent.header.revision, "{list:?}");
        assert_eq!(listed.header.db_size, sent.header.db_size, "{list:?}");
        let named = listed.header.listed.expect("it is told");
        assert!(named.iter().eq(sent.pages.keys().copied()), "{list:?}: {named:?}");
    }
}
