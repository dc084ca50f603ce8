//! `GET /report`: what the handler's answers have taught about the rules, with the evidence.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{Admin, Json};
use crate::report::{
    Advice, Comparison, KeySpace, PartEvidence, Recommendation, Report, RequestPart, RouteReport, TtlOutcome, Verdict,
};

pub(super) async fn report(State(admin): State<Arc<Admin>>) -> Json<Value> {
    let report: Report = admin.handle.report();
    Json(json!({
        "recommendations": report.recommendations.iter().map(recommendation).collect::<Vec<_>>(),
        "routes": report.routes.iter().map(route).collect::<Vec<_>>(),
        "text": report.to_string(),
    }))
}

fn recommendation(advised: &Recommendation) -> Value {
    let (kind, evidence) = match &advised.advice {
        Advice::LongerTtl { now, outcome, refetches, unchanged } => (
            "longer-ttl",
            json!({
                "ttl_seconds_now": now.as_secs_f64(),
                "outcome": ttl_outcome(outcome),
                "refetches": refetches,
                "unchanged": unchanged,
            }),
        ),
        Advice::Cache { why, outcome, comparison: compared } => {
            ("cache", json!({"why": why.as_str(), "outcome": ttl_outcome(outcome), "comparison": comparison(compared)}))
        }
        Advice::FewerKeys(space) => ("fewer-keys", key_space(space)),
        Advice::Safe(compared) => ("safe", comparison(compared)),
        Advice::Unsafe(compared) => ("unsafe", comparison(compared)),
    };
    json!({
        "rule": advised.rule,
        "kind": kind,
        "word": advised.word,
        "saves_seconds": advised.saves.as_secs_f64(),
        "evidence": evidence,
        "text": advised.to_string(),
    })
}

fn route(route: &RouteReport) -> Value {
    let missed: Map<String, Value> =
        route.missed.iter().map(|(cause, count)| (cause.as_str().to_owned(), json!(count))).collect();
    json!({
        "rule": route.rule,
        "fetches": route.fetches,
        "handler_seconds": route.handler_time.as_secs_f64(),
        "requests": route.requests,
        "hit_rate": route.hit_rate,
        "lifetime_seconds": route.lifetime.map(|lifetime| lifetime.as_secs_f64()),
        "missed": missed,
        "bypassed": route.bypassed,
        "refetches": route.refetches,
        "unchanged": route.unchanged,
        "longer": route.longer.iter().map(ttl_outcome).collect::<Vec<_>>(),
        "uncached": route.uncached.iter().map(ttl_outcome).collect::<Vec<_>>(),
        "key_space": route.key_space.iter().map(key_space).collect::<Vec<_>>(),
        "repeats": route.repeats.as_ref().map(comparison),
        "shadow": route.shadow.as_ref().map(comparison),
    })
}

fn ttl_outcome(outcome: &TtlOutcome) -> Value {
    json!({
        "ttl_seconds": outcome.ttl.as_secs_f64(),
        "avoided": outcome.avoided,
        "outdated": outcome.outdated,
        "outdated_share": outcome.outdated_share,
        "hit_rate": outcome.hit_rate,
        "saves_seconds": outcome.saves.as_secs_f64(),
    })
}

fn key_space(space: &KeySpace) -> Value {
    json!({
        "kind": space.kind.as_str(),
        "name": space.name,
        "values": space.values,
        "same": space.same,
        "different": space.different,
    })
}

fn comparison(compared: &Comparison) -> Value {
    let none = Vec::new();
    let (verdict, parts) = match &compared.verdict {
        Verdict::TooFew { .. } => ("too-few", &none),
        Verdict::Same => ("same", &none),
        Verdict::SameForOneUser => ("same-for-one-user", &none),
        Verdict::DependsOn(parts) => ("depends-on", parts),
        Verdict::MayDependOn(parts) => ("may-depend-on", parts),
        Verdict::OverTime { .. } => ("over-time", &none),
    };
    json!({
        "answers": compared.answers,
        "keys": compared.keys,
        "differing": compared.differing,
        "across_credentials": compared.across_credentials,
        "not_storable": compared.not_storable,
        "verdict": verdict,
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
        "text": compared.to_string(),
    })
}

fn part(evidence: &PartEvidence) -> Value {
    let kind = match &evidence.part {
        RequestPart::Field(_) => "field",
        RequestPart::Cookie(_) => "cookie",
        RequestPart::Parameter(_) => "query-parameter",
        RequestPart::Other => "other",
    };
    json!({
        "kind": kind,
        "name": evidence.part.name(),
        "both_differ": evidence.both_differ,
        "answers_same": evidence.answers_same,
    })
}
