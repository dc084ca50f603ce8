//! What a store must keep, as something that can be run: [`check`] tries a store with all that [`Storage`] says of one. For the tests of whoever makes a store; whether it is
//! fast, or holds out when its server doesn't, they have to try themselves.

mod samples;
mod swaps;

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::samples::{Sample, Samples, difference};
use super::{Expected, Lease, LeaseToken, PurgeLog, PurgeNews, Released, Storage};
use crate::error::StorageError;
use crate::key::{CacheKey, Part};
use crate::purge_message::{PurgeMessage, PurgedThings};

/// Tries a store. `make` is called for each promise and has to give an empty store with room for a few mebibytes, behind a namespace of its own where the place is shared. Takes a few
/// seconds, since leases end with time; needs a tokio runtime with timers.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use larder::storage::{MemoryStore, contract};
/// contract::check(|| MemoryStore::new(64 << 20)).await.unwrap();
/// # });
/// ```
///
/// # Errors
/// The first promise that isn't kept.
pub async fn check<S: Storage>(make: impl Fn() -> S) -> Result<(), BrokenPromise> {
    let samples = Samples::default();
    let s = &samples;
    let promised = |promise| move |how: Broken| BrokenPromise { promise, how: how.0 };
    finds_nothing_in_an_empty_store(s, &make()).await.map_err(promised("what was never put isn't there"))?;
    gives_back_what_was_put(s, &make()).await.map_err(promised("what is got is what was put, whole and unchanged"))?;
    keeps_keys_apart(s, &make()).await.map_err(promised("different keys never meet"))?;
    keeps_variants(s, &make()).await.map_err(promised("each variant of a key answers for itself, the newest one"))?;
    keeps_the_latest_nomination(s, &make()).await.map_err(promised("the newest word on `Vary` counts"))?;
    keeps_no_more_variants(s, &make()).await.map_err(promised("of more variants than wanted the oldest go"))?;
    keeps_what_began_later(s, &make())
        .await
        .map_err(promised("what began later stays, in whichever order it comes"))?;
    removes(s, &make()).await.map_err(promised("what was removed never comes back, and the rest stays"))?;
    clears(s, &make()).await.map_err(promised("what was cleared never comes back"))?;
    erases(s, &make()).await.map_err(promised("the erasure of one principal takes nothing from others"))?;
    leases(s, &make()).await.map_err(promised("a lease has one holder, and ends by its token or its term"))?;
    swaps::swaps(s, &make())
        .await
        .map_err(promised("a swap is done if what is expected is there, and not otherwise"))?;
    swaps::swaps_one_at_a_time(s, make()).await.map_err(promised("of those who swap at the same time one does"))?;
    outlives_dropped_operations(s, &make()).await.map_err(promised("an operation dropped half-way harms no other"))?;
    serves_many(s, make()).await.map_err(promised("those who use it at the same time get what is theirs"))?;
    answers_pings(&make()).await.map_err(promised("a store that is there says so"))?;
    tells_of_purges(&make()).await.map_err(promised("a log tells of purges in order, without a gap, and in time"))
}

/// A promise that a store doesn't keep, and what it did instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store doesn't keep this promise: {promise}. {how}")]
pub struct BrokenPromise {
    promise: &'static str,
    how: String,
}

impl BrokenPromise {
    /// What every store promises.
    pub fn promise(&self) -> &str {
        self.promise
    }

    /// What this one did.
    pub fn how(&self) -> &str {
        &self.how
    }
}

type Kept = Result<(), Broken>;

/// What happened instead.
struct Broken(String);

impl From<StorageError> for Broken {
    fn from(error: StorageError) -> Self {
        Self(error.to_string())
    }
}

fn expect(is_so: bool, otherwise: impl fmt::Display) -> Kept {
    if is_so { Ok(()) } else { Err(Broken(otherwise.to_string())) }
}

/// As many variants as may be wanted.
const PLENTY: usize = 16;

/// What the store has for a request with these fields is exactly this, at the first place among those that answer it.
async fn expect_found(samples: &Samples, storage: &impl Storage, key: &CacheKey, expected: &Sample) -> Kept {
    let found = samples.find(storage, key, expected).await?;
    match found.first() {
        None => Err(Broken(format!("{} isn't there", expected.name))),
        Some(found) => match difference(&expected.response, found) {
            None => Ok(()),
            Some(what) => Err(Broken(format!("{} has another {what} than was put", expected.name))),
        },
    }
}

