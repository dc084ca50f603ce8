//! Two requests that a handler could answer differently never share a stored response.

mod support;

use larder::{Policy, Scheme};
use proptest::prelude::*;
use support::exchange::*;

/// What a handler may look at: the target, the host, and the fields by which proxies tell how the client addressed them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    path: String,
    query: Option<String>,
    host: String,
    fields: Vec<(&'static str, String)>,
}

const PLAIN: [&str; 4] = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"];

/// Few letters and many separators, so that collisions would be found.
fn asked() -> impl Strategy<Value = Asked> {
    let plain = (prop::sample::select(PLAIN.to_vec()), "[ab,:;= /]{0,4}");
    let field = prop_oneof![plain, forwarded()];
    let parts = (
        "/[ab%/?=&;,.]{0,4}",
        prop::option::of("[ab=&;/?,]{0,4}"),
        "[aAbB]{1,2}(:80|:8)?",
        prop::collection::vec(field, 0..3),
    );
    parts.prop_map(|(path, query, host, fields)| Asked { path: path.replace('?', "%3F"), query, host, fields })
}

/// `Forwarded` as honest proxies write it, and as nobody should.
fn forwarded() -> impl Strategy<Value = (&'static str, String)> {
    "((host|host |Host|proto|for|by)=(a|b|\"a\"|\"|\",\"|\";host=b\")(,|;|, )?){0,3}"
        .prop_map(|value| ("forwarded", value))
}

impl Asked {
    fn request(&self) -> http::Request<http_body_util::Full<bytes::Bytes>> {
        let query = self.query.as_ref().map_or(String::new(), |query| format!("?{query}"));
        let mut fields = vec![("host", self.host.as_str())];
        fields.extend(self.fields.iter().map(|(name, value)| (*name, value.as_str())));
        request("GET", &format!("{}{query}", self.path), &fields)
    }
}

/// What the handler tells of a request: all that it may have used. Hosts are compared as RFC 9110 §4.2.3 compares them. Of `Forwarded`
/// it reads what servers commonly do: from the first and from the last element, the host and the protocol.
fn seen(head: &http::request::Parts) -> String {
    let host = head.headers["host"].to_str().expect("text").to_ascii_lowercase();
    let host = host.strip_suffix(":80").unwrap_or(&host).to_owned();
    let lines = |name: &str| -> Vec<String> {
        head.headers.get_all(name).iter().map(|line| line.to_str().expect("text").to_owned()).collect()
    };
    let plain = PLAIN.map(lines);
    let forwarded = lines("forwarded");
    let read = |element: Option<&str>| {
        ["host", "proto"].map(|wanted| {
            element.unwrap_or_default().split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
            })
        })
    };
    let first = read(forwarded.first().and_then(|line| line.split(',').next()));
    let last = read(forwarded.last().and_then(|line| line.rsplit(',').next()));
    format!("{host} {:?} {plain:?} {first:?} {last:?}", head.uri.path_and_query())
}

fn echo() -> House {
    let handler = Handler::new(|head, _| answer(200, &[("cache-control", "max-age=60")], seen(head)));
    House::new(handler)
}

/// Through the whole cache what the units promise: only what no handler can tell apart is one variant.
#[tokio::test]
async fn values_that_a_handler_can_tell_apart_have_variants_of_their_own() {
    // The field, two requests' lines of it, and whether they share.
    let rows: [(&str, &[&str], &[&str], bool); 12] = [
        ("accept", &["a/b;q=900"], &["a/b;q=0.9"], false),
        ("accept", &["a/b;q=0.90"], &["a/b;q=0.9"], true),
        ("accept", &["a/b;v=A"], &["a/b;v=a"], false),
        ("accept", &["A/b; V=A"], &["a/B;v=A"], true),
        ("accept", &["a/b, c/d"], &["a/b", "c/d"], true),
        ("accept-language", &["e n"], &["en"], false),
        ("accept-language", &["en, de"], &["de, en"], false),
        ("accept-encoding", &["gzip, br"], &["br,gzip"], true),
        ("accept-encoding", &["gzip"], &["gzip;q=0"], false),
        ("x-a", &["1, 2"], &["1", "2"], false),
        ("x-a", &["a"], &["A"], false),
        ("x-a", &[], &[""], false),
    ];
    for (name, one, other, share) in rows {
        let handler = Handler::new(move |head, _| {
            let lines: Vec<_> = head.headers.get_all(name).iter().collect();
            answer(200, &[("cache-control", "max-age=60"), ("vary", name)], format!("{lines:?}"))
        });
        let house = House::new(handler);
        let ask = async |lines: &[&str]| {
            let fields: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
            house.ask("/", &fields).await
        };
        let why = format!("{name}: {one:?} and {other:?}");
        assert_eq!(ask(one).await.x_cache, "MISS", "{why}");
        assert_eq!(ask(one).await.x_cache, "HIT", "{why}: the same");
        let second = ask(other).await;
        assert_eq!(second.cache_status.contains("; hit"), share, "{why}: {}", second.cache_status);
        assert!(share || second.body == format!("{other:?}"), "{why}: {}", second.body);
        assert!(share || ask(one).await.body == format!("{one:?}"), "{why}: both are there");
    }
}

