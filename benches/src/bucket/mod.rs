//! A database on object storage: what a commit waits for and how many share one PUT, beside a server without a bucket; what a cold query and a
//! scan through a server of the bucket ask of the store, beside downloading its files; what idle servers ask for; how long a
//! takeover takes after a kill; and what a new server of a large database needs.
//!
//! The store is in memory, behind a line (`far_store.rs`); where processes are killed it is a folder.

mod far_store;
mod processes;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::TryStreamExt;
use partial_sync::{Bootstrap, Database, PartialSync};
use partial_sync_server::{Durability, Mirroring, Replication, Server, ServerHandle};
use partial_sync_store::object_store::{ObjectStore, ObjectStoreExt};

use self::far_store::FarStore;
pub(crate) use self::processes::{CHILD, child};
use crate::{
    cold::PREFIX,
    data,
    far::Line,
    options::Options,
    pushing::{push_all, small},
    result::Result,
    samples::at,
};

/// The cases.
pub(crate) const CASES: [&str; 5] = ["pushes", "reads", "idle", "takeover", "large"];

const PUSHERS: usize = 64;
const EACH: usize = 40;
/// Pushes of one who is alone.
const ALONE: usize = 50;
const POINT: &str = "SELECT note FROM towns WHERE id = 123456";
const SCAN: &str = "SELECT count(*), sum(length(note)) FROM towns";
/// How long idle servers are looked at.
const IDLE: Duration = Duration::from_secs(10);

