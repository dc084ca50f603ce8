//! `Accept-Encoding` (RFC 9110 §12.5.3): what nobody named is accepted only by `*`, one more member that refuses a coding refuses it, and the tags of
//! coded content can be taken back.
//!
//! Each line is one of the field; it is taken as an entity tag as well.

use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use larder::rfc9111::coding::{Accepts, Coding, coded_tag, plain_tag};

pub fn check(data: &[u8]) {
    let lines = super::values(data);
    let accepts = Accepts::of(&super::field(&ACCEPT_ENCODING, &lines));
    let text = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b","[..]).to_ascii_lowercase();
    let mentions = |name: &str| text.windows(name.len()).any(|part| part == name.as_bytes());
    for coding in Coding::ALL {
        let weight = accepts.weight(coding);
        assert!(weight <= 1000 && (!accepts.prefers(coding) || weight > 0));
        assert!(weight == 0 || mentions(coding.name()) || mentions("*"), "nobody named {coding:?}: {lines:?}");
        let refusal = HeaderValue::try_from(format!("{};q=0", coding.name())).expect("a value");
        let refused = Accepts::of(&super::field(&ACCEPT_ENCODING, lines.iter().chain([&refusal])));
        assert_eq!(refused.weight(coding), 0, "{lines:?}");
    }
    assert!(accepts.identity() || mentions("identity") || mentions("*"), "nobody ruled it out: {lines:?}");
    for line in &lines {
        let Some(coded) = coded_tag(line.as_bytes(), "gzip") else { continue };
        assert!(coded != line.as_bytes() && HeaderValue::from_bytes(&coded).is_ok());
        assert_eq!(plain_tag(&coded).as_deref(), Some(line.as_bytes()));
    }
}
