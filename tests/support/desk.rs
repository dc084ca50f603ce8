//! A cache with its admin API. Each answer of the API is held against `docs/openapi.json`.
#![allow(dead_code, reason = "each test file uses a part")]

use axum::Router;
use axum::body::Body;
use http::Request;
use larder::admin::{self, Access, Token};
use larder::{CacheHandle, CacheLayer};
use serde_json::Value;
use tower::ServiceExt;

use super::exchange::{Exchange, Handler, House};
use super::schema::Description;

pub const TOKEN: &str = "0f9e6a51c4b27d380f9e6a51c4b27d38";

/// Where the cache is, and where its API is.
pub struct Desk {
    pub house: House,
    pub handle: CacheHandle,
    pub router: Router,
    pub description: Description,
}

/// What the API answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub json: Value,
    pub exchange: Exchange,
}

impl Desk {
    pub fn new(handler: Handler, layer: CacheLayer) -> Self {
        Self::guarded(handler, layer, Access::token(Token::new(TOKEN).expect("a token")))
    }

    pub fn guarded(handler: Handler, layer: CacheLayer, access: Access) -> Self {
        let house = House::around(handler, layer);
        let handle = house.handle.clone();
        Self { router: admin::router(handle.clone(), access), house, handle, description: description() }
    }

    /// Sends a request as it is, and holds the answer against the description.
    pub async fn send(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.expect("it has no errors");
        let exchange = Exchange::read(response).await.expect("a clean end");
        assert_eq!(exchange.field("cache-control"), "no-store", "{method} {path}");
        assert_eq!(exchange.field("x-content-type-options"), "nosniff", "{method} {path}");
        let content_type = exchange.field("content-type");
        let json = serde_json::from_str(&exchange.body).unwrap_or_default();
        if exchange.status >= 400 && content_type == "application/problem+json" {
            self.assert_problem(exchange.status, &json);
        }
        if let Some(template) = self.template(method.as_str(), &path)
            && content_type != "application/octet-stream"
        {
            self.description.assert_describes(method.as_str(), template, exchange.status, content_type, &exchange.body);
        }
        Reply { status: exchange.status, json, exchange }
    }

    fn assert_problem(&self, status: u16, problem: &Value) {
        assert_eq!(problem["status"], status, "{problem}");
        for name in ["type", "title", "detail"] {
            assert!(problem[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {problem}");
        }
    }

    /// The path of the description that this one is of.
    pub fn template(&self, method: &str, path: &str) -> Option<&str> {
        let is_it = |template: &str| match template.split_once('{') {
            None => template == path,
            Some((before, after)) => {
                let behind = after.split_once('}').map_or("", |(_, behind)| behind);
                let rest = path.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind));
                rest.is_some_and(|rest| !rest.is_empty() && (before != "/entries/" || !rest.contains('/')))
            }
        };
        let paths = self.description.0["paths"].as_object()?;
        let (template, item) = paths.iter().find(|(template, _)| is_it(template))?;
        item.get(method.to_lowercase()).map(|_| template.as_str())
    }

    pub async fn get(&self, target: &str) -> Reply {
        self.send(request("GET", target).body(Body::empty()).expect("a request")).await
    }

    pub async fn post(&self, target: &str) -> Reply {
        self.send(request("POST", target).body(Body::empty()).expect("a request")).await
    }

    pub async fn post_json(&self, target: &str, content: &str) -> Reply {
        let request = request("POST", target).header("content-type", "application/json");
        self.send(request.body(Body::from(content.to_owned())).expect("a request")).await
    }

    /// A change of the configuration, as `json` or `toml`.
    pub async fn put(&self, target: &str, kind: &str, content: &str) -> Reply {
        let request = request("PUT", target).header("content-type", format!("application/{kind}"));
        self.send(request.body(Body::from(content.to_owned())).expect("a request")).await
    }

    /// The fields and messages of all that was wrong.
    pub fn problems(reply: &Reply) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = reply.json["problems"].as_array().cloned().unwrap_or_default();
        all.iter().map(|problem| (text(&problem["field"]), text(&problem["message"]))).collect()
    }
}

/// A request from who has the token.
pub fn request(method: &str, target: &str) -> http::request::Builder {
    let request = Request::builder().method(method).uri(target).header("host", "localhost");
    request.header("authorization", format!("Bearer {TOKEN}"))
}

pub fn description() -> Description {
    Description(serde_json::from_str(include_str!("../../docs/openapi.json")).expect("it is JSON"))
}
