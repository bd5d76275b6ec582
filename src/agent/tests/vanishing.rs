//! Images that somebody takes away again and again.

use super::*;
use crate::agent::vanishing::take_notice;

const MINUTE: Duration = Duration::from_secs(60);

struct Node {
    world: World,
    at: Instant,
}

impl Node {
    fn with(pin: bool) -> Self {
        let mut of = image("i", "nginx:1");
        of.goods = Goods::Image(ImageGoods { reference: "nginx:1".parse().unwrap(), pin });
        let mut node = Self { world: world(listed([of])), at: Instant::now() };
        node.shows(true);
        node
    }

    fn shows(&mut self, there: bool) {
        let mut seen = if there { images([("nginx:1", present("x"))]) } else { images([]) };
        seen.asked.insert("nginx:1".parse().unwrap());
        self.world.images = Some(Arc::new(seen));
        take_notice(&mut self.world, self.at, 1.0);
    }

    /// It is there for this long, then it's gone.
    fn vanishes_after(&mut self, lasted: Duration) -> Plan {
        self.shows(true);
        self.at += lasted;
        self.shows(false);
        self.plan()
    }

    fn plan(&self) -> Plan {
        plan(&self.world, "boot", Now { monotonic: self.at, ..now() })
    }

    /// How long it isn't pulled again.
    fn wait(&self) -> Duration {
        self.plan().wake_at.map_or(Duration::ZERO, |at| at - self.at)
    }
}

#[tokio::test]
async fn it_comes_back_at_once_the_first_time_and_then_later_and_later() {
    for pin in [true, false] {
        let mut node = Node::with(pin);
        assert_eq!(steps(&node.vanishes_after(3 * MINUTE)), ["ensure i"], "the first time");
        let plan = node.vanishes_after(3 * MINUTE);
        assert!(steps(&plan).is_empty());
        assert_eq!(state(&plan, "i"), (EntryState::Failed, Some("Vanished".to_owned())));
        let first = node.wait();
        node.at += first;
        assert_eq!(steps(&node.plan()), ["ensure i"]);
        node.vanishes_after(3 * MINUTE);
        assert_eq!(node.wait(), first * 2);
    }
}

#[tokio::test]
async fn what_lasted_has_not_gone_again_soon() {
    let mut node = Node::with(true);
    node.vanishes_after(MINUTE);
    assert!(steps(&node.vanishes_after(MINUTE)).is_empty());
    assert_eq!(steps(&node.vanishes_after(11 * MINUTE)), ["ensure i"]);
}

#[tokio::test]
async fn another_image_of_the_entry_is_pulled_at_once() {
    let mut node = Node::with(true);
    node.vanishes_after(MINUTE);
    node.vanishes_after(MINUTE);
    node.world.list = Some(Arc::new(listed([image("i", "nginx:2")])));
    let mut seen = images([]);
    seen.asked.insert("nginx:2".parse().unwrap());
    node.world.images = Some(Arc::new(seen));
    assert_eq!(steps(&node.plan()), ["ensure i"]);
}

#[tokio::test]
async fn a_containerd_that_is_away_has_not_lost_the_image() {
    let mut node = Node::with(true);
    node.vanishes_after(MINUTE);
    node.shows(true);
    node.world.images = Some(Arc::new(Images { connected: false, ..images([]) }));
    take_notice(&mut node.world, node.at, 1.0);
    node.shows(true);
    assert!(
        steps(&node.vanishes_after(MINUTE)).is_empty(),
        "it has gone twice, not once and not three times"
    );
    assert_eq!(node.wait(), MINUTE);
}

#[tokio::test]
async fn with_once_it_ends() {
    let mut node = Node::with(false);
    node.world.settings.once = true;
    node.world.vanishing.clear();
    let plan = (0..4).map(|_| node.vanishes_after(MINUTE)).last().unwrap();
    assert_eq!((state(&plan, "i").0, plan.report.done), (EntryState::Failed, true));
}
