use std::collections::BTreeSet;

use super::{RemoteFile, SourceError};
use crate::list::WeightsGoods;
use crate::types::{Digest, Published, RelPath};

/// Which of a source's files an entry means, and what it says about them. Pure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selection<'a> {
    goods: &'a WeightsGoods,
}

impl<'a> Selection<'a> {
    pub(super) fn new(goods: &'a WeightsGoods) -> Self {
        Self { goods }
    }

    pub(super) fn wants(&self, path: &RelPath) -> bool {
        self.goods.globs.wants(path.as_str())
    }

    /// Whether `exclude` leaves out all that may be at `path`, a file or a directory.
    pub(super) fn excludes(&self, path: &RelPath) -> bool {
        self.goods.globs.excludes(path.as_str()) || self.goods.globs.excludes(&format!("{path}/"))
    }

    /// The digest that the list gives for it.
    pub(super) fn digest(&self, path: &RelPath) -> Option<Digest> {
        self.goods.sha256.get(path).copied()
    }

    /// Whether everything the list says about digests is about files that are there. A misspelt path would
    /// otherwise leave its file unchecked.
    pub(super) fn check_names<'p>(
        &self,
        paths: impl IntoIterator<Item = &'p RelPath>,
    ) -> Result<(), SourceError> {
        let mut unknown: BTreeSet<&RelPath> = self.goods.sha256.keys().collect();
        for path in paths {
            unknown.remove(path);
        }
        match unknown.first() {
            Some(path) => Err(self.invalid(format!("the list gives a sha256 for {path}, which isn't there"))),
            None => Ok(()),
        }
    }

    /// The files in order, each with its digest if anybody knows it.
    pub(super) fn check(&self, mut files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, SourceError> {
        if files.is_empty() {
            return Err(self.invalid(self.nothing()));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        self.check_tree(&files)?;
        for file in &mut files {
            let Some(listed) = self.digest(&file.path) else { continue };
            if file.digest.as_ref().and_then(Published::sha256).is_some_and(|published| published != listed) {
                let problem = format!("the list and the source disagree on the sha256 of {}", file.path);
                return Err(self.invalid(problem));
            }
            file.digest = Some(listed.into());
        }
        Ok(files)
    }

    /// Every path once, and none both a file and a directory.
    fn check_tree(&self, files: &[RemoteFile]) -> Result<(), SourceError> {
        let mut paths = BTreeSet::new();
        for file in files {
            if !paths.insert(file.path.as_str()) {
                return Err(self.invalid(format!("two files are called {}", file.path)));
            }
        }
        for file in files {
            let mut rest = file.path.as_str();
            while let Some((parent, _)) = rest.rsplit_once('/') {
                if paths.contains(parent) {
                    let problem = format!("{parent} is a file and, because of {}, a directory", file.path);
                    return Err(self.invalid(problem));
                }
                rest = parent;
            }
        }
        Ok(())
    }

    fn nothing(&self) -> String {
        let globs = &self.goods.globs;
        match (globs.include(), globs.exclude()) {
            ([], []) => "there are no files".to_owned(),
            ([], exclude) => format!("exclude {exclude:?} leaves no file"),
            (include, []) => format!("no file matches include {include:?}"),
            (include, exclude) => format!("no file matches include {include:?} without exclude {exclude:?}"),
        }
    }

    fn invalid(&self, problem: String) -> SourceError {
        SourceError::Invalid { what: self.goods.uri.to_string(), problem }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::source::MemorySource;
    use crate::types::Globs;

    fn goods(sha256: &[(&str, &[u8])], include: &[&str]) -> WeightsGoods {
        let include: Vec<String> = include.iter().map(ToString::to_string).collect();
        WeightsGoods {
            uri: "https://host/index.json?sig=abc".parse().unwrap(),
            index: true,
            globs: Globs::new(&include, &[]).unwrap(),
            sha256: sha256
                .iter()
                .map(|(path, bytes)| (path.parse().unwrap(), Digest::of(bytes)))
                .collect::<BTreeMap<_, _>>(),
        }
    }

    fn file(path: &str, digest: Option<&[u8]>) -> RemoteFile {
        RemoteFile {
            path: path.parse().unwrap(),
            size: 1,
            version: None,
            digest: digest.map(|bytes| Digest::of(bytes).into()),
            bytes: Arc::new(MemorySource::new("x")),
        }
    }

    fn problem(goods: &WeightsGoods, files: Vec<RemoteFile>) -> String {
        let error = Selection::new(goods).check(files).unwrap_err().to_string();
        assert!(!error.contains("abc"), "a signature is shown: {error}");
        error
    }

    #[test]
    fn files_come_in_order_with_the_digests_of_list_and_source() {
        let goods = goods(&[("b", b"2"), ("a", b"1")], &[]);
        let files = vec![file("c", Some(b"3")), file("b", None), file("a", Some(b"1")), file("d", None)];
        let files = Selection::new(&goods).check(files).unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.digest.clone())).collect();
        let digest = |bytes: &[u8]| Some(Digest::of(bytes).into());
        assert_eq!(found, [("a", digest(b"1")), ("b", digest(b"2")), ("c", digest(b"3")), ("d", None)]);
    }

    #[test]
    fn disagreement_duplicates_and_nothing_are_named() {
        let listed = goods(&[("a", b"1")], &["*.bin"]);
        assert!(problem(&listed, vec![file("a", Some(b"other"))]).contains("sha256 of a"));
        assert!(problem(&listed, vec![file("x/y", None), file("x/y", None)]).contains("x/y"));
        assert!(
            problem(&listed, vec![file("x", None), file("x-", None), file("x/y/z", None)])
                .contains("x is a file")
        );
        assert!(problem(&listed, Vec::new()).contains("*.bin"));
    }

    #[test]
    fn a_digest_for_a_file_that_is_not_there_is_an_error() {
        let goods = goods(&[("misspelt", b"1")], &[]);
        let there: Vec<RelPath> = vec!["a".parse().unwrap()];
        let error = Selection::new(&goods).check_names(&there).unwrap_err();
        assert!(error.to_string().contains("misspelt"));
    }
}
