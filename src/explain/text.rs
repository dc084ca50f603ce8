//! An [`Explanation`] as a text for a terminal.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use super::values::{
    EarlierSettings, ExplainedFill, ExplainedKey, ExplainedResponse, ExplainedVariant, Explanation, KeyPart,
};
use crate::fates::{Became, Fate};
use crate::outcome::{CacheOutcome, Outcome};
use crate::rfc9111::date;
use crate::rfc9111::reuse::ValidateReason;

/// The request, and below it what there is to say, each line behind a word that says of what.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", Shown(self.method.as_str()), Shown(&self.target))?;
        match &self.outcome {
            Some(outcome) => self.decision(f, outcome)?,
            None => line(f, "QUERY", "what its key is depends on its content")?,
        }
        if self.invalidates {
            line(f, "write", "its success makes invalid what is stored for the URI (RFC 9111 §4.4)")?;
        }
        let rule = match (self.rule.index, &self.rule.pattern) {
            (Some(index), Some(pattern)) => format!("{index} {pattern:?}"),
            _ => "otherwise".to_owned(),
        };
        let settings = self.rule.settings.iter().map(|(name, value)| format!(", {name} {value}")).collect::<String>();
        line(f, "rule", format_args!("{rule}: {}, {:?}{settings}", self.rule.audience, self.rule.strategy))?;
        if let Some(key) = &self.key {
            line(f, "key", key)?;
        }
        if let Some(error) = &self.store_error {
            line(f, "store", Shown(error))?;
        }
        for variant in self.variants.iter().filter(|variant| self.variants.len() > 1 || !variant.chosen) {
            line(f, "variant", variant)?;
        }
        match &self.stored {
            Some(stored) => stored.tell(f)?,
            None if self.key.is_some() => line(f, "stored", "nothing that this request means")?,
            None => {}
        }
        if let Some(fate) = &self.fate {
            self.tell_fate(f, fate)?;
        }
        if let Some(fill) = &self.fill {
            fill.tell(f)?;
        }
        Ok(())
    }
}

impl Explanation {
    fn decision(&self, f: &mut fmt::Formatter<'_>, said: &CacheOutcome) -> fmt::Result {
        let outcome = said.outcome;
        let status = self.status.map_or(String::new(), |status| format!(" (status {})", status.as_u16()));
        line(f, outcome.as_str(), format_args!("{}{status}", self.cache_status))?;
        let (meaning, section, remedy) = match outcome {
            Outcome::Hit | Outcome::Fallback => (outcome.meaning(), outcome.section(), outcome.remedy()),
            Outcome::Stale(reason) => (reason.meaning(), reason.section(), reason.remedy()),
            Outcome::Revalidated(reason) | Outcome::Miss(reason) | Outcome::Collapsed(reason) => {
                (reason.meaning(), reason.section(), reason.remedy())
            }
            Outcome::Bypass(reason) => (reason.meaning(), reason.section(), reason.remedy()),
        };
        line(f, "", format_args!("{meaning} ({section})"))?;
        changed_by(f, remedy)
    }
}

impl Explanation {
    fn tell_fate(&self, f: &mut fmt::Formatter<'_>, fate: &Fate) -> fmt::Result {
        let what = match fate.became {
            // What is there has been told of.
            Became::Stored if self.variants.iter().any(|variant| variant.valid) => return Ok(()),
            Became::Stored => "an answer was stored".to_owned(),
            Became::Evicted => "it was evicted, since there was no room".to_owned(),
            Became::Expired => "its time was over, stale windows included".to_owned(),
            Became::Purged { number: Some(number) } => format!("it was purged, by number {number}"),
            Became::Purged { number: None } => "it was purged".to_owned(),
            Became::Written => "a write made it invalid (RFC 9111 §4.4)".to_owned(),
            Became::Dropped => "it was dropped, for what an answer said or for a quota".to_owned(),
            Became::Declined(reason) => {
                format!("an answer wasn't stored: {reason}, {} ({})", reason.meaning(), reason.section())
            }
        };
        line(f, "last", format_args!("{} ago {what}", Time(fate.ago)))?;
        match fate.became {
            Became::Declined(reason) => changed_by(f, reason.remedy()),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ExplainedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Shown(&self.authority), Shown(&self.path))?;
        if let Some(query) = &self.query {
            write!(f, "?{}", Shown(query))?;
        }
        if let Some(search) = &self.search {
            write!(f, ", with queries equal by No-Vary-Search: {}", Shown(search))?;
        }
        self.parts.iter().try_for_each(|part| write!(f, ", {part}"))
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(f, "scheme {}", Shown(scheme)),
            Self::Field { name, lines } => write!(f, "field {} ({lines})", Shown(name)),
            Self::Cookie { name, count } => write!(f, "cookie {} ({count})", Shown(name)),
            Self::Partition => f.write_str("a partition"),
            Self::Rewritten(target) => write!(f, "rewritten to {}", Shown(target)),
            Self::Content => f.write_str("its content"),
        }
    }
}

impl fmt::Display for ExplainedVariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.chosen, self.valid) {
            (true, _) => "the one that is meant: ",
            (false, true) => "another one: ",
            (false, false) => "purged: ",
        })?;
        write!(f, "{}, {} old", self.status.as_u16(), Time(self.age))?;
        if !self.is_near {
            f.write_str(", not in memory")?;
        }
        for (name, said) in &self.nominated {
            match said {
                Some(said) => write!(f, ", {name}: {}", Shown(said))?,
                None => write!(f, ", by {name}")?,
            }
        }
        Ok(())
    }
}

