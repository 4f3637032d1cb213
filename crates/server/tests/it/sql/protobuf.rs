//! SQL over HTTP in Protobuf, written and read field by field.

use bytes::BufMut;
use partial_sync_server::hrana::HranaOptions;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use serde_json::json;

use super::server::Server;

/// A field with bytes: a text, a blob or a message.
fn field(tag: u32, content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::LengthDelimited, &mut bytes);
    encode_varint(content.as_ref().len() as u64, &mut bytes);
    bytes.extend_from_slice(content.as_ref());
    bytes
}

/// A field with a number.
fn number(tag: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::Varint, &mut bytes);
    encode_varint(value, &mut bytes);
    bytes
}

/// A field with a float.
fn float(tag: u32, value: f64) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_key(tag, WireType::SixtyFourBit, &mut bytes);
    bytes.put_f64_le(value);
    bytes
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// What a message has under a tag, each as it came.
fn all(mut message: &[u8], wanted: u32) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let (tag, kind) = decode_key(&mut message).unwrap();
        let before = message;
        let content = match kind {
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).unwrap() as usize;
                let (content, rest) = message.split_at(length);
                message = rest;
                content
            }
            _ => {
                skip_field(kind, tag, &mut message, DecodeContext::default()).unwrap();
                &before[..before.len() - message.len()]
            }
        };
        if tag == wanted {
            found.push(content.to_vec());
        }
    }
    found
}

