//! What the evidence comes to: a route's report from its [`Totals`], and the recommendations that it supports. Formulas and limits are in
//! `docs/report.md`.

use std::time::Duration;

use super::dimension::{Dimension, DimensionKind};
use super::explanation::{Cause, Parts};
use super::findings::{
    Advice, Comparison, KeySpace, PartEvidence, Recommendation, RequestPart, RouteReport, TtlOutcome, Verdict,
};
use super::ladder::LIFETIMES;
use super::requests::Requests;
use super::totals::{Compared, LadderTotals, RungTotals, Totals};
use crate::policy::{Audience, Policy, matches_bytes};

/// Fetches in the sample that have to be there before a lifetime is advised.
const FETCHES: u64 = 50;

/// How much of what could be avoided a lifetime has to avoid to be long enough.
const MOST_OF_IT: f64 = 0.8;

/// How much of all fetches a lifetime has to avoid to be worth a word.
const WORTH_IT: f64 = 0.2;

/// How many of the answers may be outdated because of it.
const OUTDATED: f64 = 0.01;

/// How much longer than the present one a lifetime has to be.
const LONGER: f64 = 1.2;

/// Answers that have to be compared before they are called different, or repetitions.
const COMPARED: u64 = 30;

/// Answers of a rule in shadow that have to be compared, and be the same, before it is called safe.
const SAFE: u64 = 100;

/// Pairs of requests with different credentials that have to be compared before an answer is believed to be for everybody.
const ACROSS: u64 = 30;

/// Values that a parameter or a field has to have before it is said to make keys many.
const MANY: u64 = 50;

/// What is known of a route beside what was observed.
pub(crate) struct Known<'a> {
    pub(crate) pattern: Option<&'a str>,
    pub(crate) policy: &'a Policy,
    pub(crate) requests: Requests,
    /// Answers to requests that bypassed which weren't looked at. They count like those that were.
    pub(crate) passed_over: u64,
}