async fn expect_nothing(samples: &Samples, storage: &impl Storage, key: &CacheKey, absent: &Sample) -> Kept {
    let found = samples.find(storage, key, absent).await?;
    expect(found.is_empty(), format_args!("{} is there", absent.name))
}

async fn put(storage: &impl Storage, key: &CacheKey, sample: &Sample) -> Kept {
    Ok(storage.put(key, sample.response.clone(), PLENTY).await?)
}

async fn finds_nothing_in_an_empty_store(samples: &Samples, storage: &impl Storage) -> Kept {
    let (key, sample) = (samples.key("/"), samples.plain("a response"));
    expect_nothing(samples, storage, &key, &sample).await?;
    expect(!storage.remove(&key).await?, "a removal of what isn't there said that something was")
}

async fn gives_back_what_was_put(samples: &Samples, storage: &impl Storage) -> Kept {
    for (number, sample) in samples.of_all_kinds().into_iter().enumerate() {
        let key = samples.key(&format!("/{number}"));
        put(storage, &key, &sample).await?;
        expect_found(samples, storage, &key, &sample).await?;
    }
    Ok(())
}

async fn keeps_keys_apart(samples: &Samples, storage: &impl Storage) -> Kept {
    let with = |part, value: &[u8]| {
        let mut key = CacheKey::new(b"a.example", "/x", None);
        key.push(part, value);
        key
    };
    // Of a value: without an authority, and with a path that no request has.
    let of_data = |path: &str, kind: &[u8]| {
        let mut key = CacheKey::new(b"", path, None);
        key.push(Part::Data, kind);
        key
    };
    let long = "q".repeat(7 << 10);
    let keys = [
        CacheKey::new(b"a.example", "/x", None),
        CacheKey::new(b"b.example", "/x", None),
        CacheKey::new(b"", "/x", None),
        CacheKey::new(b"a.example", "/", Some("x")),
        CacheKey::new(b"a.example", "/x", Some("")),
        CacheKey::new(b"a.example", "/x", Some("y")),
        CacheKey::new(b"a.example", "/x?y", None),
        CacheKey::new(b"a.example", "/X", None),
        CacheKey::new(b"a.example", "/*[x]?", Some("%00\u{e4}{}")),
        CacheKey::new(b"a.example", "/x", Some(&long)),
        CacheKey::new(b"a.example", "/x", Some(&long[1..])),
        with(Part::FieldLine, b"\x00\xff\r\n"),
        with(Part::Cookie, b"\x00\xff\r\n"),
        with(Part::Partition, &[1; 16]),
        with(Part::Partition, &[2; 16]),
        of_data("x:1", b""),
        of_data("x:1", b"sha256"),
        of_data("x:1\n", b""),
        of_data("y:1", b""),
        CacheKey::new(b"", "x:1", None),
        CacheKey::new(b"", "/x:1", None),
    ];
    let all: Vec<_> = keys.iter().enumerate().map(|(n, key)| (key, samples.plain(&format!("response {n}")))).collect();
    for (key, sample) in &all {
        expect_nothing(samples, storage, key, sample).await?;
        put(storage, key, sample).await?;
    }
    for (key, sample) in &all {
        expect_found(samples, storage, key, sample).await?;
    }
    Ok(())
}

async fn keeps_variants(samples: &Samples, storage: &impl Storage) -> Kept {
    let key = samples.key("/");
    let german = samples.varying("the German one", "accept-language", Some("de"));
    let english = samples.varying("the English one", "accept-language", Some("en"));
    let neither = samples.varying("the one in no language", "accept-language", None);
    for sample in [&german, &english, &neither] {
        expect_nothing(samples, storage, &key, sample).await?;
        put(storage, &key, sample).await?;
    }
    for sample in [&german, &english, &neither] {
        expect_found(samples, storage, &key, sample).await?;
    }
    let newer = samples.varying("a newer German one", "accept-language", Some("de"));
    put(storage, &key, &newer).await?;
    expect_found(samples, storage, &key, &newer).await?;
    let found = samples.find(storage, &key, &german).await?;
    expect(found.len() == 1, "the variant that a newer one replaces is still there")?;
    expect_found(samples, storage, &key, &english).await
}

