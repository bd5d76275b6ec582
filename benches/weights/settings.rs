//! What is to be run, by the command line and the environment.

/// What can be run by itself.
pub(crate) const PARTS: [&str; 8] =
    ["floor", "model", "small", "shaped", "killed", "flipped", "faults", "idle"];

/// What is to be run.
pub(crate) struct Settings {
    parts: Vec<String>,
    sides: Option<Vec<String>>,
    /// How often each side runs.
    pub(crate) rounds: usize,
    /// The model's size, in MiB.
    pub(crate) mib: u64,
    /// MB/s of one connection, for the shaped link.
    pub(crate) link: Vec<u64>,
    /// Only make the files.
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
        let link = words("BENCH_LINK").unwrap_or_else(|| vec!["90".to_owned()]);
        let link = link.iter().map(|text| number("BENCH_LINK", text)).collect::<Result<_, _>>()?;
        let or = |name, default| value(name).map_or(Ok(default), |text| number(name, &text));
        Ok(Self {
            parts,
            sides: words("BENCH_SIDES"),
            rounds: usize::try_from(or("BENCH_ROUNDS", 5)?).map_err(|_| "too many rounds".to_owned())?,
            mib: mib()?,
            link,
            only_make: value("BENCH_MAKE").is_some(),
        })
    }

    /// Whether a part is wanted; without any named all are.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// Whether a side is wanted.
    pub(crate) fn wants_side(&self, name: &str) -> bool {
        self.sides.as_ref().is_none_or(|sides| sides.iter().any(|wanted| wanted == name))
    }
}

/// `BENCH_GIB`, which may have a fraction, in MiB.
fn mib() -> Result<u64, String> {
    let Some(text) = value("BENCH_GIB") else { return Ok(8 << 10) };
    let gib = text.parse().ok().filter(|gib: &f64| (0.01..=1024.0).contains(gib));
    gib.map(|gib| (gib * 1024.0) as u64)
        .ok_or_else(|| format!("BENCH_GIB: '{text}' isn't a size from 0.01 to 1024"))
}

/// More than none.
fn number(name: &str, text: &str) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("{name}: '{text}' isn't a number above 0"))
}

fn value(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty() && value != "0")
}

fn words(name: &str) -> Option<Vec<String>> {
    Some(value(name)?.split(',').map(|word| word.trim().to_owned()).collect())
}
