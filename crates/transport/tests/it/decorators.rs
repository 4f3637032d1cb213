//! Remotes that count, delay and fail do just that.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::Instant;

use partial_sync_transport::{
    Counting, Delayed, Fault, Faulty, MemoryRemote, PageSelector, PagesRequest, Remote, RemoteError,
    RemoteErrorKind, RemotePage,
    hrana::{Batch, BatchResult},
};

fn three_pages() -> Arc<dyn Remote> {
    let remote = MemoryRemote::new();
    remote.push_revision((0..3u8).map(|n| Bytes::from(vec![n; 512])).collect());
    remote.on_execute(|_, _| Ok(BatchResult::default()));
    Arc::new(remote)
}

async fn read(remote: &dyn Remote) -> Result<Vec<RemotePage>, RemoteError> {
    remote
        .pages(PagesRequest::default())
        .await?
        .pages
        .try_collect()
        .await
}

#[tokio::test]
async fn counting_remembers_what_was_asked_and_what_came() {
    let remote = Counting::new(three_pages());
    let request = PagesRequest {
        select: PageSelector::Ids([1, 9].into_iter().collect()),
        ..PagesRequest::default()
    };
    let answer = remote.pages(request).await.unwrap();
    answer.pages.try_collect::<Vec<_>>().await.unwrap();
    read(&remote).await.unwrap();
    assert_eq!(remote.ids_asked(), [Some(vec![1, 9]), None]);
    assert_eq!(remote.ids_delivered(), [1, 0, 1, 2]);
    assert_eq!(remote.ids_delivered_twice(), [1].into_iter().collect());
    assert_eq!(remote.requests(), 2);
    remote.clear();
    assert_eq!(remote.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn delayed_takes_its_time() {
    let remote = Delayed::new(three_pages(), Duration::from_secs(1)).per_page(Duration::from_secs(2));
    let started = Instant::now();
    read(&remote).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn faulty_follows_its_script() {
    let remote = Faulty::new(three_pages());
    remote.fail_nth(2, Fault::Fail(RemoteErrorKind::Failed));
    remote.fail_nth(3, Fault::CutAfterPages(2));
    remote.fail_nth(4, Fault::CutAfterBytes(1023));
    remote.fail_nth(5, Fault::Hang);
    remote.fail_nth(6, Fault::HangAfterPages(1));
    remote.fail_nth(
        7,
        Fault::WrongPage(1, |page| RemotePage {
            data: Bytes::new(),
            ..page
        }),
    );
    assert_eq!(read(&remote).await.unwrap().len(), 3);
    assert_eq!(read(&remote).await.unwrap_err().kind, RemoteErrorKind::Failed);
    for arrive in [2, 1] {
        let answer = remote.pages(PagesRequest::default()).await.unwrap();
        let pages: Vec<_> = answer.pages.collect().await;
        assert_eq!(pages.iter().filter(|page| page.is_ok()).count(), arrive);
        assert!(pages.last().unwrap().is_err());
    }
    assert_eq!(read(&remote).await.unwrap_err().kind, RemoteErrorKind::TimedOut);
    assert_eq!(read(&remote).await.unwrap_err().kind, RemoteErrorKind::TimedOut);
    assert!(read(&remote).await.unwrap()[1].data.is_empty());
    remote.set_offline(true);
    assert_eq!(
        read(&remote).await.unwrap_err().kind,
        RemoteErrorKind::Unreachable
    );
    remote.set_offline(false);
    remote.fail_from(2, Fault::LoseAnswer);
    assert_eq!(read(&remote).await.unwrap().len(), 3);
    for _ in 0..2 {
        let error = remote.execute(Batch::default(), None).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Unreachable);
    }
    remote.heal();
    remote.execute(Batch::default(), None).await.unwrap();
    assert_eq!(remote.requests(), 12);
}
