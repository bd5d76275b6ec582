//! What kubelet's image garbage collection makes of images that were pulled ahead.

use serde_json::json;

use crate::parts::{Bed, Installed, START, list_of};

#[tokio::test]
async fn kubelet_removes_what_is_not_pinned_and_a_pin_holds_while_it_is_listed() {
    let mut installed = Installed::on(Bed::start(&["node-a"]).await).await;
    let app = installed.push_app("team/app", "app").await;
    let other = installed.push_app("team/other", "other").await;
    installed.list(&[&format!("id: app, image: \"{}\"", app.by_tag())]).await;
    installed.wait_label("node-a", "image.stoker.dev/app").await;
    installed.bed.node("node-a").pull(&other.by_tag()).await;

    // So little free is too little for it: it removes every image that it may, and goes on doing so.
    let node = installed.bed.node_mut("node-a");
    node.kill_kubelet();
    node.reconfigure_kubelet(
        &json!({"evictionHard": {"imagefs.available": "99%"}, "imageMinimumGCAge": "1s"}),
    );
    node.start_kubelet();
    let gone = async |image: &str| {
        let images = installed.bed.node("node-a").images().await;
        (!images.contains(&image.to_owned())).then_some(images)
    };
    let images = installed
        .wait("node-a", "the unpinned image to go", START, async || gone(&other.by_tag()).await)
        .await;
    assert!(images.contains(&app.by_tag()), "{images:?}");
    let status = installed.status("node-a").await.expect("an answer");
    assert!(status.all_warm() && status.labels.contains_key("image.stoker.dev/app"), "{status:?}");

    installed.apply_list(&list_of(&[])).await;
    installed
        .wait("node-a", "the image to go that was listed", START, async || gone(&app.by_tag()).await)
        .await;
}
