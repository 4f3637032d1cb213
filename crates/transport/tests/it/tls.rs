//! https: a certificate is checked, and one that the system does not know can be trusted by giving its root.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use partial_sync_core::{PageCount, Revision};
use partial_sync_transport::{
    ApplyMode, HttpRemote, PagesRequest, Remote, RemoteErrorKind, RetryPolicy,
    wire::{self, PageEncoding, PullUpdatesHeader},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, pki_types::PrivateKeyDer},
};

/// A server with a fresh certificate for 127.0.0.1 that answers an empty database: its url and its authority's PEM.
async fn server() -> (String, String) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("libsql://{}", listener.local_addr().unwrap());

    let revision = Revision::new("1").unwrap();
    let header = PullUpdatesHeader::new(
        &revision,
        PageCount::ZERO,
        ApplyMode::Incremental,
        PageEncoding::Raw,
    );
    let mut body = BytesMut::new();
    wire::encode_frame(&header, &mut body);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            // The request is one small packet: an empty body after its head.
            let _ = stream.read(&mut [0; 4096]).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, authority.pem())
}

#[tokio::test]
async fn a_certificate_of_a_given_root_is_trusted_and_another_is_not() {
    let (url, pem) = server().await;
    let builder = || {
        let builder = HttpRemote::builder(url.as_str()).retry(RetryPolicy::none());
        builder.deadline(Duration::from_secs(10))
    };
    let trusting = builder().root_certificate(pem).build().unwrap();
    let answer = trusting.pages(PagesRequest::default()).await.unwrap();
    assert_eq!(answer.header.revision.as_str(), "1");

    let (_, another) = server().await;
    for careful in [builder(), builder().root_certificate(another)] {
        let error = careful
            .build()
            .unwrap()
            .pages(PagesRequest::default())
            .await
            .unwrap_err();
        assert!(
            [RemoteErrorKind::Unreachable, RemoteErrorKind::Client].contains(&error.kind),
            "{error}"
        );
        assert!(error.message.to_lowercase().contains("certificate"), "{error}");
    }
}
