//! Answers that go as one zstd frame to clients that say that they take it, counted by the byte.

use std::io::Read as _;

use partial_sync_server::hrana::HranaOptions;
use partial_sync_transport::wire::BodyDecoder;
use reqwest::{Response, header::HeaderMap};
use serde_json::{Value, json};

use super::server::{Server, batch};

/// A table of a text of 200 bytes in each of so many rows.
async fn with_rows(options: HranaOptions, rows: u32) -> Server {
    let server = Server::with_options(options).await;
    server
        .execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        .await
        .unwrap();
    let sql =
        format!("INSERT INTO t SELECT value, printf('row %0196d', value) FROM generate_series(1, {rows})");
    server.execute(&sql).await.unwrap();
    server
}

async fn post(server: &Server, path: &str, accepts: Option<&str>, body: &Value) -> Response {
    let mut request = reqwest::Client::new().post(format!("{}{path}", server.url));
    if let Some(accepts) = accepts {
        request = request.header("accept-encoding", accepts);
    }
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

fn said<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

/// What one frame stands for, with a window as large as clients have to have.
fn unpacked(frame: &[u8]) -> Vec<u8> {
    let mut decoder = BodyDecoder::new(true);
    decoder.push(frame.to_vec().into());
    let mut bytes = Vec::new();
    while let Some(piece) = decoder.next_piece().unwrap() {
        bytes.extend_from_slice(&piece);
    }
    assert!(decoder.is_at_end());
    bytes
}

fn select(limit: u32) -> Value {
    json!({"requests": [{"type": "execute", "stmt": {"sql": format!("SELECT * FROM t LIMIT {limit}")}}, {"type": "close"}]})
}

#[tokio::test]
async fn an_answer_goes_compressed_to_who_takes_that_and_as_it_is_to_others() {
    let server = with_rows(HranaOptions::default(), 2000).await;
    let cursor = json!({"batch": {"steps": [{"stmt": {"sql": "SELECT * FROM t"}}]}});
    for (path, body) in [
        ("/v2/pipeline", select(2000)),
        ("/v3/pipeline", select(2000)),
        ("/v3/cursor", cursor),
    ] {
        let mut answers = Vec::new();
        for (accepts, packs) in [
            (None, false),
            (Some("gzip, deflate, br"), false),
            (Some("zstd;q=0"), false),
            (Some("gzip, zstd"), true),
        ] {
            let answer = post(&server, path, accepts, &body).await;
            let headers = answer.headers().clone();
            let bytes = answer.bytes().await.unwrap();
            assert_eq!(
                said(&headers, "content-encoding"),
                packs.then_some("zstd"),
                "{path} {accepts:?}"
            );
            assert_eq!(said(&headers, "content-length"), Some(&*bytes.len().to_string()));
            assert_eq!(said(&headers, "vary"), Some("accept-encoding"));
            assert_eq!(said(&headers, "content-type"), Some("application/json"));
            if packs {
                println!("{path}: {} bytes", bytes.len());
                assert!(bytes.len() < 40_000, "{path}: {} bytes", bytes.len());
                // Any zstd reads it.
                let mut text = Vec::new();
                zstd::stream::Decoder::new(&bytes[..])
                    .unwrap()
                    .read_to_end(&mut text)
                    .unwrap();
                assert_eq!(text, unpacked(&bytes));
                answers.push(text);
            } else {
                assert!(bytes.len() > 400_000, "{path}: {} bytes", bytes.len());
                answers.push(bytes.into());
            }
        }
        // But for a baton in a cursor's first line.
        let rows = |answer: &Vec<u8>| match path {
            "/v3/cursor" => answer.splitn(2, |byte| *byte == b'\n').nth(1).unwrap().to_vec(),
            _ => answer.clone(),
        };
        assert!(
            answers.iter().all(|answer| rows(answer) == rows(&answers[0])),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_small_answer_and_a_refusal_go_as_they_are() {
    let server = with_rows(HranaOptions::default(), 10).await;
    let answer = post(&server, "/v2/pipeline", Some("zstd"), &select(1)).await;
    let headers = answer.headers().clone();
    assert_eq!(said(&headers, "content-encoding"), None);
    assert_eq!(said(&headers, "vary"), Some("accept-encoding"));
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(
        answer["results"][0]["response"]["result"]["rows"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let request = reqwest::Client::new().post(format!("{}/v2/pipeline", server.url));
    let long = json!({"requests": [{"type": "x".repeat(5000)}]}).to_string();
    let refused = request
        .header("accept-encoding", "zstd")
        .body(long)
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(said(refused.headers(), "content-encoding"), None);
}

/// 385 KB came back.
#[tokio::test]
async fn what_a_batch_of_many_steps_gives_is_a_few_bytes_a_step() {
    let server = with_rows(HranaOptions::default(), 1).await;
    let steps = vec![(Value::Null, "INSERT INTO t(v) VALUES (1)"); 5000];
    let body = json!({"requests": [{"type": "batch", "batch": batch(&steps)}, {"type": "close"}]});
    let answer = post(&server, "/v2/pipeline", Some("zstd"), &body).await;
    let bytes = answer.bytes().await.unwrap();
    println!("{} bytes for {}", bytes.len(), unpacked(&bytes).len());
    assert!(bytes.len() < 10_000, "{} bytes", bytes.len());
    let answer: Value = serde_json::from_slice(&unpacked(&bytes)).unwrap();
    let results = &answer["results"][0]["response"]["result"]["step_results"];
    assert_eq!(results[4999]["last_insert_rowid"], "5001");
}

/// It is made beside the answer as it is; without room for both there is no error.
#[tokio::test]
async fn v2_an_answer_for_which_there_is_no_room_to_pack_goes_as_it_is() {
    let options = HranaOptions {
        all_answer_bytes: 1 << 20,
        ..HranaOptions::default()
    };
    let server = with_rows(options, 2000).await;
    for (limit, packs) in [(2000, false), (20, true)] {
        let answer = post(&server, "/v2/pipeline", Some("zstd"), &select(limit)).await;
        let packed = said(answer.headers(), "content-encoding").is_some();
        assert_eq!(packed, packs, "{limit} rows");
        let bytes = answer.bytes().await.unwrap();
        let bytes = if packed { unpacked(&bytes) } else { bytes.into() };
        let answer: Value = serde_json::from_slice(&bytes).unwrap();
        let rows = &answer["results"][0]["response"]["result"]["rows"];
        assert_eq!(rows.as_array().unwrap().len(), limit as usize);
    }
}
