use std::process::ExitCode;

/// How a command ended, for scripts. The one table; `stoker --help` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It did what was asked.
    Done,
    /// The answer is no: an entry failed or won't come here, the list has errors, the GPUs aren't ready, the id isn't
    /// there.
    No,
    /// The command line can't be read (clap uses the same code).
    Usage,
    /// The agent's socket doesn't answer.
    Unreachable,
    /// It could not begin or go on: a directory, a lock, a daemon or a port is in the way.
    Broken,
    /// The time that it was given is over.
    TimedOut,
    /// A signal came before it was done.
    Interrupted,
}

/// The table for `--help`.
pub(super) const TABLE: &str = "Exit codes:
  0    done as asked
  1    the answer is no: an entry failed or will not come here, the list has errors, the GPUs are not ready, the id is
       not there
  2    the command line can't be read
  3    the agent's socket does not answer
  4    it could not begin or go on: a directory, a lock, a daemon or a port is in the way
  124  the time that it was given is over
  130  a signal came before it was done";

impl Exit {
    /// The number in the table that `stoker --help` prints.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Broken => 4,
            Self::TimedOut => 124,
            Self::Interrupted => 130,
        }
    }
}

impl From<super::gpu::GpuExit> for Exit {
    fn from(exit: super::gpu::GpuExit) -> Self {
        match exit {
            super::gpu::GpuExit::Usable => Self::Done,
            super::gpu::GpuExit::NotUsable => Self::No,
        }
    }
}

impl From<super::check::CheckOutcome> for Exit {
    fn from(outcome: super::check::CheckOutcome) -> Self {
        match outcome {
            super::check::CheckOutcome::Passed => Self::Done,
            super::check::CheckOutcome::Failed => Self::No,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_code() {
        use Exit::{Broken, Done, Interrupted, No, TimedOut, Unreachable, Usage};
        for exit in [Done, No, Usage, Unreachable, Broken, TimedOut, Interrupted] {
            assert!(
                TABLE.lines().any(|line| line.trim_start().starts_with(&format!("{} ", exit.code()))),
                "{exit:?}"
            );
        }
    }
}
