//! A store over HTTP: the same as in memory. `scripts/test-store` runs this against an S3 on this machine; the url is `STORE_URL`, and what
//! it needs is in the environment.

use futures_util::TryStreamExt;
use partial_sync_store::{BucketRemote, Claim, Found, ReadOptions, Reader, StoreError, Writer, open};
use partial_sync_transport::{PageSelector, PagesRequest, Remote, RemoteErrorKind};

use crate::{
    reading::database,
    support::{append, begin, create, restore, tx},
};

/// A place where nothing is yet.
fn new_url() -> String {
    let url = std::env::var("STORE_URL").expect("STORE_URL is not set: run scripts/test-store");
    format!("{url}/{:016x}", fastrand::u64(..))
}

#[tokio::test]
#[ignore = "scripts/test-store"]
async fn a_store_over_http_keeps_a_log() {
    let bucket = open(&new_url(), std::env::vars()).unwrap();
    bucket.probe().await.unwrap();
    let mut old = create(&bucket, 7, &[1, 2, 3]).await.unwrap();
    for n in 0..20 {
        append(&mut old, &[(2, n)], 3).await.unwrap();
    }
    let reader = Reader::open(bucket.clone(), ReadOptions::default())
        .await
        .unwrap();
    let Found::Kept(before) = reader.state(tx(7)).await.unwrap() else {
        panic!("the state after transaction 7 is not kept")
    };
    assert_eq!(database(&reader, before).await.unwrap(), [1, 5, 3]);
    let mut new = Writer::take_over(bucket.clone(), begin(8), Claim::TakeOver)
        .await
        .unwrap();
    let error = append(&mut old, &[(1, 9)], 3).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
    append(&mut new, &[(3, 30)], 4).await.unwrap();
    while new.keeper().compact(new.last()).await.unwrap() {}
    new.keeper().collect(new.last()).await.unwrap();
    assert_eq!(restore(&bucket).await, (new.last(), vec![1, 19, 30, 0]));
    let fresh = Reader::open(bucket.clone(), ReadOptions::default())
        .await
        .unwrap();
    for reader in [reader, fresh] {
        let latest = reader.advance().await.unwrap();
        assert_eq!((latest.id, reader.epoch()), (new.last(), 2));
        assert_eq!(database(&reader, latest).await.unwrap(), [1, 19, 30, 0]);
        assert_eq!(database(&reader, before).await.unwrap(), [1, 5, 3]);
        let changed = reader.changed(before, latest).await.unwrap();
        assert!(changed.contains(1) && changed.contains(2) && changed.contains(3));
        reader.verify().await.unwrap();
    }
    assert!(create(&bucket, 9, &[1]).await.is_err());
}

#[tokio::test]
#[ignore = "scripts/test-store"]
async fn a_store_over_http_is_the_remote_of_a_replica_with_what_the_environment_says() {
    let url = new_url();
    let remote = BucketRemote::at(&url);
    let nothing = remote.pages(PagesRequest::default()).await.unwrap_err();
    assert_eq!(nothing.kind, RemoteErrorKind::NotFound, "{nothing}");
    let bucket = open(&url, std::env::vars()).unwrap();
    let mut writer = create(&bucket, 7, &[1; 3000]).await.unwrap();
    let ask = async |request| {
        let answer = remote.pages(request).await.unwrap();
        let pages: Vec<_> = answer.pages.try_collect().await.unwrap();
        let bytes: Vec<_> = pages.iter().map(|page| (page.id.0, page.data[0])).collect();
        (answer.header.revision, bytes)
    };
    let some = PagesRequest {
        select: PageSelector::Ids([7, 2999].into_iter().collect()),
        ..PagesRequest::default()
    };
    let (first, pages) = ask(some).await;
    assert_eq!(pages, [(7, 1), (2999, 1)]);
    append(&mut writer, &[(8, 9)], 3000).await.unwrap();
    let changed = PagesRequest {
        since: Some(first),
        ..PagesRequest::default()
    };
    assert_eq!(ask(changed).await.1, [(7, 9)]);
    let counted = remote.transferred();
    assert!(
        counted.requests > 3 && counted.bytes_received > 1000,
        "{counted:?}"
    );
    let told = format!("{remote:?} {}", remote.url());
    let secrets = ["AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_ACCOUNT_KEY"].map(std::env::var);
    let secrets: Vec<_> = secrets.into_iter().flatten().collect();
    assert!(!secrets.is_empty() && secrets.iter().all(|secret| !told.contains(secret)));
}
