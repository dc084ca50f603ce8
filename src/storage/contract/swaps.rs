//! What is tried of swaps. A store without them says so, and does nothing.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::samples::{Sample, Samples, difference};
use super::{Broken, Kept, SOON, expect, expect_found, expect_nothing, put};
use crate::key::CacheKey;
use crate::response::StoredResponse;
use crate::storage::{Expected, Storage, Swapped};

pub(super) async fn swaps(samples: &Samples, storage: &impl Storage) -> Kept {
    let key = samples.key("/");
    let [first, second, third] = ["a first entry", "a second one", "a third one"].map(|name| samples.plain(name));
    match storage.swap(samples.swap(&key, Expected::Nothing, &first)).await {
        Err(error) if error.is_unsupported() => return expect_nothing(samples, storage, &key, &first).await,
        swapped => expect_done(&swapped?, "nothing was there, and that was expected")?,
    }
    expect_found(samples, storage, &key, &first).await?;
    let of_first = Expected::This(&first.response);
    expect_instead(&swap(samples, storage, &key, Expected::Nothing, &second).await?, Some(&first))?;
    expect_found(samples, storage, &key, &first).await?;
    expect_done(&swap(samples, storage, &key, of_first, &second).await?, "what was there was expected")?;
    expect_instead(&swap(samples, storage, &key, of_first, &third).await?, Some(&second))?;
    expect_found(samples, storage, &key, &second).await?;
    storage.remove(&key).await?;
    expect_instead(&swap(samples, storage, &key, Expected::This(&second.response), &third).await?, None)?;
    expect_nothing(samples, storage, &key, &third).await?;
    expect_done(&swap(samples, storage, &key, Expected::Nothing, &third).await?, "what was there had been removed")?;
    expects_what_was_read(samples, storage).await?;
    lets_time_pass(samples, storage).await?;
    refuses_variants(samples, storage).await
}

/// What was put is swapped as what was swapped in is, by whoever has read it.
async fn expects_what_was_read(samples: &Samples, storage: &impl Storage) -> Kept {
    for (number, sample) in samples.of_all_kinds().into_iter().enumerate() {
        let key = samples.key(&format!("/read/{number}"));
        if sample.response.varies() {
            continue;
        }
        put(storage, &key, &sample).await?;
        let found = samples.find(storage, &key, &sample).await?;
        let found = found.first().ok_or_else(|| Broken(format!("{} isn't there", sample.name)))?;
        let other = found.body.iter().map(|byte| byte ^ 1).chain(found.body.is_empty().then_some(0)).collect();
        let like_it = StoredResponse { body: other, ..StoredResponse::clone(found) };
        let newer = samples.plain("what takes its place");
        expect_instead(&swap(samples, storage, &key, Expected::This(&like_it), &newer).await?, Some(&sample))?;
        let swapped = swap(samples, storage, &key, Expected::This(found), &newer).await?;
        expect_done(&swapped, format_args!("{} was there, as it had been read", sample.name))?;
        expect_found(samples, storage, &key, &newer).await?;
        let newest = samples.plain("what is put");
        put(storage, &key, &newest).await?;
        expect_found(samples, storage, &key, &newest).await?;
    }
    Ok(())
}

/// What isn't kept any more is nothing; a store that has it all the same says what it has.
async fn lets_time_pass(samples: &Samples, storage: &impl Storage) -> Kept {
    let (key, brief, next) = (samples.key("/brief"), samples.plain("a brief entry"), samples.plain("the next one"));
    let response = Arc::new(StoredResponse { keep: SOON, ..StoredResponse::clone(&brief.response) });
    let brief = Sample { response, ..brief };
    storage.swap(samples.swap(&key, Expected::Nothing, &brief)).await?;
    sleep(4 * SOON).await;
    let swapped = match swap(samples, storage, &key, Expected::Nothing, &next).await? {
        Swapped::Not(Some(there)) => swap(samples, storage, &key, Expected::This(&there), &next).await?,
        swapped => swapped,
    };
    expect_done(&swapped, "what was there is over")?;
    expect_found(samples, storage, &key, &next).await
}

async fn refuses_variants(samples: &Samples, storage: &impl Storage) -> Kept {
    let (key, plain) = (samples.key("/varies"), samples.plain("a plain one"));
    let varying = samples.varying("one that varies", "accept-language", Some("de"));
    let refused = swap(samples, storage, &key, Expected::Nothing, &varying).await.is_err();
    expect(refused, "what varies was swapped in")?;
    put(storage, &key, &varying).await?;
    let refused = swap(samples, storage, &key, Expected::Nothing, &plain).await.is_err();
    expect(refused, "a key with variants was swapped")?;
    expect_found(samples, storage, &key, &varying).await
}

/// Each counts one on from what is there, until nobody is left.
pub(super) async fn swaps_one_at_a_time(samples: &Samples, storage: impl Storage) -> Kept {
    const TASKS: u64 = 4;
    const EACH: u64 = 25;
    let (key, storage) = (samples.key("/"), Arc::new(storage));
    let zero = samples.plain("0");
    match storage.swap(samples.swap(&key, Expected::Nothing, &zero)).await {
        Err(error) if error.is_unsupported() => return Ok(()),
        swapped => expect_done(&swapped?, "nothing was there, and that was expected")?,
    }
    let mut all = JoinSet::new();
    for _ in 0..TASKS {
        let (samples, storage, key, mut known) = (samples.clone(), storage.clone(), key.clone(), zero.response.clone());
        all.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let next = samples.plain(&(count(&known)? + 1).to_string());
                match swap(&samples, &*storage, &key, Expected::This(&known), &next).await? {
                    Swapped::Done => (known, done) = (next.response, done + 1),
                    Swapped::Not(Some(there)) => known = there,
                    Swapped::Not(None) => return Err(Broken("what nobody removed is gone".into())),
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.unwrap_or_else(|error| Err(Broken(error.to_string())))?;
    }
    let there = samples.find(&*storage, &key, &zero).await?;
    let counted = there.first().map_or(Ok(0), |there| count(there))?;
    expect(counted == TASKS * EACH, format_args!("{} swaps counted {counted}", TASKS * EACH))
}

/// The number in the name of a sample, which is at the end of its content.
fn count(response: &StoredResponse) -> Result<u64, Broken> {
    let content = String::from_utf8_lossy(&response.body).into_owned();
    let number = content.rsplit(' ').next().and_then(|number| number.parse().ok());
    number.ok_or_else(|| Broken(format!("{content:?} is there, which nobody put")))
}

async fn swap(
    samples: &Samples,
    storage: &impl Storage,
    key: &CacheKey,
    expected: Expected<'_>,
    new: &Sample,
) -> Result<Swapped, Broken> {
    Ok(storage.swap(samples.swap(key, expected, new)).await?)
}

fn expect_done(swapped: &Swapped, since: impl std::fmt::Display) -> Kept {
    expect(matches!(swapped, Swapped::Done), format_args!("a swap wasn't done, though {since}"))
}

fn expect_instead(swapped: &Swapped, there: Option<&Sample>) -> Kept {
    match (swapped, there) {
        (Swapped::Done, _) => Err(Broken("a swap was done, though something else was there than was expected".into())),
        (Swapped::Not(told), there) => {
            let difference = match (told, there) {
                (Some(told), Some(there)) => difference(&there.response, told),
                (None, None) => None,
                _ => Some("presence"),
            };
            let otherwise = |what| Broken(format!("a swap that wasn't done told of an entry of another {what}"));
            difference.map_or(Ok(()), |what| Err(otherwise(what)))
        }
    }
}
