//! Urls, probes, and requests one by one.

use std::sync::Arc;

use partial_sync_ltx::TxId;
use partial_sync_store::{
    Bucket, Claim, Created, Folder, Layout, Level, StoreError, Writer,
    object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion, path::Path},
    open,
};

use crate::support::{Fate, TestClock, Troubled, append, begin, collect_all, create, name, places, restore};

fn none() -> Vec<(String, String)> {
    Vec::new()
}

fn error(url: &str) -> String {
    let error = open(url, none()).unwrap_err();
    assert!(matches!(error, StoreError::Url { .. }), "{error}");
    error.to_string()
}

#[test]
fn a_url_that_names_no_place_is_refused_with_what_it_should_look_like() {
    for (url, why) in [
        ("app", "relative URL"),
        ("/data/app", "relative URL"),
        (
            "ftp://host/app",
            "its scheme is not one of s3, gs, az, file, memory",
        ),
        ("https://bucket.example/app", "its scheme is not one of"),
        ("s3:///app", "names no bucket"),
        ("s3://", "names no bucket"),
        ("file:///", "the folder of all folders"),
        ("file://host/app", "write three slashes"),
        ("memory://app", "write three slashes"),
        ("file:app", "no ://"),
        ("s3://bucket/app?region=x", "a query"),
        ("s3://bucket:9000/app", "a port"),
    ] {
        let text = error(url);
        assert!(
            text.contains(why) && text.contains("s3://BUCKET/PATH"),
            "{url}: {text}"
        );
    }
}

#[test]
fn a_url_with_a_secret_is_refused_and_not_repeated() {
    for url in [
        "s3://key:hunter2@bucket/app",
        "s3://bucket/app?secret=hunter2",
        "s3://bucket/app#hunter2",
        "hunter2@bucket",
    ] {
        let text = error(url);
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn what_a_store_needs_comes_from_the_environment() {
    let variables = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    };
    let s3 = variables(&[
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("OTHER", "x"),
    ]);
    open("s3://bucket/some/app", s3).unwrap();
    open(
        "gs://bucket/app",
        variables(&[("GOOGLE_SERVICE_ACCOUNT_KEY", "{")]),
    )
    .unwrap_err();
    open(
        "az://container/app",
        variables(&[
            ("AZURE_STORAGE_ACCOUNT_NAME", "me"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "a2V5"),
        ]),
    )
    .unwrap();
    // Azure needs to know whose container it is.
    let error = open("az://container/app", none()).unwrap_err();
    assert!(error.to_string().contains("Account"), "{error}");
}

#[test]
fn an_endpoint_with_a_password_is_refused_and_not_repeated() {
    for (url, name) in [
        ("s3://bucket/app", "AWS_ENDPOINT_URL"),
        ("az://bucket/app", "AZURE_ENDPOINT"),
        ("gs://bucket/app", "GOOGLE_BASE_URL"),
    ] {
        let variables = [(name.to_owned(), "http://me:hunter2@127.0.0.1:9".to_owned())];
        let text = open(url, variables).unwrap_err().to_string();
        assert!(text.contains(name) && !text.contains("hunter2"), "{text}");
    }
}

/// Was red: it was read into memory to its end.
#[tokio::test]
async fn of_what_a_store_says_of_a_refusal_only_the_beginning_is_read() {
    use std::io::{Read, Write};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", server.local_addr().unwrap());
    let refusing = std::thread::spawn(move || {
        let (mut connection, _) = server.accept().unwrap();
        assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
        let said = b"HTTP/1.1 403 Forbidden\r\n\r\n<Error><Code>AccessDenied</Code>";
        connection.write_all(said).unwrap();
        // Until the other end has had enough.
        let mut sent = 0;
        while sent < 1 << 30 && connection.write_all(&[b'x'; 1 << 16]).is_ok() {
            sent += 1 << 16;
        }
        sent
    });
    let variables = [
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", &endpoint),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let bucket = open("s3://bucket/app", variables).unwrap();
    let error = bucket.range(name(0, 2, 2), 0..4).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("403") && text.contains("AccessDenied") && text.len() < 8 << 10,
        "{}",
        text.len()
    );
    assert!(!text.contains("hunter2"), "{text}");
    let sent = tokio::task::spawn_blocking(|| refusing.join())
        .await
        .unwrap()
        .unwrap();
    assert!(sent < 64 << 20, "{sent}");
}

#[tokio::test]
async fn a_folder_is_made_and_two_openings_see_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}/new/app", folder.path().display());
    let (a, b) = (open(&url, none()).unwrap(), open(&url, none()).unwrap());
    a.probe().await.unwrap();
    assert_eq!(a.create(name(0, 2, 2), "x".into()).await.unwrap(), Created::Done);
    assert_eq!(
        b.create(name(0, 2, 2), "y".into()).await.unwrap(),
        Created::Exists
    );
    let path = folder
        .path()
        .join("new/app/ltx/0/0000000000000002-0000000000000002.ltx");
    assert_eq!(std::fs::read(path).unwrap(), b"x");
    let (c, d) = (
        open("memory:///one", none()).unwrap(),
        open("memory:///one", none()).unwrap(),
    );
    c.create(name(0, 2, 2), "x".into()).await.unwrap();
    assert_eq!(d.size(name(0, 2, 2)).await.unwrap(), Some(1));
    let other = open("memory:///other", none()).unwrap();
    assert_eq!(other.size(name(0, 2, 2)).await.unwrap(), None);
}

