//! How `HttpRemote` asks: statuses, retries, deadlines, tokens and urls. A client in memory stands in for the network,
//! so that time can be stopped; what needs a socket has one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    allocated::most_of,
    loopback::{Loopback, Reply, reply},
};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use parking_lot::Mutex;
use partial_sync_core::{PageCount, Revision};
use partial_sync_transport::{
    ApplyMode, AuthToken, HttpClient, HttpRemote, PagesRequest, Remote, RemoteError, RemoteErrorKind,
    RetryPolicy, UrlSource,
    hrana::{Batch, Step, Stmt, Value},
    http::{HttpRemoteBuilder, HttpRequest, HttpResponse},
    wire::{self, PageEncoding, PullUpdatesHeader},
};
use tokio::time::Instant;

/// What the network does with one request.
enum Act {
    /// Answers.
    Answer(u16, Vec<(&'static str, &'static str)>, Bytes),
    /// Fails after this long; `true` = nothing was sent.
    Fail(Duration, bool),
    /// Never answers.
    Hang,
    /// Answers 200 with these bytes, and then nothing more comes.
    HangAfter(Bytes),
    /// Answers 200 with these bytes, after this long, and then ends.
    Late(Duration, Bytes),
    /// Answers 200 with these bytes, so many at a time, one piece after each pause.
    Drip(Bytes, usize, Duration),
}

#[derive(Default)]
struct Network {
    acts: Mutex<VecDeque<Act>>,
    seen: Mutex<Vec<HttpRequest>>,
    dropped: Arc<AtomicUsize>,
    undoes_codings: bool,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Network")
    }
}

/// Counts when it goes away.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl HttpClient for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, RemoteError>> {
        self.seen.lock().push(request);
        let act = self
            .acts
            .lock()
            .pop_front()
            .expect("a request that the script does not have");
        let guard = Guard(self.dropped.clone());
        async move {
            let body = |bytes: Bytes, hang: bool, guard: Guard| {
                let rest = if hang {
                    stream::pending().boxed()
                } else {
                    stream::empty().boxed()
                };
                stream::once(async move { Ok(bytes) })
                    .chain(rest)
                    .inspect(move |_| _ = &guard)
                    .boxed()
            };
            match act {
                Act::Answer(status, headers, bytes) => Ok(HttpResponse {
                    status,
                    end_is_marked: true,
                    headers: headers
                        .into_iter()
                        .map(|(n, v)| (n.to_owned(), v.to_owned()))
                        .collect(),
                    body: body(bytes, false, guard),
                }),
                Act::HangAfter(bytes) => Ok(HttpResponse {
                    status: 200,
                    end_is_marked: true,
                    headers: vec![],
                    body: body(bytes, true, guard),
                }),
                Act::Late(after, bytes) => {
                    tokio::time::sleep(after).await;
                    Ok(HttpResponse {
                        status: 200,
                        end_is_marked: true,
                        headers: vec![],
                        body: body(bytes, false, guard),
                    })
                }
                Act::Drip(bytes, piece, pause) => Ok(HttpResponse {
                    status: 200,
                    end_is_marked: true,
                    headers: vec![],
                    body: stream::unfold(bytes, move |mut left| async move {
                        if left.is_empty() {
                            return None;
                        }
                        tokio::time::sleep(pause).await;
                        let piece = left.split_to(piece.min(left.len()));
                        Some((Ok(piece), left))
                    })
                    .inspect(move |_| _ = &guard)
                    .boxed(),
                }),
                Act::Hang => {
                    let _guard = guard;
                    std::future::pending().await
                }
                Act::Fail(after, never_sent) => {
                    tokio::time::sleep(after).await;
                    let text = if never_sent {
                        "connection refused"
                    } else {
                        "connection reset"
                    };
                    Err(RemoteError::new(RemoteErrorKind::Unreachable, text))
                }
            }
        }
        .boxed()
    }

    fn was_never_sent(&self, error: &RemoteError) -> bool {
        error.message.contains("refused")
    }

    fn keeps_codings(&self) -> bool {
        !self.undoes_codings
    }
}

fn over(acts: impl IntoIterator<Item = Act>) -> (Arc<Network>, HttpRemoteBuilder) {
    let network = Arc::new(Network {
        acts: Mutex::new(acts.into_iter().collect()),
        ..Network::default()
    });
    let builder = HttpRemote::builder("libsql://db.example?authToken=s3cret")
        .client(network.clone())
        .seed(7);
    (network, builder)
}

fn empty_database() -> Bytes {
    let revision = Revision::new("1").unwrap();
    let header = PullUpdatesHeader::new(
        &revision,
        PageCount::ZERO,
        ApplyMode::Incremental,
        PageEncoding::Raw,
    );
    let mut bytes = BytesMut::new();
    wire::encode_frame(&header, &mut bytes);
    bytes.into()
}

fn good() -> Act {
    Act::Answer(200, vec![], empty_database())
}

fn status(status: u16) -> Act {
    Act::Answer(
        status,
        vec![],
        Bytes::from_static(b"{\"message\": \"out of\\n tea\"}"),
    )
}

