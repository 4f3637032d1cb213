//! Administration over HTTP, on a listener of its own and with tokens of its own. Paths are those of the admin API of sqld where
//! it has one.
//!
//! | path | what |
//! |---|---|
//! | `GET /`, `GET /health` | alive; without a token |
//! | `GET /v1/namespaces` | the databases |
//! | `POST /v1/namespaces/NAME/create`, `DELETE /v1/namespaces/NAME` | makes an empty one; removes one |
//! | `POST /v1/namespaces/NAME/fork/NEW` | copies one, as it is or as it was |
//! | `GET /v1/namespaces/NAME/stats`, `GET .../revisions` | sizes; the revisions that are kept |
//! | `POST /v1/namespaces/NAME/drop-history` | lets go of old revisions |
//! | `POST /v1/namespaces/NAME/kick`, `POST /v1/kick` | ends what is open in a database, or of a caller |
//!
//! | file | what |
//! |---|---|
//! | `mod.rs` | who is let in, and how a request is read |
//! | `route.rs` | which operation a request means |
//! | `operations.rs` | the operations |
//! | `copy.rs` | a revision of a database as a file |
//! | `told.rs` | errors as answers |
//!
//! A token is checked before anything is said of what there is. A token that may only read can look and change nothing.

mod copy;
mod operations;
mod route;
mod told;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    http::{Request, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    access::{Access, Authenticator, Caller, CallerId},
    app::{App, bad_body, error, panicked, refuse, too_many, turn_away},
    credentials::Credentials,
    databases::Databases,
    error::ServerError,
    front::{
        Bodies, Coding, Connections, Peer, Proxies, Requests, Visitors, check_content_type, throw_away,
        until_sent,
    },
    limits::Limits,
    reload::Reload,
    request_log::{Known, RequestLog},
    serve::{Answers, resolve},
};
use operations::Operations;

/// The largest body.
const BODY: usize = 64 << 10;
/// Connections, and requests under way.
const CONNECTIONS: usize = 128;
const BODY_TIME: Duration = Duration::from_secs(10);

/// Administration over HTTP: where it listens, and whom it lets in. See [`ServerBuilder::admin`](crate::ServerBuilder::admin).
#[must_use]
pub struct Admin {
    addr: std::io::Result<SocketAddr>,
    authenticator: Option<Arc<dyn Authenticator>>,
    token_file: Option<PathBuf>,
}

impl Admin {
    /// Listens on an address like `127.0.0.1:8081`; port 0 = any free one. It needs [`Admin::authenticator`] or
    /// [`Admin::token_file`], also on loopback.
    pub fn listen(addr: impl ToSocketAddrs) -> Self {
        Self {
            addr: resolve(addr),
            authenticator: None,
            token_file: None,
        }
    }

    /// Who may administer; with [`Access::ReadOnly`], only look. The name of the database that it is asked for is empty.
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets in who sends a token of this file, of the same form as that of
    /// [`ServerBuilder::auth_token_file`](crate::ServerBuilder::auth_token_file); read again with it.
    pub fn token_file(mut self, path: impl AsRef<Path>) -> Self {
        self.token_file = Some(path.as_ref().to_owned());
        self
    }

    /// The address, and who is let in.
    pub(crate) fn parts(&self) -> Result<(SocketAddr, Credentials), ServerError> {
        if self.authenticator.is_none() && self.token_file.is_none() {
            return Err(ServerError::AdminWithoutToken);
        }
        let addr = self.addr.as_ref().map_err(|error| {
            let error = std::io::Error::new(error.kind(), error.to_string());
            ServerError::Address(error)
        })?;
        Ok((
            *addr,
            Credentials::new(self.authenticator.clone(), self.token_file.clone(), None)?,
        ))
    }
}

/// Answers on the listener for administration.
pub(crate) struct AdminApp {
    reload: Arc<Reload>,
    operations: Operations,
    connections: Arc<Connections>,
    requests: Arc<Requests>,
    bodies: Bodies,
    visitors: Visitors,
    proxies: Proxies,
    request_log: Option<Arc<RequestLog>>,
}

