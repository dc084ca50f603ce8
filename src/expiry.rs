//! When a response's time is over where the application decides that: spread, so that not all ends at once; ended by disuse; and refreshed
//! before the end. Pure: time and chance are parameters.

use std::time::Duration;

/// What a policy says about the ends of its responses, beside their lifetimes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Expiry {
    /// The part of a lifetime that may be cut off, from 0 to less than 1.
    pub(crate) jitter: Option<f64>,
    /// A response that isn't asked for during this time is stale.
    pub(crate) sliding: Option<Duration>,
    /// How eagerly a fresh response is refreshed, as a factor to what it costs; see [`should_refresh`].
    pub(crate) refresh_ahead: Option<f64>,
    /// A fresh response is refreshed when less than this is left.
    pub(crate) refresh_within: Option<Duration>,
}

/// What [`Expiry::jitter`] has to be.
pub(crate) const JITTER: &str = "a number from 0 to less than 1: the part of a lifetime that may be cut off";

/// What [`Expiry::refresh_ahead`] has to be.
pub(crate) const REFRESH_AHEAD: &str = "a number above 0 and up to 1000; 1 is usual";

/// What a duration has to be of which zero would mean always.
pub(crate) const NOT_ZERO: &str = "longer than zero";

impl Expiry {
    pub(crate) fn is_jitter(number: f64) -> bool {
        (0.0..1.0).contains(&number)
    }

    pub(crate) fn is_refresh_ahead(number: f64) -> bool {
        number > 0.0 && number <= 1000.0
    }

    /// The first setting that can't be followed, and what it has to be.
    pub(crate) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.is_zero());
        [
            (self.jitter.is_some_and(|number| !Self::is_jitter(number)), "jitter", JITTER),
            (zero(self.sliding), "sliding", NOT_ZERO),
            (self.refresh_ahead.is_some_and(|number| !Self::is_refresh_ahead(number)), "refresh_ahead", REFRESH_AHEAD),
            (zero(self.refresh_within), "refresh_within", NOT_ZERO),
        ]
        .into_iter()
        .find_map(|(is_wrong, name, wanted)| is_wrong.then_some((name, wanted)))
    }

    /// The lifetime that a response gets of `lifetime`, which the application gave. `spread` decides, evenly.
    pub(crate) fn jittered(&self, lifetime: Duration, spread: u64) -> Duration {
        let Some(fraction) = self.jitter else { return lifetime };
        let cut = lifetime.as_secs_f64() * fraction * unit(spread);
        lifetime.saturating_sub(Duration::try_from_secs_f64(cut).unwrap_or_default())
    }
}

/// Whether a response that is fresh for `remaining` is refreshed now: XFetch (Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache
/// Stampede Prevention", 2015). `cost` is what it takes to make the response, and `uniform` a number from above 0 to 1 by chance.
///
/// Each look brings the end forward by a time of its own, distributed exponentially with the mean `cost * beta`. So a response is refreshed the
/// earlier, the more it costs and the more it is asked for; one that is seldom asked for hardly ever is.
pub(crate) fn should_refresh(remaining: Duration, cost: Duration, beta: f64, uniform: f64) -> bool {
    -cost.as_secs_f64() * beta * uniform.ln() >= remaining.as_secs_f64()
}

/// No number that [`unit`] makes brings an end forward by more than this many times `cost * beta`: its smallest is 2^-53.
const FURTHEST: f64 = 36.8;

/// Whether [`should_refresh`] can say yes for any number, so that one needn't be drawn.
pub(crate) fn may_refresh(remaining: Duration, cost: Duration, beta: f64) -> bool {
    remaining.as_secs_f64() <= cost.as_secs_f64() * beta * FURTHEST
}

