//! What web pages can and cannot make a browser send.

use partial_sync_server::{
    Server, ServerBuilder, ServerError, ServerHandle, access::Access, auth::StaticToken,
};

use super::raw::Raw;
use crate::pages::support::Client;

const SELECT: &str = r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1"}},{"type":"close"}]}"#;

async fn serve(server: ServerBuilder) -> ServerHandle {
    server.listen("127.0.0.1:0").await.unwrap()
}

/// Sends a statement with these headers.
async fn post(server: &ServerHandle, headers: &[(&str, &str)]) -> reqwest::Response {
    let mut request = Client::new("").http.post(format!("{}/v2/pipeline", server.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(SELECT).send().await.unwrap()
}

async fn refusal(server: &ServerHandle, headers: &[(&str, &str)]) -> (u16, String) {
    let answer = post(server, headers).await;
    let status = answer.status().as_u16();
    let json: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (status, json["code"].as_str().unwrap_or_default().to_owned())
}

/// Was red: a page anywhere could send SQL as text, for which no browser asks the server first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v17_a_body_of_a_type_that_forms_have_is_refused() {
    let server = serve(Server::in_memory()).await;
    for kind in [
        "text/plain",
        "Text/Plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
    ] {
        let refused = refusal(&server, &[("content-type", kind)]).await;
        assert_eq!(refused, (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()), "{kind}");
    }
    for kind in ["application/json", "application/json; charset=utf-8"] {
        assert_eq!(
            post(&server, &[("content-type", kind)]).await.status(),
            200,
            "{kind}"
        );
    }
    // Programs other than browsers need not name a type.
    assert_eq!(post(&server, &[]).await.status(), 200);
    server.shutdown().await;
}

/// Was red: whatever page sent it, it was run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v17_a_page_of_another_origin_is_refused_unless_it_is_allowed() {
    let server = serve(Server::in_memory().cors_origin("https://App.example.org:443")).await;
    for origin in [
        "https://evil.example",
        "http://app.example.org",
        "null",
        "http://localhost:1",
    ] {
        let refused = refusal(&server, &[("origin", origin)]).await;
        assert_eq!(refused, (403, "ORIGIN_NOT_ALLOWED".to_owned()), "{origin}");
    }
    let allowed = ("origin", "https://app.example.org");
    let answer = post(&server, &[allowed, ("content-type", "application/json")]).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], allowed.1);
    let varies = answer.headers().get_all("vary").iter();
    let varies: Vec<_> = varies.map(|names| names.to_str().unwrap()).collect();
    assert!(
        varies.join(",").contains("accept-encoding") && varies.join(",").contains("origin"),
        "{varies:?}"
    );
    // A page sees what it did wrong.
    let refused = post(&server, &[allowed, ("content-type", "text/plain")]).await;
    assert_eq!(refused.status(), 415);
    assert_eq!(refused.headers()["access-control-allow-origin"], allowed.1);
    // Pages of this server's own, if there are any.
    let own = server.url();
    assert_eq!(post(&server, &[("origin", &own)]).await.status(), 200);
    server.shutdown().await;
}

/// What a browser asks before it sends anything of a page of another origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v17_a_preflight_says_what_an_allowed_page_may_send() {
    let token = StaticToken::new("sesame", Access::Full);
    let server = Server::in_memory()
        .authenticator(token)
        .cors_origin("https://app.example.org");
    let server = serve(server).await;
    let preflight = async |origin: &str| {
        let url = format!("{}/v3/pipeline", server.url());
        let request = Client::new("").http.request(reqwest::Method::OPTIONS, url);
        let request = request
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type");
        request.send().await.unwrap()
    };
    let allowed = preflight("https://app.example.org").await;
    assert_eq!(allowed.status(), 200);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.org"),
        ("access-control-allow-methods", "GET,POST"),
        ("access-control-allow-headers", "authorization,content-type"),
    ] {
        assert_eq!(allowed.headers()[name], value);
    }
    let refused = preflight("https://evil.example").await;
    assert_eq!(refused.status(), 403);
    assert!(refused.headers().get("access-control-allow-origin").is_none());
    // Then the request itself, whose refusal the page can read too.
    let origin = ("origin", "https://app.example.org");
    let answer = post(&server, &[origin, ("authorization", "Bearer sesame")]).await;
    assert_eq!(answer.status(), 200);
    let refused = post(&server, &[origin]).await;
    assert_eq!(refused.status(), 401);
    assert_eq!(refused.headers()["access-control-allow-origin"], origin.1);
    server.shutdown().await;
    let any = serve(Server::in_memory().cors_origin("*")).await;
    let answer = post(&any, &[("origin", "null")]).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    any.shutdown().await;
    let wrong = Server::in_memory().cors_origin("app.example.org");
    let refused = wrong.listen("127.0.0.1:0").await.unwrap_err();
    assert!(matches!(refused, ServerError::BadOrigin(_)), "{refused}");
}

/// Was red: a page whose own name has the address 127.0.0.1 was of the same origin as the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v17_an_open_server_on_loopback_answers_to_names_of_this_machine_only() {
    let open = serve(Server::in_memory()).await;
    let refused = (403, "HOST_NOT_ALLOWED".to_owned());
    for host in [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "192.0.2.7",
    ] {
        assert_eq!(refusal(&open, &[("host", host)]).await, refused, "{host}");
        let same = format!("http://{host}");
        assert_eq!(
            refusal(&open, &[("host", host), ("origin", &same)]).await,
            refused,
            "{host}"
        );
    }
    for host in [
        "localhost",
        "localhost:99",
        "app.localhost",
        "127.0.0.1",
        "[::1]:8080",
    ] {
        assert_eq!(post(&open, &[("host", host)]).await.status(), 200, "{host}");
    }
    open.shutdown().await;
    let named = serve(Server::in_memory().allowed_host("db.example.org")).await;
    assert_eq!(post(&named, &[("host", "db.example.org")]).await.status(), 200);
    assert_eq!(
        post(&named, &[("host", "one.DB.example.org")]).await.status(),
        200
    );
    assert_eq!(refusal(&named, &[("host", "example.org")]).await, refused);
    named.shutdown().await;
    // A page has no token, so a proxy may call the server what it likes.
    let guarded = Server::in_memory().authenticator(StaticToken::new("sesame", Access::Full));
    let guarded = serve(guarded).await;
    let headers = [("host", "db.example.org"), ("authorization", "Bearer sesame")];
    assert_eq!(post(&guarded, &headers).await.status(), 200);
    guarded.shutdown().await;
}

/// Was red: the second one was ignored, so a proxy that goes by it could be told something else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v18_a_request_names_one_host() {
    let server = serve(Server::in_memory()).await;
    for head in [
        "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: 127.0.0.1\r\n\r\n",
        "GET /health HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET http://localhost/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
    ] {
        let mut raw = Raw::sending(server.addr(), head).await;
        assert_eq!(raw.status().await, 400, "{head}");
    }
    for head in [
        "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET http://localhost/health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
    ] {
        let mut raw = Raw::sending(server.addr(), head).await;
        assert_eq!(raw.status().await, 200, "{head}");
    }
    server.shutdown().await;
}
