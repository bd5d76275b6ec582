use super::error::OpError;
use super::ops::{self, Dir};

/// Makes `name` in `dir` a file of these bytes that everybody may read, in place of an older one: durable before it
/// has its name, and with its name when this returns. Whoever looks meanwhile finds the older one.
pub(super) fn put(dir: &Dir, name: &str, bytes: &[u8], staging: &Dir, staged: &str) -> Result<(), OpError> {
    let path = dir.path().join(name);
    let file = staging.create_file(staged, 0o644)?;
    let written = ops::write_all_at(&file, bytes, 0)
        .and_then(|()| ops::set_mode(&file, 0o644))
        .and_then(|()| ops::sync(&file))
        .map_err(|cause| OpError::new("write", &path, cause))
        .and_then(|()| dir.rename_from(staging, staged, name));
    written.inspect_err(|_| drop(staging.unlink(staged)))?;
    dir.sync()
}
