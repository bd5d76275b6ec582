//! The sides of the race: each begins with a containerd 2.4 of its own that has nothing, and ends with a usable image.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, ImageStatusRequest, PullImageRequest};

use crate::made::Image;
use crate::measure::child;
use crate::measure::limits::{InCgroup, Limits, inside};
use crate::parts::{Containerd, Options, Stoker, Version};

/// containerd as most nodes have it: no igzip and no pigz beside it, so that it inflates by its own Go code.
const STOCK: [(&str, &str); 2] = [("CONTAINERD_DISABLE_IGZIP", "true"), ("CONTAINERD_DISABLE_PIGZ", "true")];

/// All that 2.4's transfer service has to offer: layers side by side, ranges within a layer, unpacks side by side. The
/// same settings in CRI's own section would make it fall back to the older way, which has no ranges.
const TUNED: &str = "
[plugins.'io.containerd.transfer.v1.local']
  max_concurrent_downloads = 8
  concurrent_layer_fetch_buffer = 8388608
  max_concurrent_unpacks = 4
";

/// Who pulls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// containerd 2.4 by CRI PullImage, as it comes.
    Defaults,
    /// The same, tuned, with igzip.
    Tuned,
    /// `stoker pull`, into a containerd as it comes.
    Ours,
    /// The same within the limits that the DaemonSet has.
    Limited,
}

impl Side {
    /// All, in the order in which they run.
    pub(crate) const ALL: [Self; 4] = [Self::Defaults, Self::Tuned, Self::Ours, Self::Limited];

    /// How the settings name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Defaults => "defaults",
            Self::Tuned => "tuned",
            Self::Ours => "ours",
            Self::Limited => "limited",
        }
    }

    /// How the table names it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Defaults => "containerd 2.4, its defaults",
            Self::Tuned => "containerd 2.4, tuned, igzip",
            Self::Ours => "stoker pull",
            Self::Limited => "stoker pull, with the DaemonSet's limits",
        }
    }

    /// Whether containerd does it by itself.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Defaults | Self::Tuned)
    }

    /// Its containerd, fresh.
    pub(crate) async fn containerd(self) -> Containerd {
        let (more, env) = match self {
            Self::Tuned => (TUNED, &[][..]),
            _ => ("", &STOCK[..]),
        };
        if self == Self::Tuned {
            // Else it would inflate by its own Go code, and nobody would know.
            crate::parts::system("igzip");
        }
        Containerd::start_configured(Version::V2_4, Options::default(), more, env).await
    }

    /// Has whatever runs in memory what an agent that has run for long has there: its program.
    pub(crate) async fn warm_up(self, containerd: &Containerd, image: &Image) {
        if !self.is_peer() {
            let version = Stoker::new(["--version"]).output(Duration::from_secs(20)).await;
            assert!(version.status.success(), "stoker says its version");
        }
        assert_eq!(id(containerd, &image.reference("127.0.0.1:1")).await, None);
    }

    /// Pulls, and gives the processor time and the peak of what isn't containerd.
    ///
    /// # Panics
    /// When the pull fails.
    pub(crate) async fn pull(self, containerd: &Containerd, reference: &str) -> Own {
        match self {
            Self::Defaults | Self::Tuned => {
                pull_by_cri(containerd, reference).await;
                Own::default()
            }
            Self::Ours => pull_by_stoker(stoker(containerd, reference), containerd.directory()).await,
            Self::Limited => {
                let cgroup = Limits::shipped().cgroup();
                let command = inside(&cgroup, &stoker(containerd, reference));
                let own = pull_by_stoker(command, containerd.directory()).await;
                Own { in_cgroup: Some(InCgroup::of(&cgroup)), ..own }
            }
        }
    }
}

/// What a pull used beside containerd.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    /// Processor time.
    pub(crate) cpu: Duration,
    /// The largest resident size, in bytes.
    pub(crate) peak: u64,
    /// What its cgroup says, if it had one.
    pub(crate) in_cgroup: Option<InCgroup>,
}

/// `stoker pull REFERENCE` for this containerd.
pub(crate) fn stoker(containerd: &Containerd, reference: &str) -> Command {
    Stoker::new(["pull", reference])
        .args(["--containerd-address".as_ref(), containerd.address().as_os_str()])
        .command()
}

/// Runs it to its end.
///
/// # Panics
/// When it fails.
pub(crate) async fn pull_by_stoker(command: Command, dir: &Path) -> Own {
    let used = child::must_do("stoker pull", &command, &dir.join("stoker.log")).await;
    Own { cpu: used.cpu, peak: used.peak, in_cgroup: None }
}

async fn pull_by_cri(containerd: &Containerd, reference: &str) {
    let spec = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
    let request = PullImageRequest { image: Some(spec), auth: None, sandbox_config: None };
    let pulled = cri(containerd).await.pull_image(request).await;
    pulled.unwrap_or_else(|status| panic!("PullImage {reference}: {status}\n{}", containerd.log()));
}

/// The image's ID as CRI tells it, if it has the image.
async fn id(containerd: &Containerd, reference: &str) -> Option<String> {
    let spec = ImageSpec { image: reference.to_owned(), ..ImageSpec::default() };
    let request = ImageStatusRequest { image: Some(spec), verbose: false };
    let answer = cri(containerd).await.image_status(request).await.expect("CRI answers");
    Some(answer.into_inner().image?.id)
}

/// Sees that the image is there: CRI knows it by its ID, and its top snapshot is unpacked and committed.
///
/// # Panics
/// When it isn't.
pub(crate) async fn verify(containerd: &Containerd, image: &Image, reference: &str) {
    assert_eq!(id(containerd, reference).await, Some(image.config.to_string()), "{reference}");
    let top = image.chain_id.to_string();
    let snapshot = containerd.ctr_ok(&["snapshots", "info", &top]).await;
    assert!(snapshot.contains("Committed"), "{snapshot}");
}

async fn cri(containerd: &Containerd) -> ImageServiceClient<tonic::transport::Channel> {
    ImageServiceClient::new(
        containerd_client::connect(containerd.address()).await.expect("containerd's socket"),
    )
}
