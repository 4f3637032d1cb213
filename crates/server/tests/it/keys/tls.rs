//! The certificate is changed while a server runs.

use std::{path::Path, sync::Arc};

use partial_sync_server::{Server, ServerHandle};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::pages::support::TestDb;

/// Writes a new certificate for localhost and its key.
fn certify(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let pair = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let made = made.self_signed(&pair).unwrap();
    std::fs::write(certificate, made.pem()).unwrap();
    std::fs::write(key, pair.serialize_pem()).unwrap();
    made.der().clone()
}

/// Connects for one client after another, which may continue each other's sessions.
struct Clients {
    tls: TlsConnector,
}

impl Clients {
    fn trusting(certificates: &[&CertificateDer<'static>]) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add((*certificate).clone()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            tls: TlsConnector::from(Arc::new(config)),
        }
    }

    async fn connect(&self, server: &ServerHandle) -> TlsStream<TcpStream> {
        let socket = TcpStream::connect(server.addr()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.tls.connect(name, socket).await.unwrap()
    }
}

/// The certificate that a connection has, which answers.
async fn certificate(stream: &mut TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream
        .write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v12_a_new_certificate_is_for_new_connections_and_open_ones_continue() {
    let (db, folder) = (TestDb::new(), tempfile::tempdir().unwrap());
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    let first = certify(&chain, &key);
    let server = Server::builder(&db.path)
        .tls(&chain, &key)
        .listen("127.0.0.1:0")
        .await
        .unwrap();
    // Roots are needed before the second one is made.
    let elsewhere = [folder.path().join("chain2.pem"), folder.path().join("key2.pem")];
    let second = certify(&elsewhere[0], &elsewhere[1]);
    let clients = Clients::trusting(&[&first, &second]);
    let mut open = clients.connect(&server).await;
    assert_eq!(certificate(&mut open).await, first);

    // Half of the two: a certificate, and the key of another one.
    std::fs::rename(&elsewhere[0], &chain).unwrap();
    let error = server.reload().await.unwrap_err().to_string();
    assert!(error.contains(key.to_str().unwrap()), "{error}");
    assert_eq!(certificate(&mut clients.connect(&server).await).await, first);
    std::fs::rename(&elsewhere[1], &key).unwrap();
    server.reload().await.unwrap();
    assert_eq!(certificate(&mut clients.connect(&server).await).await, second);
    assert_eq!(
        certificate(&mut open).await,
        first,
        "as it was when it was opened"
    );
    std::fs::write(&chain, "").unwrap();
    assert!(server.reload().await.is_err());
    assert_eq!(certificate(&mut clients.connect(&server).await).await, second);
    drop((open, clients));
    server.shutdown().await;
}