/// What `http` and `https` answer may differ, where the application says by which of them a request came.
#[tokio::test]
async fn a_scheme_that_the_application_knows_keeps_answers_apart() {
    let handler = Handler::new(|head, n| {
        let scheme = head.extensions.get::<Scheme>().map(|scheme| scheme.0);
        answer(200, &[("cache-control", "max-age=60")], format!("{scheme:?} {n}"))
    });
    let house = House::new(handler);
    let by = |method: &str, scheme: Option<&'static str>| {
        let mut request = request(method, "/", &[]);
        scheme.map(|scheme| request.extensions_mut().insert(Scheme(scheme)));
        request
    };
    let schemes = [None, Some("http"), Some("https")];
    for round in 0..2 {
        for x_cache in ["MISS", "HIT"] {
            for scheme in schemes {
                let exchange = house.exchange(by("GET", scheme)).await;
                assert_eq!(exchange.x_cache, x_cache, "{scheme:?}, round {round}");
                assert!(exchange.body.starts_with(&format!("{scheme:?} ")), "{scheme:?}: {}", exchange.body);
            }
        }
        // A write by one scheme is a write to the resource.
        house.exchange(by("POST", Some("http"))).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_that_differ_never_share_an_answer(all in prop::collection::vec(asked(), 2..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let house = echo();
            for asked in &all {
                let request = asked.request();
                let expected = seen(&request.clone().into_parts().0);
                let exchange = house.exchange(request).await;
                prop_assert_eq!(exchange.body, expected, "{}: {:?} among {:?}", exchange.x_cache, asked, all);
            }
            Ok(())
        })?;
    }

    /// The same again where all else is equal, so that there is more to collide.
    #[test]
    fn requests_that_were_forwarded_differently_never_share_an_answer(
        all in prop::collection::vec(prop::collection::vec(forwarded(), 0..3), 2..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let house = echo();
            for fields in &all {
                let asked = Asked { path: "/".into(), query: None, host: "a".into(), fields: fields.clone() };
                let request = asked.request();
                let expected = seen(&request.clone().into_parts().0);
                let exchange = house.exchange(request).await;
                prop_assert_eq!(exchange.body, expected, "{}: {:?}", exchange.x_cache, fields);
            }
            Ok(())
        })?;
    }

    /// The reverse: equal requests do share, or the first promise would be kept by storing nothing.
    #[test]
    fn equal_requests_share_an_answer(asked in asked()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let house = echo();
            house.exchange(asked.request()).await;
            prop_assert_eq!(house.exchange(asked.request()).await.x_cache, "HIT");
            Ok(())
        })?;
    }

    /// A rule that sorts, drops and selects decides what the handler sees, so that an answer can't depend on what the key leaves out.
    #[test]
    fn what_a_rule_leaves_out_of_the_key_no_handler_sees(queries in prop::collection::vec("[abu=&;]{0,8}", 2..8)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let policy = Policy::shared(MINUTE).sort_query().ignore_query(["u*"]);
            let handler = Handler::new(|head, _| answer(200, &[], format!("{:?}", head.uri.query())));
            let house = House::with(handler, |layer| layer.otherwise(policy));
            for query in &queries {
                let target = format!("/?{query}");
                let shared = house.get(&target).await.body;
                let alone = house.ask(&target, &[("cache-control", "no-cache")]).await.body;
                prop_assert_eq!(shared, alone, "{} among {:?}", target, queries);
            }
            Ok(())
        })?;
    }
}