async fn keeps_the_latest_nomination(samples: &Samples, storage: &impl Storage) -> Kept {
    let key = samples.key("/");
    let by_language = samples.varying("what varied by language", "accept-language", Some("de"));
    let by_coding = samples.varying("what varies by coding", "accept-encoding", Some("gzip"));
    let plain = samples.plain("what doesn't vary");
    put(storage, &key, &by_language).await?;
    put(storage, &key, &by_coding).await?;
    expect_found(samples, storage, &key, &by_coding).await?;
    expect_nothing(samples, storage, &key, &by_language).await?;
    put(storage, &key, &plain).await?;
    expect_found(samples, storage, &key, &plain).await?;
    expect_nothing(samples, storage, &key, &by_coding).await?;
    put(storage, &key, &by_language).await?;
    // It was put anew, but it began earlier than what is stored.
    expect_found(samples, storage, &key, &plain).await
}

async fn keeps_no_more_variants(samples: &Samples, storage: &impl Storage) -> Kept {
    let key = samples.key("/");
    let languages = ["de", "en", "fr", "it"];
    let all = languages.map(|language| samples.varying(language, "accept-language", Some(language)));
    for sample in &all {
        storage.put(&key, sample.response.clone(), 2).await?;
    }
    let [oldest, old, newer, newest] = &all;
    expect_found(samples, storage, &key, newest).await?;
    expect_found(samples, storage, &key, newer).await?;
    expect_nothing(samples, storage, &key, old).await?;
    expect_nothing(samples, storage, &key, oldest).await
}

async fn keeps_what_began_later(samples: &Samples, storage: &impl Storage) -> Kept {
    // (purge number and second of arrival: of what is stored, of what comes then, which of them stays)
    let rows = [
        ((5, 2), (5, 1), 0),
        ((5, 2), (4, 3), 0),
        ((5, 2), (5, 3), 1),
        ((5, 2), (6, 1), 1),
        ((1 << 32, 1), (7, 2), 0),
        ((7, 2), (1 << 32, 1), 1),
    ];
    for (number, (first, second, stays)) in rows.into_iter().enumerate() {
        let key = samples.key(&format!("/{number}"));
        let name = |(number, second)| format!("what began behind purge {number} and came in second {second}");
        let both = [first, second].map(|(number, second)| samples.begun(&name((number, second)), number, second));
        for sample in &both {
            put(storage, &key, sample).await?;
        }
        expect_found(samples, storage, &key, &both[stays]).await?;
    }
    Ok(())
}

async fn removes(samples: &Samples, storage: &impl Storage) -> Kept {
    let (key, other) = (samples.key("/"), samples.key("/other"));
    let german = samples.varying("the German one", "accept-language", Some("de"));
    let english = samples.varying("the English one", "accept-language", Some("en"));
    let neighbour = samples.plain("a neighbour");
    for (key, sample) in [(&key, &german), (&key, &english), (&other, &neighbour)] {
        put(storage, key, sample).await?;
    }
    expect(storage.remove(&key).await?, "a removal said that there was nothing to remove")?;
    expect_nothing(samples, storage, &key, &german).await?;
    expect_nothing(samples, storage, &key, &english).await?;
    expect(!storage.remove(&key).await?, "a removal said that something was left")?;
    expect_found(samples, storage, &other, &neighbour).await?;
    let again = samples.varying("the German one, put again", "accept-language", Some("de"));
    put(storage, &key, &again).await?;
    expect_found(samples, storage, &key, &again).await?;
    expect_nothing(samples, storage, &key, &english).await
}

async fn clears(samples: &Samples, storage: &impl Storage) -> Kept {
    let all: Vec<_> =
        (0..40).map(|n| (samples.key(&format!("/{n}")), samples.plain(&format!("response {n}")))).collect();
    for (key, sample) in &all {
        put(storage, key, sample).await?;
    }
    storage.clear().await?;
    for (key, sample) in &all {
        expect_nothing(samples, storage, key, sample).await?;
    }
    let (key, sample) = (&all[0].0, samples.plain("what was put afterwards"));
    put(storage, key, &sample).await?;
    expect_found(samples, storage, key, &sample).await
}

