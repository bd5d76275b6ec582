"""What a pod does with the cache: the Hub's own client without a network, and every tensor of the model."""

import json
import os
import sys
import warnings

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import safe_open

cache, repo, commit, weights = sys.argv[1:]
warnings.simplefilter("error")


def tensors(directory):
    with safe_open(os.path.join(directory, "model.safetensors"), framework="np") as model:
        return {name: float(model.get_tensor(name).astype("float64").sum()) for name in model.keys()}


by_branch = snapshot_download(repo, cache_dir=cache, local_files_only=True)
by_commit = snapshot_download(repo, revision=commit, cache_dir=cache)
one = hf_hub_download(repo, "1_Pooling/config.json", cache_dir=cache)
partial = snapshot_download(repo, revision="partial", cache_dir=cache, allow_patterns=["*.json"])
try:
    snapshot_download(repo, revision="partial", cache_dir=cache)
    incomplete = "was taken for complete"
except LocalEntryNotFoundError as error:
    incomplete = type(error).__name__
scan = scan_cache_dir(cache)
hub, ours = tensors(by_branch), tensors(weights)
print(json.dumps({
    "uid": os.getuid(),
    "offline": os.environ["HF_HUB_OFFLINE"],
    "same_snapshot": by_branch == by_commit,
    "one": json.load(open(one)),
    "partial": sorted(os.listdir(partial)),
    "incomplete": incomplete,
    "warnings": [str(warning) for warning in scan.warnings],
    "scanned": {r.repo_id: sorted(ref for v in r.revisions for ref in v.refs) for r in scan.repos},
    "tensors": len(hub),
    "same_tensors": hub == ours and len(hub) > 0,
    "writable": os.access(cache, os.W_OK) or os.access(weights, os.W_OK),
}))
