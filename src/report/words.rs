//! The report as people read it.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use super::findings::{
    Advice, Comparison, KeySpace, Recommendation, Report, RequestPart, RouteReport, TtlOutcome, Verdict,
};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.recommendations.is_empty() {
            writeln!(f, "Nothing to recommend yet.")?;
        }
        for (n, recommendation) in self.recommendations.iter().enumerate() {
            writeln!(f, "{}. {recommendation}", n + 1)?;
        }
        for route in &self.routes {
            write!(f, "\n{route}")?;
        }
        Ok(())
    }
}

impl Display for Recommendation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", Rule(self.rule.as_deref()), self.advice)?;
        if !self.saves.is_zero() {
            write!(f, "\n   saves {} of the handler's time so far", Lasting(self.saves))?;
        }
        write!(f, "\n   => {}", self.word)
    }
}

impl Display for Advice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongerTtl { now, outcome, refetches, unchanged } => write!(
                f,
                "of {refetches} sampled refetches {unchanged} brought the same content; {} instead of {}: {outcome}",
                Lasting(outcome.ttl),
                Lasting(*now)
            ),
            Self::Cache { why, outcome, comparison } => write!(
                f,
                "not cached ({}), and repeats itself; {}: {outcome}; {comparison}",
                why.as_str(),
                Lasting(outcome.ttl)
            ),
            Self::FewerKeys(space) => write!(f, "{space}"),
            Self::Safe(comparison) => write!(f, "safe to share: {comparison}"),
            Self::Unsafe(comparison) => write!(f, "not safe to share: {comparison}"),
        }
    }
}

impl Display for TtlOutcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} fetches avoided, {} answers outdated", self.avoided, self.outdated)?;
        write!(f, " ({})", Percent(self.outdated_share))?;
        self.hit_rate.map_or(Ok(()), |rate| write!(f, ", hit rate {}", Percent(rate)))
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { answers, keys, differing, across_credentials, .. } = self;
        match &self.verdict {
            Verdict::TooFew { missing } => {
                write!(f, "{answers} answers compared, {differing} of them different; {missing} more are needed")
            }
            Verdict::Same => {
                write!(f, "the same in {answers} comparisons over {keys} keys")?;
                let across = *across_credentials;
                if across > 0 { write!(f, ", {across} pairs of them with different credentials") } else { Ok(()) }
            }
            Verdict::SameForOneUser => write!(
                f,
                "the same in {answers} comparisons over {keys} keys, but only {across_credentials} pairs had different credentials"
            ),
            Verdict::DependsOn(parts) | Verdict::MayDependOn(parts) => {
                let (depending, and) = match self.verdict {
                    Verdict::DependsOn(_) => ("depending on", " and "),
                    _ => ("perhaps depending on", " or "),
                };
                write!(f, "{differing} of {answers} answers were different, {depending} ")?;
                for (n, part) in parts.iter().enumerate() {
                    let and = if n == 0 { "" } else { and };
                    write!(f, "{and}{} (both differ in {} pairs,", part.part, part.both_differ)?;
                    write!(f, " it alone in {})", part.answers_same)?;
                }
                Ok(())
            }
            Verdict::OverTime { equal_requests, different } => write!(
                f,
                "{differing} of {answers} answers were different, over time or at random: \
                 of {equal_requests} pairs of equal requests {different} had different answers"
            ),
        }
    }
}

impl Display for RequestPart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = self.name().escape_debug();
        match self {
            Self::Field(_) => write!(f, "the field {name}"),
            Self::Cookie(_) => write!(f, "the cookie {name}"),
            Self::Parameter(_) => write!(f, "the ignored query parameter {name}"),
            Self::Other => write!(f, "{name}"),
        }
    }
}

impl Display for KeySpace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.kind.as_str(), self.name.escape_debug());
        write!(f, "{kind} {name} had about {} values; of {} pairs", self.values, self.same + self.different)?;
        write!(f, " that differed in it alone {} had different content", self.different)
    }
}

impl Display for RouteReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let time = Lasting(self.handler_time);
        write!(f, "{}: {} fetches, {time} of the handler's time", Rule(self.rule.as_deref()), self.fetches)?;
        if let Some(rate) = self.hit_rate {
            write!(f, ", hit rate {} of {} requests", Percent(rate), self.requests)?;
        }
        if let Some(lifetime) = self.lifetime {
            write!(f, ", fresh for {}", Lasting(lifetime))?;
        }
        let mut separator = "\n   missed: ";
        for (cause, count) in &self.missed {
            write!(f, "{separator}{} {count}", cause.as_str())?;
            separator = ", ";
        }
        if self.bypassed > 0 {
            write!(f, "\n   bypassed: {}", self.bypassed)?;
        }
        writeln!(f)?;
        let mut last = 0;
        for outcome in self.longer.iter().chain(&self.uncached) {
            // A longer one that avoids no more is of no interest.
            if outcome.avoided != std::mem::replace(&mut last, outcome.avoided) {
                writeln!(f, "   {}: {outcome}", Lasting(outcome.ttl))?;
            }
        }
        for space in &self.key_space {
            writeln!(f, "   {space}")?;
        }
        for (what, comparison) in [("shadow", &self.shadow), ("uncached", &self.repeats)] {
            if let Some(comparison) = comparison {
                writeln!(f, "   {what}: {comparison}")?;
            }
        }
        Ok(())
    }
}

/// A rule by its pattern.
struct Rule<'a>(Option<&'a str>);

impl Display for Rule<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pattern) => write!(f, "rule {pattern:?}"),
            None => f.write_str("otherwise"),
        }
    }
}

struct Percent(f64);

impl Display for Percent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", 100.0 * self.0)
    }
}

/// A duration, to three figures or so.
struct Lasting(Duration);

impl Display for Lasting {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            _ if seconds >= 3600.0 => write!(f, "{} h", rounded(seconds / 3600.0)),
            _ if seconds >= 60.0 => write!(f, "{} min", rounded(seconds / 60.0)),
            _ if seconds >= 1.0 || seconds == 0.0 => write!(f, "{} s", rounded(seconds)),
            _ => write!(f, "{} ms", rounded(seconds * 1e3)),
        }
    }
}

fn rounded(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let rows =
            [(0.0, "0 s"), (0.0123, "12.3 ms"), (1.0, "1 s"), (59.94, "59.9 s"), (90.0, "1.5 min"), (86_400.0, "24 h")];
        for (seconds, expected) in rows {
            assert_eq!(Lasting(Duration::from_secs_f64(seconds)).to_string(), expected);
        }
    }

    #[test]
    fn names_that_clients_chose_cant_break_lines() {
        assert_eq!(RequestPart::Cookie("a\nb".into()).to_string(), "the cookie a\\nb");
    }
}
