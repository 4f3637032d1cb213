//! Connections and requests: how many there may be.

use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use partial_sync_server::{Limits, Server, ServerHandle, access::Access, auth::StaticToken};
use partial_sync_transport::{
    PageSelector, PagesRequest,
    wire::{PageEncoding, PullUpdatesHeader, PullUpdatesRequest},
};
use prost::Message as _;
use tokio::net::TcpStream;

use super::raw::Raw;
use crate::pages::support::{Client, TestDb, insert};

/// What a client that never finishes a request has sent of it.
const HALF: &str = "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\n";

/// Was red: 1,100 of these without a token kept everybody else out for 75 seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_half_sent_requests_do_not_keep_others_out() {
    let db = TestDb::new();
    let server = Server::builder(&db.path)
        .limits(Limits {
            connections: 10,
            // They have to make room, not to run out of time.
            head_time: Duration::from_secs(3600),
            idle_time: Duration::from_secs(3600),
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    // A client with a connection that is idle, but has been used, is the last one to lose it.
    let client = Client::new(&server.url());
    client.latest().await;
    let mut half = Vec::new();
    for _ in 0..100 {
        half.push(Raw::sending(server.addr(), HALF).await);
    }
    client.latest().await;
    Client::new(&server.url()).latest().await;
    // Two clients and three of these have room: half of ten are for one address.
    for half in &mut half[..97] {
        half.ends().await;
    }
    server.shutdown().await;
}

/// Was red: who came new and had not sent its request yet was closed for others that came after it, as fast as they came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_those_who_open_many_make_room_for_each_other() {
    let limits = Limits {
        connections: 8,
        head_time: Duration::from_secs(3600),
        idle_time: Duration::from_secs(3600),
        ..Limits::default()
    };
    let server = Server::in_memory().limits(limits);
    let server = server.listen("127.0.0.1:0").await.unwrap();
    let mut half = Vec::new();
    for n in 0..8 {
        half.push(Raw::sending_from([127, 0, 0, 10 + n % 2], server.addr(), HALF).await);
    }
    let mut new = Raw::sending_from([127, 0, 0, 2], server.addr(), "").await;
    for n in 0..100 {
        half.push(Raw::sending_from([127, 0, 0, 10 + n % 2], server.addr(), HALF).await);
    }
    for half in &mut half[..101] {
        half.ends().await;
    }
    new.send(HALF).await;
    new.send("content-length: 0\r\n\r\n").await;
    assert_eq!(new.status().await, 200);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_one_address_has_its_own_limit() {
    let server = Server::in_memory()
        .limits(Limits {
            connections_per_address: 2,
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let mut first = Raw::sending(server.addr(), HALF).await;
    let mut second = Raw::sending(server.addr(), HALF).await;
    let mut third = Raw::sending(server.addr(), HALF).await;
    first.ends().await;
    for open in [&mut second, &mut third] {
        open.send("content-length: 0\r\n\r\n").await;
        assert_eq!(open.status().await, 200);
    }
    server.shutdown().await;
}

/// Was red: a connection with a request under way was never closed, and long polls on all of them kept everybody else out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v15_polls_that_wait_make_room_for_who_comes_new() {
    let db = TestDb::new();
    let server = with_room_for_one(&db).await;
    let revision = Client::new(&server.url()).latest().await.revision;
    let poll = PagesRequest {
        since: Some(revision.clone()),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let poll = PullUpdatesRequest::new(&poll, PageEncoding::Raw).encode_to_vec();
    let url = server.url();
    let waiting = tokio::spawn(async move {
        loop {
            // Until its request has come, it makes room like any other.
            let polls = Client::new("").http.post(format!("{url}/pull-updates"));
            // What is closed at once may never be told to who sends on it.
            let polls = polls.timeout(Duration::from_secs(10));
            if let Ok(answer) = polls.body(poll.clone()).send().await {
                return answer.bytes().await.unwrap();
            }
        }
    });
    while !waiting.is_finished() {
        Raw::is_answered(server.addr()).await;
    }
    let told = PullUpdatesHeader::decode_length_delimited(waiting.await.unwrap()).unwrap();
    assert_eq!(told.check().unwrap().0, revision, "as if its time were over");
    server.shutdown().await;
}

/// Was red: after its poll was answered, the next one on the same connection was answered at once, and so on: it was never closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v15_polls_that_follow_each_other_on_one_connection_make_room_too() {
    let db = TestDb::new();
    let server = with_room_for_one(&db).await;
    let revision = Client::new(&server.url()).latest().await.revision;
    let poll = PagesRequest {
        since: Some(revision),
        long_poll: Some(Duration::from_secs(300)),
        ..PagesRequest::default()
    };
    let poll = PullUpdatesRequest::new(&poll, PageEncoding::Raw).encode_to_vec();
    // Until the first poll has come, a connection makes room like any other.
    // A client may also take nothing of the answer to its poll.
    for window in [u16::MAX.into(), 0] {
        let followed = async {
            let mut pauses = longer_pauses();
            while follow_over_http2(&server, &poll, window, pauses.next().unwrap()).await == 0 {}
        };
        tokio::time::timeout(Duration::from_secs(60), followed)
            .await
            .expect("it is open for as long as it polls");
    }
    let head = "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\ncontent-length: ";
    let one = [format!("{head}{}\r\n\r\n", poll.len()).as_bytes(), &poll].concat();
    let mut pauses = longer_pauses();
    let answers = loop {
        let mut three = Raw::connect(server.addr()).await;
        three.send_bytes(&one.repeat(3)).await;
        let answers = async move { three.rest().await };
        let answers = come_until(&server, pauses.next().unwrap(), answers).await;
        if !answers.is_empty() {
            break String::from_utf8_lossy(&answers).into_owned();
        }
    };
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1);
    assert_eq!(answers.matches("connection: close").count(), 1);
    server.shutdown().await;
}

/// Polls on one connection, several at a time and each after the one before, until the connection is closed. How many answers
/// began.
async fn follow_over_http2(server: &ServerHandle, poll: &[u8], window: u32, pause: Duration) -> usize {
    let socket = TcpStream::connect(server.addr()).await.unwrap();
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(window);
    let Ok((polls, connection)) = client.handshake(TokioIo::new(socket)).await else {
        return 0;
    };
    tokio::spawn(connection);
    let (url, poll) = (format!("{}/pull-updates", server.url()), poll.to_vec());
    let mut following = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (mut polls, url, poll) = (polls.clone(), url.clone(), poll.clone());
        following.spawn(async move {
            for begun in 0.. {
                let request = hyper::Request::post(&url).body(Body::from(poll.clone()));
                let Ok(answer) = polls.send_request(request.unwrap()).await else {
                    return begun;
                };
                let body = Body::new(answer.into_body());
                if axum::body::to_bytes(body, usize::MAX).await.is_err() {
                    return begun + 1;
                }
            }
            unreachable!("it polls until the connection ends");
        });
    }
    drop(polls);
    let following = async { following.join_all().await.into_iter().sum::<usize>() };
    come_until(server, pause, following).await
}