async fn erases(samples: &Samples, storage: &impl Storage) -> Kept {
    let key_of = |principal: Option<u8>| {
        let mut key = samples.key("/");
        principal.iter().for_each(|principal| key.push(Part::Partition, &[*principal; 16]));
        key
    };
    let [ann, bob, all] = [Some(1), Some(2), None].map(key_of);
    let sample = |name| samples.plain(name);
    let (of_ann, of_bob, of_all) = (sample("Ann's"), sample("Bob's"), sample("everybody's"));
    for (key, sample) in [(&ann, &of_ann), (&bob, &of_bob), (&all, &of_all)] {
        put(storage, key, sample).await?;
    }
    storage.erase(&[1; 16]).await?;
    expect_found(samples, storage, &bob, &of_bob).await?;
    expect_found(samples, storage, &all, &of_all).await
}

/// A term that is over soon, and one that isn't.
const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);

async fn leases(samples: &Samples, storage: &impl Storage) -> Kept {
    let (key, other) = (samples.key("/"), samples.key("/other"));
    let Lease::Granted(token) = storage.lease(&key, LONG).await? else {
        // It knows no leases; then nobody has to wait for one.
        let again = storage.lease(&key, LONG).await?;
        return expect(again == Lease::Free, "a store without leases says that one is taken");
    };
    expect(storage.lease(&key, LONG).await? == Lease::Taken, "a lease was granted twice")?;
    expect(is_granted(storage.lease(&other, LONG).await?), "the lease on one key holds up another")?;
    let mut wrong = token;
    wrong.0[0] ^= 1;
    storage.release(&key, wrong, Released::Failed).await?;
    expect(storage.lease(&key, LONG).await? == Lease::Taken, "a lease was ended with another's token")?;
    storage.release(&key, token, Released::Failed).await?;
    let token = granted(storage.lease(&key, LONG).await?, "a lease that failed wasn't granted anew")?;
    storage.release(&key, token, Released::Stored).await?;
    let token = granted(storage.lease(&key, LONG).await?, "a lease that was over wasn't granted anew")?;
    storage.release(&key, token, Released::Declined).await?;
    let then = storage.lease(&key, LONG).await?;
    expect(then != Lease::Taken, "who comes behind an answer that can't be shared is to wait")?;
    let brief = samples.key("/brief");
    let late = granted(storage.lease(&brief, SOON).await?, "no lease for a short term")?;
    sleep(4 * SOON).await;
    let next = granted(storage.lease(&brief, LONG).await?, "a lease outlived its term")?;
    expect(next != late, "two leases have the same token")?;
    storage.release(&brief, late, Released::Stored).await?;
    expect(storage.lease(&brief, LONG).await? == Lease::Taken, "a token that is over ended the lease of another")
}

fn is_granted(lease: Lease) -> bool {
    matches!(lease, Lease::Granted(_))
}

fn granted(lease: Lease, otherwise: &str) -> Result<LeaseToken, Broken> {
    let Lease::Granted(token) = lease else { return Err(Broken(otherwise.into())) };
    Ok(token)
}

async fn outlives_dropped_operations(samples: &Samples, storage: &impl Storage) -> Kept {
    let key = samples.key("/");
    let dropped = samples.plain("what was dropped half-way");
    for _ in 0..20 {
        begin_only(storage.put(&key, dropped.response.clone(), PLENTY)).await;
        begin_only(samples.find(storage, &key, &dropped)).await;
        begin_only(storage.remove(&key)).await;
        begin_only(storage.lease(&key, SOON)).await;
        begin_only(storage.swap(samples.swap(&key, Expected::Nothing, &dropped))).await;
        begin_only(storage.ping()).await;
    }
    // Whether those happened is anybody's guess, but what comes afterwards gets answers of its own.
    for number in 0..20 {
        let (key, sample) = (samples.key(&format!("/{number}")), samples.plain(&format!("response {number}")));
        put(storage, &key, &sample).await?;
        expect_found(samples, storage, &key, &sample).await?;
    }
    Ok(())
}

