//! The attackers: each a process of its own, which abuses the server in one way until it is killed. It prints how many
//! requests it has made, and what it was given that it must never get.

mod files;
mod foe;
mod frames;
mod http2;
mod sockets;
mod sql;
mod transactions;
mod web;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::result::Result;
pub(crate) use foe::Foe;

/// How often it tells its number of requests.
const TELL_EVERY: Duration = Duration::from_millis(500);
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One way to abuse a server.
pub(crate) struct Attack {
    pub name: &'static str,
    /// What it does, and with whose rights.
    pub what: &'static str,
    run: fn(Foe) -> Running,
}

macro_rules! attacks {
    ($($name:literal $what:literal $run:path),* $(,)?) => {
        &[$(Attack { name: $name, what: $what, run: |foe| Box::pin($run(foe)) }),*]
    };
}

/// All of them.
pub(crate) const ALL: &[Attack] = attacks![
    "opcodes" "single opcodes and statements that run for minutes, as SQL and as selectors; reader" sql::opcodes,
    "bombs" "bodies of a million tiny or deeply nested parts, 1 MiB of a reader, 60 MB of who may write" sql::bombs,
    "texts" "a megabyte stored in each of many streams; reader" transactions::texts,
    "values" "hex(zeroblob()) and other large values and answers; reader" sql::values,
    "idle" "hundreds of transactions that wait; reader, and who may write" transactions::idle,
    "sorters" "ORDER BY and DISTINCT of gigabytes; reader" sql::sorters,
    "halves" "1,100 requests half sent, from ten addresses; no token" sockets::halves,
    "floods" "connections opened and closed, and opened and kept; no token" sockets::floods,
    "bodies" "bodies of which the half comes; reader, who may write" sockets::bodies,
    "deaf" "large answers that nobody reads, over HTTP/1; reader" sockets::deaf,
    "deaf2" "the same over HTTP/2, with windows of nothing and of one byte" http2::deaf,
    "resets" "streams of HTTP/2 that are opened and reset; reader" http2::resets,
    "streams" "many streams of HTTP/2 with half a body each; reader" http2::streams,
    "frames" "floods of SETTINGS, PING, CONTINUATION and rubbish; no token" frames::frames,
    "second" "a second server on the same files, again and again" files::second,
    "replaced" "a database that is replaced, deleted and made again while it is asked" files::replaced,
    "many" "many databases asked for at random; reader" files::many,
    "tokens" "bad tokens, and SIGHUP all the time; no token" web::tokens,
    "pins" "transactions that read and stay open while others write; reader, who may write" transactions::pins,
    "writers" "64 writers of one database" transactions::writers,
    "polls" "1,000 long polls, woken by every commit; reader" sockets::polls,
    "origins" "what web pages of others send; no token" web::origins,
    "hosts" "two hosts, lengths that are lies, paths that lead out" web::hosts,
    "disk" "the disk of the databases is full, and not, and full" files::disk,
];

/// The attack of that name.
pub(crate) fn named(name: &str) -> Result<&'static Attack> {
    let found = ALL.iter().find(|attack| attack.name == name);
    found.ok_or_else(|| {
        let all: Vec<_> = ALL.iter().map(|attack| attack.name).collect();
        format!("there is no attacker {name}; there are {}", all.join(", ")).into()
    })
}

/// The process of an attacker: to the end of time, or of this process.
pub(crate) async fn run(attack: &Attack, foe: Foe) {
    let requests = Arc::clone(&foe.requests);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            println!("requests {}", requests.load(Relaxed));
        }
    });
    (attack.run)(foe).await;
    // It is ended by the one that started it.
    std::future::pending().await
}