impl Known<'_> {
    /// The evidence, and what follows from it.
    pub(crate) fn report(&self, totals: &Totals) -> (RouteReport, Vec<Recommendation>) {
        let report = self.evidence(totals);
        let saved_by_fewer_keys = |dimension: &Dimension| {
            let mean = report.handler_time.as_secs_f64() / report.fetches.max(1) as f64;
            Duration::try_from_secs_f64(mean * dimension.same_of_all()).unwrap_or(Duration::MAX)
        };
        let mut recommendations = Vec::new();
        recommendations.extend(self.longer(&report));
        recommendations.extend(self.cache(&report, totals));
        recommendations.extend(self.out_of_shadow(&report));
        let spaces = totals.dimensions.iter().zip(&report.key_space);
        for (dimension, space) in spaces.filter(|(_, space)| explodes(space)) {
            let advice = Advice::FewerKeys(space.clone());
            recommendations.push(self.recommend(advice, word_for_keys(space), saved_by_fewer_keys(dimension)));
        }
        (report, recommendations)
    }

    fn evidence(&self, totals: &Totals) -> RouteReport {
        let lifetime = totals.lifetime();
        let refreshes = totals.refreshes as f64;
        let refetched = &totals.refetched;
        let uncached = LadderTotals { all: totals.uncached.all + self.passed_over, ..totals.uncached.clone() };
        let is_longer = |outcome: &TtlOutcome| lifetime.is_none_or(|now| outcome.ttl > now);
        let comparison = (totals.compared.answers > 0).then(|| self.comparison(totals));
        let (shadow, repeats) = if self.policy.shadow { (comparison, None) } else { (None, comparison) };
        RouteReport {
            rule: self.pattern.map(str::to_owned),
            fetches: totals.fetches + self.passed_over,
            handler_time: self.handler_time(totals),
            requests: self.requests.all,
            hit_rate: self.requests.hit_rate(refreshes, 0.0),
            lifetime,
            missed: self.requests.missed.clone(),
            bypassed: self.requests.bypassed,
            refetches: refetched.ended,
            unchanged: refetched.unchanged,
            longer: self.outcomes(refetched, Some(refreshes)).filter(is_longer).collect(),
            uncached: self.outcomes(&uncached, None).collect(),
            key_space: totals.dimensions.iter().map(key_space).collect(),
            repeats,
            shadow,
        }
    }

    /// What the handler took, as if it had taken as long where nobody looked.
    fn handler_time(&self, totals: &Totals) -> Duration {
        let all = (totals.fetches + self.passed_over) as f64 / totals.fetches.max(1) as f64;
        Duration::try_from_secs_f64(totals.handler_time.as_secs_f64() * all).unwrap_or(Duration::MAX)
    }

    /// What each lifetime would have made of the fetches: of what is cached, of which so many were made behind answers; or, where nothing is
    /// cached, of all requests.
    fn outcomes(&self, ladder: &LadderTotals, refreshes: Option<f64>) -> impl Iterator<Item = TtlOutcome> {
        let fetches = ladder.fetches as f64;
        let outcome = move |(seconds, rung): (u32, &RungTotals)| {
            let avoided = rung.hits.saturating_sub(rung.earlier);
            let spared = avoided as f64 / fetches;
            let hit_rate = match refreshes {
                Some(refreshes) => self.requests.hit_rate(refreshes, spared * ladder.all as f64),
                None => Some(spared),
            };
            // What it would have fetched at other times costs as much as what it would have avoided.
            let saved = rung.saved as f64 * avoided as f64 / rung.hits.max(1) as f64;
            TtlOutcome {
                ttl: Duration::from_secs(seconds.into()),
                avoided,
                outdated: rung.stale,
                outdated_share: rung.stale as f64 / fetches,
                hit_rate,
                saves: Duration::from_secs_f64(saved / 1e6 * ladder.all as f64 / fetches),
            }
        };
        LIFETIMES.into_iter().zip(&ladder.rungs).filter(|_| ladder.ended > 0).map(outcome)
    }

    /// A longer lifetime for what is stored.
    fn longer(&self, report: &RouteReport) -> Option<Recommendation> {
        let now = report.lifetime?;
        let longer = report.longer.iter().filter(|outcome| outcome.ttl.as_secs_f64() >= LONGER * now.as_secs_f64());
        let outcome = best(longer, report.refetches, report.unchanged)?;
        let advice = Advice::LongerTtl { now, outcome, refetches: report.refetches, unchanged: report.unchanged };
        Some(self.recommend(advice, self.word_for_ttl(now, outcome.ttl), outcome.saves))
    }

    fn word_for_ttl(&self, now: Duration, ttl: Duration) -> String {
        let audience = match &self.policy.audience {
            Audience::Shared => format!("Policy::shared({})", written(ttl)),
            Audience::Guarded => format!("Policy::guarded({})", written(ttl)),
            Audience::Per(_) => format!("Policy::per(.., {})", written(ttl)),
            Audience::Origin | Audience::Bypass => {
                return format!("Cache-Control: max-age={} from the handler", ttl.as_secs());
            }
        };
        // Where responses live for another time than the rule says, it is the handler who is heard. Jitter takes half at most.
        let is_heard = self.policy.ttl.is_some_and(|own| now <= own && own <= now * 2);
        if is_heard || self.policy.overrides_origin { audience } else { format!("{audience}.override_origin()") }
    }

    /// A lifetime for what isn't stored, if it repeats itself, in the words of an audience that nobody's answer leaves.
    fn cache(&self, report: &RouteReport, totals: &Totals) -> Option<Recommendation> {
        let (why, comparison) = (totals.repeats?, report.repeats.clone()?);
        let ladder = &totals.uncached;
        let outcome = best(report.uncached.iter(), ladder.ended, ladder.unchanged)?;
        let ttl = written(outcome.ttl);
        let audience = match &comparison.verdict {
            Verdict::Same if self.credentials(totals) == 0 => format!("Policy::guarded({ttl})"),
            Verdict::Same => format!("Policy::shared({ttl})"),
            Verdict::SameForOneUser => format!("Policy::per(.., {ttl})"),
            Verdict::DependsOn(parts) if has_credential(parts) => {
                format!("Policy::per(.., {ttl})")
            }
            Verdict::DependsOn(parts) => {
                let words: Option<Vec<_>> = parts.iter().map(|part| word_for_part(&part.part)).collect();
                format!("Policy::guarded({ttl}){}", words?.concat())
            }
            Verdict::TooFew { .. } | Verdict::MayDependOn(_) | Verdict::OverTime { .. } => return None,
        };
        let advice = Advice::Cache { why, outcome, comparison };
        Some(self.recommend(advice, format!("{audience}, with .shadow() first"), outcome.saves))
    }

    fn out_of_shadow(&self, report: &RouteReport) -> Option<Recommendation> {
        let comparison = report.shadow.clone()?;
        let ttl = self.policy.ttl.unwrap_or_default();
        let at_ttl = report.uncached.iter().rfind(|outcome| outcome.ttl <= ttl).or(report.uncached.first());
        let saves = at_ttl.map_or(Duration::ZERO, |outcome| outcome.saves);
        match &comparison.verdict {
            Verdict::TooFew { .. } | Verdict::SameForOneUser => None,
            Verdict::Same => Some(self.recommend(Advice::Safe(comparison), "the rule without .shadow()".into(), saves)),
            Verdict::DependsOn(parts) | Verdict::MayDependOn(parts) if has_credential(parts) => {
                Some(self.recommend(Advice::Unsafe(comparison), "Policy::per(..)".into(), Duration::ZERO))
            }
            Verdict::DependsOn(parts) => {
                let word = parts.iter().filter_map(|part| word_for_part(&part.part)).collect();
                Some(self.recommend(Advice::Unsafe(comparison), word, Duration::ZERO))
            }
            Verdict::MayDependOn(_) | Verdict::OverTime { .. } => {
                Some(self.recommend(Advice::Unsafe(comparison), "Policy::bypass()".into(), Duration::ZERO))
            }
        }
    }

    fn recommend(&self, advice: Advice, word: String, saves: Duration) -> Recommendation {
        Recommendation { rule: self.pattern.map(str::to_owned), advice, word, saves }
    }

    /// The parts of requests that say who asks.
    fn credentials(&self, totals: &Totals) -> Parts {
        let ignored =
            |name: &str| self.policy.ignored_cookies.iter().any(|pattern| matches_bytes(pattern, name.as_bytes()));
        totals.names.which(|part| match part {
            RequestPart::Cookie(name) => !ignored(name),
            part => part.is_credential(),
        })
    }

    fn comparison(&self, totals: &Totals) -> Comparison {
        let credentials = self.credentials(totals);
        let Compared { answers, differing, not_storable, keys, explanation } = &totals.compared;
        let across_credentials = u64::from(explanation.with_any(credentials).both());
        let needed = if self.policy.shadow && explanation.all().different == 0 { SAFE } else { COMPARED };
        let is_for_all = !totals.varies_by_user && (credentials == 0 || across_credentials >= ACROSS);
        let is_enough = self.policy.is_partitioned() || is_for_all;
        let verdict = match explanation.cause() {
            _ if *answers < needed => Verdict::TooFew { missing: needed - answers },
            None if is_enough => Verdict::Same,
            None => Verdict::SameForOneUser,
            Some(Cause::Parts(parts)) => Verdict::DependsOn(evidence(totals, parts)),
            Some(Cause::AnyOf(parts)) => Verdict::MayDependOn(evidence(totals, parts)),
            Some(Cause::Nothing) => {
                let equal = explanation.of_equal_requests();
                let (equal_requests, different) = (u64::from(equal.both()), u64::from(equal.different));
                Verdict::OverTime { equal_requests, different }
            }
        };
        let (answers, differing, not_storable, keys) = (*answers, *differing, *not_storable, keys.estimate());
        Comparison { answers, keys, differing, across_credentials, not_storable, verdict }
    }
}

