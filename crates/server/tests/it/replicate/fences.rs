//! A server whose database is taken over by another one.

use std::{num::NonZeroU64, time::Duration};

use partial_sync_core::{PageCount, PageNo};
use partial_sync_server::ServerError;
use partial_sync_store::{Begin, Claim, New, Writer};

use super::support::{TestStore, database_in, id_of, serve, sql, try_serve};
use crate::pages::support::{Client, TestDb};

const INSERT: &str = "INSERT INTO t(v) VALUES (randomblob(2000))";

/// Another server.
async fn take_over(store: &std::sync::Arc<TestStore>) -> Writer {
    let node = NonZeroU64::new(0xbeef).unwrap();
    let begin = Begin {
        node,
        url: Some("https://other.example".to_owned()),
        new: New {
            lineage: node,
            after: None,
            retention: Duration::from_secs(60),
        },
        now: 1_800_000_000_000,
    };
    Writer::take_over(store.bucket(), begin, Claim::TakeOver)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_replaced_adds_nothing_says_so_and_serves_what_is_in_the_log() {
    let (db, store) = (TestDb::new(), TestStore::new());
    let server = serve(&db.path, &store).await;
    let client = Client::new(&server.url());
    sql(&client, INSERT).await.unwrap();
    let old = client.latest().await;
    let mut other = take_over(&store).await;
    let page = old.pages[&1].clone();
    let pages = [Ok((PageNo::new(2).unwrap(), page))];
    let id = other.append(pages, PageCount(old.size), 1).await.unwrap();

    // Who comes from the other one is not sent back to what this one has, and what nobody has is known by nobody.
    let (lineage, _) = old.revision.as_str().split_once('-').unwrap();
    let named = |id: u64| partial_sync_core::Revision::new(format!("{lineage}-{id}")).unwrap();
    for refused in [
        client.since(&named(id.get())).await.unwrap_err(),
        client.at(&named(id.get() - 1)).await.unwrap_err(),
    ] {
        assert_eq!((refused.status, &*refused.code), (503, "NOT_REPLICATED"));
    }
    let refused = client.since(&named(id.get() + 1)).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (400, "REVISION_UNKNOWN"));

    // Its next commit finds out.
    assert_eq!(sql(&client, INSERT).await.unwrap_err(), "DATABASE_TAKEN_OVER");
    for text in [INSERT, "SELECT count(*) FROM t", "BEGIN"] {
        assert_eq!(
            sql(&client, text).await.unwrap_err(),
            "DATABASE_TAKEN_OVER",
            "{text}"
        );
    }
    assert_eq!(database_in(&store, None).await.0, id.get());
    let client = Client {
        features: "hydrate, zstd, require, list, zstd-bodies, zstd-blocks",
        ..client
    };
    assert!(client.at(&old.revision).await.unwrap() == old);
    let refused = client.ask(Default::default()).await.unwrap_err();
    assert_eq!((refused.status, &*refused.code), (503, "NOT_REPLICATED"));
    assert!(refused.message.contains("another server"), "{}", refused.message);
    let ready = client
        .http
        .get(format!("{}/ready", client.url))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    assert!(
        ready
            .text()
            .await
            .unwrap()
            .contains("another server has taken it over")
    );
    server.shutdown().await;

    // Nor after a restart, with the file as it is.
    let refused = try_serve(&db.path, &store).await.unwrap_err();
    assert!(matches!(refused, ServerError::OtherLog { .. }), "{refused}");
    assert!(refused.to_string().contains("https://other.example"), "{refused}");
    assert_eq!(database_in(&store, None).await.0, id.get());
    other
        .append([] as [Result<(PageNo, Vec<u8>), _>; 0], PageCount(old.size), 2)
        .await
        .unwrap();
    assert_eq!(id_of(&old.revision) + 3, other.last().get());
}
