//! Every fuzz target in one program, because linking takes longer than building it: `TARGET` in the environment says which.
#![no_main]

use std::sync::LazyLock;

static BODY: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    partial_sync_fuzz::target(&name).unwrap_or_else(|| {
        let known: Vec<_> = partial_sync_fuzz::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("TARGET is {name:?}; it must be one of {}", known.join(", "));
        std::process::exit(2)
    })
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| BODY(data));