/// What a message has under a path of tags, where each is there once.
fn at(message: &[u8], path: &[u32]) -> Vec<u8> {
    path.iter().fold(message.to_vec(), |message, tag| {
        let mut found = all(&message, *tag);
        assert_eq!(found.len(), 1, "tag {tag} of {path:?}");
        found.remove(0)
    })
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn stmt(sql: &str) -> Vec<u8> {
    field(1, sql)
}

fn execute(stmt: Vec<u8>) -> Vec<u8> {
    field(2, field(2, field(1, stmt)))
}

fn step(condition: &[u8], sql: &str) -> Vec<u8> {
    let condition = match condition {
        [] => Vec::new(),
        condition => field(1, condition),
    };
    field(1, [condition, field(2, stmt(sql))].concat())
}

/// A request for a batch of these steps.
pub(crate) fn batch(steps: &[Vec<u8>]) -> Vec<u8> {
    field(2, field(3, field(1, steps.concat())))
}

const CLOSE: &[u8] = &[0x12, 0x02, 0x0a, 0x00];

async fn pipeline(server: &Server, requests: &[Vec<u8>]) -> Vec<u8> {
    let (status, body) = server
        .send_bytes("/v3-protobuf/pipeline", requests.concat())
        .await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    body
}

#[tokio::test]
async fn v21_every_kind_of_value_comes_back_in_protobuf_as_it_went_in() {
    let server = Server::start().await;
    assert_eq!(server.get("/v3-protobuf").await, 200);
    let values = [
        field(1, []),
        number(2, zigzag(i64::MIN)),
        number(2, zigzag(i64::MAX)),
        float(3, -0.0),
        float(3, f64::INFINITY),
        field(4, "one \0 two"),
        field(5, [0, 255]),
    ];
    let args: Vec<u8> = values.iter().flat_map(|value| field(3, value)).collect();
    let named = field(4, [field(1, "seven"), field(2, number(2, zigzag(7)))].concat());
    let sql = "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, :seven";
    let answer = pipeline(
        &server,
        &[execute([stmt(sql), args, named].concat()), CLOSE.to_vec()],
    )
    .await;
    assert!(all(&answer, 1).is_empty(), "the stream is closed");
    let results = all(&answer, 3);
    assert_eq!(results.len(), 2);
    let row = at(&results[0], &[1, 2, 1, 2]);
    let mut expected = values.to_vec();
    expected.push(number(2, zigzag(7)));
    assert_eq!(all(&row, 1), expected);
    let close = at(&results[1], &[1, 1]);
    assert!(close.is_empty());

    // JSON has no infinity.
    let (_, json) = server
        .send(
            "/v3/pipeline",
            None,
            &json!({"requests": [{"type": "execute", "stmt": {"sql": "SELECT 9e999"}}]}),
        )
        .await;
    assert_eq!(
        json["results"][0]["response"]["result"]["rows"][0][0],
        json!({"type": "null"})
    );
}

#[tokio::test]
async fn v21_batches_cursors_and_errors_in_protobuf() {
    let server = Server::start().await;
    let is_autocommit = field(6, []);
    let not = |condition: &[u8]| field(3, condition);
    let both = |one: &[u8], other: &[u8]| field(4, [field(1, one), field(1, other)].concat());
    let steps = [
        step(&[], "BEGIN"),
        step(&is_autocommit, "SELECT 'skipped'"),
        step(&not(&is_autocommit), "CREATE TABLE t(a UNIQUE)"),
        step(
            &both(&number(1, 0), &not(&number(2, 2))),
            "INSERT INTO t VALUES (1)",
        ),
        step(&[], "INSERT INTO t VALUES (1)"),
        step(&number(2, 4), "ROLLBACK"),
        step(&is_autocommit, "SELECT 'last' AS name"),
    ];
    let answer = pipeline(&server, &[batch(&steps), field(2, field(8, []))]).await;
    let results = all(&answer, 3);
    let given = at(&results[0], &[1, 3, 1]);
    let number_of = |entry: &Vec<u8>| all(entry, 1).first().map_or(0, |varint| varint[0]);
    let ran: Vec<u8> = all(&given, 1).iter().map(number_of).collect();
    assert_eq!(ran, [0, 2, 3, 5, 6]);
    let failed = at(&given, &[2]);
    assert_eq!(number_of(&failed), 4);
    assert_eq!(text(at(&failed, &[2, 1])), "UNIQUE constraint failed: t.a");
    assert_eq!(text(at(&failed, &[2, 2])), "SQLITE_CONSTRAINT");
    let last = all(&given, 1).pop().unwrap();
    assert_eq!(text(at(&last, &[2, 1, 1])), "name");
    assert_eq!(text(at(&last, &[2, 2, 1, 4])), "last");
    assert_eq!(at(&results[1], &[1, 8, 1]), [1]);

    let steps = [step(&[], "VALUES (1), (2)"), step(&[], "SELECT missing")].concat();
    let (status, mut body) = server.send_bytes("/v3-protobuf/cursor", field(2, steps)).await;
    assert_eq!(status, 200);
    let mut entries = Vec::new();
    while !body.is_empty() {
        let mut rest = &body[..];
        let length = decode_varint(&mut rest).unwrap() as usize;
        entries.push(rest[..length].to_vec());
        body = rest[length..].to_vec();
    }
    let baton = text(at(&entries.remove(0), &[1]));
    let kinds: Vec<u32> = entries
        .iter()
        .map(|entry| decode_key(&mut &entry[..]).unwrap().0)
        .collect();
    assert_eq!(kinds, [1, 4, 4, 2, 3]);
    assert_eq!(at(&entries[2], &[4, 1, 2]), [4]);
    assert_eq!(text(at(&entries[4], &[3, 2, 1])), "no such column: missing");
    // A baton of one encoding is good in the other.
    let (status, _) = server
        .send(
            "/v3/pipeline",
            None,
            &json!({"baton": baton, "requests": [{"type": "close"}]}),
        )
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn v21_what_is_too_much_in_protobuf_is_refused_before_it_is_read() {
    let server = Server::with_options(HranaOptions {
        pipeline_requests: 10,
        batch_steps: 10,
        ..HranaOptions::default()
    })
    .await;
    let many = |part: &[u8], n: usize| part.repeat(n);
    let nested = |depth: usize| (0..depth).fold(field(6, []), |condition, _| field(3, condition));
    let too_much = [
        ("requests", many(&field(2, []), 200_000)),
        ("steps", batch(&[many(&field(1, []), 200_000)])),
        (
            "arguments",
            execute([stmt("SELECT 1"), many(&field(3, []), 200_000)].concat()),
        ),
        (
            "arguments",
            execute([stmt("SELECT 1"), many(&field(4, []), 200_000)].concat()),
        ),
        (
            "condition",
            batch(&[step(&field(4, many(&field(1, []), 200_000)), "SELECT 1")]),
        ),
        ("recursion", batch(&[step(&nested(1000), "SELECT 1")])),
    ];
    for (what, body) in too_much {
        let (status, answer) = server.send_bytes("/v3-protobuf/pipeline", body).await;
        let answer = text(answer);
        assert_eq!(status, 400, "{what}: {answer}");
        assert!(answer.contains(what), "{what}: {answer}");
    }
    let allowed = [batch(&[step(&nested(20), "SELECT 1")]), CLOSE.to_vec()];
    pipeline(&server, &allowed).await;
}

#[tokio::test]
async fn invariant_11_a_damaged_body_in_protobuf_is_answered_and_never_a_crash() {
    let server = Server::start().await;
    let sound = [
        execute(
            [
                stmt("SELECT ?, :a"),
                field(3, float(3, 1.0)),
                field(4, [field(1, "a"), field(2, field(4, "b"))].concat()),
            ]
            .concat(),
        ),
        batch(&[
            step(&field(3, field(6, [])), "SELECT 1"),
            step(&number(1, 0), "SELECT 2"),
        ]),
        field(2, field(5, field(1, "SELECT 1"))),
        field(2, field(6, [number(1, 1), field(2, "SELECT 1")].concat())),
        CLOSE.to_vec(),
    ]
    .concat();
    let (status, _) = server.send_bytes("/v3-protobuf/pipeline", sound.clone()).await;
    assert_eq!(status, 200);
    let mut seen = [0, 0];
    for at in 0..sound.len() {
        for damage in [1, 8, 64, 255] {
            let mut body = sound.clone();
            body[at] ^= damage;
            let (status, answer) = server.send_bytes("/v3-protobuf/pipeline", body).await;
            assert!([200, 400].contains(&status), "{at} {damage}: {status} {answer:?}");
            seen[usize::from(status == 400)] += 1;
        }
        let (status, _) = server
            .send_bytes("/v3-protobuf/pipeline", sound[..at].to_vec())
            .await;
        assert!([200, 400].contains(&status), "{at}: {status}");
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
}

#[tokio::test]
async fn v21_a_second_close_succeeds_and_nothing_else_does_after_the_first() {
    let server = Server::start().await;
    let (status, answer) = server
        .send(
            "/v2/pipeline",
            None,
            &json!({"requests": [{"type": "close"}, {"type": "close"}, {"type": "execute", "stmt": {"sql": "SELECT 1"}}, {"type": "close"}]}),
        )
        .await;
    assert_eq!((status, &answer["baton"]), (200, &json!(null)));
    let kinds: Vec<_> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["ok", "ok", "error", "ok"]);
    assert_eq!(answer["results"][2]["error"]["code"], "STREAM_CLOSED");
}
