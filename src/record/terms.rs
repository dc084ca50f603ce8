//! What decides on the use of a response, as a section of its record: everything of a [`StoredResponse`] but its head, its content, and what stands in the
//! header.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::head::{fields, put_fields};
use super::variances::{self, KnownVariances};
use super::wire::{Reader, put_bytes, put_duration, put_fixed, put_number, put_option};
use crate::cached::{Cached, Storing};
use crate::compression::Coder;
use crate::downstream::Downstream;
use crate::form::Form;
use crate::regime::Regime;
use crate::response::{Origin, Stamp, StoredResponse};
use crate::rfc9111::coding::Coding;
use crate::rfc9111::freshness::LifetimeSource;
use crate::rfc9111::reuse::Terms;
use crate::tags::Tags;
use crate::upkeep::{Upkeep, Wanted};
use crate::variance::Variance;

/// What a section says.
pub(super) struct Decided {
    pub(super) status: StatusCode,
    pub(super) form: Form,
    pub(super) terms: Terms,
    pub(super) variance: Arc<Variance>,
    pub(super) origin: Origin,
    pub(super) downstream: Option<Arc<Downstream>>,
    pub(super) stamp: Stamp,
    pub(super) regime: Regime,
    pub(super) keep: Duration,
    pub(super) upkeep: Option<Arc<Upkeep>>,
}

pub(super) fn put(out: &mut Vec<u8>, response: &StoredResponse) {
    let StoredResponse { status, terms, origin, stamp, regime, .. } = response;
    out.extend_from_slice(&status.as_u16().to_be_bytes());
    out.push(flags(terms, origin));
    put_form(out, response.form);
    put_terms(out, terms);
    put_duration(out, response.keep);
    put_stamp(out, stamp);
    put_fixed(out, regime.whole);
    put_fixed(out, regime.audience);
    variances::put(out, &response.variance);
    put_option(out, origin.replaced.as_deref(), |out, replaced| put_fields(out, replaced.iter(), replaced.len()));
    put_option(out, origin.handler.as_deref(), put_cached);
    put_option(out, response.downstream.as_deref(), put_downstream);
    put_option(out, response.upkeep.as_deref().map(Upkeep::wanted), put_upkeep);
}

/// Reads a section of `record`, whose copies of what is done meanwhile have `spread` for their chance.
pub(super) fn read(
    section: &[u8],
    record: &Bytes,
    number: u64,
    spread: u64,
    known: &KnownVariances,
) -> Option<Decided> {
    let mut whole = Reader::new(section);
    let reader = &mut whole;
    let status = StatusCode::from_u16(reader.array().map(u16::from_be_bytes)?).ok()?;
    let flags = Flags(reader.byte().filter(|flags| flags >> FLAGS == 0)?);
    let form = form(reader)?;
    let terms = terms(reader, flags)?;
    let keep = reader.duration()?;
    let stamp = stamp(reader, number)?;
    let regime = Regime { whole: reader.fixed()?, audience: reader.fixed()? };
    let variance = known.read(reader)?;
    let replaced = reader.option(|reader| {
        let mut replaced = HeaderMap::new();
        fields(reader, record, &mut replaced, |_| true)?;
        Some(Arc::new(replaced))
    })?;
    let handler = reader.option(cached)?.map(Arc::new);
    let origin = Origin {
        replaced,
        own_etag: flags.has(OWN_ETAG),
        own_last_modified: flags.has(OWN_LAST_MODIFIED),
        own_vary: flags.has(OWN_VARY),
        handler,
    };
    let downstream = reader.option(downstream)?.map(Arc::new);
    let upkeep = reader.option(|reader| Upkeep::begun(wanted(reader)?, spread))?;
    whole.end()?;
    Some(Decided { status, form, terms, variance, origin, downstream, stamp, regime, keep, upkeep })
}

