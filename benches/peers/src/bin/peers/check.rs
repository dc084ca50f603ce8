//! Whether answers are right: a client that asks seldom, and looks at everything.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode, header};
use larder_peers::content;
use larder_peers::handler::{FIELDS, MADE, milliseconds};
use larder_peers::setup::{Setup, Subject};
use std::sync::Arc;

use crate::client::{Answer, Client};
use crate::servers::Server;

/// What clients ask for beside a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    Plainly,
    /// `Accept-Encoding: gzip`.
    Gzip,
    /// `If-None-Match`, with what is current.
    Conditionally,
}

impl Asking {
    pub fn fields(self, key: u64, setup: &Setup) -> Vec<(&'static str, String)> {
        match self {
            Self::Plainly => vec![],
            Self::Gzip => vec![("accept-encoding", "gzip".into())],
            Self::Conditionally => {
                let etag = content::etag(key, setup.size);
                vec![("if-none-match", etag.to_str().unwrap_or_default().into())]
            }
        }
    }
}

/// Beside a run.
pub struct Checker {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Found>,
}

#[derive(Clone, Debug, Default)]
pub struct Found {
    pub checked: u64,
    /// Answers 304, and with gzip.
    pub not_modified: u64,
    pub coded: u64,
    /// Milliseconds since the oldest answer was made.
    pub oldest: u64,
    pub wrong: Vec<String>,
}

/// From which keys the checker chooses.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    Of(u64),
    /// From here on, each once.
    From(u64),
}

const PAUSE: Duration = Duration::from_millis(10);

impl Checker {
    pub fn start(server: &Server, keys: Keys, asking: Asking) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (stop, setup, mut client) = (ended.clone(), server.setup.clone(), Client::new(server.address));
        let thread = spawn(move || {
            let mut found = Found::default();
            let mut random = 1;
            while !stop.load(Ordering::Relaxed) {
                random = content::mixed(random);
                let key = match keys {
                    Keys::Of(count) => random % count,
                    Keys::From(first) => first + found.checked,
                };
                // Every other time as somebody who isn't what the load is.
                let asking = if found.checked % 2 == 0 { asking } else { Asking::Plainly };
                let answer = client.get(&format!("/item/{key}"), &asking.fields(key, &setup));
                let verdict = answer.and_then(|answer| found.look(&answer, key, asking, &setup));
                found.checked += 1;
                found.wrong.extend(verdict.err());
                sleep(PAUSE);
            }
            found
        });
        Self { ended, thread }
    }

    pub fn stop(self) -> Found {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the checker doesn't panic")
    }
}

impl Found {
    /// One right answer, before anything is measured.
    pub fn once(server: &Server, key: u64, asking: Asking) -> Result<(), String> {
        let answer = Client::new(server.address).get(&format!("/item/{key}"), &asking.fields(key, &server.setup))?;
        Self::default().look(&answer, key, asking, &server.setup)
    }

    fn look(&mut self, answer: &Answer, key: u64, asking: Asking, setup: &Setup) -> Result<(), String> {
        let key = if setup.subject == Subject::BareOneBody { 0 } else { key };
        let etag = content::etag(key, setup.size);
        let wrong =
            |what: &str| Err(format!("/item/{key}, {asking:?}: {what}: {} {:?}", answer.status, answer.headers));
        if answer.status == StatusCode::NOT_MODIFIED && asking == Asking::Conditionally {
            self.not_modified += 1;
            let same = answer.headers.get(header::ETAG) == Some(&etag);
            return if same && answer.body.is_empty() { Ok(()) } else { wrong("no such 304") };
        }
        if answer.status != StatusCode::OK {
            return wrong("the status");
        }
        let coded = answer.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        self.coded += u64::from(coded);
        if coded && asking != Asking::Gzip {
            return wrong("it is coded, though nobody said that this may be");
        }
        if !matches_body(answer, coded, &content::body(key, setup.size)) {
            return wrong("another content");
        }
        // A coded form has a validator of its own, or none.
        if !coded && !has(&answer.headers, "etag", etag.to_str().unwrap_or_default()) {
            return wrong("the ETag");
        }
        if let Some((name, _)) = FIELDS.iter().find(|(name, text)| !has(&answer.headers, name, text)) {
            return wrong(name);
        }
        if !has(&answer.headers, "cache-control", &format!("max-age={}", setup.ttl)) {
            return wrong("Cache-Control");
        }
        self.look_at_age(&answer.headers, setup)
    }

