use super::{GoodsKind, goods_label};
use crate::types::EntryId;

/// What all terms together weigh: as much as one term may, so that a pod's own preferences still count.
const WEIGHT: usize = 100;

/// The `affinity` of a pod's spec that prefers nodes where these goods are warm, as YAML: a node that has all of them
/// before one that has some, before one that has none. Never required: a node that isn't there yet carries no label, so
/// that nothing would ever add one.
#[must_use]
pub fn affinity(goods: &[(GoodsKind, EntryId)]) -> String {
    let mut text = String::from(
        "# Below spec.affinity of the pod. Preferred and never required: a node that is yet to come has no such label,\n\
         # and a required one would keep the autoscaler from adding it.\n\
         nodeAffinity:\n  preferredDuringSchedulingIgnoredDuringExecution:\n",
    );
    for (index, (kind, id)) in goods.iter().enumerate() {
        let label = goods_label(*kind, id);
        text.push_str(&format!(
            "  - weight: {}\n    preference:\n      matchExpressions:\n      - key: {label}\n        operator: Exists\n",
            share(index, goods.len())
        ));
    }
    text
}

/// The weight of one term of several: an equal share, the remainder to the first of them, and at least 1, which is the
/// least that Kubernetes takes.
fn share(index: usize, terms: usize) -> usize {
    (WEIGHT / terms + usize::from(index < WEIGHT % terms)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_has_the_whole_weight() {
        insta::assert_snapshot!(affinity(&[(GoodsKind::Image, "vllm".parse().unwrap())]), @r"
        # Below spec.affinity of the pod. Preferred and never required: a node that is yet to come has no such label,
        # and a required one would keep the autoscaler from adding it.
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 100
            preference:
              matchExpressions:
              - key: image.stoker.dev/vllm
                operator: Exists
        ");
    }

    #[test]
    fn several_share_it_so_that_a_node_with_all_comes_first() {
        let ids =
            [(GoodsKind::Image, "vllm"), (GoodsKind::Weights, "llama-70b"), (GoodsKind::Weights, "caches")];
        insta::assert_snapshot!(affinity(&ids.map(|(kind, id)| (kind, id.parse().unwrap()))), @r"
        # Below spec.affinity of the pod. Preferred and never required: a node that is yet to come has no such label,
        # and a required one would keep the autoscaler from adding it.
        nodeAffinity:
          preferredDuringSchedulingIgnoredDuringExecution:
          - weight: 34
            preference:
              matchExpressions:
              - key: image.stoker.dev/vllm
                operator: Exists
          - weight: 33
            preference:
              matchExpressions:
              - key: weights.stoker.dev/llama-70b
                operator: Exists
          - weight: 33
            preference:
              matchExpressions:
              - key: weights.stoker.dev/caches
                operator: Exists
        ");
    }

    #[test]
    fn each_term_has_a_weight_that_kubernetes_takes() {
        for terms in [1, 2, 3, 64, 100, 150] {
            let shares: Vec<usize> = (0..terms).map(|index| share(index, terms)).collect();
            assert!(shares.iter().all(|share| (1..=100).contains(share)), "{shares:?}");
            assert!(terms > 100 || shares.iter().sum::<usize>() == 100, "{shares:?}");
        }
    }
}