async fn ask(remote: &HttpRemote) -> Result<(), RemoteError> {
    let answer = remote.pages(PagesRequest::default()).await?;
    answer.pages.try_collect::<Vec<_>>().await.map(drop)
}

fn one_step() -> Batch {
    Batch {
        steps: vec![Step {
            condition: None,
            stmt: Stmt::new("SELECT 1", vec![]),
        }],
        ..Batch::default()
    }
}

#[tokio::test(start_paused = true)]
async fn every_status_becomes_the_error_that_says_what_to_do() {
    use RemoteErrorKind as Kind;
    let cases = [
        (301, Kind::Refused, "redirects"),
        (400, Kind::Refused, "refused it with status 400"),
        (401, Kind::Unauthorized, "Check that it is set"),
        (403, Kind::Unauthorized, "rights"),
        (404, Kind::NotFound, "Check the url"),
        (410, Kind::RevisionExpired, "Pull"),
        (413, Kind::Refused, "status 413"),
        (204, Kind::Protocol, "status 204"),
        (408, Kind::Failed, "status 408"),
        (429, Kind::Failed, "status 429"),
        (500, Kind::Failed, "status 500"),
        (503, Kind::Failed, "Try again later"),
    ];
    for (code, kind, text) in cases {
        let (network, builder) = over((0..3).map(|_| status(code)));
        let remote = builder
            .retry(RetryPolicy {
                attempts: 3,
                ..RetryPolicy::default()
            })
            .build()
            .unwrap();
        let error = ask(&remote).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
        assert!(error.message.contains("(it said: out of tea)"), "{error}");
        assert!(
            error.message.contains("asking https://db.example for all pages"),
            "{error}"
        );
        assert!(!error.message.contains("s3cret"), "{error}");
        let attempts = network.seen.lock().len();
        assert_eq!(
            attempts,
            if kind == Kind::Failed { 3 } else { 1 },
            "status {code}"
        );
        assert_eq!(remote.transferred().requests, attempts as u64);

        // SQL has the same errors and is never sent twice.
        let (network, builder) = over([status(code)]);
        let error = builder
            .build()
            .unwrap()
            .execute(one_step(), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(
            error
                .message
                .contains("running 1 statements on https://db.example"),
            "{error}"
        );
        assert_eq!(network.seen.lock().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_json_code_tells_revisions_apart_and_a_long_error_body_is_cut() {
    let unknown = Bytes::from_static(br#"{"code": "REVISION_UNKNOWN", "message": "who is that"}"#);
    let (_, builder) = over([Act::Answer(400, vec![], unknown)]);
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::RevisionUnknown);

    let long = Bytes::from(vec![b'x'; 1 << 20]);
    let (_, builder) = over([Act::Answer(422, vec![], long)]);
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert!(error.message.len() < 5000, "{} bytes", error.message.len());

    let html = vec![("content-type", "Text/HTML; charset=utf-8")];
    let (_, builder) = over([Act::Answer(200, html, empty_database())]);
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Protocol);
    assert!(
        error
            .message
            .contains("https://db.example is not a partial sync remote"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_page_request_is_retried_until_it_works_and_not_more_often_than_the_policy_says() {
    let fail = || Act::Fail(Duration::from_millis(10), false);
    let (network, builder) = over([fail(), status(503), status(429), fail(), good()]);
    let remote = builder.build().unwrap();
    ask(&remote).await.unwrap();
    assert_eq!(network.seen.lock().len(), 5);

    let (network, builder) = over((0..5).map(|_| fail()));
    let started = Instant::now();
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Unreachable);
    assert!(error.message.contains("connection reset"), "{error}");
    assert!(error.message.contains("5 attempts in "), "{error}");
    assert_eq!(network.seen.lock().len(), 5);
    assert!(started.elapsed() <= Duration::from_millis(50 + 100 + 200 + 400 + 800));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_and_never_waited_for_beyond_the_deadline() {
    let busy = |seconds| Act::Answer(503, vec![("Retry-After", seconds)], Bytes::new());
    let (_, builder) = over([busy("7"), good()]);
    let started = Instant::now();
    ask(&builder.build().unwrap()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(7));

    let (network, builder) = over([busy("100")]);
    let started = Instant::now();
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Failed);
    assert_eq!(started.elapsed(), Duration::ZERO, "there is no use in waiting");
    assert_eq!(network.seen.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn invariant_10_a_silent_remote_is_given_up_at_the_deadline() {
    // Before the header; with the default and with a deadline of the request.
    for (own, limit) in [(None, 30), (Some(2), 2)] {
        let (network, builder) = over([Act::Hang]);
        let started = Instant::now();
        let request = PagesRequest {
            deadline: own.map(Duration::from_secs),
            ..PagesRequest::default()
        };
        let error = builder.build().unwrap().pages(request).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::TimedOut);
        assert_eq!(started.elapsed(), Duration::from_secs(limit));
        assert_eq!(network.dropped.load(SeqCst), 1, "the request was cancelled");
    }
    // A long poll may be silent for as long as it asked for, too.
    let (_, builder) = over([Act::Hang]);
    let started = Instant::now();
    let request = PagesRequest {
        since: Revision::new("1"),
        long_poll: Some(Duration::from_secs(60)),
        deadline: Some(Duration::from_secs(5)),
        ..PagesRequest::default()
    };
    builder.build().unwrap().pages(request).await.unwrap_err();
    assert_eq!(started.elapsed(), Duration::from_secs(65));
    // In the header, between pages, and in the answer to SQL.
    let (_, builder) = over([Act::HangAfter(Bytes::from_static(b"\x20"))]);
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut);
    let (_, builder) = over([Act::HangAfter(empty_database())]);
    let error = ask(&builder.deadline(Duration::from_secs(3)).build().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut);
    assert!(error.message.contains("nothing came within 3.0 s"), "{error}");
    for act in [Act::Hang, Act::HangAfter(Bytes::from_static(b"{"))] {
        let (network, builder) = over([act]);
        let started = Instant::now();
        let remote = builder.build().unwrap();
        let error = remote
            .execute(one_step(), Some(Duration::from_secs(4)))
            .await
            .unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::TimedOut);
        assert_eq!(started.elapsed(), Duration::from_secs(4));
        assert_eq!(network.seen.lock().len(), 1);
    }
    // A token function that never returns.
    let (network, builder) = over([]);
    let remote = builder
        .auth_token(AuthToken::function(std::future::pending))
        .build()
        .unwrap();
    assert_eq!(ask(&remote).await.unwrap_err().kind, RemoteErrorKind::TimedOut);
    let error = remote.execute(one_step(), None).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut);
    assert!(network.seen.lock().is_empty());
}

/// An answer with pages of 4096 bytes.
fn pages(count: u32) -> Bytes {
    let revision = Revision::new("1").unwrap();
    let size = PageCount(count);
    let header = PullUpdatesHeader::new(&revision, size, ApplyMode::Incremental, PageEncoding::Raw);
    let mut bytes = BytesMut::new();
    wire::encode_frame(&header, &mut bytes);
    for id in 0..count {
        let mut page = vec![7; 4096];
        page[16..18].copy_from_slice(&4096_u16.to_be_bytes());
        let (page_id, encoded_page) = (u64::from(id), page.into());
        wire::encode_frame(
            &wire::PageData {
                page_id,
                encoded_page,
            },
            &mut bytes,
        );
    }
    bytes.into()
}

/// A limit on silence alone let a byte each half second hold a push for as long as the remote liked.
#[tokio::test(start_paused = true)]
async fn t4_an_answer_that_drips_is_given_up_soon_after_the_deadline() {
    let half_a_second = Duration::from_millis(500);
    for bytes in [pages(50), pages(50).slice(..30_000)] {
        let (network, builder) = over([Act::Drip(bytes, 1, half_a_second)]);
        let started = Instant::now();
        let remote = builder.retry(RetryPolicy::none()).build().unwrap();
        let error = ask(&remote).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::TimedOut);
        assert!(
            started.elapsed() < Duration::from_secs(62),
            "{:?}",
            started.elapsed()
        );
        assert_eq!(network.dropped.load(SeqCst), 1, "the transfer was ended");
    }
    let long = Bytes::from(format!("{{\"x\": \"{}\"", "y".repeat(1_000_000)));
    let (network, builder) = over([Act::Drip(long, 1, half_a_second)]);
    let started = Instant::now();
    let remote = builder.build().unwrap();
    let limit = Duration::from_secs(5);
    let error = remote.execute(one_step(), Some(limit)).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut);
    assert!(error.message.contains("too slow"), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(network.seen.lock().len(), 1, "SQL is sent once");
}

#[tokio::test(start_paused = true)]
async fn t4_a_large_answer_over_a_slow_line_and_one_that_is_read_slowly_come_through() {
    // 400 KiB at 5000 bytes a second: 82 seconds with a deadline of 10.
    let deadline = Duration::from_secs(10);
    let (_, builder) = over([Act::Drip(pages(100), 5000, Duration::from_secs(1))]);
    let started = Instant::now();
    ask(&builder.deadline(deadline).build().unwrap()).await.unwrap();
    assert!(started.elapsed() > Duration::from_secs(80));
    // A reader that takes a minute for each page.
    let (_, builder) = over([Act::Drip(pages(5), 5000, Duration::from_secs(1))]);
    let remote = builder.deadline(deadline).build().unwrap();
    let mut answer = remote.pages(PagesRequest::default()).await.unwrap();
    let mut count = 0;
    while answer.pages.try_next().await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_secs(60)).await;
        count += 1;
    }
    assert_eq!(count, 5);
    // It fetches in bursts with pauses shorter than the deadline.
    let (_, builder) = over([Act::Drip(pages(100), 40_000, Duration::from_secs(9))]);
    ask(&builder.deadline(deadline).build().unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn t4_a_stream_that_breaks_after_each_page_does_not_begin_a_new_budget_each_time() {
    let all = pages(100);
    let first = all.slice(..6000);
    let late = || {
        // Page 2 is asked for, then page 3, ...: each answer brings the beginning of one.
        Act::Late(Duration::from_secs(20), all.slice(..60))
    };
    let acts = std::iter::once(Act::Answer(200, vec![], first)).chain(std::iter::repeat_with(late).take(10));
    let (_, builder) = over(acts);
    let started = Instant::now();
    let error = ask(&builder.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::TimedOut, "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(35),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn invariant_10_dropping_a_request_or_a_stream_ends_the_transfer() {
    let (network, builder) = over([Act::Hang, Act::HangAfter(empty_database())]);
    let remote = builder.build().unwrap();
    let mut asking = remote.pages(PagesRequest::default());
    assert!((&mut asking).now_or_never().is_none());
    drop(asking);
    assert_eq!(network.dropped.load(SeqCst), 1);
    let stream = remote.pages(PagesRequest::default()).await.unwrap();
    assert_eq!(network.dropped.load(SeqCst), 1);
    drop(stream);
    assert_eq!(network.dropped.load(SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn sql_is_sent_again_only_when_nothing_was_sent() {
    let refused = || Act::Fail(Duration::ZERO, true);
    let body = r#"{"baton":null,"base_url":null,"results":[{"type":"ok","response":{"type":"batch","result":
        {"step_results":[{"cols":[{"name":"1"}],"rows":[[{"type":"integer","value":"1"}]],
        "affected_row_count":0,"last_insert_rowid":null}],"step_errors":[null]}}},
        {"type":"ok","response":{"type":"close"}}]}"#;
    let (network, builder) = over([refused(), refused(), Act::Answer(200, vec![], body.into())]);
    let result = builder.build().unwrap().execute(one_step(), None).await.unwrap();
    assert_eq!(
        result.step_results[0].as_ref().unwrap().rows,
        [[Value::Integer { value: 1 }]]
    );
    assert_eq!(network.seen.lock().len(), 3);
    let sent: serde_json::Value = serde_json::from_slice(&network.seen.lock()[2].body).unwrap();
    assert_eq!(sent["baton"], serde_json::Value::Null);
    assert_eq!(sent["requests"][0]["type"], "batch");
    assert_eq!(
        sent["requests"][0]["batch"]["steps"][0]["stmt"]["sql"],
        "SELECT 1"
    );
    assert_eq!(sent["requests"].as_array().unwrap().len(), 1);

    let (network, builder) = over([Act::Fail(Duration::ZERO, false)]);
    let error = builder
        .build()
        .unwrap()
        .execute(one_step(), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Unreachable);
    assert_eq!(network.seen.lock().len(), 1);
}

#[tokio::test]
async fn only_a_remote_with_features_is_told_to_close_since_others_refuse_what_is_no_batch() {
    let answer = r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[],"step_errors":[]}}}]}"#;
    let batch = || Act::Answer(200, vec![], answer.into());
    let ours = Act::Answer(200, vec![("partial-sync-features", "require")], empty_database());
    let passed_on = vec![("partial-sync-features", "list, foreign-sql")];
    let passed_on = Act::Answer(200, passed_on, empty_database());
    let (network, builder) = over([good(), batch(), ours, batch(), passed_on, batch()]);
    let remote = builder.build().unwrap();
    for closes in [false, true, false] {
        ask(&remote).await.unwrap();
        remote.execute(one_step(), None).await.unwrap();
        let body = network.seen.lock().last().unwrap().body.clone();
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(sent["requests"].get(1).is_some(), closes);
        assert!(!closes || sent["requests"][1] == serde_json::json!({"type": "close"}));
    }
}

