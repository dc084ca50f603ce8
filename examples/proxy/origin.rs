//! The origin as a service: a pooled hyper client that forwards requests as a gateway has to (RFC 9110 §7.6).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::{Client, Error, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use larder::rfc9111::fields::{connection_options, is_hop_by_hop};
use tower::Service;

#[derive(Clone)]
pub struct Origin {
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
}

impl Origin {
    /// The origin at `http://HOST:PORT`.
    pub fn new(url: &str) -> Result<Self, String> {
        let wrong = || format!("--origin {url}: not of the form http://HOST:PORT");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain = uri.scheme() == Some(&Scheme::HTTP) && uri.path() == "/" && uri.query().is_none();
        let authority = uri.into_parts().authority.filter(|_| plain).ok_or_else(wrong)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(std::time::Duration::from_secs(10)));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, authority })
    }

    fn address(&self, request: &mut Request<Incoming>) {
        let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
        // HTTP/2 names the host in the target only.
        if !request.headers().contains_key(header::HOST) {
            let host = request.uri().authority().unwrap_or(&self.authority).as_str();
            if let Ok(host) = HeaderValue::from_str(host) {
                request.headers_mut().insert(header::HOST, host);
            }
        }
        let mut target = http::uri::Parts::default();
        target.scheme = Some(Scheme::HTTP);
        target.authority = Some(self.authority.clone());
        target.path_and_query = Some(path);
        if let Ok(target) = Uri::from_parts(target) {
            *request.uri_mut() = target;
        }
        *request.version_mut() = Version::HTTP_11;
    }
}

impl Service<Request<Incoming>> for Origin {
    type Response = Response<Incoming>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let upgrade = take_upgrade(&mut request);
        strip_hop_by_hop(request.headers_mut());
        self.address(&mut request);
        request.headers_mut().append(header::VIA, HeaderValue::from_static("1.1 larder"));
        if let Some((protocol, _)) = &upgrade {
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            request.headers_mut().insert(header::UPGRADE, protocol.clone());
        }
        let client = self.client.clone();
        Box::pin(async move {
            let mut response = client.request(request).await?;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                if let Some((_, downstream)) = upgrade {
                    tunnel(downstream, hyper::upgrade::on(&mut response));
                }
            } else {
                strip_hop_by_hop(response.headers_mut());
            }
            Ok(response)
        })
    }
}

/// The protocol that the client wants to switch to, and its end of the connection.
fn take_upgrade(request: &mut Request<Incoming>) -> Option<(HeaderValue, OnUpgrade)> {
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    request.extensions_mut().remove::<OnUpgrade>().map(|downstream| (protocol, downstream))
}

/// Both ends have switched: what one says, the other hears.
fn tunnel(downstream: OnUpgrade, upstream: OnUpgrade) {
    tokio::spawn(async move {
        if let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) {
            let (mut down, mut up) = (TokioIo::new(downstream), TokioIo::new(upstream));
            let _ = tokio::io::copy_bidirectional(&mut down, &mut up).await;
        }
    });
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // A request can't do without its host, whatever `Connection` says.
    for name in connection_options(headers).into_iter().filter(|name| *name != header::HOST) {
        headers.remove(name);
    }
    let names: Vec<_> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