/// On a busy machine a request takes longer to come.
fn longer_pauses() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(Duration::from_millis(20)), |pause| Some(*pause * 2))
}

/// Others come, one after the other, until this has ended. Requests have this time to come before the next connection does.
async fn come_until<T: Send + 'static>(
    server: &ServerHandle,
    pause: Duration,
    ends: impl Future<Output = T> + Send + 'static,
) -> T {
    let ends = tokio::spawn(ends);
    while !ends.is_finished() {
        tokio::time::sleep(pause).await;
        Raw::is_answered(server.addr()).await;
    }
    ends.await.unwrap()
}

/// A server with room for one connection of an address.
async fn with_room_for_one(db: &TestDb) -> ServerHandle {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let server = Server::builder(&db.path).limits(limits);
    server.listen("127.0.0.1:0").await.unwrap()
}

/// Was red: the same, with requests whose bodies did not come and answers that were not taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_who_keeps_the_server_waiting_makes_room_for_who_comes_new() {
    let db = TestDb::new();
    insert(&db.open(), 1, 40_000);
    let server = with_room_for_one(&db).await;
    for sent in [
        format!("{HALF}content-length: 100\r\n\r\nhalf"),
        format!("{HALF}content-length: 0\r\n\r\n"),
    ] {
        let mut slow = Raw::sending(server.addr(), &sent).await;
        let came = async {
            let ids = PagesRequest {
                select: PageSelector::Ids([0].into_iter().collect()),
                ..PagesRequest::default()
            };
            // It is slow after a second.
            while !Raw::is_answered(server.addr()).await {}
            Client::new(&server.url()).ask(ids).await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(60), came)
            .await
            .expect("there is no room");
        slow.send_anyway("the rest").await;
    }
    server.shutdown().await;
}

