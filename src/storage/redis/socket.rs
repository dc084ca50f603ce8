//! The way of bytes to the server: over TCP, over TLS, or through a socket of the system. Nothing of Redis is known here.

use std::io::{Error, ErrorKind};

use redis::ConnectionAddr;
use redis::io::tcp::socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::settings::Settings;

/// Bytes there and back.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub(super) type Socket = Box<dyn Stream>;

/// Connects to where the settings say.
pub(super) async fn connect(settings: &Settings) -> Result<Socket, Error> {
    match settings.info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let stream = reach(host, *port).await?;
            prepare(&stream)?;
            #[cfg(feature = "redis-tls")]
            if let Some(tls) = &settings.tls {
                return Ok(Box::new(tls.begin(host, stream).await?));
            }
            Ok(Box::new(stream))
        }
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
        other => Err(Error::new(ErrorKind::Unsupported, format!("there is no way to {other}"))),
    }
}

/// A name may stand for several addresses, of which some lead nowhere: the first that answers counts.
async fn reach(host: &str, port: u16) -> Result<TcpStream, Error> {
    let mut attempts = JoinSet::new();
    for address in lookup_host((host, port)).await? {
        attempts.spawn(TcpStream::connect(address));
    }
    let mut why = Error::new(ErrorKind::NotFound, "its name stands for no address");
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => why = error,
            Err(_) => {}
        }
    }
    Err(why)
}

fn prepare(stream: &TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    SockRef::from(stream).set_tcp_user_timeout(Some(super::settings::LONGEST_UNACKNOWLEDGED))?;
    #[cfg(not(target_os = "linux"))]
    let _ = SockRef::from(stream);
    Ok(())
}
