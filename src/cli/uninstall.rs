use std::io::{self, Write};
use std::path::PathBuf;

use super::Exit;
use super::terminal::unless_closed;
use crate::cluster::{Cleaned, Cluster, Leftovers, agents_running, uninstall};

/// Take everything of Stoker's off all Nodes of a cluster
///
/// Run it as an admin, after deleting the DaemonSet: a running agent writes its labels again. It takes off labels,
/// annotations and conditions of Stoker's, and the taints named by --taint. Exits 1 when a Node couldn't be cleaned.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct UninstallArgs {
    // An admin's own; inside a pod, the pod's.
    /// The kubeconfig of the cluster; else that of KUBECONFIG or ~/.kube/config
    #[arg(long, env = "STOKER_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    // Which taint holds a node back until it's warm is the choice of whoever made the node pool.
    /// A taint to take off too, whatever its effect; may be given several times
    #[arg(long = "taint", value_name = "KEY")]
    taints: Vec<String>,

    /// Only say what would be taken off
    #[arg(long)]
    dry_run: bool,
}

/// Runs it.
pub(super) async fn run(args: &UninstallArgs) -> anyhow::Result<Exit> {
    let cluster = Cluster::connect(args.kubeconfig.as_deref()).await?;
    if !args.dry_run {
        warn(&cluster).await;
    }
    let cleaned = uninstall(&cluster, &args.taints, args.dry_run).await?;
    let mut out = io::stdout().lock();
    unless_closed(print(&cleaned, args.dry_run, &mut out))?;
    Ok(if cleaned.iter().any(|node| node.error.is_some()) { Exit::No } else { Exit::Done })
}

async fn warn(cluster: &Cluster) {
    let delete = "delete the DaemonSet first (kubectl delete -k deploy/base), then run this again";
    match agents_running(cluster).await {
        Ok(0) => {}
        Ok(1) => eprintln!("stoker: 1 pod of Stoker's is still there, and writes its labels again; {delete}"),
        Ok(n) => {
            eprintln!("stoker: {n} pods of Stoker's are still there, and write their labels again; {delete}")
        }
        Err(error) => {
            eprintln!("stoker: whether agents still run isn't known: {error}; if any does, {delete}")
        }
    }
}

fn print(cleaned: &[Cleaned], dry_run: bool, out: &mut impl Write) -> io::Result<()> {
    let width = cleaned.iter().map(|node| node.node.len()).max().unwrap_or_default();
    for node in cleaned {
        writeln!(out, "{:width$}  {}", node.node, outcome(node, dry_run))?;
        for taint in &node.taints_left {
            writeln!(
                out,
                "{:width$}  still has the taint {taint}, which keeps pods away; take it off with --taint {taint}",
                ""
            )?;
        }
    }
    if cleaned.is_empty() {
        writeln!(out, "the cluster has no Nodes")?;
    }
    out.flush()
}

fn outcome(node: &Cleaned, dry_run: bool) -> String {
    if let Some(error) = &node.error {
        return error.to_string();
    }
    let found = &node.found;
    if found.is_empty() {
        return "nothing of Stoker's".to_owned();
    }
    if dry_run {
        let keys = [&found.labels, &found.annotations, &found.conditions, &found.taints];
        let keys: Vec<&str> = keys.into_iter().flatten().map(String::as_str).collect();
        return format!("would lose {}: {}", counts(found), keys.join(", "));
    }
    format!("lost {}", counts(found))
}

fn counts(found: &Leftovers) -> String {
    let kinds = [
        (found.labels.len(), "label"),
        (found.annotations.len(), "annotation"),
        (found.conditions.len(), "condition"),
        (found.taints.len(), "taint"),
    ];
    let counts = kinds.iter().filter(|(count, _)| *count > 0);
    let counts = counts.map(|(count, kind)| format!("{count} {kind}{}", if *count == 1 { "" } else { "s" }));
    counts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, labels: &[&str], taints_left: &[&str]) -> Cleaned {
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Cleaned {
            node: name.to_owned(),
            found: Leftovers { labels: owned(labels), ..Leftovers::default() },
            taints_left: owned(taints_left),
            error: None,
        }
    }

    fn printed(nodes: &[Cleaned], dry_run: bool) -> String {
        let mut out = Vec::new();
        print(nodes, dry_run, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_node_has_its_line_and_a_taint_that_stays_has_one_too() {
        let nodes = [
            node("gpu-1", &["stoker.dev/gpu", "stoker.dev/ready"], &["stoker.dev/not-ready"]),
            node("cpu-with-a-name", &[], &[]),
        ];
        let expected = "\
gpu-1            lost 2 labels
                 still has the taint stoker.dev/not-ready, which keeps pods away; take it off with --taint stoker.dev/not-ready
cpu-with-a-name  nothing of Stoker's
";
        assert_eq!(printed(&nodes, false), expected);
        assert!(printed(&nodes, true).contains("would lose 2 labels: stoker.dev/gpu, stoker.dev/ready\n"));
        assert_eq!(printed(&[], false), "the cluster has no Nodes\n");
    }
}
