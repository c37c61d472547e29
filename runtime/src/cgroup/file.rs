//! Reading and writing the small files of a control group.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Doing, Error, ErrorKind, Result};

/// Writes `value` in one `write(2)`, as the kernel wants it.
pub(super) fn try_write(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .open(dir.join(file))?
        .write_all(value.as_bytes())
}

/// Like [`try_write`]; the error names file and value.
pub(super) fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    try_write(dir, file, value).map_err(|e| refused(dir, file, value, &e))
}

/// Writes one value after the other, each in a `write(2)` of its own.
pub(super) fn write_each(
    dir: &Path,
    file: &str,
    values: impl Iterator<Item = String>,
) -> Result<()> {
    let path = dir.join(file);
    let open = fs::OpenOptions::new().write(true).open(&path);
    let open = open.doing(format_args!("Cannot open {}", path.display()))?;
    for value in values {
        open.write_all_at(value.as_bytes(), 0)
            .map_err(|e| refused(dir, file, &value, &e))?;
    }
    Ok(())
}

/// The kernel's refusal of a value, in one line.
pub(super) fn refused(dir: &Path, file: &str, value: &str, error: &io::Error) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::EINVAL | libc::ERANGE) => ErrorKind::InvalidArgument,
        _ => ErrorKind::Internal,
    };
    Error::because(
        format_args!("Cannot write {value:?} to {}", dir.join(file).display()),
        error,
    )
    .with_kind(kind)
}

/// A file's text.
pub(super) fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    fs::read_to_string(&path).doing(format_args!("Cannot read {}", path.display()))
}

/// A file's text; absent when the file is.
pub(super) fn read_opt(dir: &Path, file: &str) -> Result<Option<String>> {
    match fs::read_to_string(dir.join(file)) {
        Ok(text) => Ok(Some(text)),
        Err(e) if gone(&e) => Ok(None),
        Err(e) => Err(Error::because(
            format_args!("Cannot read {}", dir.join(file).display()),
            &e,
        )),
    }
}

/// A number; `max` and -1 are [`u64::MAX`]; absent when the file is.
pub(super) fn number(dir: &Path, file: &str) -> Result<Option<u64>> {
    let Some(text) = read_opt(dir, file)? else {
        return Ok(None);
    };
    parse_number(text.trim()).map(Some).ok_or_else(|| {
        Error::internal(format!(
            "{} holds {:?}, not a number",
            dir.join(file).display(),
            text.trim()
        ))
    })
}

/// `max` and -1 are [`u64::MAX`].
pub(super) fn parse_number(text: &str) -> Option<u64> {
    match text {
        "max" | "-1" => Some(u64::MAX),
        digits => digits.parse().ok(),
    }
}

/// Whether the error says that the file or its cgroup is not there (ENODEV: an
/// open file of a removed cgroup).
pub(super) fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}
