//! Writes the seeds of every target into the folder given, one folder a target.

use std::path::PathBuf;

use partial_sync_fuzz::{TARGETS, seeds};

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).expect("usage: seeds FOLDER"));
    for (name, _) in TARGETS {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder)?;
        for (n, seed) in seeds::of(name).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n:02}")), seed)?;
        }
    }
    Ok(())
}
