//! Clients over real sockets: one connection each, HTTP/1.1 or a stream of HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sha2::{Digest, Sha256};
use tokio::net::{TcpSocket, TcpStream};

use super::content::Hash;

/// What a socket may hold on its way in or out: ten thousand of them must fit into what the kernel gives to all of TCP.
pub const SOCKET_BUFFER: u32 = 32 << 10;

pub enum Client {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    /// With buffers as the system gives them.
    pub async fn http1(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("TCP can do without delay");
        Self::over(stream).await
    }

    /// One of very many, with a small buffer.
    pub async fn http1_of_many(address: SocketAddr) -> Self {
        Self::over(small(address).await).await
    }

    async fn over(stream: TcpStream) -> Self {
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
        tokio::spawn(connection);
        Self::Http1(client)
    }

    /// As many clients as `streams`, which share a connection.
    pub async fn http2(address: SocketAddr, streams: usize) -> Vec<Self> {
        let io = TokioIo::new(small(address).await);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_connection_window_size(16 << 20).initial_stream_window_size(1 << 20);
        let (client, connection) = builder.handshake(io).await.expect("HTTP/2");
        tokio::spawn(connection);
        (0..streams).map(|_| Self::Http2(client.clone())).collect()
    }

    /// The answer's head, with its content to be read.
    pub async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<Response<Incoming>, String> {
        let sent = match self {
            Self::Http1(client) => {
                client.ready().await.map_err(|error| error.to_string())?;
                client
                    .send_request(request(path, fields).header("host", "bench").body(Empty::new()).expect("a request"))
                    .await
            }
            Self::Http2(client) => {
                client.ready().await.map_err(|error| error.to_string())?;
                let target = format!("http://bench{path}");
                client.send_request(request(&target, fields).body(Empty::new()).expect("a request")).await
            }
        };
        sent.map_err(|error| format!("{path}: {error}"))
    }

    /// The whole answer as a text, of whatever status.
    pub async fn text(&mut self, path: &str) -> Result<String, String> {
        let body = self.get(path, &[]).await?.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    /// Whether the store has an answer for this.
    pub async fn is_stored(&mut self, path: &str) -> bool {
        let response = self.get(path, &[("cache-control", "only-if-cached")]).await.expect("an answer");
        let stored = response.status() == StatusCode::OK;
        response.into_body().collect().await.expect("the whole answer");
        stored
    }
}

fn request(target: &str, fields: &[(&str, &str)]) -> http::request::Builder {
    fields.iter().fold(Request::get(target), |request, (name, value)| request.header(*name, *value))
}

async fn small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket (is `ulimit -n` too small?)");
    socket.set_recv_buffer_size(SOCKET_BUFFER).expect("a socket has a buffer");
    socket.set_nodelay(true).expect("TCP can do without delay");
    socket.connect(address).await.expect("the server listens")
}

/// How a content is held against what it should be.
#[derive(Clone)]
pub enum Check {
    /// Byte by byte: costs little, so that what is timed isn't the checking.
    Bytes(Bytes),
    /// By SHA-256.
    Hash(Hash),
}

impl Check {
    /// Reads all of it, and says what is wrong with it.
    pub async fn read(&self, response: Response<Incoming>) -> Result<(), String> {
        if response.status() != StatusCode::OK {
            return Err(format!("the status is {}", response.status()));
        }
        let (mut body, mut hash, mut read) = (response.into_body(), Sha256::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|error| format!("after {read} bytes: {error}"))?.into_data() else { continue };
            match self {
                Self::Bytes(expected) if expected.get(read..read + data.len()) == Some(&data[..]) => {}
                Self::Bytes(_) => return Err(format!("other content after byte {read}")),
                Self::Hash(_) => hash.update(&data),
            }
            read += data.len();
        }
        let whole = match self {
            Self::Bytes(expected) => read == expected.len(),
            Self::Hash(expected) => *expected == Hash::from(hash.finalize()),
        };
        whole.then_some(()).ok_or_else(|| format!("{read} bytes, which aren't the content"))
    }
}

/// As many open files as the system lets this process have, and those that it starts.
pub fn raise_open_files(needed: u64) {
    let most =
        rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files can be raised up to the hard one");
    assert!(
        most >= needed,
        "{needed} open files are needed and {most} allowed: raise the hard limit (`ulimit -Hn {needed}`)"
    );
}
