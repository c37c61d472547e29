//! The lines of a mountinfo file (`man 5 proc`): pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountInfo {
    /// `major:minor`; the same for all mounts of one file system.
    pub(crate) device: String,
    /// The directory of the file system that is mounted.
    pub(crate) root: PathBuf,
    /// Where, inside the reader's root.
    pub(crate) at: PathBuf,
    /// Per-mount options (`ro`, `nosuid`).
    pub(crate) options: Vec<String>,
    /// File system type.
    pub(crate) fstype: String,
    /// The file system's own options, as one text.
    pub(crate) super_options: String,
}

/// The mounts of a mountinfo file, in the order in which they were made. Lines
/// that are not understood are left out.
pub(crate) fn parse(table: &[u8]) -> impl Iterator<Item = MountInfo> + '_ {
    table.split(|b| *b == b'\n').filter_map(parse_line)
}

/// One line; `None` when it is not one of mountinfo.
pub(crate) fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    // Optional fields come before the dash.
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |at: usize| {
        let field = fields.get(at)?;
        Some(String::from_utf8_lossy(field).into_owned())
    };
    Some(MountInfo {
        device: text(2)?,
        root: PathBuf::from(OsString::from_vec(unescape(fields.get(3)?))),
        at: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        options: text(5)?.split(',').map(str::to_owned).collect(),
        fstype: text(dash + 1)?,
        super_options: text(dash + 3).unwrap_or_default(),
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(*first));
        rest = match octal {
            Some(_) => after.get(3..).unwrap_or_default(),
            None => after,
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn mountinfo_is_read() {
        let line =
            "36 35 98:0 /mnt1 /mnt\\040two ro,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let info = parse_line(line.as_bytes()).unwrap();
        assert_eq!(info.device, "98:0");
        assert_eq!(info.at, Path::new("/mnt two"));
        assert_eq!(info.options, ["ro", "noatime"]);
        assert_eq!(info.fstype, "ext3");
        assert_eq!(info.super_options, "rw,errors=continue");
    }

    #[test]
    fn escapes_are_undone() {
        let undone = |text: &str| String::from_utf8(unescape(text.as_bytes())).unwrap();
        assert_eq!(undone("/mnt/has\\040space\\x"), "/mnt/has space\\x");
        assert_eq!(undone("\\134040\\13"), "\\040\\13");
    }

    #[test]
    fn other_lines_are_left_out() {
        assert_eq!(parse(b"\n36 35 98:0 / / rw ext3\n").count(), 0);
    }
}