    fn look_at_age(&mut self, headers: &HeaderMap, setup: &Setup) -> Result<(), String> {
        let Some(made) = made(headers) else { return Ok(()) };
        let age = milliseconds().saturating_sub(made);
        self.oldest = self.oldest.max(age);
        // Whole seconds count, up and down, and a second may pass on the way.
        let most = (setup.ttl + setup.swr + 2) * 1000;
        if age <= most { Ok(()) } else { Err(format!("an answer is {age} ms old, and may be {most}")) }
    }
}

/// When it says that it was made.
pub fn made(headers: &HeaderMap) -> Option<u64> {
    headers.get(MADE)?.to_str().ok()?.parse().ok()
}

fn matches_body(answer: &Answer, coded: bool, expected: &[u8]) -> bool {
    if !coded {
        return answer.body == expected;
    }
    let mut decoded = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut decoded).is_ok() && decoded == expected
}

/// Whether the field has this text, alone or among others.
fn has(headers: &HeaderMap, name: &str, text: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|value| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains(&text.to_ascii_lowercase())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use larder_peers::subjects;

    use super::*;

    const KEY: u64 = 7;

    /// What the handler answers.
    fn right(setup: &Setup) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let request = http::Request::get(format!("/item/{KEY}")).body(()).expect("a request");
        let (parts, body) = runtime.block_on(subjects::handler(setup).answer(request)).into_parts();
        let body = runtime.block_on(http_body_util::BodyExt::collect(body)).expect("a body").to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn setup() -> Setup {
        Setup { stamped: true, ..Setup::of(Subject::Larder, 300, 10) }
    }

    fn verdict(asking: Asking, change: impl FnOnce(&mut Answer)) -> Result<(), String> {
        let setup = setup();
        let mut answer = right(&setup);
        change(&mut answer);
        Found::default().look(&answer, KEY, asking, &setup)
    }

    fn gzip(answer: &mut Answer) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&answer.body).expect("memory");
        answer.body = encoder.finish().expect("memory").into();
        answer.headers.insert("content-encoding", "gzip".parse().expect("a value"));
    }

    fn not_modified(answer: &mut Answer) {
        (answer.status, answer.body) = (StatusCode::NOT_MODIFIED, Bytes::new());
    }

    fn set(name: &'static str, value: &'static str) -> impl FnOnce(&mut Answer) {
        move |answer| drop(answer.headers.insert(name, value.parse().expect("a value")))
    }

    #[test]
    fn the_handlers_answers_are_right_in_every_form() {
        assert_eq!(verdict(Asking::Plainly, |_| {}), Ok(()));
        assert_eq!(verdict(Asking::Gzip, |_| {}), Ok(()));
        assert_eq!(verdict(Asking::Gzip, gzip), Ok(()));
        assert_eq!(verdict(Asking::Conditionally, |_| {}), Ok(()));
        assert_eq!(verdict(Asking::Conditionally, not_modified), Ok(()));
    }

    #[test]
    fn whatever_is_wrong_with_an_answer_is_found() {
        let other_content = |answer: &mut Answer| answer.body = content::body(KEY + 1, 300);
        assert!(verdict(Asking::Plainly, other_content).is_err());
        assert!(verdict(Asking::Plainly, |answer| answer.body.truncate(299)).is_err());
        assert!(verdict(Asking::Plainly, |answer| answer.status = StatusCode::NOT_FOUND).is_err());
        assert!(verdict(Asking::Plainly, not_modified).is_err());
        assert!(verdict(Asking::Plainly, gzip).is_err());
        assert!(verdict(Asking::Gzip, set("content-encoding", "gzip")).is_err());
        assert!(verdict(Asking::Plainly, set("etag", "\"another\"")).is_err());
        assert!(verdict(Asking::Plainly, set("cache-control", "no-store")).is_err());
        assert!(verdict(Asking::Plainly, set("x-made", "1000")).is_err());
        for (name, _) in FIELDS {
            assert!(verdict(Asking::Plainly, |answer| drop(answer.headers.remove(name))).is_err(), "{name}");
        }
        let wrong_validator = |answer: &mut Answer| {
            not_modified(answer);
            set("etag", "\"another\"")(answer);
        };
        assert!(verdict(Asking::Conditionally, wrong_validator).is_err());
    }
}
