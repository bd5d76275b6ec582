//! What is to be run, by the command line and the environment.

/// What can be run by itself.
pub(crate) const PARTS: [&str; 4] = ["floor", "race", "cores", "shaped"];

/// What is to be run.
pub(crate) struct Settings {
    parts: Vec<String>,
    images: Option<Vec<String>>,
    sides: Option<Vec<String>>,
    /// How often each side runs.
    pub(crate) rounds: usize,
    /// Ours once more, within the DaemonSet's limits.
    pub(crate) limited: bool,
    /// The registry has its blobs in memory before each run.
    pub(crate) registry_warm: bool,
    /// MB/s of one connection, for the shaped link.
    pub(crate) link: Vec<u64>,
    /// Only make the images.
    pub(crate) only_make: bool,
}

impl Settings {
    /// Reads them; `parts` are those named on the command line.
    ///
    /// # Errors
    /// With what is wrong.
    pub(crate) fn read(parts: Vec<String>) -> Result<Self, String> {
        if let Some(unknown) = parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
            return Err(format!("there is no part '{unknown}'"));
        }
        let number = |text: String| text.parse().map_err(|_| format!("'{text}' isn't a number"));
        let link = words("BENCH_LINK").unwrap_or_else(|| vec!["90".to_owned(), "20".to_owned()]);
        Ok(Self {
            parts,
            images: words("BENCH_IMAGES"),
            sides: words("BENCH_SIDES"),
            rounds: value("BENCH_ROUNDS")
                .map_or(Ok(5), |rounds| rounds.parse().map_err(|_| format!("BENCH_ROUNDS={rounds}")))?,
            limited: value("BENCH_LIMITED").is_some(),
            registry_warm: value("BENCH_REGISTRY").is_some_and(|value| value == "warm"),
            link: link.into_iter().map(number).collect::<Result<_, _>>()?,
            only_make: value("BENCH_MAKE").is_some(),
        })
    }

    /// Whether a part is wanted; without any named all are.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// Whether an image is wanted.
    pub(crate) fn wants_image(&self, name: &str) -> bool {
        self.images.as_ref().is_none_or(|images| images.iter().any(|wanted| wanted == name))
    }

    /// Whether a side is wanted.
    pub(crate) fn wants_side(&self, name: &str) -> bool {
        self.sides.as_ref().is_none_or(|sides| sides.iter().any(|wanted| wanted == name))
    }
}

fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty() && value != "0")
}

fn words(name: &str) -> Option<Vec<String>> {
    Some(value(name)?.split(',').map(|word| word.trim().to_owned()).collect())
}
