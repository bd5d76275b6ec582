use std::fmt;
use std::path::PathBuf;

use clap::Args;

use super::check::AllowArgs;
use super::flags::{
    CacheFlags, CapacityFlags, ClusterFlags, ContainerdFlags, GateFlags, ImageFlags, ListFlags, NodeFlags,
    SocketFlags, SourceFlags,
};
use crate::cluster::ConfigMapRef;

/// Run the agent: keep what a list names warm on this node
///
/// It runs as root: it writes the cache and talks to containerd. It stops on SIGTERM; what is warm stays warm.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub list: ListFlags,

    /// Stop when every entry is warm (exit 0), or nothing more will come of the others (exit 1): to bake a machine image
    #[arg(long)]
    pub once: bool,

    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub gate: GateFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub containerd: ContainerdFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub cache: CacheFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub capacity: CapacityFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub node: NodeFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub cluster: ClusterFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub sources: SourceFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub images: ImageFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub allow: AllowArgs,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub socket: SocketFlags,
}

/// Where the list is, and with it whether there is a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListSource {
    /// A file; the labels are said to nobody.
    File(PathBuf),
    /// A ConfigMap, and the Node that is told what is warm.
    ConfigMap {
        /// The ConfigMap.
        config_map: ConfigMapRef,
        /// The Node's name.
        node: String,
    },
}

impl fmt::Display for ListSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::ConfigMap { config_map, .. } => write!(f, "ConfigMap {config_map}"),
        }
    }
}

/// Flags that can each be read, but not together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum FlagsError {
    #[error("no list is named; give --list FILE, or --list-configmap NAMESPACE/NAME")]
    NoList,
    #[error(
        "--list-configmap needs --node-name: the agent writes to the Node of that name, and a host's name need not be \
         the Node's; in a DaemonSet set STOKER_NODE_NAME from the field spec.nodeName"
    )]
    NoNodeName,
    #[error(
        "--once has no Node to tell, so it does not go with --list-configmap; to bake a machine image, save the list in \
         a file and name it with --list"
    )]
    OnceInCluster,
    #[error(
        "--node-labels is for a node without a cluster; with --list-configmap the labels are the Node's own"
    )]
    LabelsInCluster,
}

impl AgentArgs {
    /// Where the list is.
    ///
    /// # Errors
    /// When the flags don't go together.
    pub fn list_source(&self) -> Result<ListSource, FlagsError> {
        let config_map = match (&self.list.list, &self.list.list_configmap) {
            (Some(path), _) => return Ok(ListSource::File(path.clone())),
            (None, Some(config_map)) => config_map.clone(),
            (None, None) => return Err(FlagsError::NoList), // clap asks for one of them
        };
        if self.once {
            return Err(FlagsError::OnceInCluster);
        }
        if !self.node.node_labels.is_empty() {
            return Err(FlagsError::LabelsInCluster);
        }
        let node = self.node.node_name.clone().ok_or(FlagsError::NoNodeName)?;
        Ok(ListSource::ConfigMap { config_map, node })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: AgentArgs,
    }

    fn parse(words: &[&str]) -> Result<AgentArgs, clap::Error> {
        Command::try_parse_from([&["agent"], words].concat()).map(|command| command.args)
    }

    fn source(words: &[&str]) -> Result<ListSource, FlagsError> {
        parse(words).unwrap().list_source()
    }

    const CLUSTER: [&str; 2] = ["--list-configmap", "stoker-system/stoker-list"];

    #[test]
    fn the_list_is_a_file_or_a_config_map_and_never_both() {
        assert_eq!(source(&["--list", "list.yaml"]), Ok(ListSource::File("list.yaml".into())));
        assert_eq!(
            source(&[&CLUSTER[..], &["--node-name", "node-1"]].concat()),
            Ok(ListSource::ConfigMap { config_map: CLUSTER[1].parse().unwrap(), node: "node-1".to_owned() })
        );
        let both = parse(&[&CLUSTER[..], &["--list", "list.yaml"]].concat()).unwrap_err();
        assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
        let malformed = parse(&["--list-configmap", "stoker-list"]).unwrap_err().to_string();
        assert!(malformed.contains("NAMESPACE/NAME"), "{malformed}");
        let none = parse(&[]).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::MissingRequiredArgument);
        assert!(none.to_string().contains("--list-configmap"), "{none}");
    }

    #[test]
    fn what_a_cluster_needs_and_cannot_do_is_said() {
        let with = |more: &[&str]| source(&[&CLUSTER, more].concat());
        assert_eq!(with(&[]), Err(FlagsError::NoNodeName));
        assert_eq!(with(&["--node-name", "n", "--once"]), Err(FlagsError::OnceInCluster));
        assert_eq!(with(&["--node-name", "n", "--node-labels", "a=b"]), Err(FlagsError::LabelsInCluster));
    }

    #[test]
    fn taints_are_ours_unless_others_are_named() {
        let taints =
            |words: &[&str]| parse(&[&["--list", "x"], words].concat()).map(|args| args.cluster.taints);
        assert_eq!(taints(&[]).unwrap(), ["stoker.dev/not-ready"]);
        assert_eq!(taints(&["--taint", "a/b,c", "--taint", "d"]).unwrap(), ["a/b", "c", "d"]);
        let refused = taints(&["--taint", "a=b:NoSchedule"]).unwrap_err();
        assert!(refused.to_string().contains("without value and effect"), "{refused}");
    }

    #[test]
    fn waits_are_in_seconds() {
        let args = parse(&["--list", "x", "--max-wait", "90"]).unwrap();
        assert_eq!(args.node.max_wait, Some(std::time::Duration::from_secs(90)));
        assert_eq!(args.cluster.gate_warn_after, std::time::Duration::from_secs(1200));
        assert_eq!(parse(&["--list", "x"]).unwrap().node.max_wait, None);
        assert!(parse(&["--list", "x", "--max-wait", "-1"]).is_err());
    }
}