/// The shortest lifetime that avoids most of what can be avoided; where none does, the one that avoids most.
fn best<'o>(outcomes: impl Iterator<Item = &'o TtlOutcome> + Clone, ended: u64, unchanged: u64) -> Option<TtlOutcome> {
    if ended < FETCHES {
        return None;
    }
    let timely = outcomes.filter(|outcome| outcome.outdated_share <= OUTDATED);
    let enough = |outcome: &&&TtlOutcome| outcome.avoided as f64 >= MOST_OF_IT * unchanged as f64;
    let shortest = timely.clone().collect::<Vec<_>>();
    // Of those that avoid as much the first, which is the shortest.
    let most = || shortest.iter().rev().max_by_key(|outcome| outcome.avoided);
    let best = shortest.iter().find(enough).or_else(most)?;
    (best.avoided as f64 >= WORTH_IT * ended as f64 && best.avoided > 0).then_some(**best)
}

/// A duration as it stands in code.
fn written(ttl: Duration) -> String {
    format!("Duration::from_secs({})", ttl.as_secs())
}

fn evidence(totals: &Totals, parts: Parts) -> Vec<PartEvidence> {
    let bits = (0..64).map(|bit| 1 << bit).filter(|bit| parts & bit != 0);
    let of = |bit| {
        let counts = totals.compared.explanation.with_any(bit);
        let (both_differ, answers_same) = (counts.different.into(), counts.same.into());
        totals.names.of(bit).into_iter().map(move |part| PartEvidence { part, both_differ, answers_same })
    };
    bits.flat_map(of).collect()
}

fn key_space(dimension: &Dimension) -> KeySpace {
    KeySpace {
        kind: dimension.kind,
        name: dimension.name.to_string(),
        values: dimension.values(),
        same: dimension.same,
        different: dimension.different,
    }
}

/// Whether it makes keys many for nothing.
fn explodes(space: &KeySpace) -> bool {
    space.values >= MANY && space.same >= COMPARED && !space.matters()
}

fn word_for_keys(space: &KeySpace) -> String {
    match space.kind {
        DimensionKind::Query => format!(".ignore_query([{:?}])", space.name),
        DimensionKind::Vary => format!("the handler's Vary without {}", space.name),
        DimensionKind::KeyHeader => format!("the rule without .key_header({:?})", space.name),
    }
}

fn has_credential(parts: &[PartEvidence]) -> bool {
    parts.iter().any(|evidence| evidence.part.is_credential())
}

/// What puts a part of the request into the key.
fn word_for_part(part: &RequestPart) -> Option<String> {
    match part {
        RequestPart::Field(name) => Some(format!(".key_header({name:?})")),
        RequestPart::Cookie(name) => Some(format!(".key_cookies([{name:?}])")),
        RequestPart::Parameter(name) => Some(format!(", without ignoring the query parameter {name:?}")),
        RequestPart::Other => None,
    }
}
