//! `stoker affinity`: what a workload says to be scheduled where its goods are warm.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::Exit;
use super::check;
use super::client::{Client, ClientError};
use super::flags::SocketFlags;
use super::terminal::unless_closed;
use crate::list::{AllowList, Goods, manifest, parse};
use crate::node::{GoodsKind, affinity};
use crate::rt::chain;
use crate::types::{EntryId, InvalidEntryId};

/// Print the affinity that prefers nodes where these entries are warm
///
/// It is YAML, to be pasted below spec.affinity of a pod. Whether an ID names an image or weights is said by writing
/// image/ID or weights/ID, or else looked up in the list that --list names, or without it in the list of this node's
/// agent.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct AffinityArgs {
    /// The entries: ID, image/ID or weights/ID
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Named>,

    /// The list they are in: a PrefetchList, or the manifest of a ConfigMap with one; `-` is standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,

    #[command(flatten)]
    socket: SocketFlags,
}

/// An id with or without its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    kind: Option<GoodsKind>,
    id: EntryId,
}

impl FromStr for Named {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, id) = match text.split_once('/') {
            Some(("image", id)) => (Some(GoodsKind::Image), id),
            Some(("weights", id)) => (Some(GoodsKind::Weights), id),
            _ => (None, text),
        };
        Ok(Self { kind, id: id.parse()? })
    }
}

/// The kinds of the entries of one list, as far as they can be told, and where that list was found.
#[derive(Debug, Default)]
struct Kinds {
    known: BTreeMap<EntryId, Option<GoodsKind>>,
    from: String,
}

/// Why it can't be told what an id is.
#[derive(Debug, thiserror::Error)]
enum Unclear {
    #[error("cannot read the list {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{0} can't be used as a list; `stoker check` says why")]
    NotAList(String),
    #[error(
        "cannot tell whether {id} is an image or weights; write image/{id} or weights/{id}, or name its list with --list \
         FILE"
    )]
    NoList {
        id: EntryId,
        #[source]
        cause: ClientError,
    },
    #[error("{id} is not in {from} (there are: {known}); write image/{id} or weights/{id} if it will be")]
    NotListed { id: EntryId, from: String, known: String },
    #[error(
        "{from} says {id} badly, so that it's not clear whether it is an image or weights; `stoker check` names the fix"
    )]
    Broken { id: EntryId, from: String },
}

/// Runs it.
pub(super) async fn run(args: AffinityArgs) -> anyhow::Result<Exit> {
    match goods(&args).await {
        Ok(goods) => {
            unless_closed(io::stdout().write_all(affinity(&goods).as_bytes()))?;
            Ok(Exit::Done)
        }
        Err(error) => {
            eprintln!("stoker: {}", chain(&error));
            Ok(Exit::No)
        }
    }
}

async fn goods(args: &AffinityArgs) -> Result<Vec<(GoodsKind, EntryId)>, Unclear> {
    let unclear = args.ids.iter().find(|named| named.kind.is_none());
    let kinds = match (unclear, &args.list) {
        (None, _) => Kinds::default(),
        (Some(_), Some(path)) => Kinds::of_file(path)?,
        (Some(unclear), None) => Kinds::of_agent(&args.socket.socket, &unclear.id).await?,
    };
    let mut goods = Vec::new();
    for Named { kind, id } in &args.ids {
        let kind = kind.map_or_else(|| kinds.of(id), Ok)?;
        if !goods.contains(&(kind, id.clone())) {
            goods.push((kind, id.clone()));
        }
    }
    Ok(goods)
}

impl Kinds {
    fn of_file(path: &Path) -> Result<Self, Unclear> {
        let text = check::read(path).map_err(|cause| Unclear::File { path: path.to_owned(), cause })?;
        let manifest = std::str::from_utf8(&text).ok().and_then(manifest);
        let list = manifest.as_ref().map_or(&text[..], |manifest| manifest.list.as_bytes());
        // What an agent would allow doesn't matter here.
        let schemes: Vec<String> =
            AllowList::DEFAULT_SCHEMES.into_iter().chain(["http"]).map(str::to_owned).collect();
        let allow = AllowList::new(&schemes, &[], Some("/".into())).unwrap_or_default();
        let parsed = parse(list, &allow);
        let from = check::name(path);
        if parsed.head.is_none() {
            return Err(Unclear::NotAList(from));
        }
        let known = parsed.entries.into_iter().filter_map(|entry| {
            let kind = entry.entry.map(|entry| match entry.goods {
                Goods::Image(_) => GoodsKind::Image,
                Goods::Weights(_) => GoodsKind::Weights,
            });
            Some((entry.id?, kind))
        });
        Ok(Self { known: known.collect(), from })
    }

