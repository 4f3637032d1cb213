//! Fails with the remedy where the SQLite that is built into the program would lack what this crate stands on.

use std::env;

/// `sqlite_dbpage`, through which a pull writes pages, and the hook that the change log listens to.
const NEEDED: [&str; 2] = ["-DSQLITE_ENABLE_DBPAGE_VTAB", "-DSQLITE_ENABLE_PREUPDATE_HOOK"];

fn main() {
    println!("cargo::rerun-if-env-changed=LIBSQLITE3_FLAGS");
    // Documentation is not linked, and a SQLite of the system's is looked at when the program starts (`check_build`).
    if env::var_os("DOCS_RS").is_some() || env::var_os("LIBSQLITE3_SYS_USE_PKG_CONFIG").is_some() {
        return;
    }
    let flags = env::var("LIBSQLITE3_FLAGS").unwrap_or_default();
    if NEEDED
        .iter()
        .any(|needed| !flags.split_whitespace().any(|flag| flag.starts_with(needed)))
    {
        println!(
            "cargo::error=the bundled SQLite would be built without what partial-sync needs: set the environment variable \
             LIBSQLITE3_FLAGS to \"{}\", for a workspace by these lines in its .cargo/config.toml: [env] and \
             LIBSQLITE3_FLAGS = \"{}\"; then run `cargo clean -p libsqlite3-sys`",
            NEEDED.join(" "),
            NEEDED.join(" "),
        );
    }
}
