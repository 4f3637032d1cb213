//! Servers that write to one bucket, each through a network of his own, and how they begin.

use std::{net::SocketAddr, num::NonZeroU64, path::PathBuf, sync::Arc, time::Duration};

use partial_sync_server::{Mirroring, Server, ServerError, ServerHandle, TakeOver};
use partial_sync_store::{Begin, Bucket, Claim, New, StoreError, Writer};
use serde_json::{Value, json};

use super::{
    place::Place,
    support::{TestStore, replication},
};
use crate::pages::support::Client;

/// What the clock of another writer says.
const NOW: i64 = 1_800_000_000_000;
/// Longer than files are kept.
const LONG: Duration = Duration::from_secs(400 * 24 * 3600);
/// The longest wait for an answer that nothing holds up.
pub(super) const ANSWER: Duration = Duration::from_secs(30);

/// A server that writes, or did.
pub(super) struct Node {
    pub store: Arc<TestStore>,
    pub handle: ServerHandle,
    pub client: Client,
    /// Its working copy, if that outlives it.
    pub file: Option<PathBuf>,
}

/// How a server begins to write.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// With a file that is there.
    With(PathBuf),
    /// With a new one.
    New(PathBuf),
    /// With none.
    Stateless,
}

pub(super) type Started = (Start, Result<Node, ServerError>);

fn free_address() -> SocketAddr {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    port.local_addr().unwrap()
}

/// Runs statements; the error's code if they are not answered.
pub(super) async fn run(client: Client, text: String) -> Result<(), String> {
    let body = json!({"requests": [{"type": "sequence", "sql": text}, {"type": "close"}]});
    let request = client.http.post(format!("{}/v2/pipeline", client.url));
    let cut = |error: reqwest::Error| format!("no answer: {error}");
    let answer = request.body(body.to_string()).send().await.map_err(cut)?;
    let status = answer.status();
    let text = answer.text().await.map_err(cut)?;
    let answer: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    match (status.as_u16(), &answer["results"][0]) {
        (200, done) if done["type"] == "ok" => Ok(()),
        (200, failed) => Err(failed["error"]["code"].to_string()),
        _ => Err(answer["code"].to_string()),
    }
}

pub(super) async fn start(start: Start, store: Arc<TestStore>, patience: Duration) -> Started {
    let at = free_address();
    let url = format!("http://{at}");
    let (server, file) = match &start {
        Start::With(path) | Start::New(path) => {
            let replication = replication(&store)
                .writer_url(url)
                .patience(patience)
                .take_over(matches!(start, Start::New(_)));
            (Server::builder(path).replicate(replication), Some(path.clone()))
        }
        Start::Stateless => {
            let opened = store.clone();
            let mirroring = Mirroring::in_buckets(move |_| Ok(opened.bucket()));
            (Server::from_bucket(mirroring.take_over(TakeOver::Now, url)), None)
        }
    };
    let node = server.listen(at).await.map(|handle| Node {
        client: Client::new(&handle.url()),
        store,
        handle,
        file,
    });
    (start, node)
}

/// Another writer comes that has no SQL: it commits nothing so many times, compacts, and may collect after a long time.
pub(super) async fn keep(
    bucket: Bucket,
    node: u64,
    commits: u32,
    later: Option<&Place>,
) -> Result<(), StoreError> {
    let node = NonZeroU64::new(node).unwrap();
    let begin = Begin {
        node,
        url: None,
        new: New {
            lineage: node,
            after: None,
            retention: LONG,
        },
        now: NOW,
    };
    let mut writer = Writer::take_over(bucket, begin, Claim::TakeOver).await?;
    let nothing = std::iter::empty::<Result<(_, Vec<u8>), _>>;
    for _ in 0..commits {
        writer.append(nothing(), writer.commit(), NOW).await?;
    }
    while writer.keeper().compact(writer.last()).await? {}
    if let Some(place) = later {
        place.pass(LONG);
        writer.append(nothing(), writer.commit(), NOW).await?;
        writer.keeper().collect(writer.last()).await?;
    }
    Ok(())
}
