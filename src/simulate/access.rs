//! [`Access`]: one line of a trace.

use std::time::SystemTime;

use http::{Method, StatusCode, Uri};

/// A request that was made once, with what was answered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Access {
    /// When it was made. Simulated time goes by it, and never back: of a line that is earlier than the one before it is taken as the same moment.
    pub time: SystemTime,
    /// Who made it, by address; may be empty.
    pub client: String,
    /// The user that it was authenticated as. It then counts as a request with `Authorization`.
    pub user: Option<String>,
    /// The host that it was made to, where several are told apart.
    pub host: Option<String>,
    /// GET, HEAD, or whatever else; successful unsafe methods invalidate.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// What was answered. 206 and 304 are answers to one client: the origin is taken to have the whole, of the size that a 200 of the same URI had last.
    pub status: StatusCode,
    /// How many bytes of content the client got.
    pub bytes: u64,
}

impl Access {
    /// A GET that was answered with 200 and so many bytes.
    pub fn get(time: SystemTime, uri: Uri, bytes: u64) -> Self {
        Self {
            time,
            client: String::new(),
            user: None,
            host: None,
            method: Method::GET,
            uri,
            status: StatusCode::OK,
            bytes,
        }
    }
}

/// Who makes a simulated request: in the request's extensions, for the [principals](crate::Policy::per) of rules.
///
/// ```
/// use std::time::Duration;
/// use larder::simulate::Client;
/// use larder::{Policy, RequestHead};
/// let user = |request: &RequestHead<'_>| request.extensions.get::<Client>().and_then(|client| client.user.clone());
/// let policy = Policy::per(user, Duration::from_secs(30));
/// # drop(policy);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// Its address, as the trace has it.
    pub address: String,
    /// The user that it was authenticated as.
    pub user: Option<String>,
}
