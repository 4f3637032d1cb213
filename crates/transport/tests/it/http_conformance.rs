//! The conformance suite over real HTTP on loopback: `HttpRemote`, the wire types of both sides, a remote in memory.

use std::sync::Arc;

use partial_sync_transport::{
    Features, HttpRemote, MemoryRemote, PagesRequest, Remote, RemoteErrorKind,
    conformance::{self, Subject},
    wire::{PageEncoding, PullUpdatesRequest},
};
use prost::Message;

struct OverHttp {
    http: HttpRemote,
}

impl Subject for OverHttp {
    fn remote(&self) -> &dyn Remote {
        &self.http
    }

    fn query(&self) -> Option<String> {
        Some("SELECT * FROM t".into())
    }
}

/// What is asked for, as a remote reads it that knows of blocks, and as any other.
async fn encodings_asked(memory: &MemoryRemote) -> Vec<(PageEncoding, i32)> {
    let server = crate::loopback::over(memory).await;
    let subject = OverHttp {
        http: HttpRemote::builder(format!("{}/db/app", server.url))
            .build()
            .unwrap(),
    };
    conformance::run_all(&subject, conformance::CORE).await;
    conformance::run_all(&subject, conformance::EXTENDED).await;
    let seen = server.seen();
    assert!(
        seen.iter()
            .all(|r| r.path == "/db/app/pull-updates" || r.path == "/db/app/v2/pipeline")
    );
    let stats = subject.http.transferred();
    assert_eq!(stats.requests, seen.len() as u64, "nothing was retried");
    assert_eq!(
        stats.bytes_sent,
        seen.iter().map(|r| r.body.len() as u64).sum::<u64>()
    );
    let pages = seen.into_iter().filter(|r| r.path.ends_with("pull-updates"));
    pages
        .map(|r| {
            let request = PullUpdatesRequest::decode(r.body).unwrap();
            (request.page_encoding(), request.encoding)
        })
        .collect()
}

#[tokio::test]
async fn a_remote_over_http_does_what_every_remote_must_and_compresses_from_the_first_request_on() {
    let memory = crate::sqlite::database();
    let asked = encodings_asked(&memory.remote).await;
    assert!(asked.iter().all(|asked| *asked == (PageEncoding::ZstdBlocks, 0)));
}

#[tokio::test]
async fn a_remote_that_compresses_single_pages_is_asked_for_those_once_that_is_known() {
    let memory = crate::sqlite::database();
    memory.remote.set_features(Features {
        zstd_blocks: false,
        ..Features::ALL
    });
    let asked = encodings_asked(&memory.remote).await;
    assert_eq!(asked[0], (PageEncoding::ZstdBlocks, 0));
    assert!(asked[1..].iter().all(|asked| *asked == (PageEncoding::Zstd, 1)));
}

#[tokio::test]
async fn a_remote_without_features_is_never_asked_for_compressed_pages() {
    let memory = crate::sqlite::database();
    memory.remote.set_features(Features::default());
    let asked = encodings_asked(&memory.remote).await;
    assert!(asked.iter().all(|asked| *asked == (PageEncoding::ZstdBlocks, 0)));
}

#[tokio::test]
async fn an_expired_revision_stays_one_over_http() {
    let memory = crate::sqlite::database();
    let (old, _) = memory.remote.latest().unwrap();
    memory.change().await;
    memory.remote.expire(&old);
    let server = crate::loopback::over(&memory.remote).await;
    let http: Arc<dyn Remote> = Arc::new(HttpRemote::builder(server.url.as_str()).build().unwrap());
    let request = PagesRequest {
        revision: Some(old),
        ..PagesRequest::default()
    };
    let error = http.pages(request).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::RevisionExpired);
    assert!(error.message.contains("Pull to move"), "{error}");
    assert_eq!(server.seen().len(), 1, "that is not retried");
}