const NO_CACHE: u8 = 0;
const NO_STALE: u8 = 1;
const IMMUTABLE: u8 = 2;
const FOR_AUTHORIZED: u8 = 3;
const OWN_ETAG: u8 = 4;
const OWN_LAST_MODIFIED: u8 = 5;
const OWN_VARY: u8 = 6;
/// How many there are.
const FLAGS: u8 = 7;

/// What is either so or not, a bit for each.
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    fn has(self, flag: u8) -> bool {
        self.0 & (1 << flag) != 0
    }
}

fn flags(terms: &Terms, origin: &Origin) -> u8 {
    let all = [
        (terms.no_cache, NO_CACHE),
        (terms.no_stale, NO_STALE),
        (terms.immutable, IMMUTABLE),
        (terms.for_authorized, FOR_AUTHORIZED),
        (origin.own_etag, OWN_ETAG),
        (origin.own_last_modified, OWN_LAST_MODIFIED),
        (origin.own_vary, OWN_VARY),
    ];
    all.into_iter().filter(|(is_so, _)| *is_so).fold(0, |flags, (_, flag)| flags | 1 << flag)
}

fn put_form(out: &mut Vec<u8>, form: Form) {
    match form {
        Form::Fixed => out.push(0),
        Form::Plain => out.push(1),
        Form::Settled => out.push(2),
        Form::Coded { by, length } => {
            let coding = match by.coding {
                Coding::Gzip => 1,
                Coding::Brotli => 2,
                Coding::Zstd => 3,
            };
            out.extend_from_slice(&[3, coding]);
            put_option(out, by.level, Vec::push);
            put_number(out, length.into());
        }
    }
}

fn form(reader: &mut Reader<'_>) -> Option<Form> {
    Some(match reader.byte()? {
        0 => Form::Fixed,
        1 => Form::Plain,
        2 => Form::Settled,
        3 => {
            let coding = match reader.byte()? {
                1 => Coding::Gzip,
                2 => Coding::Brotli,
                3 => Coding::Zstd,
                _ => return None,
            };
            let level = reader.option(Reader::byte)?;
            Form::Coded { by: Coder { coding, level }, length: u32::try_from(reader.number()?).ok()? }
        }
        _ => return None,
    })
}

fn put_terms(out: &mut Vec<u8>, terms: &Terms) {
    out.push(match terms.source {
        None => 0,
        Some(LifetimeSource::Handler) => 1,
        Some(LifetimeSource::Override) => 2,
        Some(LifetimeSource::Targeted) => 3,
        Some(LifetimeSource::SMaxage) => 4,
        Some(LifetimeSource::MaxAge) => 5,
        Some(LifetimeSource::Expires) => 6,
        Some(LifetimeSource::Rule) => 7,
        Some(LifetimeSource::Heuristic) => 8,
    });
    let Terms { lifetime, initial_age, stale_while_revalidate, stale_if_error, .. } = *terms;
    let durations = [lifetime, initial_age, stale_while_revalidate, stale_if_error];
    durations.into_iter().for_each(|duration| put_duration(out, duration));
}

fn terms(reader: &mut Reader<'_>, flags: Flags) -> Option<Terms> {
    let source = match reader.byte()? {
        0 => None,
        1 => Some(LifetimeSource::Handler),
        2 => Some(LifetimeSource::Override),
        3 => Some(LifetimeSource::Targeted),
        4 => Some(LifetimeSource::SMaxage),
        5 => Some(LifetimeSource::MaxAge),
        6 => Some(LifetimeSource::Expires),
        7 => Some(LifetimeSource::Rule),
        8 => Some(LifetimeSource::Heuristic),
        _ => return None,
    };
    Some(Terms {
        source,
        lifetime: reader.duration()?,
        initial_age: reader.duration()?,
        stale_while_revalidate: reader.duration()?,
        stale_if_error: reader.duration()?,
        no_cache: flags.has(NO_CACHE),
        no_stale: flags.has(NO_STALE),
        immutable: flags.has(IMMUTABLE),
        for_authorized: flags.has(FOR_AUTHORIZED),
    })
}

