//! The keys that requests are signed with, had once for all who ask.

use std::time::{Duration, SystemTime};

use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_s3::config::Credentials as Keys;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long before their end keys are had anew, as the SDK has it: a request takes a while, and clocks differ.
const MARGIN: Duration = Duration::from_secs(10);

/// How long keys without an end are believed, as the SDK has it: a file with other ones may lie there by then.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Keeps what `inner` gives for as long as it's good.
#[derive(Debug)]
pub(super) struct Kept<P> {
    inner: P,
    last: Mutex<Option<Last>>,
}

#[derive(Debug)]
struct Last {
    keys: Keys,
    had: Instant,
}

impl Last {
    /// Whether the keys are good for `longer` from now on.
    fn is_good_for(&self, longer: Duration) -> bool {
        match self.keys.expiry() {
            Some(end) => SystemTime::now().checked_add(longer).is_some_and(|then| then < end),
            None => self.had.elapsed() < LONGEST,
        }
    }
}

impl<P: ProvideCredentials> Kept<P> {
    pub(super) fn new(inner: P) -> Self {
        Self { inner, last: Mutex::default() }
    }

    async fn keys(&self) -> provider::Result {
        let mut last = self.last.lock().await;
        if let Some(last) = last.as_ref().filter(|last| last.is_good_for(MARGIN)) {
            return Ok(last.keys.clone());
        }
        match (self.inner.provide_credentials().await, last.as_ref()) {
            (Ok(keys), _) => {
                *last = Some(Last { keys: keys.clone(), had: Instant::now() });
                Ok(keys)
            }
            // Nobody gives new ones now; these still hold.
            (Err(_), Some(last)) if last.keys.expiry().is_some() && last.is_good_for(Duration::ZERO) => {
                Ok(last.keys.clone())
            }
            (Err(error), _) => Err(error),
        }
    }
}

impl<P: ProvideCredentials> ProvideCredentials for Kept<P> {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.keys())
    }

    fn fallback_on_interrupt(&self) -> Option<Keys> {
        self.inner.fallback_on_interrupt()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex as Lock;

    use aws_credential_types::provider::error::CredentialsError;

    use super::*;

    /// Gives what it's told to, the last first, and nothing after that.
    #[derive(Debug)]
    struct Giver(Lock<Vec<Keys>>);

    impl ProvideCredentials for Giver {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let next = self.0.lock().unwrap().pop();
            future::ProvideCredentials::ready(next.ok_or(CredentialsError::not_loaded("no more")))
        }
    }

    fn keys(name: &str, life: Option<Duration>) -> Keys {
        Keys::new(name, "secret", None, life.map(|life| SystemTime::now() + life), "test")
    }

    async fn names(keys: Vec<Keys>, times: usize) -> Vec<Option<String>> {
        let kept = Kept::new(Giver(Lock::new(keys.into_iter().rev().collect())));
        let mut names = Vec::new();
        for _ in 0..times {
            let given = kept.provide_credentials().await;
            names.push(given.ok().map(|keys| keys.access_key_id().to_owned()));
        }
        names
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[tokio::test]
    async fn keys_are_had_once_while_they_are_good_and_anew_before_they_end() {
        let hour = Some(Duration::from_secs(3600));
        let soon = Some(Duration::from_secs(5));
        assert_eq!(names(vec![keys("a", hour), keys("b", hour)], 3).await, some(&["a", "a", "a"]));
        assert_eq!(names(vec![keys("a", None), keys("b", None)], 2).await, some(&["a", "a"]));
        let renewed = names(vec![keys("a", soon), keys("b", soon), keys("c", hour)], 4).await;
        assert_eq!(renewed, some(&["a", "b", "c", "c"]));
    }

    #[tokio::test]
    async fn keys_that_still_hold_are_used_while_nobody_gives_new_ones() {
        let soon = Some(Duration::from_secs(5));
        assert_eq!(names(vec![keys("a", soon)], 3).await, some(&["a", "a", "a"]));
        assert_eq!(
            names(vec![keys("a", Some(Duration::ZERO))], 2).await,
            [some(&["a"]), vec![None]].concat()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn keys_without_an_end_are_asked_for_again_after_a_while() {
        let kept = Kept::new(Giver(Lock::new(vec![keys("b", None), keys("a", None)])));
        assert_eq!(kept.keys().await.unwrap().access_key_id(), "a");
        tokio::time::advance(LONGEST).await;
        assert_eq!(kept.keys().await.unwrap().access_key_id(), "b");
    }
}