    async fn of_agent(socket: &Path, unclear: &EntryId) -> Result<Self, Unclear> {
        let asked = async { Client::connect(socket).await?.status().await };
        let status = asked.await.map_err(|cause| Unclear::NoList { id: unclear.clone(), cause })?;
        let known = status.entries.into_iter().filter_map(|entry| Some((entry.id.parse().ok()?, entry.kind)));
        Ok(Self { known: known.collect(), from: "this node's list".to_owned() })
    }

    fn of(&self, id: &EntryId) -> Result<GoodsKind, Unclear> {
        let from = || self.from.clone();
        match self.known.get(id) {
            Some(Some(kind)) => Ok(*kind),
            Some(None) => Err(Unclear::Broken { id: id.clone(), from: from() }),
            None => {
                let known: Vec<&str> = self.known.keys().map(EntryId::as_str).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Unclear::NotListed { id: id.clone(), from: from(), known })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: AffinityArgs,
    }

    const LIST: &str = "\
apiVersion: stoker.dev/v1
kind: PrefetchList
entries:
- {id: vllm, image: \"vllm/vllm-openai:v1\"}
- {id: llama, weights: \"http://models.internal/llama.bin\"}
- {id: bad, image: \"a b\"}
";

    /// The labels' keys, or the error.
    async fn keys(words: &[&str]) -> Result<Vec<String>, String> {
        let args = Command::try_parse_from([&["affinity"], words].concat()).unwrap().args;
        let goods = goods(&args).await.map_err(|error| chain(&error))?;
        Ok(goods.iter().map(|(kind, id)| crate::node::goods_label(*kind, id)).collect())
    }

    #[tokio::test]
    async fn a_kind_that_is_written_needs_no_list() {
        let keys = keys(&["image/vllm", "weights/llama", "image/vllm", "--socket", "/nonexistent"]).await;
        assert_eq!(keys.unwrap(), ["image.stoker.dev/vllm", "weights.stoker.dev/llama"]);
    }

    #[tokio::test]
    async fn a_list_or_its_manifest_tells_the_kind() {
        let dir = tempfile::tempdir().unwrap();
        let block: String = LIST.lines().map(|line| format!("    {line}\n")).collect();
        let manifest = format!("apiVersion: v1\nkind: ConfigMap\ndata:\n  list.yaml: |\n{block}");
        for text in [LIST, &manifest] {
            let path = dir.path().join("list.yaml");
            std::fs::write(&path, text).unwrap();
            let path = path.to_str().unwrap();
            let found = keys(&["llama", "vllm", "--list", path]).await;
            assert_eq!(found.unwrap(), ["weights.stoker.dev/llama", "image.stoker.dev/vllm"]);
            let unlisted = keys(&["other", "--list", path]).await.unwrap_err();
            assert!(unlisted.contains("bad, llama, vllm") && unlisted.contains("image/other"), "{unlisted}");
            let bad = keys(&["bad", "--list", path]).await.unwrap_err();
            assert!(bad.contains("stoker check"), "{bad}");
        }
    }

    #[tokio::test]
    async fn without_list_and_agent_it_is_said_how_to_tell() {
        let error = keys(&["vllm", "--socket", "/nonexistent/stoker.sock"]).await.unwrap_err();
        for part in ["image/vllm or weights/vllm", "--list", "/nonexistent/stoker.sock"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let missing = keys(&["vllm", "--list", "/nonexistent/list.yaml"]).await.unwrap_err();
        assert!(missing.contains("/nonexistent/list.yaml"), "{missing}");
    }

    #[test]
    fn an_id_with_another_kind_is_no_id() {
        for text in ["images/vllm", "image/", "a/b/c", "image/not an id"] {
            assert!(text.parse::<Named>().is_err(), "{text}");
        }
    }
}
