//! Serves one SQLite file as SQL over HTTP and nothing else, to try Hrana clients against:
//! `cargo run -p partial-sync-server --example sql_over_http -- FILE [TOKEN]`. Loopback only.

use std::{env, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, to_bytes},
    extract::Request,
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::future::BoxFuture;
use partial_sync_server::{
    access::{Access, Authenticator, CommitListener, DatabaseHandle, NotCommitted, SqlEndpoint},
    auth::{Open, StaticToken},
    hrana::Hrana,
};

/// There is no page history here that could want to know.
struct Nobody;

impl CommitListener for Nobody {
    fn committed(&self) -> BoxFuture<'static, Result<(), NotCommitted>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Clone)]
struct Served {
    hrana: Hrana,
    database: DatabaseHandle,
    auth: Arc<dyn Authenticator>,
}

async fn answer(served: Served, request: Request) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let caller = match served.auth.check(authorization, &served.database.name) {
        Ok(caller) => caller,
        Err(denied) => {
            let body = serde_json::json!({"error": denied.to_string(), "message": denied.to_string()});
            return (
                denied.status(),
                [(header::WWW_AUTHENTICATE, "Bearer")],
                Json(body),
            )
                .into_response();
        }
    };
    let (head, body) = request.into_parts();
    match to_bytes(Body::new(body), 64 << 20).await {
        Ok(body) => {
            let request = Request::from_parts(head, body);
            served.hrana.answer(served.database, caller, request).await
        }
        Err(cause) => (axum::http::StatusCode::PAYLOAD_TOO_LARGE, cause.to_string()).into_response(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = env::args_os().skip(1);
    let path = PathBuf::from(args.next().ok_or("which FILE is to be served?")?);
    let auth: Arc<dyn Authenticator> = match args.next() {
        Some(token) => Arc::new(StaticToken::new(
            token.into_string().map_err(|_| "the TOKEN must be UTF-8")?,
            Access::Full,
        )),
        None => Arc::new(Open),
    };
    let sqlite = rusqlite::Connection::open(&path)?;
    sqlite.pragma_update(None, "journal_mode", "wal")?;
    let served = Served {
        hrana: Hrana::default(),
        database: DatabaseHandle {
            name: "".into(),
            path: Arc::new(path),
            read_only: false,
            listener: Arc::new(Nobody),
        },
        auth,
    };
    let router = Router::new().fallback(move |request: Request| answer(served.clone(), request));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}
