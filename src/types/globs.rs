use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Which files of a set of weights are wanted: `include` and `exclude` patterns as Hugging Face's
/// `allow_patterns` and `ignore_patterns` read them (Python's fnmatch: `*` also crosses `/`; a pattern
/// that ends in `/` means all below it).
#[derive(Debug, Clone)]
pub struct Globs {
    include: Patterns,
    exclude: Patterns,
}

#[derive(Debug, Clone)]
struct Patterns {
    texts: Vec<String>,
    set: GlobSet,
}

/// A pattern that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern: {pattern:?} (`*`, `?` and `[abc]` are understood)")]
pub struct InvalidGlob {
    /// The pattern as it was written.
    pub pattern: String,
}

impl Globs {
    /// Compiles both lists; an empty `include` means every file.
    ///
    /// # Errors
    /// Names the first pattern that can't be read.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, InvalidGlob> {
        Ok(Self { include: Patterns::new(include)?, exclude: Patterns::new(exclude)? })
    }

    /// Every file.
    #[must_use]
    pub fn all() -> Self {
        let none = || Patterns { texts: Vec::new(), set: GlobSet::empty() };
        Self { include: none(), exclude: none() }
    }

    /// Whether the file at `path` (relative, `/` between parts) is wanted.
    #[must_use]
    pub fn wants(&self, path: &str) -> bool {
        (self.include.texts.is_empty() || self.include.set.is_match(path)) && !self.excludes(path)
    }

    /// Whether an exclude pattern names `path`.
    #[must_use]
    pub fn excludes(&self, path: &str) -> bool {
        self.exclude.set.is_match(path)
    }

    /// The include patterns, as written.
    #[must_use]
    pub fn include(&self) -> &[String] {
        &self.include.texts
    }

    /// The exclude patterns, as written.
    #[must_use]
    pub fn exclude(&self) -> &[String] {
        &self.exclude.texts
    }
}

impl PartialEq for Globs {
    fn eq(&self, other: &Self) -> bool {
        self.include.texts == other.include.texts && self.exclude.texts == other.exclude.texts
    }
}

impl Eq for Globs {}

impl Patterns {
    fn new(texts: &[String]) -> Result<Self, InvalidGlob> {
        let mut set = GlobSetBuilder::new();
        for text in texts {
            let invalid = || InvalidGlob { pattern: text.chars().take(100).collect() };
            let whole = if text.ends_with('/') { format!("{text}*") } else { text.clone() };
            // fnmatch has no escapes and no alternatives: a backslash or a brace is just a character.
            let literal = whole.replace('{', "[{]").replace('}', "[}]");
            let glob = GlobBuilder::new(&literal)
                .literal_separator(false)
                .backslash_escape(false)
                .build()
                .map_err(|_| invalid())?;
            set.add(glob);
        }
        let set = set.build().map_err(|error| InvalidGlob {
            pattern: error.glob().unwrap_or("too many or too long").to_owned(),
        })?;
        Ok(Self { texts: texts.to_vec(), set })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(include: &[&str], exclude: &[&str]) -> Globs {
        let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        Globs::new(&owned(include), &owned(exclude)).unwrap()
    }

    #[test]
    fn a_star_crosses_directories() {
        let globs = globs(&["*.safetensors"], &[]);
        assert!(globs.wants("model.safetensors"));
        assert!(globs.wants("unet/deep/model.safetensors"));
        assert!(!globs.wants("model.bin"));
    }

    #[test]
    fn exclude_wins_and_a_folder_means_all_below() {
        let globs = globs(&[], &["original/"]);
        assert!(globs.wants("config.json"));
        assert!(!globs.wants("original/consolidated.00.pth"));
    }

    #[test]
    fn braces_are_plain_characters() {
        assert!(globs(&["a{b,c}"], &[]).wants("a{b,c}"));
        assert!(!globs(&["a{b,c}"], &[]).wants("ab"));
    }

    #[test]
    fn an_unreadable_pattern_is_named() {
        let error = Globs::new(&["ok".to_owned(), "[".to_owned()], &[]).unwrap_err();
        assert_eq!(error.pattern, "[");
    }
}