#[tokio::test]
async fn objects_have_the_names_that_their_url_says() {
    for (prefix, path) in [
        ("/~me/app[1]", "~me/app[1]"),
        ("/50%25/a%20b", "50%/a b"),
        ("/a*b|c", "a*b|c"),
        ("/", ""),
    ] {
        let store = Troubled::memory();
        let place = Path::from_url_path(prefix).unwrap();
        let bucket = Bucket::new(store.clone(), place, Layout::S3, "memory:///");
        bucket.create(name(0, 2, 2), "x".into()).await.unwrap();
        let objects: Vec<_> = futures_util::TryStreamExt::try_collect(store.list(None))
            .await
            .unwrap();
        let file = "0000/0000000000000002-0000000000000002.ltx";
        assert_eq!(
            objects[0].location.as_ref(),
            format!("{path}/{file}").trim_start_matches('/')
        );
        assert_eq!(
            bucket.list(Level::COMMITS, None).await.unwrap().len(),
            1,
            "{prefix}"
        );
    }
}

/// Was red in the probe: a store that lost an answer was said to be unsafe.
#[tokio::test]
async fn a_write_that_the_stores_client_repeats_counts_once() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        for nth in 0..4 {
            (0..nth).for_each(|_| store.next("put", "probe", Fate::Done));
            store.next("put", "probe", Fate::Repeated);
            bucket.probe().await.unwrap();
            store.clear();
        }
        let repeat = || (0..20).for_each(|_| store.next("put", "", Fate::Repeated));
        repeat();
        let mut writer = create(&bucket, 1, &[1, 2]).await.unwrap();
        for n in 0..20 {
            repeat();
            append(&mut writer, &[(1, n)], 2).await.unwrap();
        }
        while writer.keeper().compact(writer.last()).await.unwrap() {
            repeat();
        }
        let mut other = Writer::take_over(bucket.clone(), begin(2), Claim::TakeOver)
            .await
            .unwrap();
        repeat();
        append(&mut other, &[(2, 9)], 2).await.unwrap();
        collect_all(&store, &mut other).await;
        assert_eq!(restore(&bucket).await, (other.last(), vec![19, 9]));
    }
}

/// Was red: the lock was given back while the object was still being replaced, so that it was put in the place of what another had
/// written meanwhile, to whom that was answered as done.
#[test]
fn a_swap_in_a_folder_that_nobody_waits_for_replaces_nothing_that_came_after_it() {
    let path = Path::from("some/object");
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap()
    };
    for steps in 1..40 {
        let folder = tempfile::tempdir().unwrap();
        let (mine, other) = (
            Folder::new(folder.path()).unwrap(),
            Folder::new(folder.path()).unwrap(),
        );
        let (one, two) = (runtime(), runtime());
        let version = two.block_on(async {
            other.put(&path, "old".into()).await.unwrap();
            let e_tag = other.head(&path).await.unwrap().e_tag;
            UpdateVersion { e_tag, version: None }
        });
        let (open, gate) = std::sync::mpsc::channel::<()>();
        one.block_on(async {
            let swap = mine.put_opts(&path, "mine".into(), PutMode::Update(version.clone()).into());
            let mut swap = std::pin::pin!(swap);
            let mut done = false;
            for _ in 1..steps {
                done = done || futures_util::poll!(swap.as_mut()).is_ready();
                // What it waits for is done by then.
                tokio::task::spawn_blocking(|| {}).await.unwrap();
            }
            // What it asks for now waits.
            let _gate = tokio::task::spawn_blocking(move || gate.recv());
            if !done {
                let _ = futures_util::poll!(swap.as_mut());
            }
        });
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = std::thread::spawn(move || {
            let path = Path::from("some/object");
            let swap = other.put_opts(&path, "theirs".into(), PutMode::Update(version).into());
            tell.send(two.block_on(swap).is_ok()).unwrap();
            two.block_on(async { other.get(&path).await.unwrap().bytes().await.unwrap() })
        });
        // Where the swap holds the lock, the other one waits for it.
        let early = told.recv_timeout(std::time::Duration::from_millis(50)).ok();
        drop(open);
        one.block_on(async { tokio::task::spawn_blocking(|| {}).await })
            .unwrap();
        let late = early.unwrap_or_else(|| told.recv().unwrap());
        theirs.join().unwrap();
        let there = std::fs::read(folder.path().join("some/object")).unwrap();
        assert_eq!(there == b"theirs", late, "after {steps} steps: {there:?}");
    }
}

