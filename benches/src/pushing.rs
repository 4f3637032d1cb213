//! Clients that push one row at a time.

use std::{net::SocketAddr, path::Path, time::Instant};

use tokio::task::JoinSet;

use crate::{
    client::{Connection, post},
    result::Result,
};

/// Makes the database that they push to.
pub(crate) fn small(path: &Path) -> Result<()> {
    rusqlite::Connection::open(path)?.execute_batch("CREATE TABLE pushed(id INTEGER PRIMARY KEY, v TEXT)")?;
    Ok(())
}

/// So many clients, each of which pushes so many rows, one after the other: rows a second, and the time of each in ms, sorted.
pub(crate) async fn push_all(address: SocketAddr, clients: usize, each: usize) -> Result<(f64, Vec<f64>)> {
    let mut pushers = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let address = address.to_string();
        pushers.spawn(async move {
            let mut connection = Connection::open(&address).await?;
            let request = post(&address, "/v2/pipeline", push(client).as_bytes());
            let mut took = Vec::new();
            for _ in 0..each {
                let began = Instant::now();
                let answer = connection.send(&request).await?;
                if !String::from_utf8_lossy(&answer).contains("\"affected_row_count\":1") {
                    return Err(String::from_utf8_lossy(&answer).into());
                }
                took.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            Result::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = pushers.join_next().await {
        took.extend(done??);
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    took.sort_by(f64::total_cmp);
    Ok((rate, took))
}

/// What a push of one row is: a transaction in one batch.
fn push(client: usize) -> String {
    let steps = [
        "BEGIN IMMEDIATE".to_owned(),
        format!("INSERT INTO pushed(v) VALUES ('a row of client {client}')"),
        "COMMIT".to_owned(),
    ];
    let steps: Vec<_> = steps
        .iter()
        .enumerate()
        .map(|(n, sql)| match n {
            0 => serde_json::json!({"stmt": {"sql": sql}}),
            n => serde_json::json!({"condition": {"type": "ok", "step": n - 1}, "stmt": {"sql": sql}}),
        })
        .collect();
    serde_json::json!({"requests": [{"type": "batch", "batch": {"steps": steps}}, {"type": "close"}]})
        .to_string()
}