/// Runs the cases that are wanted, and prints.
pub(crate) fn run(options: &Options) -> Result<()> {
    let line = Line {
        rtt: options.rtt,
        bytes_per_second: options.bytes_per_second,
    };
    let width = match line.bytes_per_second {
        Some(bytes) => format!("{} Mbit/s", bytes * 8 / 1_000_000),
        None => "no limit".to_owned(),
    };
    println!(
        "\n### A bucket, {} ms added to each request, {width}\n",
        line.rtt.as_millis()
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir_in(&options.dir)?;
    let wants = |case| options.wants(case);
    if wants(CASES[0]) {
        runtime.block_on(pushes(folder.path(), line))?;
    }
    if wants(CASES[1]) {
        reads(&runtime, folder.path(), line)?;
    }
    if wants(CASES[2]) {
        runtime.block_on(idle(folder.path(), line))?;
    }
    if wants(CASES[3]) {
        runtime.block_on(processes::takeover(folder.path()))?;
    }
    if wants(CASES[4]) {
        runtime.block_on(processes::large(folder.path()))?;
    }
    Ok(())
}

fn replication(store: &Arc<FarStore>) -> Replication {
    let store = Arc::clone(store);
    Replication::in_buckets(move |_| Ok(store.bucket()))
}

async fn mirror(store: &Arc<FarStore>) -> Result<ServerHandle> {
    let store = Arc::clone(store);
    let mirroring = Mirroring::in_buckets(move |_| Ok(store.bucket()));
    Ok(Server::from_bucket(mirroring).listen("127.0.0.1:0").await?)
}

async fn pushes(folder: &Path, line: Line) -> Result<()> {
    let rtt = line.rtt.as_secs_f64() * 1000.0;
    println!("**Pushes of one row each**\n");
    println!("| server | {PUSHERS} at once, rows a second | rows a PUT | alone, median ms | 99 % ms |");
    println!("|---|---|---|---|---|");
    let mut plain = f64::NAN;
    let mut told = Vec::new();
    for (name, durability) in [
        ("without a bucket", None),
        ("asynchronous", Some(Durability::Async)),
        ("durable", Some(Durability::Durable)),
    ] {
        let file = folder.join(format!("{name}.db"));
        small(&file)?;
        let store = FarStore::new(line);
        let mut server = Server::builder(&file);
        if let Some(durability) = durability {
            server = server.replicate(replication(&store).durability(durability));
        }
        let server = server.listen("127.0.0.1:0").await?;
        // The first ones open connections.
        push_all(server.addr(), PUSHERS, 2).await?;
        let before = store.asked();
        let (rate, many) = push_all(server.addr(), PUSHERS, EACH).await?;
        let puts = (store.asked() - before).writes;
        let (_, alone) = push_all(server.addr(), 1, ALONE).await?;
        let a_put = match durability {
            None => "-".to_owned(),
            Some(_) => format!("{:.1}", many.len() as f64 / puts as f64),
        };
        println!(
            "| {name} | {rate:.0} | {a_put} | {:.1} | {:.1} |",
            at(&alone, 0.5),
            at(&alone, 0.99)
        );
        match durability {
            None => plain = rate,
            Some(Durability::Async) => told.push(format!(
                "Asynchronous: {:.2} of the server without a bucket (at least 0.9 wanted).",
                rate / plain
            )),
            Some(_) => told.push(format!(
                "Durable: {:.1} rows a PUT (at least 20 wanted); alone {:.1} ms more than a PUT (at most 10 wanted).",
                many.len() as f64 / puts as f64,
                at(&alone, 0.5) - rtt
            )),
        }
        server.shutdown().await;
    }
    println!("\n{}\n", told.join(" "));
    Ok(())
}

fn reads(runtime: &tokio::runtime::Runtime, folder: &Path, line: Line) -> Result<()> {
    let file = folder.join("towns.db");
    data::make(&file)?;
    let store = FarStore::new(line);
    runtime.block_on(async {
        let writer = Server::builder(&file).replicate(replication(&store));
        writer.listen("127.0.0.1:0").await?.shutdown().await;
        Result::Ok(())
    })?;
    println!("**Reads through a server of the bucket**\n");
    println!("| what | store requests | in sequence | MB from the store | seconds |");
    println!("|---|---|---|---|---|");
    let show = |what: &str, asked: far_store::Asked, took: Duration| {
        println!(
            "| {what} | {} | {} | {:.2} | {:.2} |",
            asked.reads,
            asked.rounds,
            asked.bytes_read as f64 / 1e6,
            took.as_secs_f64()
        );
    };
    let (before, began) = (store.asked(), Instant::now());
    let server = runtime.block_on(mirror(&store))?;
    show("a new server starts", store.asked() - before, began.elapsed());
    // For connecting and the query together, and for the query alone.
    let ask = |name: &str, sql: &str| -> Result<(far_store::Asked, far_store::Asked, Duration)> {
        let partial = PartialSync {
            bootstrap: Some(Bootstrap::prefix(PREFIX)),
            segment_size: Some(128 << 10),
            prefetch: None,
        };
        let (before, began) = (store.asked(), Instant::now());
        let database = Database::builder(folder.join(name))
            .remote(server.url())
            .partial(partial)
            .connect()?;
        let connected = store.asked();
        database.connection()?.query_row(sql, (), |_| Ok(()))?;
        let asked = store.asked();
        Ok((asked - before, asked - connected, began.elapsed()))
    };
    let (cold, _, took) = ask("cold.db", POINT)?;
    show("a new replica's point query, cold", cold, took);
    let (warm, queried, took) = ask("warm.db", POINT)?;
    show("another's, warm", warm, took);
    let fresh = runtime.block_on(mirror(&store))?;
    runtime.block_on(server.shutdown());
    let server = fresh;
    let (before, began) = (store.asked(), Instant::now());
    let database = Database::builder(folder.join("scan.db"))
        .remote(server.url())
        .partial(PartialSync {
            bootstrap: Some(Bootstrap::prefix(PREFIX)),
            segment_size: Some(128 << 10),
            prefetch: None,
        })
        .connect()?;
    database.connection()?.query_row(SCAN, (), |_| Ok(()))?;
    let (scan, scanned) = (store.asked() - before, began.elapsed());
    show("a new replica's scan, cold", scan, scanned);
    let (before, began) = (store.asked(), Instant::now());
    runtime.block_on(async {
        let files: Vec<_> = store.list(None).try_collect().await?;
        for file in files {
            store.get(&file.location).await?.bytes().await?;
        }
        Result::Ok(())
    })?;
    let all = store.asked() - before;
    let downloaded = began.elapsed();
    show("all files, one after the other", all, downloaded);
    let per_byte = |asked: far_store::Asked, took: Duration| took.as_secs_f64() / asked.bytes_read as f64;
    println!(
        "\nCold: {} requests in sequence (at most 3 wanted), warm: {} to connect and {} for the query (0 wanted). Scan: {:.2} times the store's own time for its bytes (at most 1.3 wanted).\n",
        cold.rounds,
        warm.reads - queried.reads,
        queried.reads,
        per_byte(scan, scanned) / per_byte(all, downloaded)
    );
    runtime.block_on(server.shutdown());
    Ok(())
}

async fn idle(folder: &Path, line: Line) -> Result<()> {
    let file = folder.join("idle.db");
    small(&file)?;
    let store = FarStore::new(line);
    let writer = Server::builder(&file)
        .replicate(replication(&store))
        .listen("127.0.0.1:0")
        .await?;
    push_all(writer.addr(), 1, 1).await?;
    let server = mirror(&store).await?;
    println!("**Nobody writes, for {} s**\n", IDLE.as_secs());
    println!("| what | PUTs | GETs |");
    println!("|---|---|---|");
    // What the last commit and the start still have to do is over.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = store.asked();
    tokio::time::sleep(IDLE).await;
    let asked = store.asked() - before;
    println!(
        "| the writer and a server of the bucket | {} | {} |",
        asked.writes, asked.reads
    );
    let url = server.url();
    let replica = folder.join("idle-replica.db");
    let polled = store.asked();
    let pulled = tokio::task::spawn_blocking(move || {
        let database = Database::builder(replica)
            .remote(url)
            .long_poll(IDLE)
            .connect()
            .map_err(|error| error.to_string())?;
        database.pull().map_err(|error| error.to_string())
    });
    pulled.await??;
    let asked = store.asked() - polled;
    println!(
        "| the same, and a replica that polls | {} | {} |\n",
        asked.writes, asked.reads
    );
    server.shutdown().await;
    writer.shutdown().await;
    Ok(())
}
