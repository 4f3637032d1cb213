//! What others on the same machine do to the files, and many databases.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::Stdio,
    time::Duration,
};

use fastrand::Rng;
use serde_json::json;

use super::{
    foe::{Foe, any, own, reader},
    sql,
};
use crate::{
    ask::{self, FOE, HONEST, execute},
    client::{Ask, Client},
    files::MANY,
    result::Result,
};

/// Row 9.
pub(super) async fn second(foe: Foe) {
    loop {
        for path in [foe.place.data.clone(), foe.place.data.join("honest.db")] {
            foe.count();
            match start_second(&foe, &path).await {
                Ok(None) => {}
                Ok(Some(what)) => Foe::breach(&what),
                Err(error) => eprintln!("a second server could not be tried: {error}"),
            }
        }
    }
}

/// What a second server gave that it must not give while the first one runs.
async fn start_second(foe: &Foe, path: &std::path::Path) -> Result<Option<String>> {
    let mut process = foe.place.command(path, &[])?.stderr(Stdio::null()).spawn()?;
    let mut line = String::new();
    if let Some(out) = process.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let mut given = None;
    if let Some(addr) = line.trim().strip_prefix("listening on http://") {
        given = match path.is_file() {
            true => Some("a second server listens for the same file".to_owned()),
            false => {
                let ask = Ask::post(HONEST, "/honest/v2/pipeline", ask::statement("SELECT 1"));
                let reply = Client::new(addr.parse()?, None).send(&ask).await;
                let reply = reply.ok().filter(|reply| reply.status == 200);
                reply.map(|reply| format!("a second server answered {}", reply.start()))
            }
        };
        // A server that is being stopped listens no more before it lets go of a database: who comes after it is not a second one.
        if given.is_some() && !first_listens(foe).await {
            given = None;
        }
        process.kill()?;
    }
    process.wait()?;
    Ok(given)
}

async fn first_listens(foe: &Foe) -> bool {
    let ask = Ask::get(HONEST, "/health");
    Client::new(foe.addr, None).send(&ask).await.is_ok()
}

/// Row 10.
pub(super) async fn replaced(foe: Foe) {
    let asking = foe.clients(
        8,
        |rng: &mut Rng| match rng.bool() {
            true => Ask::post(
                FOE,
                "/victim/v2/pipeline",
                ask::statement("SELECT count(*) FROM t"),
            ),
            false => Ask::post(
                reader(rng),
                "/victim/pull-updates",
                ask::pages(&ask::some_pages(0, 1, None)),
            ),
        },
        any,
    );
    let replacing = async {
        let mut rng = Rng::with_seed(foe.seed);
        loop {
            if let Err(error) = replace(&foe, &mut rng) {
                eprintln!("the database could not be replaced: {error}");
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(1..300))).await;
        }
    };
    tokio::join!(asking, replacing);
}

fn replace(foe: &Foe, rng: &mut Rng) -> Result<()> {
    let (data, own) = (&foe.place.data, own(foe));
    fs::create_dir_all(&own)?;
    let victim = data.join("victim.db");
    let fresh = own.join("fresh.db");
    if !fresh.exists() {
        fs::copy(data.join("many-0.db"), &fresh)?;
    }
    match rng.u8(..4) {
        0 => {
            // It may be gone already.
            let _ = fs::remove_file(&victim);
        }
        1 => {
            let _ = fs::remove_file(&victim);
            fs::copy(&fresh, &victim)?;
        }
        2 => {
            let _ = fs::remove_file(data.join("victim.db-history"));
        }
        _ => {
            let copy = own.join("copy.db");
            fs::copy(&fresh, &copy)?;
            fs::rename(&copy, &victim)?;
        }
    }
    Ok(())
}

/// Row 11.
pub(super) async fn many(foe: Foe) {
    let ask = |rng: &mut Rng| {
        let n = rng.u32(..MANY);
        match rng.u8(..3) {
            0 => Ask::post(
                reader(rng),
                &format!("/many-{n}/v2/pipeline"),
                ask::statement("SELECT count(*) FROM t"),
            ),
            1 => {
                let body = ask::pipeline(
                    None,
                    &json!([execute("BEGIN"), execute("SELECT count(*) FROM t")]),
                );
                Ask::post(reader(rng), &format!("/many-{n}/v2/pipeline"), body)
            }
            _ => Ask::post(
                reader(rng),
                &format!("/many-{n}/pull-updates"),
                ask::pages(&ask::some_pages(0, 1, None)),
            ),
        }
    };
    foe.clients(32, ask, any).await;
}

/// Row 8. What it takes away is given back by the one that started it.
pub(super) async fn disk(foe: Foe) {
    let filler = foe.place.data.join("filler");
    let filling = async {
        let mut rng = Rng::with_seed(foe.seed);
        loop {
            if let Ok(mut file) = fs::File::create(&filler) {
                // To the last byte.
                while file.write_all(&[0; 4096]).is_ok() {}
                while file.write_all(&[0; 1]).is_ok() {}
            }
            tokio::time::sleep(Duration::from_millis(rng.u64(200..1500))).await;
            let _ = fs::remove_file(&filler);
            tokio::time::sleep(Duration::from_millis(rng.u64(100..700))).await;
        }
    };
    let writing = foe.tasks(4, |foe, mut rng| async move {
        let mut client = Client::new(foe.addr, Some(Foe::address(&mut rng)));
        loop {
            // Its errors may be anything but the server's end.
            let _ = client.send(&sql::row(rng.u32(..20_000))).await;
            foe.count();
        }
    });
    tokio::join!(filling, writing);
}