/// An answer to a batch of one step, with a text of so many bytes.
fn text_of(bytes: usize) -> String {
    let text = "a".repeat(bytes);
    format!(
        r#"{{"results":[{{"type":"ok","response":{{"type":"batch","result":{{"step_results":[{{"rows":[[{{"type":"text","value":"{text}"}}]]}}],"step_errors":[null]}}}}}}]}}"#
    )
}

fn in_zstd(status: u16, body: impl Into<Bytes>) -> Act {
    Act::Answer(status, vec![("content-encoding", "zstd")], body.into())
}

#[tokio::test]
async fn an_answer_to_sql_may_come_compressed_where_that_can_be_undone_here_and_nowhere_else() {
    let text = text_of(100_000);
    let packed = wire::pack_body(text.as_bytes(), text.len()).unwrap();
    let plain = || Act::Answer(200, vec![("content-encoding", "identity")], text.clone().into());
    let asked = |network: &Network| {
        let seen = network.seen.lock();
        header(seen.last().unwrap(), "accept-encoding").map(str::to_owned)
    };
    let (network, builder) = over([in_zstd(200, packed.clone()), plain(), good()]);
    let remote = builder.build().unwrap();
    for length in [packed.len(), text.len()] {
        let before = remote.transferred().bytes_received;
        let result = remote.execute(one_step(), None).await.unwrap();
        let value = "a".repeat(100_000);
        let rows = &result.step_results[0].as_ref().unwrap().rows;
        assert_eq!(rows, &[[Value::Text { value }]]);
        let received = remote.transferred().bytes_received - before;
        assert_eq!(received, length as u64, "bytes are those of the wire");
        assert_eq!(asked(&network).as_deref(), Some("zstd"));
    }
    ask(&remote).await.unwrap();
    assert_eq!(asked(&network), None, "pages have an encoding of their own");
    // What a client undoes by itself may still be said to be there.
    let undone = || in_zstd(200, text.clone());
    for without in ["a client that undoes it", "no compression"] {
        let (network, builder) = over([undone()]);
        let builder = match without {
            "no compression" => builder.compression(false),
            _ => builder.client(Arc::new(Network {
                acts: Mutex::new([undone()].into()),
                undoes_codings: true,
                ..Network::default()
            })),
        };
        let remote = builder.build().unwrap();
        remote.execute(one_step(), None).await.unwrap();
        let seen = network.seen.lock();
        assert!(
            seen.iter()
                .all(|request| header(request, "accept-encoding").is_none()),
            "{without}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_stands_for_more_than_a_client_takes_is_refused() {
    const LIMIT: usize = 1 << 20;
    let frame = |text: &str| wire::pack_body(text.as_bytes(), text.len()).unwrap();
    let around = text_of(0).len();
    // A gigabyte, in some ten thousand bytes.
    let bomb = {
        let mut zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
        let mut frame = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        frame.window_log(wire::BODY_WINDOW_LOG).unwrap();
        std::io::copy(&mut zeros, &mut frame).unwrap();
        frame.finish().unwrap()
    };
    assert!(bomb.len() < LIMIT);
    for (body, is_taken) in [
        (frame(&text_of(LIMIT - around)), true),
        (frame(&text_of(LIMIT - around + 1)), false),
        (bomb, false),
    ] {
        let (_, builder) = over([in_zstd(200, body)]);
        let remote = builder.sql_answer_limit(LIMIT).build().unwrap();
        match remote.execute(one_step(), None).await {
            Ok(_) => assert!(is_taken),
            Err(error) => {
                assert!(!is_taken, "{error}");
                assert_eq!(error.kind, RemoteErrorKind::Refused);
                assert!(error.message.contains("longer than 1048576 bytes"), "{error}");
            }
        }
    }
}

/// Was red: it took 16 to 48 times of what a few KiB stand for.
#[tokio::test]
async fn invariant_11_an_answer_to_sql_takes_no_more_memory_than_a_few_times_its_length() {
    const LIMIT: usize = 1 << 20;
    let batch = |results: &str, errors: &str| {
        format!(
            r#"{{"results":[{{"type":"ok","response":{{"type":"batch","result":{{"step_results":[{results}],"step_errors":[{errors}]}}}}}}]}}"#
        )
    };
    let rows = |row: &str| batch(&format!(r#"{{"cols":[{{"name":"a"}}],"rows":[{row}]}}"#), "null");
    // Where the list is whose elements are repeated.
    for (around, element) in [
        (r#"{"results":[{"type":"ok","response":[*]}]}"#.to_owned(), "0"),
        (
            r#"{"results":[{"type":"ok","response":{"type":"batch","more":[*]}}]}"#.to_owned(),
            "0",
        ),
        (
            r#"{"results":[{"type":"ok","response":{"type":"batch","result":[*]}}]}"#.to_owned(),
            "[]",
        ),
        (
            r#"{"results":[{"type":"error","error":{"message":"no"}},*]}"#.to_owned(),
            r#"{"type":"ok"}"#,
        ),
        (batch("*", "null"), "null"),
        (batch("*", "null"), "{}"),
        (batch("null", "*"), "null"),
        (batch(r#"{"last_insert_rowid":[*]}"#, "null"), "0"),
        (batch(r#"{"cols":[*]}"#, "null"), "{}"),
        (rows("*"), "[]"),
        (rows("*"), r#"[{"type":"null"}]"#),
        (rows("[*]"), r#"{"type":"null"}"#),
    ] {
        let count = (LIMIT - around.len()) / (element.len() + 1);
        let list = vec![element; count].join(",");
        let packed = wire::pack_body(around.replace('*', &list).as_bytes(), LIMIT).unwrap();
        drop(list);
        assert!(packed.len() < 64 << 10, "{}", packed.len());
        let (_, builder) = over([in_zstd(200, packed)]);
        let remote = builder.sql_answer_limit(LIMIT).build().unwrap();
        let most = most_of(async {
            let _ = remote.execute(one_step(), None).await;
        });
        let most = most.await;
        assert!((LIMIT..4 * LIMIT).contains(&most), "{around} {element}: {most}");
    }
}

/// Was red: it was in the error whole, 64 MiB of it, wherever that was shown or logged.
#[tokio::test]
async fn what_a_remote_says_of_sql_that_failed_is_cut() {
    let says = "é".repeat(1 << 20);
    let answer = |outcome: &str| Act::Answer(200, vec![], format!(r#"{{"results":[{outcome}]}}"#).into());
    let error = format!(r#"{{"message":"no:{says}","code":"SQLITE_ERROR"}}"#);
    let whole = answer(&format!(r#"{{"type":"error","error":{error}}}"#));
    let step = answer(&format!(
        r#"{{"type":"ok","response":{{"type":"batch","result":{{"step_results":[null],"step_errors":[{error}]}}}}}}"#
    ));
    let (_, builder) = over([whole, step]);
    let remote = builder.build().unwrap();
    let error = remote.execute(one_step(), None).await.unwrap_err();
    assert!(error.message.contains("no:éé") && error.message.len() < 5000);
    let result = remote.execute(one_step(), None).await.unwrap();
    let error = result.step_errors[0].as_ref().unwrap();
    assert!(error.message.starts_with("no:éé"));
    // Another byte would be half a letter.
    assert_eq!(error.message.len(), 4095);
    assert_eq!(error.best_code(), Some("SQLITE_ERROR"));
}

#[tokio::test]
async fn a_compressed_answer_that_is_cut_or_is_none_is_a_typed_error() {
    let text = text_of(3000);
    let packed = wire::pack_body(text.as_bytes(), text.len()).unwrap();
    let wide = {
        let mut packer = zstd::bulk::Compressor::new(3).unwrap();
        packer.window_log(wire::BODY_WINDOW_LOG + 1).unwrap();
        // What is said to be shorter needs no such window.
        packer.compress(text_of(4 << 20).as_bytes()).unwrap()
    };
    let mut wrong: Vec<Vec<u8>> = (0..packed.len()).map(|end| packed[..end].to_vec()).collect();
    wrong.extend([
        [&packed[..], &packed].concat(),
        [&packed[..], b"{"].concat(),
        text.into_bytes(),
        wide,
    ]);
    for body in wrong {
        let (_, builder) = over([in_zstd(200, body)]);
        let error = builder
            .build()
            .unwrap()
            .execute(one_step(), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Protocol, "{error}");
        assert!(error.message.contains("not one zstd frame, whole"), "{error}");
    }
    // Why something is refused is read too, and no more of it than of any other.
    let why = format!(r#"{{"code":"NO","message":"not today{}"}}"#, " ".repeat(2000));
    let long = "b".repeat(1 << 20);
    for (why, says) in [(why, "not today"), (long, "bbb")] {
        let packed = wire::pack_body(why.as_bytes(), why.len()).unwrap();
        let (_, builder) = over([in_zstd(400, packed)]);
        let error = builder
            .build()
            .unwrap()
            .execute(one_step(), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Refused);
        assert!(
            error.message.contains(says) && error.message.len() < 5000,
            "{error}"
        );
    }
}

/// `store_sql` would need a stream that lives from one request to the next.
#[test]
fn a_statement_that_a_batch_repeats_takes_few_bytes_compressed() {
    const STEPS: i64 = 2000;
    let mut random = fastrand::Rng::with_seed(7);
    let sql = "INSERT OR ABORT INTO \"messages\"(\"id\", \"room\", \"sender\", \"body\") VALUES (?, ?, ?, ?) \
               ON CONFLICT(\"id\") DO UPDATE SET \"room\" = excluded.\"room\", \"sender\" = excluded.\"sender\", \
               \"body\" = excluded.\"body\"";
    let mut batch = Batch::default();
    for id in 0..STEPS {
        let text = |value| Value::Text { value };
        let args = vec![
            Value::Integer { value: id },
            Value::Integer {
                value: random.i64(0..100),
            },
            text(format!("somebody {}", random.u32(0..1000))),
            text(format!("a message of {} words", random.u64(..))),
        ];
        batch.steps.push(Step {
            condition: None,
            stmt: Stmt::new(sql, args),
        });
    }
    let packed = |batch: &Batch| {
        let json = serde_json::to_vec(batch).unwrap();
        (json.len(), wire::pack_body(&json, json.len()).unwrap().len())
    };
    let repeated = packed(&batch);
    for step in &mut batch.steps {
        step.stmt.sql = None;
        step.stmt.sql_id = Some(1);
    }
    let stored = packed(&batch);
    println!("{repeated:?} bytes, {stored:?} with a stored text");
    let more = (repeated.1 - stored.1) as f64 / STEPS as f64;
    println!("{more:.2} bytes more for each of {} bytes of text", sql.len());
    assert!(more <= 2.0, "{more:.2} bytes");
}

#[tokio::test]
async fn a_batch_is_compressed_for_a_remote_that_said_it_takes_that_and_where_it_is_smaller() {
    let answer = r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[],"step_errors":[]}}}]}"#;
    let says = vec![("partial-sync-features", "hydrate, zstd-bodies")];
    let without = || Act::Answer(200, vec![], answer.into());
    let with = || Act::Answer(200, says.clone(), answer.into());
    let large = || {
        let mut batch = one_step();
        batch.steps.resize(100, batch.steps[0].clone());
        batch
    };
    let coding = |network: &Network| {
        let seen = network.seen.lock();
        let request = seen.last().unwrap();
        let coding = header(request, "content-encoding").map(str::to_owned);
        let body = match coding.is_some() {
            true => zstd::stream::decode_all(&request.body[..]).unwrap(),
            false => request.body.to_vec(),
        };
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (
            coding,
            sent["requests"][0]["batch"]["steps"].as_array().unwrap().len(),
            sent["requests"].get(1).is_some(),
        )
    };
    let packed = |steps| (Some("zstd".to_owned()), steps, true);
    // It says so in its answers to SQL and to questions for pages, and is another one from its fourth answer on.
    let pages = Act::Answer(200, says.clone(), empty_database());
    let (network, builder) = over([with(), with(), with(), without(), without(), pages, with()]);
    let remote = builder.build().unwrap();
    for (batch, expected) in [
        (large(), (None, 100, false)),
        (large(), packed(100)),
        (one_step(), (None, 1, true)),
        (large(), packed(100)),
        (large(), (None, 100, true)),
    ] {
        remote.execute(batch, None).await.unwrap();
        assert_eq!(coding(&network), expected);
    }
    ask(&remote).await.unwrap();
    let before = remote.transferred().bytes_sent;
    remote.execute(large(), None).await.unwrap();
    assert_eq!(coding(&network), packed(100));
    let sent = network.seen.lock().last().unwrap().body.len() as u64;
    assert_eq!(
        remote.transferred().bytes_sent - before,
        sent,
        "what goes over the wire is counted"
    );

    // Was red: who stands on the way takes no coding, and no large batch came through, ever. It is sent as it is, and so are the next.
    let refused = || status(415);
    let (network, builder) = over([with(), refused(), with(), with(), refused()]);
    let remote = builder.build().unwrap();
    for expected in [(None, 100, false), (None, 100, true), (None, 100, true)] {
        remote.execute(large(), None).await.unwrap();
        assert_eq!(coding(&network), expected);
    }
    assert_eq!(network.seen.lock().len(), 4);
    // Whatever it means for what has none.
    let error = remote.execute(large(), None).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Refused);

    let (network, builder) = over([with(), with()]);
    let remote = builder.compression(false).build().unwrap();
    for closes in [false, true] {
        remote.execute(large(), None).await.unwrap();
        assert_eq!(coding(&network), (None, 100, closes));
    }
}

#[tokio::test]
async fn a_wrong_answer_to_sql_is_a_typed_error() {
    let answer = |body: &'static str| Act::Answer(200, vec![], Bytes::from_static(body.as_bytes()));
    let cases = [
        ("<html>", RemoteErrorKind::Protocol, "the answer is wrong"),
        (r#"{"results":[]}"#, RemoteErrorKind::Protocol, "no results"),
        (
            r#"{"results":[{"type":"ok","response":{"type":"close"}}]}"#,
            RemoteErrorKind::Protocol,
            "not an answer to a batch",
        ),
        (
            r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[null,null],"step_errors":[]}}}]}"#,
            RemoteErrorKind::Protocol,
            "more than 1 steps",
        ),
        (
            r#"{"results":[{"type":"error","error":{"message":"SQL is off today","code":"OFF"}}]}"#,
            RemoteErrorKind::Refused,
            "SQL is off today",
        ),
    ];
    for (body, kind, text) in cases {
        let (_, builder) = over([answer(body)]);
        let error = builder
            .build()
            .unwrap()
            .execute(one_step(), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(text), "{error}");
    }
    let (_, builder) = over([answer(r#"{"results": "much too long"}"#)]);
    let error = builder
        .sql_answer_limit(10)
        .build()
        .unwrap()
        .execute(one_step(), None)
        .await
        .unwrap_err();
    assert!(error.message.contains("longer than 10 bytes"), "{error}");
    // Steps at the end that did not run may be left out of the answer.
    let (_, builder) = over([answer(
        r#"{"results":[{"type":"ok","response":{"type":"batch","result":{"step_results":[],"step_errors":[]}}}]}"#,
    )]);
    let result = builder.build().unwrap().execute(one_step(), None).await.unwrap();
    assert_eq!(
        (result.step_results, result.step_errors),
        (vec![None], vec![None])
    );
}

#[tokio::test]
async fn a_float_without_a_json_form_is_refused_before_anything_is_sent() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (network, builder) = over([]);
        let mut batch = one_step();
        batch.steps.push(Step {
            condition: None,
            stmt: Stmt::new("SELECT ?", vec![Value::Null, Value::Float { value }]),
        });
        let error = builder.build().unwrap().execute(batch, None).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Client);
        assert!(error.message.contains("statement 2"), "{error}");
        assert!(network.seen.lock().is_empty());
    }
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    let mut values = request
        .headers
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, v)| v.as_str());
    let value = values.next();
    assert_eq!(values.next(), None, "{name} is sent once");
    value
}

#[tokio::test(start_paused = true)]
async fn the_token_function_is_asked_before_each_request_retries_included() {
    let (network, builder) = over([status(503), good(), good()]);
    let asked = Arc::new(AtomicUsize::new(0));
    let token = AuthToken::function(move || {
        let n = asked.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Some(format!("token-{n}")))
        }
    });
    let remote = builder.auth_token(token).build().unwrap();
    ask(&remote).await.unwrap();
    ask(&remote).await.unwrap();
    let seen = network.seen.lock();
    for (n, request) in seen.iter().enumerate() {
        assert_eq!(
            header(request, "authorization"),
            Some(format!("Bearer token-{n}").as_str())
        );
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_token_function_that_fails_and_a_token_that_is_none_are_errors_without_the_token() {
    let (_, builder) = over([]);
    let failing = builder.auth_token(AuthToken::function(|| async { Err("the vault is shut".into()) }));
    let error = ask(&failing.build().unwrap()).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Client);
    assert!(
        error.message.contains("the vault is shut") && error.source.is_some(),
        "{error}"
    );

    let (_, builder) = over([]);
    let error = ask(&builder.auth_token("s3cret\nline").build().unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Client);
    assert!(!error.message.contains("s3cret"), "{error}");
}

#[tokio::test]
async fn headers_are_sent_as_configured() {
    let (network, builder) = over([good()]);
    let remote = builder
        .header("X-Extra", "1")
        .header("x-extra", "2")
        .header("User-Agent", "app/1")
        .remote_encryption("a2V5", Some("aes256gcm"))
        .build()
        .unwrap();
    ask(&remote).await.unwrap();
    let seen = network.seen.lock();
    let request = &seen[0];
    assert_eq!(request.method, "POST");
    assert_eq!(request.url, "https://db.example/pull-updates");
    assert_eq!(header(request, "x-extra"), Some("2"));
    assert_eq!(header(request, "user-agent"), Some("app/1"));
    assert_eq!(header(request, "content-type"), Some("application/protobuf"));
    assert_eq!(header(request, "x-turso-encryption-key"), Some("a2V5"));
    assert_eq!(header(request, "x-turso-encryption-cipher"), Some("aes256gcm"));
    assert_eq!(
        header(request, "authorization"),
        Some("Bearer s3cret"),
        "the token of the url"
    );
    assert!(!format!("{remote:?} {request:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_url_function_can_pause_sync_and_move_the_remote() {
    let urls = Arc::new(Mutex::new(None));
    let current = urls.clone();
    let network = Arc::new(Network::default());
    let remote = HttpRemote::builder(UrlSource::function(move || current.lock().clone()))
        .client(network.clone())
        .build()
        .unwrap();
    assert_eq!(ask(&remote).await.unwrap_err().kind, RemoteErrorKind::Paused);
    let error = remote.execute(one_step(), None).await.unwrap_err();
    assert_eq!(error.kind, RemoteErrorKind::Paused);
    assert_eq!(remote.url(), "(paused)");
    for host in ["a.example", "b.example"] {
        *urls.lock() = Some(format!("turso://{host}"));
        network.acts.lock().push_back(good());
        ask(&remote).await.unwrap();
        assert_eq!(
            network.seen.lock().last().unwrap().url,
            format!("https://{host}/pull-updates")
        );
        assert_eq!(remote.url(), format!("https://{host}"));
    }
    *urls.lock() = Some("nonsense".into());
    assert_eq!(ask(&remote).await.unwrap_err().kind, RemoteErrorKind::InvalidUrl);
}

#[tokio::test]
async fn what_a_url_function_fails_with_is_the_error_of_the_request() {
    let remote = HttpRemote::builder(UrlSource::try_function(|| Err("no settings yet".into())))
        .build()
        .unwrap();
    let asked = [
        ask(&remote).await.map(drop),
        remote.execute(one_step(), None).await.map(drop),
    ];
    for error in asked.map(Result::unwrap_err) {
        assert_eq!(error.kind, RemoteErrorKind::Client);
        assert!(
            error
                .to_string()
                .contains("the url function failed: no settings yet"),
            "{error}"
        );
    }
    assert_eq!(remote.url(), "(paused)");
}

#[tokio::test]
async fn a_refused_connection_is_retried_for_pages_and_for_sql() {
    let port = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let retry = RetryPolicy {
        attempts: 3,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(1),
    };
    let remote = HttpRemote::builder(format!("http://127.0.0.1:{port}"))
        .retry(retry)
        .build()
        .unwrap();
    let pages = ask(&remote).await.unwrap_err();
    let sql = remote.execute(one_step(), None).await.unwrap_err();
    for error in [pages, sql] {
        assert_eq!(error.kind, RemoteErrorKind::Unreachable);
        assert!(error.message.contains("3 attempts"), "{error}");
        assert!(error.message.to_lowercase().contains("refused"), "{error}");
        assert!(error.is_transient());
    }
    assert_eq!(remote.transferred().requests, 6);
}

#[tokio::test]
async fn sql_whose_answer_is_lost_over_a_real_connection_is_not_sent_again() {
    let lost = Reply {
        silent: true,
        ..reply(200, "")
    };
    let cut = Reply {
        send: Some(5),
        ..reply(200, "{\"results\": []}")
    };
    for answer in [lost, cut] {
        let server = Loopback::scripted(move |_| answer.clone()).await;
        let remote = HttpRemote::builder(server.url.as_str()).build().unwrap();
        let error = remote.execute(one_step(), None).await.unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Unreachable, "{error}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn invariant_10_a_server_that_hangs_is_given_up_over_a_real_connection() {
    let limit = Duration::from_millis(50);
    let silent = Reply {
        silent: true,
        hang: true,
        ..reply(200, "")
    };
    let stuck = Reply {
        send: Some(3),
        hang: true,
        ..reply(200, empty_database())
    };
    for answer in [silent, stuck] {
        let server = Loopback::scripted(move |_| answer.clone()).await;
        let remote = HttpRemote::builder(server.url.as_str())
            .deadline(limit)
            .build()
            .unwrap();
        assert_eq!(ask(&remote).await.unwrap_err().kind, RemoteErrorKind::TimedOut);
        assert_eq!(server.seen().len(), 1);
        assert_eq!(
            server.seen()[0].headers["user-agent"],
            concat!("partial-sync/", env!("CARGO_PKG_VERSION"))
        );
    }
}
