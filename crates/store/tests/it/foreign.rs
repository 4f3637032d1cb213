//! Litestream restores what is in a folder, whatever has been compacted and collected. `scripts/test-ltx` runs this: it needs the program
//! at the path that `LITESTREAM` says.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use partial_sync_core::PageNo;
use partial_sync_store::{Bucket, Folder, Layout, Writer, object_store::path::Path as ObjectPath};

use crate::support::{SIZE, TestClock, Troubled, append, begin, collect_all, create, own, page};

/// What Litestream makes of the folder, a byte for each page; up to a transaction.
fn restored(folder: &Path, id: &str) -> Vec<u8> {
    let program = std::env::var("LITESTREAM").expect("LITESTREAM is not set: run scripts/test-ltx");
    let out = tempfile::tempdir().unwrap();
    let (to, url) = (out.path().join("db"), format!("file://{}", folder.display()));
    let output = Command::new(program)
        .args(["restore", "-o", to.to_str().unwrap(), "-txid", id, &url])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let bytes = std::fs::read(to).unwrap();
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
