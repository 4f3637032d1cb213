//! Keys and tokens are read again while a server runs.

use std::{path::PathBuf, time::Duration};

use partial_sync_server::{
    Server, ServerBuilder, ServerError, ServerHandle,
    access::Access,
    auth::StaticToken,
    hrana::{Hrana, HranaOptions},
};
use partial_sync_transport::{
    PagesRequest,
    wire::{PROTOBUF, PageEncoding, PullUpdatesRequest},
};
use prost::Message as _;
use serde_json::{Value, json};

use super::signing::Signer;
use crate::{
    front::raw::Raw,
    pages::support::{Client, TestDb, insert},
};

/// A server whose keys and tokens are in files.
struct Guarded {
    db: TestDb,
    folder: tempfile::TempDir,
    server: ServerHandle,
    http: reqwest::Client,
}

const METRICS: &str = "for-metrics";

impl Guarded {
    /// It knows the key of this signer, and the tokens `one` and `two`.
    async fn new(signer: &Signer) -> Self {
        Self::with(signer, |server| server).await
    }

    async fn with(signer: &Signer, options: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let (db, folder) = (TestDb::new(), tempfile::tempdir().unwrap());
        insert(&db.open(), 1, 1);
        std::fs::write(folder.path().join("keys"), signer.raw()).unwrap();
        std::fs::write(folder.path().join("tokens"), "one\nread-only two\n").unwrap();
        let server = Server::builder(&db.path)
            .authenticator(StaticToken::new(METRICS, Access::ReadOnly))
            .auth_jwt_keys(folder.path().join("keys"))
            .auth_token_file(folder.path().join("tokens"));
        let server = options(server).listen("127.0.0.1:0").await.unwrap();
        let http = Client::new("").http;
        Self {
            db,
            folder,
            server,
            http,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Another content of a file, which is read.
    fn change(&self, name: &str, contents: &str) -> Result<(), ServerError> {
        std::fs::write(self.file(name), contents).unwrap();
        self.server.reload_blocking()
    }

    /// Status and JSON of a pipeline with these statements.
    async fn sql(&self, token: &str, baton: Option<&str>, statements: &[&str], close: bool) -> (u16, Value) {
        let execute = |sql: &&str| json!({"type": "execute", "stmt": {"sql": sql}});
        let mut requests: Vec<_> = statements.iter().map(execute).collect();
        if close {
            requests.push(json!({"type": "close"}));
        }
        let request = self.http.post(format!("{}/v2/pipeline", self.server.url()));
        let request = request
            .header("content-type", "application/json")
            .bearer_auth(token);
        let body = json!({"baton": baton, "requests": requests}).to_string();
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_str(&answer.text().await.unwrap()).unwrap(),
        )
    }

    async fn status(&self, token: &str) -> u16 {
        self.sql(token, None, &["SELECT 1"], true).await.0
    }

    /// How many rows there are, as the server says.
    async fn rows(&self, token: &str) -> Value {
        let (status, answer) = self.sql(token, None, &["SELECT count(*) FROM t"], true).await;
        assert_eq!(status, 200, "{answer}");
        answer["results"][0]["response"]["result"]["rows"][0][0]["value"].clone()
    }

    /// Waits until a metric is told.
    async fn metric(&self, line: &str) {
        loop {
            let request = self.http.get(format!("{}/metrics", self.server.url()));
            let answer = request.bearer_auth(METRICS).send().await.unwrap();
            if answer.text().await.unwrap().contains(line) {
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_new_key_counts_at_the_next_request_and_a_removed_one_does_not() {
    let [old, new] = [(); 2].map(|()| Signer::new());
    let served = Guarded::new(&old).await;
    let [by_old, by_new] = [&old, &new].map(|signer| signer.token(None, json!({"sub": "ann"})));
    assert_eq!(
        (served.status(&by_old).await, served.status(&by_new).await),
        (200, 401)
    );

    // One connection over all of it.
    let mut open = Raw::connect(served.server.addr()).await;
    let request = |token: &str| {
        format!(
            "POST /v2/pipeline HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-length: 15\r\n\r\n\
             {{\"requests\":[]}}"
        )
    };
    open.send(&request(&by_old)).await;
    assert_eq!(open.answer().await.0, 200);
    served
        .change("keys", &format!("{}\n{}", old.raw(), new.raw()))
        .unwrap();
    assert_eq!(
        (served.status(&by_old).await, served.status(&by_new).await),
        (200, 200)
    );
    served.change("keys", &new.raw()).unwrap();
    open.send(&request(&by_old)).await;
    assert_eq!(open.refusal().await, (401, "UNAUTHORIZED".to_owned()));
    open.send(&request(&by_new)).await;
    assert_eq!(open.answer().await.0, 200);

    assert_eq!(
        (served.status("one").await, served.status("three").await),
        (200, 401)
    );
    served.change("tokens", "read-only one\nthree\n").unwrap();
    assert_eq!(
        (served.status("two").await, served.status("three").await),
        (401, 200)
    );
    let (_, answer) = served.sql("one", None, &["DELETE FROM t"], true).await;
    assert_eq!(answer["results"][0]["error"]["code"], "SQLITE_READONLY");
    assert_eq!(served.status(METRICS).await, 200);
    served.server.shutdown().await;
}

/// Was impossible: nothing was read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_broken_file_leaves_what_was_in_force_and_the_other_files_count() {
    let [old, new] = [(); 2].map(|()| Signer::new());
    let served = Guarded::new(&old).await;
    let [by_old, by_new] = [&old, &new].map(|signer| signer.token(None, json!({})));
    let secret = "a secret that is long enough to be one";
    for broken in [
        "",
        "hmac:short",
        &format!("{}\n{secret}", new.raw()),
        &old.private_pem(),
    ] {
        let error = served.change("keys", broken).unwrap_err().to_string();
        assert!(error.contains(served.file("keys").to_str().unwrap()), "{error}");
        assert!(!error.contains(secret), "{error}");
        assert_eq!(
            (served.status(&by_old).await, served.status(&by_new).await),
            (200, 401)
        );
    }
    std::fs::remove_file(served.file("keys")).unwrap();
    let error = served.change("tokens", "three").unwrap_err().to_string();
    assert!(error.contains("cannot be read"), "{error}");
    assert_eq!(served.status(&by_old).await, 200, "its file is gone");
    assert_eq!(
        (served.status("one").await, served.status("three").await),
        (401, 200)
    );
    served.change("keys", &new.raw()).unwrap();
    assert_eq!(
        (served.status(&by_old).await, served.status(&by_new).await),
        (401, 200)
    );
    served.server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_an_open_transaction_continues_with_a_token_that_is_still_good_and_not_with_another() {
    let (kept, removed) = (Signer::new(), "one");
    let options = HranaOptions {
        baton_idle: Duration::from_secs(5),
        ..HranaOptions::default()
    };
    let served = Guarded::with(&kept, |server| server.sql(Hrana::new(options))).await;
    let kept = kept.token(None, json!({}));
    let begin = async |token: &str, id: &str| {
        let insert = format!("INSERT INTO t(id) VALUES ({id})");
        let (status, answer) = served.sql(token, None, &["BEGIN", &insert], false).await;
        assert_eq!(status, 200);
        answer["baton"].as_str().unwrap().to_owned()
    };
    let baton = begin(&kept, "10").await;
    served.change("tokens", "read-only one").unwrap();
    let (status, answer) = served.sql(&kept, Some(&baton), &["COMMIT"], true).await;
    assert_eq!(
        (status, &answer["results"][0]["type"]),
        (200, &json!("ok")),
        "{answer}"
    );

    served.change("tokens", "full one").unwrap();
    let baton = begin(removed, "20").await;
    served.change("tokens", "read-only one").unwrap();
    let (status, answer) = served.sql(removed, Some(&baton), &["COMMIT"], true).await;
    assert_eq!(
        (status, &answer["code"]),
        (400, &json!("STREAM_ACCESS")),
        "{answer}"
    );
    served.change("tokens", "full one").unwrap();
    let (status, answer) = served.sql(removed, Some(&baton), &["COMMIT"], true).await;
    assert_eq!(
        (status, &answer["results"][0]["type"]),
        (200, &json!("ok")),
        "{answer}"
    );

    let baton = begin(removed, "30").await;
    served.change("tokens", "three").unwrap();
    let (status, _) = served.sql(removed, Some(&baton), &["COMMIT"], true).await;
    assert_eq!(status, 401);
    // What nobody can come back to is rolled back, and keeps no writer out.
    served.metric("partial_sync_open_batons 0\n").await;
    let (_, answer) = served
        .sql(&kept, None, &["INSERT INTO t(id) VALUES (40)"], true)
        .await;
    assert_eq!(answer["results"][0]["type"], "ok", "{answer}");
    assert_eq!(served.rows(&kept).await, "4", "the first row, 10, 20 and 40");
    served.server.shutdown().await;
}

/// Was red: a poll that had begun was told of what was committed after its token was removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_long_poll_is_told_of_a_commit_only_if_its_token_is_still_good() {
    let signer = Signer::new();
    let served = Guarded::new(&signer).await;
    let good = signer.token(None, json!({}));
    let pages = async |token: &str, request: PagesRequest| {
        let body = PullUpdatesRequest::new(&request, PageEncoding::Raw).encode_to_vec();
        let request = served.http.post(format!("{}/pull-updates", served.server.url()));
        let request = request
            .header("content-type", PROTOBUF)
            .bearer_auth(token)
            .body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.bytes().await.unwrap())
    };
    let revision = {
        use partial_sync_transport::wire::{FrameDecoder, HEADER_LIMIT, PullUpdatesHeader};
        let (_, bytes) = pages(&good, PagesRequest::default()).await;
        let mut frames = FrameDecoder::new();
        frames.push(&bytes);
        let header = frames.next(HEADER_LIMIT).unwrap().unwrap();
        PullUpdatesHeader::decode(header).unwrap().check().unwrap().0
    };
    let poll = || PagesRequest {
        since: Some(revision.clone()),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let told = async {
        served.metric("partial_sync_waiting_polls 2\n").await;
        served.change("tokens", "two").unwrap();
        insert(&served.db.open(), 100, 1);
    };
    let (kept, removed, ()) = tokio::join!(pages(&good, poll()), pages("one", poll()), told);
    assert_eq!((kept.0, removed.0), (200, 401));
    assert!(kept.1.len() > 4096 && removed.1.len() < 1000);
    served.server.shutdown().await;
}

/// Was red: the head of a request was judged, and its body could come much later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_request_is_judged_again_when_its_body_has_come() {
    let signer = Signer::new();
    let served = Guarded::new(&signer).await;
    let body = r#"{"requests":[{"type":"execute","stmt":{"sql":"DELETE FROM t"}},{"type":"close"}]}"#;
    let head = |token: &str| {
        format!(
            "POST /v2/pipeline HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
    };
    let mut removed = Raw::sending(served.server.addr(), &head("one")).await;
    let mut kept = Raw::sending(served.server.addr(), &head("two")).await;
    served.metric("partial_sync_requests_under_way 2\n").await;
    served.change("tokens", "read-only two\n").unwrap();
    removed.send(body).await;
    assert_eq!(removed.refusal().await, (401, "UNAUTHORIZED".to_owned()));
    kept.send(body).await;
    let (status, answer) = kept.answer().await;
    assert!(status == 200 && answer.contains("SQLITE_READONLY"), "{answer}");
    let token = signer.token(None, json!({}));
    assert_eq!(served.rows(&token).await, "1");
    served.server.shutdown().await;
}

/// Was red: a token for a database was good for none of a server of one file, which had no name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_token_for_one_database_is_good_for_the_file_of_that_name() {
    let signer = Signer::new();
    let served = Guarded::new(&signer).await;
    let token = |claims| signer.token(None, claims);
    assert_eq!(served.status(&token(json!({"id": "app"}))).await, 200);
    assert_eq!(
        served.status(&token(json!({"p": {"ro": {"ns": ["app"]}}}))).await,
        200
    );
    assert_eq!(
        served
            .status(&token(json!({"p": {"rw": {"ns": ["other", "app.db", ""]}}})))
            .await,
        403
    );
    served.server.shutdown().await;
}

/// Was red: it went by the name of the file that the link led to.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_database_that_is_given_by_a_link_goes_by_the_name_of_the_link() {
    let (db, signer) = (TestDb::new(), Signer::new());
    let link = db.path.with_file_name("orders.db");
    std::os::unix::fs::symlink(&db.path, &link).unwrap();
    let keys = db.path.with_file_name("keys");
    std::fs::write(&keys, signer.raw()).unwrap();
    let server = Server::builder(&link).auth_jwt_keys(&keys);
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let status = async |name: &str| {
        let request = Client::new("").http.post(format!("{}/v2/pipeline", server.url()));
        let request = request.body("{\"requests\":[]}");
        let token = signer.token(None, json!({"id": name}));
        request.bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("orders").await, status("app").await), (200, 403));
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_server_does_not_start_with_files_that_it_cannot_use() {
    let db = TestDb::new();
    let file = db.path.with_file_name("keys");
    std::fs::write(&file, "hmac:short").unwrap();
    for server in [
        Server::builder(&db.path).auth_jwt_keys(&file),
        Server::builder(&db.path).auth_token_file(db.path.with_file_name("nothing")),
    ] {
        let refused = server.listen("127.0.0.1:0").await.unwrap_err();
        assert!(matches!(refused, ServerError::Credentials(_)), "{refused}");
    }
    let server = db.serve().await;
    server.reload().await.unwrap();
    assert_eq!(Client::new(&server.url()).latest().await.size, 2, "it continues");
    server.shutdown().await;
}
