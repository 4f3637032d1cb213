//! The benchmarks: a plain program that lists its cases, runs what it is told to, and prints Markdown.
//!
//! `scripts/bench local` compares a fully hydrated replica with stock SQLite on a copy of the same file; `scripts/bench
//! cold` compares a first query over a far-away line with another client and with downloading the file; `scripts/bench
//! bindings` compares rows in Node, Python and Go with the engine and with other packages; `scripts/bench pull` measures
//! what readers and writers wait during a pull that has much to put back, and opening after a crash in it; `scripts/bench
//! server` compares what the server spends on a request with nginx; `scripts/bench size` measures whether costs grow with
//! the database; `scripts/bench wire` compares what a download, a scan and pushes send with the same bytes compressed at once;
//! `scripts/bench bulk` compares many rows at once with stock SQLite; `scripts/bench bucket` measures what a database on object storage asks
//! of its store, and what commits wait for. Each comparison happens within one run, in turns.
//! Nothing here is a test: a missed target is printed, never an exit status.
#![forbid(unsafe_code)]

mod bindings;
mod bucket;
mod bulk;
mod client;
mod cold;
mod data;
mod far;
mod json;
mod local;
mod machine;
mod memory;
mod opening;
mod options;
mod pull;
mod pushing;
mod result;
mod samples;
mod server;
mod size;
mod wire;

use options::Options;
use result::Result;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == opening::CHILD).is_some() {
        return opening::child(words);
    }
    if words.next_if(|word| word == server::CHILD).is_some() {
        return server::child(words);
    }
    if words.next_if(|word| word == size::CHILD).is_some() {
        return size::child(words);
    }
    if words.next_if(|word| word == bulk::CHILD).is_some() {
        return bulk::child(words);
    }
    if words.next_if(|word| word == bucket::CHILD).is_some() {
        return bucket::child(words);
    }
    let options = Options::parse(words)?;
    if options.list {
        println!("local: {}", local::CASES.join(", "));
        println!("cold:  {}", cold::cases().join(", "));
        println!("bindings: {}", bindings::cases().join(", "));
        println!("pull:  waits and memory of a pull, opening after a crash; with --changes N");
        println!("wire:  {}", wire::CASES.join(", "));
        println!("bulk:  {}", bulk::cases().join(", "));
        println!("bucket: {}", bucket::CASES.join(", "));
        println!("server: {}", server::CASES.join(", "));
        println!("size:   {}", size::cases().join(", "));
        return Ok(());
    }
    machine::print(&options)?;
    json::begin(&options)?;
    if options.local {
        local::run(&options)?;
    }
    if options.cold {
        cold::run(&options)?;
    }
    if options.bindings {
        bindings::run(&options)?;
    }
    if options.pull {
        pull::run(&options)?;
        opening::run(&options)?;
    }
    if options.wire {
        wire::run(&options)?;
    }
    if options.bulk {
        bulk::run(&options)?;
    }
    if options.bucket {
        bucket::run(&options)?;
    }
    if options.server {
        server::run(&options)?;
    }
    if options.size {
        size::run(&options)?;
    }
    Ok(())
}
