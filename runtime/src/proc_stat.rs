//! `/proc/PID/stat`: what the kernel tells of a process in one line.

use std::fs;

/// The fields of a process, as they were when it was looked at.
#[derive(Debug, Clone)]
pub struct ProcStat(String);

impl ProcStat {
    /// Of the process with this pid; nothing when there is none.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .map(Self)
    }

    /// A field by its number in `proc_pid_stat(5)`, from 3, the state, on. Field 2, the
    /// command, may hold anything, blanks and brackets included; behind it no field does.
    #[must_use]
    pub fn field(&self, number: usize) -> Option<&str> {
        let (_, fields) = self.0.rsplit_once(") ")?;
        fields.split_whitespace().nth(number.checked_sub(3)?)
    }

    /// A field that is a number.
    #[must_use]
    pub fn number(&self, number: usize) -> Option<u64> {
        self.field(number)?.parse().ok()
    }
}

impl From<String> for ProcStat {
    fn from(line: String) -> Self {
        Self(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_be_called_anything() {
        let stat = ProcStat::from("7 (a) b (c) S 1 7 7 0 -1 4194560 120\n".to_owned());
        assert_eq!(stat.field(3), Some("S"));
        assert_eq!(stat.number(9), Some(4_194_560));
        assert_eq!(stat.number(10), Some(120));
        assert_eq!(stat.number(8), None, "it is negative");
        assert_eq!(stat.field(11), None);
        assert_eq!(stat.field(2), None);
    }

    #[test]
    fn one_that_is_not_there_has_none() {
        assert!(ProcStat::of(std::process::id().cast_signed()).is_some());
        assert!(ProcStat::of(-1).is_none());
    }
}
