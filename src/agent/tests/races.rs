//! Label first, bytes after, with a node task that is slow: it takes a report, says what it may put on the Node, and
//! some time later the API server confirms.

use super::*;
use crate::agent::world::Said;
use crate::node::{Report, labels};

const KEY: &str = "weights.stoker.dev/a";

/// The agent's side in a world that is given, and the node task's.
struct Race {
    world: World,
    /// What the node task has taken and not yet sent.
    taken: Option<Report>,
}

impl Race {
    fn with(world: World) -> Self {
        let mut race = Self { world, taken: None };
        race.world.applied = Some(Applied::default());
        race
    }

    fn list(&mut self, entries: impl IntoIterator<Item = Entry>) {
        self.world.list = Some(Arc::new(listed(entries)));
    }

    /// The agent plans and says it.
    fn says(&mut self) -> Vec<String> {
        let plan = planned(&self.world);
        let version = plan.report.labels_version;
        self.world.said = Said { version, labels: labels(&plan.report) };
        let said = steps(&plan);
        self.taken = Some(plan.report);
        said
    }

    /// The node task takes the newest report, says what it may put there, and sends it.
    fn sends(&mut self) {
        let report = self.taken.as_ref().unwrap();
        let applied = self.world.applied.get_or_insert_default();
        applied.perhaps = labels(report).unwrap().into_iter().collect();
        applied.labels_version = report.labels_version;
    }

    /// The API server confirms what was sent.
    fn is_confirmed(&mut self) {
        let applied = self.world.applied.as_mut().unwrap();
        applied.labels = std::mem::take(&mut applied.perhaps).into_iter().collect();
    }

    fn is_written(&mut self) {
        self.sends();
        self.is_confirmed();
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.world.applied.as_ref().unwrap().values(key).next()
    }
}

fn warm_weights() -> Race {
    let mut world = world(listed([weights("a")]));
    world.weights = Some([(id("a"), named(&weights_goods("a")))].into());
    world.checks = [(id("a"), check(&world, &weights("a"), Duration::from_secs(600)))].into();
    let mut race = Race::with(world);
    assert!(race.says().is_empty());
    race.is_written();
    assert!(race.value(KEY).is_some());
    race
}

#[tokio::test]
async fn nothing_leaves_before_the_first_confirmation() {
    let mut race = warm_weights();
    race.list([]);
    race.world.applied = None;
    race.world.has_settled = true;
    assert!(race.says().is_empty() && race.says().is_empty());
    // The first look at the Node shows no label, but the node task hasn't taken what is said yet.
    race.world.applied = Some(Applied::default());
    assert!(race.says().is_empty());
    race.is_written();
    assert_eq!(race.says(), ["retire a"]);
}

#[tokio::test]
async fn an_entry_that_is_removed_listed_again_and_removed_while_a_write_is_under_way() {
    let mut race = warm_weights();
    race.list([]);
    assert!(race.says().is_empty());
    race.sends();
    assert!(race.says().is_empty(), "sent is not confirmed");

    race.list([weights("a")]);
    assert!(race.says().is_empty());
    // The old write is confirmed, and the node task has the newer report in its hands, but hasn't said so yet.
    race.is_confirmed();
    assert_eq!(race.value(KEY), None);
    let slow = race.taken.take();
    race.list([]);
    assert!(race.says().is_empty(), "no label stands, and yet one may be written any moment");

    race.taken = slow;
    race.sends();
    assert!(race.says().is_empty(), "now it's known to be under way");
    race.is_confirmed();
    assert!(race.says().is_empty(), "and it stands");
    race.is_written();
    assert_eq!(race.says(), ["retire a"]);
}

#[tokio::test]
async fn a_write_whose_end_is_not_known_counts_as_standing() {
    let mut race = warm_weights();
    race.list([]);
    race.says();
    race.is_written();
    let applied = race.world.applied.as_mut().unwrap();
    applied.perhaps = [(KEY.to_owned(), "0123".to_owned())].into();
    assert!(race.says().is_empty());
    race.world.applied.as_mut().unwrap().perhaps.clear();
    assert_eq!(race.says(), ["retire a"]);
}

#[tokio::test]
async fn what_expires_or_loses_this_node_leaves_behind_its_label() {
    let mut expired = weights("a");
    expired.expires_at = Some(now().wall);
    let mut lowered = weights("a");
    lowered.nodes = Some(NodeSelector { match_labels: BTreeMap::new(), fraction: Some(1e-9) });
    for leaving in [expired, lowered] {
        let mut race = warm_weights();
        race.list([leaving]);
        assert!(race.says().is_empty());
        race.sends();
        assert!(race.says().is_empty());
        race.is_confirmed();
        assert_eq!(race.says(), ["retire a"]);
    }
}

