//! A client with one connection, for what is looked at closely and seldom.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

pub async fn send(
    sender: &mut SendRequest<Empty<Bytes>>,
    method: Method,
    address: SocketAddr,
    path: &str,
    fields: &[(&'static str, String)],
) -> Result<Answer, String> {
    let request = Request::builder().method(method).uri(path).header("host", address.to_string());
    let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, value));
    let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
    let failed = |error: hyper::Error| format!("{path}: {error}");
    sender.ready().await.map_err(failed)?;
    let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
    let body = body.collect().await.map_err(failed)?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// The same without `async`.
pub struct Client {
    runtime: Runtime,
    address: SocketAddr,
    sender: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { runtime: runtime.expect("a runtime of one thread can be built"), address, sender: None }
    }

    pub fn get(&mut self, path: &str, fields: &[(&'static str, String)]) -> Result<Answer, String> {
        self.send(Method::GET, path, fields)
    }

    pub fn send(&mut self, method: Method, path: &str, fields: &[(&'static str, String)]) -> Result<Answer, String> {
        let (address, sender) = (self.address, self.sender.take());
        let asking = async {
            let mut sender = match sender {
                Some(sender) if !sender.is_closed() => sender,
                _ => connect(address).await?,
            };
            let answer = send(&mut sender, method, address, path, fields).await?;
            Ok::<_, String>((sender, answer))
        };
        let asked = self.runtime.block_on(async { timeout(Duration::from_secs(20), asking).await });
        let (sender, answer) = asked.map_err(|_| format!("{path}: no answer in 20 seconds"))??;
        self.sender = Some(sender);
        Ok(answer)
    }
}
