//! Streams and transactions that stay open, and writers.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use serde_json::{Value, json};

use super::{
    foe::{Foe, any, reader},
    sql,
};
use crate::{
    ask::{self, FOE, READERS, execute},
    client::{Ask, Client, Reply},
};

const SQL: &str = "/honest/v2/pipeline";
/// Of a stream that waits: less than it may.
const COMES_BACK: Duration = Duration::from_secs(4);

/// The baton of an answer.
fn baton(reply: Option<Reply>) -> Option<String> {
    let answer: Value = serde_json::from_slice(&reply?.body).ok()?;
    answer["baton"].as_str().map(str::to_owned)
}

/// Opens streams with these requests, and comes back to each with others, for as long as it is let.
async fn keep_open(
    foe: Foe,
    mut rng: Rng,
    path: &'static str,
    token: &'static str,
    opens: Bytes,
    again: Value,
) {
    let mut client = Client::new(foe.addr, Some(Foe::address(&mut rng)));
    loop {
        let body = opens.clone();
        let mut open = baton(foe.send(&mut client, &Ask::post(token, path, body)).await);
        while let Some(token_of_stream) = open {
            tokio::time::sleep(COMES_BACK.mul_f32(rng.f32())).await;
            let body = ask::pipeline(Some(&token_of_stream), &again);
            open = baton(foe.send(&mut client, &Ask::post(token, path, body)).await);
        }
    }
}

/// `store_sql` of a megabyte in each stream.
pub(super) async fn texts(foe: Foe) {
    let text = "x".repeat((1 << 20) - 2000);
    let store = ask::pipeline(None, &json!([{ "type": "store_sql", "sql_id": 1, "sql": text }]));
    foe.tasks(400, |foe, rng| {
        let store = store.clone();
        let token = READERS[rng.clone().usize(..3)];
        keep_open(foe, rng, SQL, token, store, json!([{ "type": "get_autocommit" }]))
    })
    .await;
}

/// Row 4. Who may write does so to another database than the honest client.
pub(super) async fn idle(foe: Foe) {
    foe.tasks(400, |foe, mut rng| {
        let begin = |how| {
            let opens = json!([execute(how), execute("SELECT count(*) FROM t")]);
            ask::pipeline(None, &opens)
        };
        let (path, token, opens) = match rng.u8(..3) {
            0 => ("/victim/v2/pipeline", FOE, begin("BEGIN IMMEDIATE")),
            1 => (SQL, FOE, begin("BEGIN")),
            _ => (SQL, reader(&mut rng), begin("BEGIN")),
        };
        keep_open(foe, rng, path, token, opens, json!([execute("SELECT 1")]))
    })
    .await;
}

/// Row 13.
pub(super) async fn pins(foe: Foe) {
    foe.tasks(40, |foe, mut rng| async move {
        if rng.u8(..10) == 0 {
            let mut client = Client::new(foe.addr, Some(Foe::address(&mut rng)));
            loop {
                foe.send(&mut client, &sql::row(rng.u32(..400_000))).await;
            }
        }
        let opens = json!([execute("BEGIN"), execute("SELECT count(*) FROM pushed")]);
        let opens = ask::pipeline(None, &opens);
        let token = reader(&mut rng);
        keep_open(
            foe,
            rng,
            SQL,
            token,
            opens,
            json!([execute("SELECT max(id) FROM pushed")]),
        )
        .await;
    })
    .await;
}

/// Row 14.
pub(super) async fn writers(foe: Foe) {
    foe.clients(64, |rng: &mut Rng| sql::row(rng.u32(1..2000)), any)
        .await;
}
