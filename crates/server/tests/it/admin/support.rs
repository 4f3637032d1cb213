//! A server of a folder with administration, and who administers it.

use std::path::PathBuf;

use partial_sync_server::{
    Admin, Server, ServerBuilder, ServerHandle,
    access::Access,
    auth::{AnyOf, StaticToken},
};
use serde_json::{Value, json};

use crate::pages::support::{Client, shell};

/// A folder, a server of it, and an administrator.
pub(crate) struct Served {
    pub folder: tempfile::TempDir,
    pub server: ServerHandle,
    http: reqwest::Client,
}

pub(crate) fn administered(builder: ServerBuilder) -> ServerBuilder {
    let both = AnyOf(vec![
        Box::new(StaticToken::new("boss", Access::Full)),
        Box::new(StaticToken::new("viewer", Access::ReadOnly)),
    ]);
    builder.admin(Admin::listen("127.0.0.1:0").authenticator(both))
}

impl Served {
    /// With databases of these names, which have a table `t(id INTEGER PRIMARY KEY, v BLOB)`.
    pub(crate) async fn new(names: &[&str]) -> Self {
        Self::built(names, |builder| builder).await
    }

    pub(crate) async fn built(names: &[&str], build: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(format!("{name}.db"));
            shell(&path, "CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)");
        }
        Self::of(folder, build).await
    }

    pub(crate) async fn of(
        folder: tempfile::TempDir,
        build: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let builder = build(administered(Server::builder(folder.path())));
        let server = builder.listen("127.0.0.1:0").await.unwrap();
        let http = Client::new("").http;
        Self { folder, server, http }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.db"))
    }

    /// A client of a database.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client::new(&format!("{}/{name}", self.server.url()))
    }

    /// What is in the folder.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Asks for something with a token: status and answer.
    pub(crate) async fn with(&self, token: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.server.admin_url().unwrap());
        let request = self.http.request(method.parse().unwrap(), url);
        let request = match token {
            "" => request,
            token => request.bearer_auth(token),
        };
        let answer = request
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
        )
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.with("boss", method, &format!("/v1{path}"), body).await
    }

    /// The same, and it must succeed.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// The same, and it must be refused with this status and code.
    pub(crate) async fn refused(
        &self,
        method: &str,
        path: &str,
        body: Value,
        expected: (u16, &str),
    ) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(
            (status, answer["code"].as_str().unwrap_or_default()),
            expected,
            "{method} {path}: {answer}"
        );
        answer
    }

    pub(crate) async fn names(&self) -> Vec<String> {
        let listed = self.ok("GET", "/namespaces", json!({})).await;
        let names = listed["namespaces"].as_array().unwrap().iter();
        names.map(|it| it["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Runs SQL over HTTP: status and answer.
    pub(crate) async fn sql(&self, name: &str, baton: Value, sql: &[&str]) -> (u16, Value) {
        let requests: Vec<_> = sql
            .iter()
            .map(|sql| json!({ "type": "execute", "stmt": { "sql": sql } }))
            .collect();
        let answer = self
            .http
            .post(format!("{}/{name}/v2/pipeline", self.server.url()))
            .header("content-type", "application/json")
            .body(json!({ "baton": baton, "requests": requests }).to_string())
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default(),
        )
    }
}
