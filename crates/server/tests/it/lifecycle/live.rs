//! A server that does nothing unless it is told to, so that a comparison stays where it is; and a database of more pages than
//! are compared at once.

use bytes::Bytes;
use futures_util::TryStreamExt;
use partial_sync_core::Revision;
use partial_sync_server::{InProcess, Server, ServerBuilder};
use partial_sync_transport::{
    HttpClient, PageSelector, PagesRequest,
    http::HttpRequest,
    wire::{PageEncoding, PullUpdatesRequest},
};
use prost::Message;
use serde_json::{Value, json};

use crate::pages::support::{Answer, Refused, TestDb, pages_of, refusal, shell};

/// Pages that are compared in one step, and at most by one request.
pub(super) const STEP: u64 = 1024;
pub(super) const BY_A_REQUEST: u64 = 8192;

/// A server, and what asks it.
pub(super) struct Live(pub(super) InProcess);

impl Live {
    pub(super) async fn start(db: &TestDb) -> Self {
        Self::built(Server::builder(&db.path)).await
    }

    pub(super) async fn at_path(path: &std::path::Path) -> Self {
        Self::built(Server::builder(path)).await
    }

    pub(super) async fn built(builder: ServerBuilder) -> Self {
        Self(builder.in_process().await.unwrap())
    }

    pub(super) async fn send(&self, method: &'static str, path: &str, body: Vec<u8>) -> (u16, Bytes) {
        let request = HttpRequest {
            method,
            url: format!("http://x{path}"),
            headers: vec![],
            body: body.into(),
        };
        let answer = self.0.send(request).await.unwrap();
        let body: Vec<_> = answer.body.try_collect().await.unwrap();
        (answer.status, body.concat().into())
    }

    pub(super) async fn ask(&self, request: PagesRequest) -> Result<Answer, Refused> {
        let body = PullUpdatesRequest::new(&request, PageEncoding::Raw).encode_to_vec();
        match self.send("POST", "/pull-updates", body).await {
            (200, body) => Ok(pages_of(&body)),
            (status, body) => Err(refusal(status, &body)),
        }
    }

    pub(super) async fn latest(&self) -> Answer {
        self.ask(PagesRequest::default()).await.unwrap()
    }

    pub(super) async fn since(&self, revision: &Revision, select: PageSelector) -> Result<Answer, Refused> {
        self.ask(PagesRequest {
            since: Some(revision.clone()),
            select,
            ..PagesRequest::default()
        })
        .await
    }

    pub(super) async fn at(&self, revision: &Revision, select: PageSelector) -> Result<Answer, Refused> {
        self.ask(PagesRequest {
            revision: Some(revision.clone()),
            select,
            ..PagesRequest::default()
        })
        .await
    }

    pub(super) async fn sql(&self, sql: &str) {
        let body = json!({"requests": [{"type": "execute", "stmt": {"sql": sql}}, {"type": "close"}]});
        let (status, body) = self
            .send("POST", "/v2/pipeline", body.to_string().into_bytes())
            .await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, &answer["results"][0]["type"]),
            (200, &json!("ok")),
            "{answer}"
        );
    }

    /// Pages that are still to be compared, as `/metrics` has it.
    pub(super) async fn left(&self) -> u64 {
        let (_, text) = self.send("GET", "/metrics", vec![]).await;
        let text = String::from_utf8(text.to_vec()).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("partial_sync_history_uncompared_pages{database=\"\"} "));
        line.unwrap().parse().unwrap()
    }

    pub(super) async fn compare(&self) -> bool {
        self.0.compare().await.unwrap()
    }

    pub(super) async fn compare_all(&self) {
        while self.compare().await {}
        assert_eq!(self.left().await, 0);
    }

    pub(super) async fn stop(self) {
        self.0.close().await;
    }
}

/// A database of rather more pages than one request compares, a row on each.
pub(super) fn large() -> TestDb {
    let db = TestDb::new();
    shell(
        &db.path,
        "PRAGMA journal_mode=delete; PRAGMA page_size=512; VACUUM;
         WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 10500)
         INSERT INTO t SELECT i, randomblob(400) FROM n",
    );
    db
}

/// The state of the database when a server that had compared everything was killed.
pub(super) async fn killed(db: &TestDb) -> Answer {
    let server = Live::start(db).await;
    server.compare_all().await;
    server.latest().await
}

pub(super) fn update(rest: i64, modulus: i64) -> String {
    format!("UPDATE t SET v = randomblob(400) WHERE id % {modulus} = {rest}")
}

/// Ids of pages of the later state that are not as in the earlier one.
pub(super) fn differ(earlier: &Answer, later: &Answer) -> Vec<u32> {
    (0..later.size)
        .filter(|id| earlier.pages.get(id) != later.pages.get(id))
        .collect()
}

/// What a replica that had the state has after it took the answer.
pub(super) fn pulled(state: &[Bytes], answer: &Answer) -> Vec<Bytes> {
    let mut state = state.to_vec();
    state.resize(answer.size as usize, Bytes::new());
    for (id, page) in &answer.pages {
        state[*id as usize] = page.clone();
    }
    state
}

pub(super) fn is_expired(answer: Result<Answer, Refused>) {
    let refused = answer.expect_err("it is not kept");
    assert_eq!(
        (refused.status, refused.code.as_str()),
        (410, "REVISION_EXPIRED"),
        "{}",
        refused.message
    );
}
