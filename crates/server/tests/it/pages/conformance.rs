//! The list of what every remote does, against this server over HTTP.

use partial_sync_transport::{HttpRemote, Remote, conformance};

use super::support::{TestDb, insert};

struct Served(HttpRemote);

impl conformance::Subject for Served {
    fn remote(&self) -> &dyn Remote {
        &self.0
    }

    fn query(&self) -> Option<String> {
        Some("SELECT length(v) FROM t WHERE id = 50".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_does_what_every_remote_does_and_what_this_project_adds() {
    let db = TestDb::new();
    insert(&db.open(), 1, 100);
    let server = db.serve().await;
    let remote = Served(HttpRemote::builder(server.url()).build().unwrap());
    conformance::run_all(&remote, conformance::CORE).await;
    conformance::run_all(&remote, conformance::EXTENDED).await;
    server.shutdown().await;
}
