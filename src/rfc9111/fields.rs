//! Fields that are never stored (RFC 9111 §3.1), and the `Age` that goes out (§5.1).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use smallvec::SmallVec;

use super::list::members;

/// Whether the field belongs to one connection or one proxy, so that a stored response never has it (§3.1, RFC 9110 §7.6.1).
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authentication-info"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Whether the field was made for one exchange, so that it would be wrong or telling in the answer to another: identifiers of
/// requests and traces, and timings.
pub fn is_of_one_exchange(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-request-id"
            | "request-id"
            | "x-correlation-id"
            | "x-amzn-requestid"
            | "x-amzn-trace-id"
            | "x-trace-id"
            | "x-b3-traceid"
            | "x-b3-spanid"
            | "traceparent"
            | "tracestate"
            | "traceresponse"
            | "server-timing"
            | "x-runtime"
            | "x-response-time"
    )
}

/// The fields that `Connection` nominates (RFC 9110 §7.6.1).
pub fn connection_options(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| members(line.as_bytes()))
        .filter_map(|name| HeaderName::from_bytes(name).ok())
        .collect()
}

/// An age as the value of `Age`, in whole seconds.
pub fn age(age: Duration) -> HeaderValue {
    HeaderValue::from(age.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_options_are_names_only() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("Close, X-A"));
        headers.append("connection", HeaderValue::from_static("not a name, x-b"));
        assert_eq!(connection_options(&headers).as_slice(), ["close", "x-a", "x-b"]);
    }

    #[test]
    fn what_is_of_one_connection_or_one_exchange() {
        for (name, hop_by_hop, exchange) in [
            ("connection", true, false),
            ("transfer-encoding", true, false),
            ("x-request-id", false, true),
            ("server-timing", false, true),
            ("traceparent", false, true),
            ("content-type", false, false),
            ("x-request", false, false),
        ] {
            let field = HeaderName::from_static(name);
            assert_eq!((is_hop_by_hop(&field), is_of_one_exchange(&field)), (hop_by_hop, exchange), "{name}");
        }
    }

    #[test]
    fn an_age_is_cut_to_whole_seconds() {
        assert_eq!(age(Duration::from_millis(2999)), "2");
        assert_eq!(age(Duration::MAX), u64::MAX.to_string());
    }
}
