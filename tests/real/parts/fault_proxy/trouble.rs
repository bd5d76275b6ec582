use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::rule::{Fault, SIGNATURE, Seen};

/// Faults at random, for a share of all GETs and HEADs.
///
/// What a request meets depends on nothing but the seed, the method, the path, the range, and how often exactly this
/// was asked before. So a run with the same seed meets the same trouble, whatever order its requests come in, and
/// who asks again draws again.
#[derive(Debug, Clone)]
pub(crate) struct Trouble {
    share: f64,
    seed: u64,
    path: String,
    faults: Vec<Fault>,
    asked: HashMap<u64, u64>,
}

impl Trouble {
    /// Every fault that passes, for `share` (0.05 is one request in twenty) of the requests.
    pub(crate) fn new(share: f64, seed: u64) -> Self {
        let status = |code| Fault::Status { code, retry_after: Some(1) };
        let faults = vec![
            Fault::Stall(200_000),
            Fault::Close,
            Fault::Reset(200_000),
            Fault::SlowStart { bytes: 100_000, per_second: 200_000 },
            status(429),
            status(503),
            Fault::Unauthorized,
            Fault::Expired,
            Fault::IgnoreRange,
            Fault::Header("etag", "\"another\"".to_owned()),
            Fault::CutBody(200_000),
            Fault::HalfBody,
            Fault::OtherRange,
            Fault::OtherTotal,
        ];
        Self { share, seed, path: String::new(), faults, asked: HashMap::new() }
    }

    /// What a network and its servers do that passes, to files of weights. A version that differs ends a file's fetch, and
    /// the files are listed anew, as for one that was replaced: that isn't among them.
    pub(crate) fn passing(share: f64, seed: u64) -> Self {
        let portal = Fault::Header("content-type", "text/html; charset=utf-8".to_owned());
        let storm = Fault::Status { code: 502, retry_after: None };
        Self::new(share, seed).and([portal, storm]).without(|fault: &Fault| {
            matches!(fault, Fault::Unauthorized | Fault::Expired | Fault::OtherTotal)
                || matches!(fault, Fault::Header("etag", _))
        })
    }

    /// But nobody takes off what a signature covers: S3 would refuse that, and rightly.
    pub(crate) fn of_signed_requests(self) -> Self {
        self.without(|fault| *fault == Fault::IgnoreRange)
    }

    /// Only for requests whose path (with its query) contains `path`.
    pub(crate) fn on(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    /// Only these faults. Where one says after how many bytes of the body, that is the most: how many is drawn too.
    pub(crate) fn only(self, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..self }
    }

    /// These faults too.
    pub(crate) fn and(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.faults.extend(faults);
        self
    }

    /// All but the faults that `unwanted` picks.
    pub(crate) fn without(mut self, unwanted: impl Fn(&Fault) -> bool) -> Self {
        self.faults.retain(|fault| !unwanted(fault));
        self
    }

