//! `stoker check`: what is wrong with a list, before a fleet reads it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::list::{
    AllowList, InvalidAllowList, MAX_BYTES, Manifest, ParsedList, Problem, Severity, json_schema, manifest,
    parse,
};

/// A ConfigMap holds at most 1 MiB; a file beyond that is neither a list nor a manifest of one.
const MAX_FILE_BYTES: u64 = 4 * MAX_BYTES as u64;

/// Check prediction lists and say what to write instead
///
/// Each LIST is a list, or the manifest of a ConfigMap with a list under list.yaml; `-` is standard input. Exits 0 when
/// every list is good (warnings don't count, unless --strict), else 1.
#[derive(Debug, Clone, clap::Args)]
pub struct CheckArgs {
    /// The lists
    #[arg(value_name = "LIST", required_unless_present = "schema")]
    pub lists: Vec<PathBuf>,

    /// Let warnings fail the check, too
    #[arg(long)]
    pub strict: bool,

    /// Print the JSON Schema of a list and check nothing
    #[arg(long, conflicts_with = "lists")]
    pub schema: bool,

    /// What the agent that will read the list allows
    #[command(flatten)]
    pub allow: AllowArgs,
}

/// What a list may name: the same flags for the agent and for the check.
#[derive(Debug, Clone, clap::Args)]
pub struct AllowArgs {
    /// The schemes that a list's weights may have
    #[arg(
        long,
        value_name = "SCHEME,…",
        env = "STOKER_ALLOW_SCHEMES",
        value_delimiter = ',',
        default_values = AllowList::DEFAULT_SCHEMES
    )]
    pub allow_schemes: Vec<String>,

    /// The hosts that a list's URLs and images may name, as globs; every host if none is given
    #[arg(long, value_name = "GLOB,…", env = "STOKER_ALLOW_HOSTS", value_delimiter = ',')]
    pub allow_hosts: Vec<String>,

    /// Allow file:// weights below this directory; without it, none
    #[arg(long, value_name = "DIR", env = "STOKER_FILE_ROOT")]
    pub file_root: Option<PathBuf>,
}

/// What to tell the caller by the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckOutcome {
    /// 0.
    Passed,
    /// 1.
    Failed,
}

impl AllowArgs {
    /// The allow-list that the flags make.
    ///
    /// # Errors
    /// A flag that can't be read.
    pub fn allow_list(&self) -> Result<AllowList, InvalidAllowList> {
        AllowList::new(&self.allow_schemes, &self.allow_hosts, self.file_root.clone())
    }
}

/// Checks each list and prints its problems in the order of their lines, then a line that sums up. Blocks on files and
/// on standard input.
///
/// # Errors
/// When `out` can't be written to, or the allow-list's flags can't be read. A list that can't be read is an outcome.
pub fn check(args: &CheckArgs, out: &mut impl Write) -> io::Result<CheckOutcome> {
    if args.schema {
        writeln!(out, "{:#}", json_schema())?;
        out.flush()?;
        return Ok(CheckOutcome::Passed);
    }
    let allow =
        args.allow.allow_list().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut outcome = CheckOutcome::Passed;
    for path in &args.lists {
        let (errors, warnings) = match read(path) {
            Ok(text) => check_text(&name(path), &text, &allow, out)?,
            Err(error) => {
                writeln!(out, "{}: error: it can't be read: {error}", name(path))?;
                writeln!(out, "  fix: name a file that holds a list, or - for standard input")?;
                (1, 0)
            }
        };
        if errors > 0 || (args.strict && warnings > 0) {
            outcome = CheckOutcome::Failed;
        }
    }
    out.flush()?;
    Ok(outcome)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// How the place of a list is named.
pub(super) fn name(path: &Path) -> String {
    if is_stdin(path) { "<stdin>".to_owned() } else { path.display().to_string() }
}

/// A list or a manifest, or the beginning of what is too large to be one.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if is_stdin(path) {
        io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    } else {
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
    }
    Ok(text)
}

/// Prints and counts errors and warnings.
fn check_text(
    name: &str,
    text: &[u8],
    allow: &AllowList,
    out: &mut impl Write,
) -> io::Result<(usize, usize)> {
    let manifest = std::str::from_utf8(text).ok().and_then(manifest);
    let list = manifest.as_ref().map_or(text, |manifest| manifest.list.as_bytes());
    let parsed = parse(list, allow);
    let (mut errors, mut warnings) = (0, 0);
    for problem in parsed.all_problems() {
        match problem.severity {
            Severity::Error => errors += 1,
            Severity::Warning => warnings += 1,
        }
        print_problem(name, problem, manifest.as_ref(), out)?;
    }
    writeln!(out, "{name}: {}", summary(&parsed, errors, warnings))?;
    Ok((errors, warnings))
}

fn print_problem(
    name: &str,
    problem: &Problem,
    manifest: Option<&Manifest>,
    out: &mut impl Write,
) -> io::Result<()> {
    let place = manifest.map_or(problem.place, |manifest| manifest.locate(problem.clone()).place);
    let place = place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
    let subject = problem.subject();
    let colon = if subject.is_empty() { "" } else { ": " };
    writeln!(out, "{name}{place}: {}: {subject}{colon}{}", problem.severity, problem.message)?;
    writeln!(out, "  fix: {}", problem.fix)
}