/// Polls a future once, and drops it.
async fn begin_only<T>(work: impl Future<Output = T>) {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _ = work.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

async fn serves_many(samples: &Samples, storage: impl Storage) -> Kept {
    let storage = Arc::new(storage);
    let mut all = JoinSet::new();
    for task in 0..8 {
        let (samples, storage) = (samples.clone(), storage.clone());
        all.spawn(async move {
            for number in 0..25 {
                let key = samples.key(&format!("/{task}"));
                let sample = samples.plain(&format!("response {number} of task {task}"));
                put(&*storage, &key, &sample).await?;
                expect_found(&samples, &*storage, &key, &sample).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap_or_else(|error| Err(Broken(error.to_string())))?;
    }
    Ok(())
}

async fn answers_pings(storage: &impl Storage) -> Kept {
    Ok(storage.ping().await?)
}

async fn tells_of_purges(storage: &impl Storage) -> Kept {
    let Some(log) = storage.purge_log() else { return Ok(()) };
    let begin = log.snapshot().await?;
    expect(begin.floor <= begin.current, "the log forgot purges that it hasn't seen")?;
    let known = begin.current;
    expect(log.newest().await? == known, "the newest number isn't that of the snapshot")?;
    let quiet = told(&*log, known, SOON).await?;
    expect(quiet.is_empty(), "it told of purges that nobody made")?;
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    // Of one thing each: a log may remember the things that a purge touches one by one.
    let place = |place, soft| {
        let what = PurgedThings::Hashes { places: vec![place], tags: Vec::new(), authority: None };
        PurgeMessage { what, soft }
    };
    let (hard, soft) = (place(1, None), place(u64::MAX, Some(time)));
    let all = [(known + 1, hard.clone()), (known + 2, soft.clone())];
    expect(are_alike(&since(log.append(&hard, known).await?)?, &all[..1]), "an appended purge isn't the next one")?;
    // Known is what was known before: the news are then what is between, and the new one last.
    expect(
        are_alike(&since(log.append(&soft, known).await?)?, &all),
        "an appended purge came without those before it",
    )?;
    expect(are_alike(&told(&*log, known, LONG).await?, &all), "it didn't tell of purges in order")?;
    expect(are_alike(&told(&*log, known + 1, LONG).await?, &all[1..]), "it told of a purge that was known")?;
    let now = log.snapshot().await?;
    expect(now.current == known + 2, "its snapshot isn't of now")?;
    expect(log.newest().await? == known + 2, "the number that it calls the newest isn't")?;
    expect(all.iter().all(|purge| now.purges.iter().any(|told| is_alike(told, purge))), "its snapshot lacks a purge")?;
    if let Some(earlier) = now.current.checked_sub(1 << 32) {
        let news = log.follow(earlier, SOON).await?;
        expect(news == PurgeNews::Gap, "it went on where an earlier epoch was left")?;
    }
    Ok(())
}

fn are_alike(told: &[(u64, PurgeMessage)], made: &[(u64, PurgeMessage)]) -> bool {
    told.len() == made.len() && told.iter().zip(made).all(|(told, made)| is_alike(told, made))
}

/// Whether they are the same purge. Times may have been on another clock meanwhile, and no two readings of two clocks agree to the last bit.
fn is_alike((told_number, told): &(u64, PurgeMessage), (number, made): &(u64, PurgeMessage)) -> bool {
    let is_about = |one: SystemTime, other: SystemTime| {
        one.duration_since(other).unwrap_or_else(|earlier| earlier.duration()) < Duration::from_millis(100)
    };
    let same_time = match (told.soft, made.soft) {
        (Some(told), Some(made)) => is_about(told, made),
        (told, made) => told == made,
    };
    told_number == number && told.what == made.what && same_time
}

/// What came since, within the time that it may take.
async fn told(log: &dyn PurgeLog, known: u64, wait: Duration) -> Result<Vec<(u64, PurgeMessage)>, Broken> {
    let news = timeout(wait + LONG / 6, log.follow(known, wait)).await;
    since(news.map_err(|_| Broken("it waited longer than it may".into()))??)
}

fn since(news: PurgeNews) -> Result<Vec<(u64, PurgeMessage)>, Broken> {
    match news {
        PurgeNews::Since { purges, .. } => Ok(purges),
        PurgeNews::Gap => Err(Broken("it lost the thread".into())),
    }
}
