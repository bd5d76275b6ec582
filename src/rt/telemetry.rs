use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One readable line each.
    Text,
    /// One JSON object each.
    Json,
}

/// Sends log lines to standard error, filtered by `filter` (tracing's directives: `info`, `stoker=debug`).
///
/// # Errors
/// When `filter` can't be read.
pub fn init_logs(format: LogFormat, filter: &str) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("--log: {filter:?} is not a filter (write e.g. info or stoker=debug)"))?;
    let terminal = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(terminal);
    // A second initialisation (tests) keeps the first; that's no error.
    let _ = match format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Auto if !terminal => lines.json().flatten_event(true).try_init(),
        LogFormat::Auto | LogFormat::Text => lines.with_target(false).try_init(),
    };
    Ok(())
}