/// Without its number, which is in the header, and without what it was held against: that has to be done again by whoever reads it.
fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    put_fixed(out, stamp.resource);
    put_fixed(out, stamp.path);
    put_option(out, stamp.partition, put_fixed);
    put_option(out, stamp.tags.as_deref(), |out, tags| {
        out.push(tags.bears_every().into());
        put_number(out, tags.len() as u64);
        tags.iter().for_each(|hash| put_fixed(out, *hash));
        put_bytes(out, tags.lines().as_bytes());
    });
}

fn stamp(reader: &mut Reader<'_>, number: u64) -> Option<Stamp> {
    let mut stamp = Stamp::new(number, reader.fixed()?, reader.fixed()?);
    stamp.partition = reader.option(Reader::fixed)?;
    stamp.tags = reader.option(|reader| {
        let bears_every = flag(reader)?;
        let count = reader.count(size_of::<u64>())?;
        let hashes = (0..count).map(|_| reader.fixed()).collect::<Option<_>>()?;
        Some(Arc::new(Tags::of_parts(hashes, reader.text()?, bears_every)))
    })?;
    Some(stamp)
}

fn put_cached(out: &mut Vec<u8>, cached: &Cached) {
    match cached.storing {
        Storing::ByRule => out.push(0),
        Storing::Never => out.push(1),
        Storing::Shared(ttl) => {
            out.push(2);
            put_duration(out, ttl);
        }
    }
    let windows = [cached.downstream, cached.stale_while_revalidate, cached.stale_if_error];
    windows.into_iter().for_each(|window| put_option(out, window, put_duration));
    put_number(out, cached.tags.len() as u64);
    cached.tags.iter().for_each(|tag| put_bytes(out, tag.as_bytes()));
}

fn cached(reader: &mut Reader<'_>) -> Option<Cached> {
    let storing = match reader.byte()? {
        0 => Storing::ByRule,
        1 => Storing::Never,
        2 => Storing::Shared(reader.duration()?),
        _ => return None,
    };
    let downstream = reader.option(Reader::duration)?;
    let stale_while_revalidate = reader.option(Reader::duration)?;
    let stale_if_error = reader.option(Reader::duration)?;
    let count = reader.count(1)?;
    let tags = (0..count).map(|_| reader.text().map(str::to_owned)).collect::<Option<_>>()?;
    Some(Cached { storing, downstream, stale_while_revalidate, stale_if_error, tags })
}

fn put_downstream(out: &mut Vec<u8>, downstream: &Downstream) {
    let Downstream { lifetime, from_each_answer, sliding, private, kept } = downstream;
    put_duration(out, *lifetime);
    out.extend_from_slice(&[(*from_each_answer).into(), (*private).into()]);
    put_option(out, *sliding, put_duration);
    put_bytes(out, kept.as_bytes());
}

fn downstream(reader: &mut Reader<'_>) -> Option<Downstream> {
    Some(Downstream {
        lifetime: reader.duration()?,
        from_each_answer: flag(reader)?,
        private: flag(reader)?,
        sliding: reader.option(Reader::duration)?,
        kept: reader.text()?.into(),
    })
}

fn put_upkeep(out: &mut Vec<u8>, wanted: Wanted) {
    put_option(out, wanted.sliding, put_duration);
    put_option(out, wanted.beta, |out, beta| put_fixed(out, beta.to_bits()));
    put_option(out, wanted.within, put_duration);
    put_number(out, wanted.cost.into());
}

fn wanted(reader: &mut Reader<'_>) -> Option<Wanted> {
    Some(Wanted {
        sliding: reader.option(Reader::duration)?,
        beta: reader.option(|reader| reader.fixed().map(f64::from_bits))?,
        within: reader.option(Reader::duration)?,
        cost: u32::try_from(reader.number()?).ok()?,
    })
}

fn flag(reader: &mut Reader<'_>) -> Option<bool> {
    match reader.byte()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
