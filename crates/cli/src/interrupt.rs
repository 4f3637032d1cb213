//! Ctrl-C: the first one asks the command to stop, so that it can leave the replica in good order; the second one ends the
//! program at once.

use std::process::exit;

/// Exit code of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Calls `stop` at the first Ctrl-C.
pub(crate) fn on_ctrl_c(stop: impl Fn() + Send + 'static) {
    let wait = move || {
        // Without a runtime Ctrl-C simply ends the program, as it does by default.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return;
        };
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop();
                if tokio::signal::ctrl_c().await.is_ok() {
                    exit(INTERRUPTED);
                }
            }
        });
    };
    // As above.
    let _ = std::thread::Builder::new().name("ctrl-c".into()).spawn(wait);
}
