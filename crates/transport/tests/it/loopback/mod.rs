//! An HTTP/1.1 server on loopback that answers as it is told, byte by byte. It knows nothing of the protocol except
//! [`serve`], which puts a remote behind it.

#![allow(dead_code)]

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, future::BoxFuture};
use parking_lot::Mutex;
use partial_sync_transport::{MemoryRemote, Remote, RemoteErrorKind, hrana::Batch, wire};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as it came in; header names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    UntilClose,
}

/// What to answer: the first `send` bytes of the body, then close; or hang instead of closing.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    pub framing: Framing,
    pub send: Option<usize>,
    pub hang: bool,
    pub silent: bool,
}

pub(crate) fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    Reply {
        status,
        headers: vec![],
        body: body.into(),
        framing: Framing::Length,
        send: None,
        hang: false,
        silent: false,
    }
}

pub(crate) type Handler = Arc<dyn Fn(usize, Seen) -> BoxFuture<'static, Reply> + Send + Sync>;

pub(crate) struct Loopback {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Loopback {
    /// Answers the n-th request (from 0) with what the function says.
    pub(crate) async fn start(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, log.clone(), handler.clone()));
            }
        });
        Self { url, seen }
    }

    /// Answers by number alone.
    pub(crate) async fn scripted(f: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(Arc::new(move |n, _| Box::pin(std::future::ready(f(n))))).await
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }
}

async fn connection(mut stream: TcpStream, log: Arc<Mutex<Vec<Seen>>>, handler: Handler) {
    let Some(seen) = read_request(&mut stream).await else {
        return;
    };
    let n = {
        let mut log = log.lock();
        log.push(seen.clone());
        log.len() - 1
    };
    let reply = handler(n, seen).await;
    if !reply.silent {
        let mut head = format!("HTTP/1.1 {} Whatever\r\nconnection: close\r\n", reply.status);
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match reply.framing {
            Framing::Length => format!("content-length: {}\r\n\r\n", reply.body.len()),
            Framing::Chunked => "transfer-encoding: chunked\r\n\r\n".to_owned(),
            Framing::UntilClose => "\r\n".to_owned(),
        };
        let body = match reply.framing {
            Framing::Chunked => {
                let mut framed = Vec::new();
                for chunk in reply.body.chunks(100) {
                    framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    framed.extend_from_slice(chunk);
                    framed.extend_from_slice(b"\r\n");
                }
                framed.extend_from_slice(b"0\r\n\r\n");
                framed.into()
            }
            _ => reply.body.clone(),
        };
        let send = reply.send.unwrap_or(body.len()).min(body.len());
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.write_all(&body[..send]).await;
    }
    if reply.hang {
        // Until the client goes away.
        let _ = stream.read(&mut [0]).await;
    }
    let _ = stream.shutdown().await;
}

async fn read_request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = BytesMut::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break bytes.split_to(at + 4);
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(head.to_vec()).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |n| n.parse().unwrap());
    while bytes.len() < length {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen {
        path,
        headers,
        body: bytes.freeze(),
    })
}

/// The protocol's other side over a remote in memory.
pub(crate) async fn serve(remote: &MemoryRemote, seen: Seen) -> Reply {
    if seen.path.ends_with("/v2/pipeline") {
        let request: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        let batch: Batch = serde_json::from_value(request["requests"][0]["batch"].clone()).unwrap();
        let result = match remote.execute(batch, None).await {
            Ok(result) => serde_json::json!({"type": "ok", "response": {"type": "batch", "result": result}}),
            Err(e) => serde_json::json!({"type": "error", "error": {"message": e.message, "code": "X"}}),
        };
        let body = serde_json::json!({"baton": null, "base_url": null, "results": [result]});
        return reply(200, body.to_string());
    }
    let request = wire::PullUpdatesRequest::decode(seen.body).unwrap();
    match remote.pages(request.to_request().unwrap()).await {
        Ok(answer) => {
            let header = &answer.header;
            let encoding = match request.page_encoding() {
                wire::PageEncoding::ZstdBlocks if !header.features.zstd_blocks => wire::PageEncoding::Raw,
                encoding => encoding,
            };
            let mut body = BytesMut::new();
            let mut wire_header =
                wire::PullUpdatesHeader::new(&header.revision, header.db_size, header.mode, encoding);
            if let Some(ids) = &header.listed {
                wire_header = wire_header.listing(ids);
            }
            wire::encode_frame(&wire_header, &mut body);
            let features = header.features.to_header();
            let pages = answer.pages.map_ok(|page| (u64::from(page.id.0), page.data));
            let pages: Vec<_> = pages.try_collect().await.unwrap();
            wire::Packer::new(encoding).pack(&pages, &mut body).unwrap();
            let mut ok = reply(200, body);
            ok.headers.push((wire::FEATURES_HEADER, features));
            ok.headers.push(("content-type", wire::PROTOBUF.to_owned()));
            ok
        }
        Err(error) => {
            let (status, code) = match error.kind {
                RemoteErrorKind::RevisionExpired => (410, wire::REVISION_EXPIRED),
                RemoteErrorKind::RevisionUnknown => (400, wire::REVISION_UNKNOWN),
                _ => (400, "OTHER"),
            };
            let body = serde_json::json!({"code": code, "message": error.message});
            reply(status, body.to_string())
        }
    }
}

/// A server over a remote in memory.
pub(crate) async fn over(remote: &MemoryRemote) -> Loopback {
    let remote = remote.clone();
    Loopback::start(Arc::new(move |_, seen| {
        let remote = remote.clone();
        Box::pin(async move { serve(&remote, seen).await })
    }))
    .await
}