#[tokio::test]
async fn a_store_that_holds_its_conditions_passes_the_probe_and_keeps_nothing_of_it() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        bucket.probe().await.unwrap();
        let objects = partial_sync_store::object_store::ObjectStore::list(&*store, None);
        let left: Vec<_> = futures_util::TryStreamExt::try_collect(objects).await.unwrap();
        assert!(
            left.iter()
                .all(|object| !object.location.as_ref().contains("probe")),
            "{left:?}"
        );
    }
}

#[tokio::test]
async fn a_store_whose_conditions_do_not_hold_is_refused() {
    let clock = TestClock::new();
    for (done, unconditional, why) in [
        (1, 1, "no PUT that fails where an object is already"),
        (3, 1, "no PUT that fails where an object has changed"),
    ] {
        let store = Troubled::memory();
        for _ in 0..done {
            store.next("put", "probe", Fate::Done);
        }
        for _ in 0..unconditional {
            store.next("put", "probe", Fate::Unconditional);
        }
        let error = store.bucket(&clock).probe().await.unwrap_err();
        assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
    // A folder without the compare-and-swap that this crate gives it.
    let folder = tempfile::tempdir().unwrap();
    let plain =
        partial_sync_store::object_store::local::LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let error = Troubled::new(Arc::new(plain))
        .bucket(&clock)
        .probe()
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unsafe { .. }), "{error}");
    // A store that cannot be reached is not an unsafe one.
    let store = Troubled::memory();
    store.next("put", "probe", Fate::Denied);
    let error = store.bucket(&clock).probe().await.unwrap_err();
    assert!(matches!(error, StoreError::Request { .. }), "{error}");
}

#[tokio::test]
async fn files_are_listed_in_order_from_an_id_on_and_others_are_left_out() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        for id in [2, 300, 3, 17] {
            bucket
                .create(name(0, id, id), vec![0; id as usize].into())
                .await
                .unwrap();
        }
        bucket.create(name(1, 2, 17), "a".into()).await.unwrap();
        let ids = |after: Option<u64>| {
            let bucket = bucket.clone();
            async move {
                let listed = bucket
                    .list(Level::COMMITS, after.and_then(TxId::new))
                    .await
                    .unwrap();
                listed
                    .iter()
                    .map(|file| (file.ids.min().get(), file.size))
                    .collect::<Vec<_>>()
            }
        };
        assert_eq!(ids(None).await, [(2, 2), (3, 3), (17, 17), (300, 300)]);
        assert_eq!(ids(Some(3)).await, [(17, 17), (300, 300)]);
        assert_eq!(ids(Some(300)).await, []);
    }
}

#[tokio::test]
async fn a_range_is_all_there_or_an_error() {
    for (store, _folder) in places() {
        let bucket = store.bucket(&TestClock::new());
        let file = name(0, 2, 2);
        let missing = bucket.range(file, 0..4).await.unwrap_err();
        assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
        bucket.create(file, "0123456789".into()).await.unwrap();
        assert_eq!(bucket.range(file, 3..7).await.unwrap(), "3456");
        assert!(bucket.range(file, 8..12).await.is_err());
        assert!(bucket.range(file, 12..14).await.is_err());
        assert!(bucket.header(file).await.is_err());
    }
}

/// A number in an object that many count up at once, each by compare-and-swap.
#[tokio::test(flavor = "multi_thread")]
async fn no_swap_is_lost_where_many_do_it_at_once() {
    for (store, _folder) in places() {
        let path = Path::from("some/count");
        store
            .put_opts(&path, "100".into(), PutMode::Create.into())
            .await
            .unwrap();
        let counting = (0..4).map(|_| {
            let (store, path) = (store.clone(), path.clone());
            tokio::spawn(async move {
                let mut done = 0;
                while done < 25 {
                    let there = store.get(&path).await.unwrap();
                    let version = UpdateVersion {
                        e_tag: there.meta.e_tag.clone(),
                        version: None,
                    };
                    let count: u32 = std::str::from_utf8(&there.bytes().await.unwrap())
                        .unwrap()
                        .parse()
                        .unwrap();
                    let next = (count + 1).to_string().into_bytes();
                    match store
                        .put_opts(&path, next.into(), PutMode::Update(version).into())
                        .await
                    {
                        Ok(_) => done += 1,
                        Err(error) => assert!(matches!(error, Error::Precondition { .. }), "{error}"),
                    }
                }
            })
        });
        for counting in counting.collect::<Vec<_>>() {
            counting.await.unwrap();
        }
        let bytes = store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, "200");
    }
}

#[tokio::test]
async fn no_two_versions_of_an_object_have_the_same_tag() {
    for (store, _folder) in places() {
        let path = Path::from("some/object");
        let mut tags = std::collections::HashSet::new();
        store
            .put_opts(&path, "0".into(), PutMode::Create.into())
            .await
            .unwrap();
        for _ in 0..200 {
            let e_tag = store.head(&path).await.unwrap().e_tag;
            assert!(tags.insert(e_tag.clone()), "{e_tag:?}");
            let version = UpdateVersion { e_tag, version: None };
            store
                .put_opts(&path, "0".into(), PutMode::Update(version).into())
                .await
                .unwrap();
        }
    }
}