/// A number from above 0 to 1, from bits by chance.
pub(crate) fn unit(bits: u64) -> f64 {
    ((bits >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// The step between numbers that [`mixed`] turns into bits by chance.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64. Nothing secret depends on it: who could guess it would know when a refresh begins.
pub(crate) fn mixed(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn draws(seed: u64, n: u64) -> impl Iterator<Item = f64> {
        (0..n).map(move |n| unit(mixed(seed.wrapping_add(n.wrapping_mul(STEP)))))
    }

    #[test]
    fn a_refresh_comes_earlier_by_cost_beta_and_chance() {
        // 0.3679 is 1/e, which brings the end forward by the cost; 0.1353 is 1/e².
        let rows = [
            (ms(99), ms(100), 1.0, 0.3679, true),
            (ms(101), ms(100), 1.0, 0.3679, false),
            (ms(199), ms(100), 1.0, 0.1353, true),
            (ms(201), ms(100), 1.0, 0.1353, false),
            (ms(199), ms(100), 2.0, 0.3679, true),
            (ms(51), ms(100), 0.5, 0.3679, false),
            (ms(1), ms(100), 1.0, 1.0, false),
            (ms(1), ms(0), 1.0, 0.0001, false),
            (ms(3600), ms(100), 1.0, unit(0), true),
            (ms(3700), ms(100), 1.0, unit(0), false),
        ];
        for (remaining, cost, beta, uniform, expected) in rows {
            let row = format!("{remaining:?} left, {cost:?}, {beta}, {uniform}");
            assert_eq!(should_refresh(remaining, cost, beta, uniform), expected, "{row}");
            assert!(!expected || may_refresh(remaining, cost, beta), "{row}");
        }
        assert!(!may_refresh(ms(3700), ms(100), 1.0) && !may_refresh(ms(1), ms(0), 1.0));
    }

    #[test]
    fn a_unit_is_never_zero_and_never_above_one() {
        assert_eq!((unit(0), unit(u64::MAX)), (1.0 / (1_u64 << 53) as f64, 1.0));
    }

    #[test]
    fn what_cant_be_followed_is_named() {
        let plain = Expiry::default();
        let zero = Some(Duration::ZERO);
        let rows = [
            (plain, None),
            (Expiry { jitter: Some(0.0), refresh_ahead: Some(1000.0), ..plain }, None),
            (Expiry { jitter: Some(0.999), refresh_ahead: Some(0.001), sliding: Some(ms(1)), ..plain }, None),
            (Expiry { jitter: Some(1.0), ..plain }, Some("jitter")),
            (Expiry { jitter: Some(-0.1), ..plain }, Some("jitter")),
            (Expiry { jitter: Some(f64::NAN), ..plain }, Some("jitter")),
            (Expiry { refresh_ahead: Some(0.0), ..plain }, Some("refresh_ahead")),
            (Expiry { refresh_ahead: Some(f64::INFINITY), ..plain }, Some("refresh_ahead")),
            (Expiry { refresh_ahead: Some(f64::NAN), ..plain }, Some("refresh_ahead")),
            (Expiry { sliding: zero, ..plain }, Some("sliding")),
            (Expiry { refresh_within: zero, ..plain }, Some("refresh_within")),
        ];
        for (expiry, expected) in rows {
            assert_eq!(expiry.mistake().map(|(name, _)| name), expected, "{expiry:?}");
        }
    }

    proptest! {
        #[test]
        fn jitter_shortens_within_its_bounds(lifetime in 0_u64..1 << 45, fraction in 0.0..1.0_f64, spread: u64) {
            let (lifetime, expiry) = (ms(lifetime), Expiry { jitter: Some(fraction), ..Expiry::default() });
            let given = expiry.jittered(lifetime, spread);
            prop_assert!(given <= lifetime);
            // A microsecond for what a float can't tell.
            let least = lifetime.mul_f64(1.0 - fraction).saturating_sub(Duration::from_micros(1) + lifetime / (1 << 30));
            prop_assert!(given >= least, "{given:?} of {lifetime:?} by {fraction}");
            prop_assert_eq!(Expiry::default().jittered(lifetime, spread), lifetime);
        }

        #[test]
        fn jitter_spreads_evenly(seed: u64) {
            let expiry = Expiry { jitter: Some(0.5), ..Expiry::default() };
            let mut tenths = [0; 10];
            for n in 0..1000_u64 {
                let given = expiry.jittered(ms(1000), mixed(seed.wrapping_add(n.wrapping_mul(STEP))));
                let tenth = (given.as_secs_f64() - 0.5) / 0.05;
                tenths[(tenth as usize).min(9)] += 1;
            }
            // 100 in each, with a deviation of 9.5: this is seven of them.
            prop_assert!(tenths.iter().all(|count| (34..=166).contains(count)), "{tenths:?}");
        }

        #[test]
        fn refreshes_are_distributed_exponentially(seed: u64, left in 1_u64..400, cost in 1_u64..400, tenths in 1_u32..40) {
            let beta = f64::from(tenths) / 10.0;
            const LOOKS: u64 = 4000;
            let looks = draws(seed, LOOKS).filter(|uniform| should_refresh(ms(left), ms(cost), beta, *uniform)).count();
            // P(-cost·beta·ln U >= left) = P(U <= e^(-left/(cost·beta)))
            let expected = (-(left as f64) / (cost as f64 * beta)).exp();
            let deviation = (expected * (1.0 - expected) / LOOKS as f64).sqrt();
            let off = (looks as f64 / LOOKS as f64 - expected).abs();
            prop_assert!(off <= 6.0 * deviation + 5.0 / LOOKS as f64, "{looks} of {LOOKS}, expected {expected}");
        }

        #[test]
        fn more_cost_and_less_time_never_make_a_refresh_less_likely(left in 1_u64..4000, cost in 0_u64..4000, spread: u64) {
            let uniform = unit(spread);
            if should_refresh(ms(left), ms(cost), 1.0, uniform) {
                prop_assert!(should_refresh(ms(left - 1), ms(cost), 1.0, uniform));
                prop_assert!(should_refresh(ms(left), ms(cost + 1), 1.0, uniform));
                prop_assert!(should_refresh(ms(left), ms(cost), 1.1, uniform));
                prop_assert!(may_refresh(ms(left), ms(cost), 1.0));
            }
        }

        #[test]
        fn no_number_is_a_panic(secs: u64, fraction: f64, spread: u64, cost: u64, beta: f64, uniform: f64) {
            let any = Duration::from_secs(secs);
            Expiry { jitter: Some(fraction), ..Expiry::default() }.jittered(any, spread);
            should_refresh(any, Duration::from_secs(cost), beta, uniform);
            may_refresh(any, Duration::from_secs(cost), beta);
        }
    }
}