impl ExplainedResponse {
    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coding = self.coding.map_or(String::new(), |coding| format!(", stored with {coding}"));
        let received = date::format(self.received);
        line(
            f,
            "stored",
            format_args!(
                "{}, {} bytes of content{coding}, {} in the store, received {}",
                self.status.as_u16(),
                self.length,
                self.size,
                received.to_str().unwrap_or_default()
            ),
        )?;
        self.tell_lifetime(f)?;
        if let Some(why) = self.validate.filter(|why| *why != ValidateReason::Stale) {
            line(f, "asks first", format_args!("{} ({})", why.meaning(), why.section()))?;
            changed_by(f, why.remedy())?;
        }
        let windows =
            [("while it is refreshed", self.stale_while_revalidate), ("in place of an error", self.stale_if_error)];
        for (when, window) in windows.iter().filter(|(_, window)| !window.is_zero()) {
            line(f, "stale", format_args!("{} more {when}", Time(*window)))?;
        }
        if self.no_stale {
            line(f, "stale", "never (RFC 9111 §5.2.2.2)")?;
        }
        let own = |own| if own { ", of the cache's own" } else { "" };
        if let Some(etag) = &self.etag {
            line(f, "etag", format_args!("{}{}", Shown(etag), own(self.own_etag)))?;
        }
        if let Some(last_modified) = &self.last_modified {
            line(f, "modified", format_args!("{}{}", Shown(last_modified), own(self.own_last_modified)))?;
        }
        if self.bears_every_tag {
            line(f, "tags", "all: it was to bear more than it may, or one that is none")?;
        } else if !self.tags.is_empty() {
            line(f, "tags", self.tags.join(", "))?;
        }
        if !self.groups.is_empty() {
            line(f, "groups", self.groups.join(", "))?;
        }
        line(f, "purges", format_args!("valid; asked for at number {}", self.number))?;
        match self.earlier {
            None => Ok(()),
            Some(EarlierSettings::Adopted) => {
                line(f, "settings", "it was stored under others: the stricter terms of then and now count")
            }
            Some(EarlierSettings::OtherAudience) => {
                line(f, "settings", "it was stored under others, and the answers are for others now: not used")
            }
            Some(EarlierSettings::Purged) => line(
                f,
                "settings",
                "it was stored under others; by those of now it has a tag that was purged: not used",
            ),
            Some(EarlierSettings::Declined(reason)) => {
                line(
                    f,
                    "settings",
                    format_args!(
                        "it was stored under others; now it would not be: {reason}, {} ({})",
                        reason.meaning(),
                        reason.section()
                    ),
                )?;
                changed_by(f, reason.remedy())
            }
        }
    }

    fn tell_lifetime(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.lifetime > self.age { "fresh" } else { "not fresh" };
        let mut text = format!("{} of {}", Time(self.age), Time(self.lifetime));
        add_time(&mut text, "until", self.fresh_until)?;
        match (self.source, &self.field) {
            (Some(source), Some(field)) => write!(text, ", by {field} ({})", source.section())?,
            (Some(source), None) => write!(text, ", by {} ({})", source.meaning(), source.section())?,
            (None, _) => text.push_str(", since nobody gave it a lifetime"),
        }
        add_time(&mut text, "unused until", self.unused_until)?;
        if self.refreshes_ahead {
            text.push_str(", refreshed before its end");
        }
        line(f, word, text)?;
        changed_by(f, self.source.and_then(|source| source.remedy()))
    }
}

impl ExplainedFill {
    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match (self.conditional, self.whole) {
            (true, _) => "to confirm what is stored",
            (false, true) => "for all of it",
            (false, false) => "as the client asks, for a part or a HEAD: the answer isn't stored",
        };
        line(f, "handler", format_args!("asked {how}"))?;
        let missed = self.missed;
        line(f, "", format_args!("counted as {}: {} ({})", missed.as_str(), missed.meaning(), missed.section()))?;
        if self.under_way > 0 {
            line(f, "", format_args!("requests for the same that are with it: {}", self.under_way))?;
        }
        if self.alone {
            line(f, "", "its last answer was for one request only, so nobody waits for another's")?;
        }
        let stand_ins = [("fails", self.if_it_fails), ("answers 503", self.if_unavailable)];
        for (when, outcome) in stand_ins {
            if let Some(outcome) = outcome {
                line(f, "", format_args!("if it {when}, the store answers: {outcome}"))?;
            }
        }
        Ok(())
    }
}

fn line(f: &mut fmt::Formatter<'_>, word: &str, text: impl fmt::Display) -> fmt::Result {
    writeln!(f, "  {word:<12}{text}")
}

fn changed_by(f: &mut fmt::Formatter<'_>, remedy: Option<&str>) -> fmt::Result {
    remedy.map_or(Ok(()), |remedy| line(f, "", format_args!("changed by: {remedy}")))
}

fn add_time(text: &mut String, word: &str, time: Option<SystemTime>) -> fmt::Result {
    let Some(time) = time else { return Ok(()) };
    write!(text, ", {word} {}", date::format(time).to_str().unwrap_or_default())
}

/// A text that came from outside, with nothing in it by which a terminal could be told what to do.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '"' | '\'' | '\\' => f.write_char(c),
            c => write!(f, "{}", c.escape_debug()),
        })
    }
}

/// Seconds.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == Duration::MAX { f.write_str("any time") } else { write!(f, "{}s", self.0.as_secs()) }
    }
}