    pub(super) fn draw(&mut self, seen: &Seen) -> Option<Fault> {
        if !matches!(seen.method.as_str(), "GET" | "HEAD") || !seen.path.contains(&self.path) {
            return None;
        }
        let what = self.what(seen);
        let times = self.asked.entry(what).or_default();
        *times += 1;
        let mut random = fastrand::Rng::with_seed(what ^ times.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        if random.f64() >= self.share {
            return None;
        }
        let faults: Vec<&Fault> = self.faults.iter().filter(|fault| shows(fault, seen)).collect();
        random.choice(faults).map(|fault| match fault {
            Fault::Stall(most) => Fault::Stall(random.u64(..=most)),
            Fault::Reset(most) => Fault::Reset(random.u64(..=most)),
            Fault::CutBody(most) => Fault::CutBody(random.u64(..=most)),
            Fault::FlipByte(most) => Fault::FlipByte(random.u64(..=most)),
            other => other.clone(),
        })
    }

    /// A number for exactly this request. Ports change from run to run, and so do signatures.
    fn what(&self, seen: &Seen) -> u64 {
        let mut hasher = DefaultHasher::new();
        let path = seen.path.split('?').next().unwrap_or_default();
        (self.seed, &seen.method, path, &seen.range).hash(&mut hasher);
        hasher.finish()
    }
}

/// Whether anything of this fault could be seen in the answer to this request.
fn shows(fault: &Fault, seen: &Seen) -> bool {
    let has_body = seen.method == "GET";
    match fault {
        Fault::Stall(_)
        | Fault::Reset(_)
        | Fault::SlowStart { .. }
        | Fault::CutBody(_)
        | Fault::HalfBody
        | Fault::FlipByte(_) => has_body,
        Fault::IgnoreRange | Fault::OtherRange | Fault::OtherTotal => has_body && seen.range.is_some(),
        // Another URL is to be had only for one that was signed.
        Fault::Expired => seen.path.contains(SIGNATURE),
        Fault::Status { .. }
        | Fault::Unauthorized
        | Fault::Redirect(_)
        | Fault::Close
        | Fault::Header(..) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::rule::Headers;
    use super::{Fault, Seen, Trouble};

    fn request(method: &str, path: &str, range: Option<&str>) -> Seen {
        let range = range.map(str::to_owned);
        let (method, path) = (method.to_owned(), path.to_owned());
        Seen { method, path, range, if_match: None, headers: Headers::default(), status: None, fault: None }
    }

    fn draws(trouble: &mut Trouble, paths: impl Iterator<Item = u32>) -> Vec<(u32, Option<Fault>)> {
        let draw = |number| (number, trouble.draw(&request("GET", &format!("/{number}"), Some("bytes=0-"))));
        paths.map(draw).collect()
    }

    #[test]
    fn a_share_of_the_requests_has_every_fault_there_is() {
        let drawn = draws(&mut Trouble::new(0.05, 1), 0..10_000);
        let faults: Vec<_> = drawn.into_iter().filter_map(|(_, fault)| fault).collect();
        assert!((400..600).contains(&faults.len()), "{}", faults.len());
        let kinds: std::collections::HashSet<_> = faults.iter().map(std::mem::discriminant).collect();
        assert_eq!(kinds.len(), 12, "all but the two statuses differ in kind, and nothing was signed");
        assert!(draws(&mut Trouble::new(0.0, 1), 0..1000).iter().all(|(_, fault)| fault.is_none()));
        assert!(draws(&mut Trouble::new(1.0, 1), 0..1000).iter().all(|(_, fault)| fault.is_some()));
    }

    #[test]
    fn the_same_seed_is_the_same_trouble_in_any_order() {
        let forward = draws(&mut Trouble::new(0.3, 7), 0..500);
        let mut backward = draws(&mut Trouble::new(0.3, 7), (0..500).rev());
        backward.reverse();
        assert_eq!(forward, backward);
        assert_ne!(forward, draws(&mut Trouble::new(0.3, 8), 0..500));
    }

    #[test]
    fn who_asks_again_draws_again() {
        let mut trouble = Trouble::new(0.5, 3);
        let same = request("GET", "/blob", None);
        let drawn: Vec<bool> = (0..100).map(|_| trouble.draw(&same).is_some()).collect();
        assert!(drawn.contains(&true) && drawn.contains(&false), "{drawn:?}");
    }

    #[test]
    fn a_fault_that_nobody_would_see_is_not_drawn() {
        let expired = || Trouble::new(1.0, 1).only([Fault::Expired]);
        assert_eq!(expired().draw(&request("GET", "/blob", None)), None);
        assert_eq!(expired().draw(&request("GET", "/blob?X-Signature=1", None)), Some(Fault::Expired));
        let mut ignores = Trouble::new(1.0, 1).only([Fault::IgnoreRange, Fault::HalfBody]);
        assert_eq!(ignores.draw(&request("HEAD", "/blob", Some("bytes=0-"))), None);
        assert_eq!(ignores.draw(&request("GET", "/blob", None)), Some(Fault::HalfBody));
        assert_eq!(Trouble::new(1.0, 1).draw(&request("POST", "/blob", None)), None);
        assert_eq!(Trouble::new(1.0, 1).on("/v2/").draw(&request("GET", "/blob", None)), None);
        let mut without = Trouble::new(1.0, 1).without(|fault| *fault != Fault::Close);
        assert_eq!(without.draw(&request("GET", "/blob", None)), Some(Fault::Close));
    }
}