/// Long polls wait for as long as they like, so they are what a caller can have most of at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v15_polls_that_wait_are_limited_for_one_caller_and_keep_no_other_request_out() {
    let db = TestDb::new();
    let serve = async |limits: Limits| {
        let server = Server::builder(&db.path).limits(limits);
        server.listen("127.0.0.1:0").await.unwrap()
    };
    let few = |requests, requests_per_caller| Limits {
        requests,
        requests_per_caller,
        ..Limits::default()
    };
    // Three of its own, or half of all.
    for (n, limits) in [few(100, 3), few(6, 100)].into_iter().enumerate() {
        let server = serve(limits).await;
        let client = Client::new(&server.url());
        let revision = client.latest().await.revision;
        let poll = || PagesRequest {
            since: Some(revision.clone()),
            long_poll: Some(Duration::from_secs(300)),
            ..PagesRequest::default()
        };
        let mut polls = Vec::new();
        for _ in 0..4 {
            let (client, poll) = (client.clone(), poll());
            polls.push(tokio::spawn(async move { client.ask(poll).await }));
        }
        // One of the four has no room; the others wait.
        let first = futures_util::future::select_all(polls);
        let first = tokio::time::timeout(Duration::from_secs(60), first).await;
        let (refused, _, waiting) = first.expect("all four have room");
        let refused = refused.unwrap().unwrap_err();
        assert_eq!(
            (refused.status, refused.code.as_str()),
            (429, "TOO_MANY_REQUESTS")
        );
        client.ask(PagesRequest::default()).await.unwrap();
        // Status is asked without a token, and answered whatever is under way.
        let health = client.http.get(format!("{}/health", server.url()));
        assert_eq!(health.send().await.unwrap().status(), 200);
        crate::pages::support::insert(&db.open(), i64::try_from(n + 1).unwrap() * 1000, 1);
        for waiting in waiting {
            waiting.await.unwrap().unwrap();
        }
        client.latest().await;
        server.shutdown().await;
    }
}

/// What one caller may have does not depend on another, and comes back when its clients go away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_a_caller_that_has_too_many_leaves_room_for_others() {
    let db = TestDb::new();
    let tokens = ["greedy", "modest"].map(|token| {
        Box::new(StaticToken::new(token, Access::ReadOnly))
            as Box<dyn partial_sync_server::access::Authenticator>
    });
    let server = Server::builder(&db.path)
        .authenticator(partial_sync_server::auth::AnyOf(tokens.into()))
        .limits(Limits {
            requests_per_caller: 2,
            ..Limits::default()
        })
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    let request = |token: &str| {
        format!(
            "POST /pull-updates HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-length: 100\r\n\r\n"
        )
    };
    // Their bodies never come.
    let held = [
        Raw::sending(server.addr(), &request("greedy")).await,
        Raw::sending(server.addr(), &request("greedy")).await,
    ];
    let metrics = Client::new(&server.url()).http;
    let under_way = async || {
        let metrics = metrics.get(format!("{}/metrics", server.url()));
        let answer = metrics.bearer_auth("modest").send().await.unwrap();
        answer.text().await.unwrap()
    };
    while !under_way().await.contains("partial_sync_requests_under_way 2\n") {}
    let mut refused = Raw::sending(server.addr(), &request("greedy")).await;
    assert_eq!(refused.refusal().await, (429, "TOO_MANY_REQUESTS".to_owned()));
    let mut modest = Raw::sending(server.addr(), &request("modest").replace("100", "0")).await;
    assert_eq!(modest.status().await, 200);
    drop(held);
    let again = async {
        loop {
            let mut raw = Raw::sending(server.addr(), &request("greedy").replace("100", "0")).await;
            if raw.status().await == 200 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again)
        .await
        .unwrap();
    server.shutdown().await;
}

/// Was red: half a head of 400 KB took as much memory, of a connection of anyone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_a_head_has_at_most_64_kib() {
    let server = Server::in_memory().listen("127.0.0.1:0").await.unwrap();
    for (bytes, status) in [(60_000, 200), (70_000, 431)] {
        let long = "a".repeat(bytes);
        let head = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n");
        let mut raw = Raw::connect(server.addr()).await;
        raw.send_anyway(&head).await;
        assert_eq!(raw.status().await, status, "{bytes}");
    }
    server.shutdown().await;
}
