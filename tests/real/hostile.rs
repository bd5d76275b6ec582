//! Images that are attacks, from a registry through Stoker's own puller into a real containerd: each is refused with an
//! error that says what is wrong with which image, or is held within its snapshot as containerd holds it. Nothing
//! outside is touched, and of what is refused nothing is left.

mod agent;
mod bombs;
mod bytes;
mod canary;
mod documents;
pub(crate) mod forged;
mod liar;
mod paths;

use stoker::image::ImageError;
use stoker::types::{ErrorKind, ImageRef};

use crate::parts::Registry;
use crate::pulling::Pulling;
use crate::unpack::tape::{Item, Tape};
use canary::Canary;
use forged::{Forged, Image};
use liar::{Liar, Lies};

/// A layer that nobody minds.
fn innocent() -> Vec<u8> {
    Tape::of([Item::dir("etc"), Item::file("etc/base", "base")])
}

/// A containerd and the puller, a registry, and what must stay as it is.
struct Bed {
    pulling: Pulling,
    registry: Registry,
    canary: Canary,
}

/// An error of this kind, with this code and these words.
#[derive(Debug, Clone, Copy)]
struct Refusal(ErrorKind, &'static str, &'static str);

impl Bed {
    async fn start() -> Self {
        let (pulling, registry) = tokio::join!(Pulling::start(), Registry::start());
        pulling.hosts(&registry.host(), &[&registry.url()]);
        let canary = Canary::new(&pulling.bench.containerd.snapshots());
        let bed = Self { pulling, registry, canary };
        // Until it has had a blob, containerd's collection of half-written ones fails.
        let good = Image::of([Forged::packed(&innocent())]);
        let (tag, pulled) = bed.pull("good", &good).await;
        pulled.expect("a good image");
        bed.pulling.bench.is_empty_without(&tag).await;
        bed
    }

    /// Pushes it and has it pulled.
    async fn pull(&self, name: &str, image: &Image) -> (ImageRef, Result<(), ImageError>) {
        let repository = format!("hostile/{}", name.replace(|c: char| !c.is_ascii_lowercase(), "-"));
        let tag = image.push(&self.registry, repository.trim_end_matches('-')).await;
        let pulled = self.pulling.pull(&tag).await.map(drop);
        (tag, pulled)
    }

    /// A registry that tells these lies, and is trusted.
    async fn lying(&self, lies: Lies) -> Liar {
        let liar = lies.serve().await;
        self.pulling.hosts(&liar.host, &[&format!("http://{}", liar.host)]);
        liar
    }

    /// What a liar serves is refused so, and nothing is left of it.
    async fn refuses_from(&self, liar: &Liar, name: &str, refusal: Refusal) {
        let pulled = self.pulling.pull(&liar.tag()).await.map(drop);
        self.refused(name, &liar.tag(), pulled, refusal).await;
    }

    /// It is refused so, and nothing is left of it.
    async fn refuses(&self, name: &str, image: &Image, refusal: Refusal) {
        let (tag, pulled) = self.pull(name, image).await;
        self.refused(name, &tag, pulled, refusal).await;
    }

    async fn refused(&self, name: &str, tag: &ImageRef, pulled: Result<(), ImageError>, refusal: Refusal) {
        let Refusal(kind, code, words) = refusal;
        let error = pulled.expect_err(name);
        let told = stoker::rt::chain(&error);
        assert_eq!((error.kind(), error.code()), (kind, code), "{name}: {told}");
        assert!(told.contains(words) && told.contains(&tag.to_string()), "{name}: {told}");
        if kind == ErrorKind::Transient {
            // It may come right another time, and what came so far is kept for that.
            self.pulling.give_up(name).await;
        } else {
            // Whoever pulls has let go of all of it, so that it went with the lease.
            assert_eq!(self.pulling.bench.half_written(), 0, "{name}: half-written blobs");
        }
        self.pulling.assert_empty(name).await;
        self.canary.assert_untouched(name);
    }
}
