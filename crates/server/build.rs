//! The server is for Unix. Elsewhere its build ends with a line that says so.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_CFG_UNIX").is_none() {
        println!(
            "cargo::error=partial-sync-server, and the program partial-sync with it, are for Unix (Linux, macOS): build what a client \
             needs, as in `cargo build -p partial-sync -p partial-sync-ffi`"
        );
    }
}