impl AdminApp {
    pub(crate) fn new(app: Arc<App>, databases: Arc<Databases>, visitors: Visitors) -> Self {
        let limits = Limits {
            connections: CONNECTIONS,
            connections_per_address: CONNECTIONS,
            requests: CONNECTIONS,
            requests_per_caller: CONNECTIONS,
            body: BODY,
            bodies: CONNECTIONS * BODY,
            body_time: BODY_TIME,
            ..app.limits.clone()
        };
        Self {
            reload: Arc::clone(&app.reload),
            proxies: app.proxies.clone(),
            request_log: app.request_log.clone(),
            operations: Operations::new(app, databases),
            connections: Connections::new(&limits),
            requests: Requests::new(&limits),
            bodies: Bodies::new(&limits),
            visitors,
        }
    }

    async fn answer_visitor(&self, request: Request<Body>) -> Response {
        match self.visitors.check(&request) {
            Ok(_) => self.route(request).await,
            Err(refused) => turn_away(refused, request.into_body()),
        }
    }

    async fn route(&self, request: Request<Body>) -> Response {
        let (parts, mut body) = request.into_parts();
        if let Some(known) = Known::of(&parts) {
            let name = route::database(&parts).filter(|name| self.operations.has(name));
            let name = name.unwrap_or_default();
            known.goes_to(name, name, parts.uri.path());
        }
        if let Err(refused) = check_content_type(&parts) {
            return turn_away(refused, body);
        }
        if route::asks_health(&parts) {
            return Json(json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response();
        }
        let reloads = self.reload.count();
        let connection = parts.extensions.get::<Peer>().map(|peer| &peer.activity);
        let admitted = self.caller(&parts).map_err(|denied| Box::new(refuse(&denied)));
        let admitted = admitted.and_then(|caller| {
            Ok((
                caller,
                self.requests.enter(caller.id, connection).map_err(too_many)?,
            ))
        });
        let (caller, under_way) = match admitted {
            Ok(admitted) => admitted,
            Err(refused) => {
                throw_away(body);
                return *refused;
            }
        };
        let body = match self
            .bodies
            .read(caller.id, BODY, Coding::Identity, &mut body)
            .await
        {
            Ok(read) => read,
            Err(bad) => {
                throw_away(body);
                return bad_body(&bad);
            }
        };
        // It may be long since the head of the request came.
        let caller = match self.reload.count() == reloads {
            true => caller,
            false => match self.caller(&parts) {
                Ok(caller) => caller,
                Err(denied) => return refuse(&denied),
            },
        };
        let answer = match route::operation(&parts, &body) {
            Ok(operation) if operation.changes() && caller.access != Access::Full => error(
                StatusCode::FORBIDDEN,
                "FORBIDDEN",
                "this token may look and not change anything: use one that is not read-only",
            ),
            Ok(operation) => self.operations.run(operation, caller.access).await,
            Err(refused) => *refused,
        };
        until_sent(answer, under_way)
    }

    fn caller(&self, request: &axum::http::request::Parts) -> Result<Caller, crate::access::Denied> {
        let header = request
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let mut caller = self.reload.check_admin(header)?;
        if let Some(peer) = request.extensions.get::<Peer>() {
            peer.activity.let_in();
            if caller.id == CallerId::ANYONE {
                caller.id = CallerId::of_peer(peer.address);
            }
        }
        if let Some(known) = Known::of(request) {
            known.comes_from(caller.id);
        }
        Ok(caller)
    }
}

impl Answers for AdminApp {
    fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    async fn answer(&self, mut request: Request<Body>) -> Response {
        self.proxies.see_through(&mut request);
        let answer = |request| self.answer_visitor(request);
        RequestLog::telling(self.request_log.as_ref(), request, answer).await
    }

    fn panicked(&self) -> Response {
        panicked()
    }
}
