//! The conformance suite over `MemoryRemote`.

use crate::sqlite::database;
use partial_sync_transport::{
    Remote, RemoteErrorKind,
    conformance::{self, Subject},
};

#[tokio::test]
async fn the_remote_in_memory_does_what_every_remote_must() {
    let memory = database();
    conformance::run_all(&memory, conformance::CORE).await;
    conformance::run_all(&memory, conformance::EXTENDED).await;
}

#[tokio::test]
async fn an_expired_revision_is_a_typed_error_and_the_latest_cannot_expire() {
    let memory = database();
    let (old, _) = memory.remote.latest().unwrap();
    memory.change().await;
    let (new, _) = memory.remote.latest().unwrap();
    memory.remote.expire(&old);
    memory.remote.expire(&new);
    for (pinned, since) in [(Some(old.clone()), None), (None, Some(old))] {
        let request = partial_sync_transport::PagesRequest {
            revision: pinned,
            since,
            ..Default::default()
        };
        let error = memory.remote.pages(request).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::RevisionExpired);
    }
    memory.remote.pages(Default::default()).await.unwrap();
}
