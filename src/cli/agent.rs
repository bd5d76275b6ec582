use std::path::PathBuf;

use clap::Args;

use super::check::AllowArgs;
use super::flags::{CacheFlags, ContainerdFlags, GateFlags, NodeFlags, SocketFlags, SourceFlags};

/// Run the agent: keep what a list names warm on this node
///
/// It runs as root: it writes the cache and talks to containerd. It stops on SIGTERM; what is warm stays warm.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// The prediction list, a file; read again whenever it changes
    #[arg(long, env = "STOKER_LIST", value_name = "FILE")]
    pub list: PathBuf,

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
    pub node: NodeFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub sources: SourceFlags,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub allow: AllowArgs,
    #[allow(missing_docs, reason = "a flattened group; a doc comment would become help text")]
    #[command(flatten)]
    pub socket: SocketFlags,
}
