use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

use super::ProviderError;
use super::answer::{self, Answer, Scope};
use super::config::ProviderConfig;
use super::plugin::Plugin;
use crate::types::ImageRef;

/// Nothing is kept longer, whatever a plugin says.
const LONGEST: Duration = Duration::from_secs(30 * 86400);

type Outcome = Result<Arc<Answer>, Arc<ProviderError>>;

/// Where one provider is asked: its answers are kept as long as they may be, and of those who want to know the same at
/// the same time, one runs the plugin and all get the answer.
#[derive(Clone)]
pub(super) struct Desk {
    config: Arc<ProviderConfig>,
    plugin: Arc<Plugin>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The scope of the last answer: whether others wait for it is decided before there is one.
    scope: Option<Scope>,
    kept: HashMap<Key, (Arc<Answer>, Instant)>,
    running: HashMap<Key, (ImageRef, WeakShared<BoxFuture<'static, Outcome>>)>,
}

/// What an answer is kept under.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Image(String),
    Registry(String),
    Global,
}

impl Key {
    fn of(scope: Scope, image: &ImageRef) -> Self {
        match scope {
            Scope::Image => Self::Image(image.name()),
            Scope::Registry => Self::Registry(image.domain().to_owned()),
            Scope::Global => Self::Global,
        }
    }
}

impl Desk {
    pub(super) fn new(config: ProviderConfig, program: PathBuf, patience: Duration) -> Self {
        let plugin = Plugin { program, args: config.args.clone(), env: config.env.clone(), patience };
        Self { config: Arc::new(config), plugin: Arc::new(plugin), state: Arc::default() }
    }

    /// Whether it's still the desk of this provider.
    pub(super) fn serves(&self, config: &ProviderConfig, program: &Path) -> bool {
        *self.config == *config && self.plugin.program == program
    }

    /// What the provider says about `image`.
    pub(super) async fn ask(&self, image: &ImageRef) -> Outcome {
        if let Some(reason) = self.config.unusable {
            return Err(Arc::new(ProviderError::Unusable { reason }));
        }
        let mut alone = false;
        loop {
            let (asked, running) = {
                let mut state = self.lock();
                if let Some(answer) = state.kept(image) {
                    return Ok(answer);
                }
                // As long as nothing is known, it's worth waiting for what others are told.
                let scope = if alone { Scope::Image } else { state.scope.unwrap_or(Scope::Global) };
                self.join(&mut state, Key::of(scope, image), image)
            };
            let outcome = running.await;
            let is_ours = match &outcome {
                Ok(answer) => answer.scope.covers(&asked, image),
                Err(_) => asked.name() == image.name(),
            };
            if is_ours {
                return outcome;
            }
            // Now it's known that the others' answer isn't ours.
            alone = true;
        }
    }

    /// The run for `key` that is on its way, or a new one; and for which image it asks.
    fn join(
        &self,
        state: &mut State,
        key: Key,
        image: &ImageRef,
    ) -> (ImageRef, Shared<BoxFuture<'static, Outcome>>) {
        if let Some((asked, running)) = state.running.get(&key)
            && let Some(running) = running.upgrade()
        {
            return (asked.clone(), running);
        }
        // Weak: when all who wait have gone, the plugin is stopped.
        state.running.retain(|_, (_, running)| running.upgrade().is_some());
        let running = self.clone().run(key.clone(), image.clone()).boxed().shared();
        if let Some(weak) = running.downgrade() {
            state.running.insert(key, (image.clone(), weak));
        }
        (image.clone(), running)
    }

    async fn run(self, key: Key, image: ImageRef) -> Outcome {
        let version = self.config.version;
        let outcome = match self.plugin.run(&answer::request(version, &image.name())).await {
            Ok(output) => {
                answer::parse(version, &output).map_err(|problem| ProviderError::Answer { problem })
            }
            Err(error) => Err(error),
        };
        let mut state = self.lock();
        state.running.remove(&key);
        let answer = Arc::new(outcome.map_err(Arc::new)?);
        state.scope = Some(answer.scope);
        state.keep(&image, &answer, answer.keep.unwrap_or(self.config.keep));
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is ever half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The answer that is good for `image`, the narrowest first.
    fn kept(&self, image: &ImageRef) -> Option<Arc<Answer>> {
        let now = Instant::now();
        [Scope::Image, Scope::Registry, Scope::Global]
            .into_iter()
            .filter_map(|scope| self.kept.get(&Key::of(scope, image)))
            .find(|(_, until)| now < *until)
            .map(|(answer, _)| Arc::clone(answer))
    }

    fn keep(&mut self, image: &ImageRef, answer: &Arc<Answer>, keep: Duration) {
        let now = Instant::now();
        self.kept.retain(|_, (_, until)| now < *until);
        if !keep.is_zero() {
            let until = now + keep.min(LONGEST);
            self.kept.insert(Key::of(answer.scope, image), (Arc::clone(answer), until));
        }
    }
}