#[tokio::test]
async fn a_job_of_an_entry_that_left_ends_before_its_names_go() {
    let mut race = warm_weights();
    let job = Job {
        entry: Arc::new(weights("a")),
        progress: Arc::new(Progress::default()),
        content: None,
        stopping: false,
    };
    race.world.jobs = [(id("a"), job)].into();
    race.list([]);
    assert_eq!(race.says(), ["cancel a"]);
    race.world.jobs.get_mut(&id("a")).unwrap().stopping = true;
    race.is_written();
    assert!(race.says().is_empty());
    race.world.jobs.clear();
    assert_eq!(race.says(), ["retire a"]);
}

fn pin(tag: u8) -> Pin {
    let target = Digest::of(format!("image {tag}").as_bytes());
    Pin { name: format!("docker.io/library/nginx:{tag}"), target }
}

/// Lists this tag; its registry was asked just now.
fn lists(race: &mut Race, tag: u8) {
    let of = image("a", &format!("nginx:{tag}"));
    race.list([of.clone()]);
    race.world.checks = [(id("a"), check(&race.world, &of, Duration::from_secs(600)))].into();
}

/// An entry whose label names tag 1, and whose tag 2 has just become warm.
fn switched_image() -> Race {
    let mut world = world(listed([image("a", "nginx:1")]));
    let one = images([("nginx:1", present("image 1"))]);
    world.images = Some(Arc::new(Images { our_pins: vec![pin(1)], ..one }));
    let mut race = Race::with(world);
    lists(&mut race, 1);
    assert!(race.says().is_empty());
    race.is_written();
    let both = images([("nginx:1", present("image 1")), ("nginx:2", present("image 2"))]);
    race.world.images = Some(Arc::new(Images { our_pins: vec![pin(1), pin(2)], ..both }));
    lists(&mut race, 2);
    race
}

#[tokio::test]
async fn the_old_images_pin_stays_until_the_new_label_is_confirmed() {
    let mut race = switched_image();
    assert!(race.says().is_empty());
    race.sends();
    assert!(race.says().is_empty(), "either of both may stand");
    race.is_confirmed();
    assert_eq!(race.says(), ["unpin docker.io/library/nginx:1"]);
}

#[tokio::test]
async fn a_switch_that_is_taken_back_keeps_what_may_have_been_written() {
    let mut race = switched_image();
    race.says();
    race.sends();
    // No answer comes to that write, and then the list goes back.
    let lost = race.world.applied.clone().unwrap().perhaps;
    lists(&mut race, 1);
    assert!(race.says().is_empty());
    race.sends();
    race.world.applied.as_mut().unwrap().perhaps.extend(lost);
    assert!(race.says().is_empty(), "the label of 1 is wanted, but that of 2 may be there");
    race.is_written();
    assert_eq!(race.says(), ["unpin docker.io/library/nginx:2"]);
}

/// The cache keeps the revision before the current one. A third would take away what the label still names.
#[tokio::test]
async fn a_revision_is_not_switched_again_before_the_label_of_the_one_before_is_gone() {
    let mut race = warm_weights();
    let old = race.value(KEY).unwrap().to_owned();
    let mut shown = named(&weights_goods("a"));
    shown.current.as_mut().unwrap().revision = Revision::of_image(Digest::of(b"newer"));
    shown.other = vec![old];
    race.world.weights = Some([(id("a"), shown)].into());
    race.world.checks = [(id("a"), check(&race.world, &weights("a"), Duration::ZERO))].into();
    assert!(race.says().is_empty(), "a look at the source is due, and waits");
    let mut moved = weights_goods("a");
    moved.uri = "s3://bucket/moved/".parse().unwrap();
    race.list([entry("a", Goods::Weights(moved))]);
    race.says();
    let plan = planned(&race.world);
    assert_eq!(state(&plan, "a"), (EntryState::Pending, Some("LabelPending".to_owned())));
    assert!(labels(&plan.report).unwrap().contains_key(KEY), "the newer revision is said meanwhile");
    race.sends();
    assert!(race.says().is_empty());
    race.is_confirmed();
    assert_eq!(race.says(), ["ensure a"]);
}
