//! One request to a server's administration.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::TryStreamExt;
use partial_sync_transport::{
    HttpClient, RemoteError, RemoteErrorKind,
    http::{HttpRequest, ReqwestClient},
};
use serde_json::Value;

use crate::{arguments::admin::Server, error::CliError, secret};

/// No answer is as long.
const LONGEST: usize = 16 << 20;

/// See the module.
pub(super) struct Client {
    runtime: tokio::runtime::Runtime,
    http: Arc<dyn HttpClient>,
    url: String,
    token: String,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(server: &Server) -> Result<Self, CliError> {
        let token = secret::admin_token(server.admin_token_file.as_deref())?;
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            http: Arc::new(ReqwestClient::new().map_err(CliError::Admin)?),
            url: server.url.trim_end_matches('/').to_owned(),
            token,
            timeout: server.timeout,
        })
    }

    /// Sends a request and reads its answer.
    pub(super) fn send(
        &self,
        method: &'static str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, CliError> {
        let mut headers = vec![("authorization".to_owned(), format!("Bearer {}", self.token))];
        if body.is_some() {
            headers.push(("content-type".to_owned(), "application/json".to_owned()));
        }
        let request = HttpRequest {
            method,
            url: format!("{}{path}", self.url),
            headers,
            body: body.map_or_else(Bytes::new, |body| body.to_string().into()),
        };
        let asked = async {
            let answer = self.http.send(request).await?;
            let status = answer.status;
            let body = answer.body.try_fold(Vec::new(), |mut body, piece| async move {
                if body.len() + piece.len() > LONGEST {
                    return Err(RemoteError::new(
                        RemoteErrorKind::Protocol,
                        "the answer is too long",
                    ));
                }
                body.extend_from_slice(&piece);
                Ok(body)
            });
            Ok::<_, RemoteError>((status, body.await?))
        };
        let asked = self
            .runtime
            .block_on(async { tokio::time::timeout(self.timeout, asked).await });
        let late = || {
            RemoteError::new(
                RemoteErrorKind::TimedOut,
                "the server did not answer in time: see --timeout",
            )
        };
        let (status, body) = asked.unwrap_or_else(|_| Err(late())).map_err(CliError::Admin)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == 200 && answer.is_object() {
            return Ok(answer);
        }
        Err(match answer["message"].as_str() {
            Some(_) => CliError::Refused {
                code: text(&answer["code"]),
                message: text(&answer["message"]),
            },
            None => CliError::NotAdmin { status },
        })
    }
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> String {
    // What a server says must not move the cursor.
    let text = value.as_str().unwrap_or_default();
    text.chars().filter(|c| !c.is_control()).collect()
}
