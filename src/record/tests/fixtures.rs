//! Records of earlier versions, which are read for ever, in `tests/fixtures/records`; those of the version of now are also what is written, so that the
//! format can't change without its version.

use std::path::PathBuf;

use super::*;
use crate::cached::Storing;
use crate::compression::Coder;
use crate::downstream::Downstream;
use crate::rfc9111::freshness::LifetimeSource;
use crate::variance::Variance;

/// A record, and what it says.
struct Fixture {
    name: &'static str,
    format: RecordFormat,
    shift: ClockShift,
    response: StoredResponse,
}

fn fixtures() -> [Fixture; 5] {
    let of = |name, response| Fixture { name, format: RecordFormat::default(), shift: ClockShift::NONE, response };
    let received = moment(1_000_000_001).wall;
    let hour = ClockShift::between(received, received + Duration::from_secs(3600));
    [
        of("v1-plain", plain()),
        of("v1-everything", everything()),
        of("v1-not-found", not_found()),
        Fixture { format: keyed(), ..of("v1-keyed", usual()) },
        Fixture { shift: hour, ..of("v1-hour-ahead", usual()) },
    ]
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/records").join(name).with_extension("bin")
}

fn head(fields: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_bytes(value).expect("a value"));
    }
    map
}

/// As little as there can be.
fn plain() -> StoredResponse {
    let content = Bytes::from_static(b"the same for everybody");
    let (head, body) = SharedHeads::default().store(&head(&[("content-type", b"text/plain")]), &[], content);
    StoredResponse {
        head,
        body,
        form: Form::Fixed,
        terms: Terms { lifetime: Duration::from_secs(60), source: Some(LifetimeSource::MaxAge), ..Terms::default() },
        variance: Arc::default(),
        origin: Origin::default(),
        stamp: Stamp::new(0, 0x0102_0304_0506_0708, 0x1112_1314_1516_1718),
        upkeep: None,
        ..usual()
    }
}

/// An answer without content, of which nobody said for how long it is good.
fn not_found() -> StoredResponse {
    let fields = head(&[("date", b"Thu, 01 Jan 2026 00:00:00 GMT"), ("last-modified", b"never")]);
    let (head, body) = SharedHeads::default().store(&fields, &[header::AGE], Bytes::new());
    let terms =
        Terms { source: Some(LifetimeSource::Heuristic), initial_age: Duration::from_millis(1500), ..Terms::default() };
    StoredResponse { status: StatusCode::NOT_FOUND, head, body, terms, form: Form::Plain, ..plain() }
}

/// All that there can be.
fn everything() -> StoredResponse {
    let mut fields = head(&[
        ("content-type", b"text/html; charset=utf-8"),
        ("date", b"Thu, 01 Jan 2026 00:00:00 GMT"),
        ("etag", b"\"a-gzip9\""),
        ("content-encoding", b"gzip"),
        ("link", b"</a>; rel=next"),
        ("link", b"</b>; rel=prev"),
        ("x-text", b"gr\xfc\xdfe"),
        ("vary", b"accept-language, x-kind"),
    ]);
    let mut secret = HeaderValue::from_static("a token");
    secret.set_sensitive(true);
    fields.insert("x-secret", secret);
    let by = Coder { coding: Coding::Gzip, level: Some(9) };
    let (head, body) = SharedHeads::default().store(&fields, &OWN_FIELDS, gzipped());
    let asked = self::head(&[("accept-language", b"de, en;q=0.5")]);
    let names = [header::ACCEPT_LANGUAGE, header::HeaderName::from_static("x-kind")];
    let mut stamp = Stamp::new(7 << 32 | 9, 1, 2).in_partition(Some(3));
    stamp.tags = Some(Arc::new(Tags::of_parts([4, 5, 6].into(), "product:1\nseite:gr\u{fc}n", true)));
    let seconds = Duration::from_secs;
    StoredResponse {
        status: StatusCode::OK,
        head,
        body,
        form: Form::Coded { by, length: 30 },
        terms: Terms {
            lifetime: seconds(3600),
            source: Some(LifetimeSource::Handler),
            initial_age: Duration::from_millis(12_345),
            no_cache: true,
            no_stale: true,
            immutable: true,
            stale_while_revalidate: seconds(30),
            stale_if_error: seconds(300),
            for_authorized: true,
        },
        received: moment(1_000_000_001),
        variance: Arc::new(Variance::of(SmallVec::from_iter(names), &asked, Matching::Careful)),
        origin: Origin {
            replaced: Some(Arc::new(self::head(&[("cache-control", b"max-age=5"), ("pragma", b"x")]))),
            own_etag: true,
            own_last_modified: true,
            own_vary: true,
            handler: Some(Arc::new(Cached {
                storing: Storing::Shared(seconds(3600)),
                downstream: Some(seconds(1)),
                stale_while_revalidate: Some(seconds(30)),
                stale_if_error: None,
                tags: vec!["product:1".into()],
            })),
        },
        downstream: Some(Arc::new(Downstream {
            lifetime: seconds(10),
            from_each_answer: true,
            sliding: Some(seconds(5)),
            private: true,
            kept: ", must-revalidate".into(),
        })),
        stamp,
        regime: Regime { whole: u64::MAX, audience: 0x0807_0605_0403_0201 },
        keep: Duration::new(7200, 1),
        charge: None,
        upkeep: Upkeep::begun(
            Wanted { sliding: Some(seconds(5)), beta: Some(1.5), within: Some(seconds(2)), cost: 300_000 },
            7,
        ),
        route: Arc::default(),
    }
}

/// Thirty bytes, coded; the bytes are written out, since another release of a coder may make others.
fn gzipped() -> Bytes {
    const CODED: [u8; 23] = [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 75, 76, 196, 7, 0, 193, 211, 193, 107, 30, 0, 0, 0];
    Bytes::from_static(&CODED)
}

#[test]
fn records_of_every_version_are_read_for_ever() {
    for Fixture { name, format, shift, response } in fixtures() {
        let record = Bytes::from(std::fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}")));
        let read = format.decode(record, &key(), later(&response, Duration::ZERO), shift);
        let read = read.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(said(&read), said(&response), "{name}");
    }
}

#[test]
fn what_is_written_is_version_1_to_the_byte() {
    for Fixture { name, format, shift, response } in fixtures() {
        let record = format.encode(&response, &key(), shift);
        let known = std::fs::read(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            record, known,
            "{name}: a change of the format needs another version, and new fixtures beside these"
        );
    }
}

/// For the fixtures of a new version. Those that are there stay.
#[test]
#[ignore = "writes files that aren't there yet"]
fn write_fixtures_that_are_missing() {
    for Fixture { name, format, shift, response } in fixtures() {
        let file = file(name);
        if !file.exists() {
            std::fs::write(&file, format.encode(&response, &key(), shift)).expect("the fixture can be written");
        }
    }
}