fn summary(parsed: &ParsedList, errors: usize, warnings: usize) -> String {
    let count =
        |number: usize, one: &str, more: &str| format!("{number} {}", if number == 1 { one } else { more });
    let good = parsed.entries.iter().filter(|entry| entry.entry.is_some()).count();
    let entries = count(parsed.entries.len(), "entry", "entries");
    let state = match parsed.head {
        None => "the list can't be used; an agent would keep its last good one".to_owned(),
        Some(_) if good == parsed.entries.len() => format!("{entries}, all good"),
        Some(_) => format!("{entries}, {good} good"),
    };
    format!("{state}; {}, {}", count(errors, "error", "errors"), count(warnings, "warning", "warnings"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        check: CheckArgs,
    }

    fn run(args: &[&str]) -> (CheckOutcome, String) {
        let cli = Cli::try_parse_from(["check"].iter().chain(args)).unwrap();
        let mut out = Vec::new();
        let outcome = check(&cli.check, &mut out).unwrap();
        (outcome, String::from_utf8(out).unwrap())
    }

    fn on(text: &str, flags: &[&str]) -> (CheckOutcome, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.yaml");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let (outcome, out) = run(&[flags, &[path.as_str()]].concat());
        (outcome, out.replace(&path, "list.yaml"))
    }

    const BAD: &str = "\
apiVersion: stoker.dev/v1
kind: PrefetchList
validUntil: tomorrow
entries:
- id: vllm
  image: docker.io/vllm/vllm-openai:v0.9
  priority: 2000
- id: llama-70b
  weights: http://10.0.0.1/llama/
  needed_by: 2026-11-24T10:20:00Z
  nodes: {matchLabel: {gpu: h100}}
- id: not an id
  image: nginx
- {id: ok, image: nginx}
";

    #[test]
    fn each_problem_has_its_place_its_name_and_its_fix() {
        let (outcome, out) = on(BAD, &[]);
        assert_eq!(outcome, CheckOutcome::Failed);
        insta::assert_snapshot!(out, @r#"
        list.yaml:3:13: error: field "validUntil": it can't be read as a time
          fix: write a time as in RFC 3339, with its zone: 2026-11-24T12:00:00Z
        list.yaml:7:13: error: entry "vllm", field "priority": 2000 is out of range
          fix: write a whole number from 0 to 1000, without quotes
        list.yaml:9:12: error: entry "llama-70b", field "weights": http:// is not allowed here
          fix: use another source, or let the agent's flag --allow-schemes name http
        list.yaml:10:3: warning: entry "llama-70b", field "needed_by": this field is not known and is ignored
          fix: did you mean "neededBy"?
        list.yaml:11:11: error: entry "llama-70b", field "nodes.matchLabel": this field is not known
          fix: did you mean "matchLabels"?
        list.yaml:12:7: error: entry #3, field "id": not an id: "not an id"
          fix: use 1 to 63 characters of A-Z a-z 0-9 . _ - with a letter or digit at both ends
        list.yaml: the list can't be used; an agent would keep its last good one; 5 errors, 1 warning
        "#);
    }

    #[test]
    fn a_good_list_passes_and_warnings_count_only_when_strict() {
        let good = "{apiVersion: stoker.dev/v1, kind: PrefetchList, entries: [{id: a, image: nginx}]}";
        assert_eq!(
            on(good, &["--strict"]),
            (CheckOutcome::Passed, "list.yaml: 1 entry, all good; 0 errors, 0 warnings\n".to_owned())
        );
        let warned = good.replace("image", "imgae: x, image");
        let (outcome, out) = on(&warned, &[]);
        assert_eq!(outcome, CheckOutcome::Passed);
        insta::assert_snapshot!(out, @r#"
        list.yaml:1:67: warning: entry "a", field "imgae": this field is not known and is ignored
          fix: did you mean "image"?
        list.yaml: 1 entry, all good; 0 errors, 1 warning
        "#);
        assert_eq!(on(&warned, &["--strict"]), (CheckOutcome::Failed, out));
    }

    #[test]
    fn a_config_maps_manifest_is_looked_into() {
        let block: String = BAD.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: stoker-list}}\ndata:\n  list.yaml: |\n{block}"
        );
        let (outcome, out) = on(&text, &[]);
        assert_eq!(outcome, CheckOutcome::Failed);
        assert!(out.contains("list.yaml:12:17: error: entry \"vllm\", field \"priority\": 2000"), "{out}");
        let (outcome, out) = on("kind: ConfigMap\ndata: {}\n", &[]);
        assert_eq!(outcome, CheckOutcome::Failed);
        assert!(out.contains("list.yaml:1:7: error: field \"kind\": it is a ConfigMap"), "{out}");
    }

    #[test]
    fn the_agents_flags_decide_what_is_allowed() {
        let text = "{apiVersion: stoker.dev/v1, kind: PrefetchList, entries: [\
                    {id: a, weights: 'http://10.0.0.1/a'}, {id: b, weights: 'file:///models/b'}]}";
        assert_eq!(on(text, &[]).0, CheckOutcome::Failed);
        let flags = ["--allow-schemes=http,https", "--file-root=/models"];
        assert_eq!(on(text, &flags).0, CheckOutcome::Passed);
        let cli = Cli::try_parse_from(["check", "--allow-schemes=ftp", "x"]).unwrap();
        let error = check(&cli.check, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("\"ftp\" is not a scheme"), "{error}");
    }

    #[test]
    fn one_unreadable_list_does_not_hide_the_others() {
        let (outcome, out) = run(&["/nonexistent/list.yaml", "/nonexistent/other.yaml"]);
        assert_eq!(outcome, CheckOutcome::Failed);
        assert_eq!(
            out.lines().filter(|line| line.contains("error: it can't be read: No such file")).count(),
            2
        );
    }

    #[test]
    fn the_schema_is_printed_alone() {
        let (outcome, out) = run(&["--schema"]);
        assert_eq!(outcome, CheckOutcome::Passed);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), json_schema());
        assert!(Cli::try_parse_from(["check"]).is_err());
    }
}
