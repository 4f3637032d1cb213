//! A server with nothing but the SQL endpoint, and a client that speaks JSON to it.

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use partial_sync_server::{
    access::{Authenticator, CommitListener, DatabaseHandle, NotCommitted, SqlEndpoint},
    auth::Open,
    hrana::{Hrana, HranaOptions},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

/// Counts what it is told, and can keep anyone who tells it waiting.
pub(crate) struct Commits {
    count: watch::Sender<usize>,
    held: watch::Sender<bool>,
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            count: watch::Sender::new(0),
            held: watch::Sender::new(false),
        }
    }
}

impl CommitListener for Commits {
    fn committed(&self) -> BoxFuture<'static, Result<(), NotCommitted>> {
        self.count.send_modify(|count| *count += 1);
        let mut held = self.held.subscribe();
        Box::pin(async move {
            held.wait_for(|held| !held).await.expect("the server lives");
            Ok(())
        })
    }
}

impl Commits {
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(crate) async fn wait_for(&self, count: usize) {
        self.count.subscribe().wait_for(|c| *c == count).await.unwrap();
    }
}

pub(crate) struct Server {
    pub hrana: Hrana,
    pub url: String,
    client: reqwest::Client,
    pub commits: Arc<Commits>,
    pub database: DatabaseHandle,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(HranaOptions::default(), Open).await
    }

    pub(crate) async fn with_options(options: HranaOptions) -> Self {
        Self::start_with(options, Open).await
    }

    pub(crate) async fn with_auth(auth: impl Authenticator + 'static) -> Self {
        Self::start_with(HranaOptions::default(), auth).await
    }

    pub(crate) async fn start_with(options: HranaOptions, auth: impl Authenticator + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("served.db");
        let sqlite = rusqlite::Connection::open(&path).unwrap();
        sqlite.pragma_update(None, "journal_mode", "wal").unwrap();
        drop(sqlite);

        let commits = Arc::new(Commits::default());
        let database = DatabaseHandle {
            name: "served".into(),
            path: Arc::new(path),
            read_only: false,
            listener: commits.clone(),
        };
        let served = database.clone();
        let hrana = Hrana::new(options);
        let state = (hrana.clone(), database, Arc::new(auth) as Arc<dyn Authenticator>);
        let router = Router::new().fallback(move |request: Request| {
            let (hrana, database, auth) = state.clone();
            async move { answer(hrana, database, auth, request).await }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        // The workspace builds reqwest without a TLS provider of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            hrana,
            url,
            client: reqwest::Client::new(),
            commits,
            database: served,
            folder,
            task,
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("served.db")
    }

    /// How often the page history was told of a commit.
    pub(crate) fn commits(&self) -> usize {
        *self.commits.count.borrow()
    }

    /// Sends a body to a path; status and JSON of the answer.
    pub(crate) async fn send(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = self
            .client
            .post(format!("{}{path}", self.url))
            .body(body.to_string());
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, json)
    }

    /// Sends a body in Protobuf.
    pub(crate) async fn send_bytes(&self, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/x-protobuf")
            .body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.bytes().await.unwrap().to_vec())
    }

    pub(crate) async fn get(&self, path: &str) -> u16 {
        let response = self.client.get(format!("{}{path}", self.url)).send().await;
        response.unwrap().status().as_u16()
    }

    /// A pipeline in a stream of its own or an old one; the whole answer.
    pub(crate) async fn pipeline(&self, baton: Option<&str>, requests: Value) -> Value {
        let body = json!({"baton": baton, "requests": requests});
        let (status, answer) = self.send("/v2/pipeline", None, &body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The answer to one request in a stream that is closed afterwards: the response, or the error.
    pub(crate) async fn one(&self, request: Value) -> Result<Value, Value> {
        let answer = self.pipeline(None, json!([request, {"type": "close"}])).await;
        assert_eq!(answer["baton"], Value::Null);
        outcome(&answer["results"][0])
    }

    /// Executes one statement in a stream of its own.
    pub(crate) async fn execute(&self, sql: &str) -> Result<Value, Value> {
        self.execute_with(json!({"sql": sql})).await
    }

    pub(crate) async fn execute_with(&self, stmt: Value) -> Result<Value, Value> {
        let response = self.one(json!({"type": "execute", "stmt": stmt})).await?;
        assert_eq!(response["type"], "execute");
        Ok(response["result"].clone())
    }

    /// The values of the one column of a query.
    pub(crate) async fn column(&self, sql: &str) -> Vec<Value> {
        let result = self.execute(sql).await.unwrap();
        result["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row[0].clone())
            .collect()
    }

    /// Runs a batch of `[condition, sql]` pairs in a stream of its own.
    pub(crate) async fn batch(&self, steps: &[(Value, &str)]) -> Value {
        let response = self.one(json!({"type": "batch", "batch": batch(steps)})).await;
        let response = response.unwrap();
        assert_eq!(response["type"], "batch");
        response["result"].clone()
    }
}

pub(crate) fn batch(steps: &[(Value, &str)]) -> Value {
    let steps: Vec<_> = steps
        .iter()
        .map(|(condition, sql)| json!({"condition": condition, "stmt": {"sql": sql}}))
        .collect();
    json!({ "steps": steps })
}

/// The response of a result of type `ok`, the error of one of type `error`.
pub(crate) fn outcome(result: &Value) -> Result<Value, Value> {
    match result["type"].as_str() {
        Some("ok") => Ok(result["response"].clone()),
        Some("error") => Err(result["error"].clone()),
        other => panic!("unexpected type of result: {other:?}"),
    }
}

/// What the served application does around the endpoint: token, body, path.
async fn answer(
    hrana: Hrana,
    database: DatabaseHandle,
    auth: Arc<dyn Authenticator>,
    request: Request,
) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let caller = match auth.check(authorization.and_then(|h| h.to_str().ok()), &database.name) {
        Ok(caller) => caller,
        Err(denied) => {
            let body = json!({"error": denied.to_string()}).to_string();
            let headers = [(header::WWW_AUTHENTICATE, "Bearer")];
            return (denied.status(), headers, body).into_response();
        }
    };
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), 128 << 20).await.unwrap();
    hrana
        .answer(database, caller, Request::from_parts(head, body))
        .await
}
