//! Ctrl-C: the first one asks the command to stop, so that it can leave the replica in good order; the second one ends the
//! program at once. A command that has nothing to leave in order is ended by the first one, and so by SIGTERM.

use std::{io, process::exit};

use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a program that Ctrl-C ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;
/// 128 + SIGTERM.
const TERMINATED: i32 = 143;

/// Lets Ctrl-C and SIGTERM end the program by this, which gets the exit code, on a thread of its own.
pub(crate) fn on_end(end: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Here, so that none comes too early.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let wait = move || {
        end(runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => INTERRUPTED,
                _ = terminate.recv() => TERMINATED,
            }
        }));
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

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
