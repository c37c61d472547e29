//! Labels of security modules, to take effect at execve.
//!
//! They are written to files of this process in /proc. The container's own /proc may
//! be anything that an image or a volume made of it (CVE-2019-16884,
//! CVE-2025-52881), so a fresh one is opened that nobody else sees.

use std::io::Write;

use oci_spec::runtime::Process;
use pathrs::flags::OpenFlags;
use pathrs::procfs::{ProcfsBase, ProcfsHandle};

use super::{Inside, words};

/// Sets what the spec asks for.
pub(super) fn set(process: &Process) -> Inside<()> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(profile) = given(process.apparmor_profile()) {
        let text = format!("exec {profile}");
        write("attr/apparmor/exec", &text)
            .or_else(|_old_kernel| write("attr/exec", &text))
            .map_err(|e| {
                format!("unable to apply apparmor profile: apparmor failed to apply profile: {e}")
            })?;
    }
    if let Some(label) = given(process.selinux_label()) {
        write("attr/keycreate", &label).map_err(|e| format!("can't set key label: {e}"))?;
        write("attr/exec", &label).map_err(|e| format!("can't set process label: {e}"))?;
    }
    Ok(())
}

fn write(file: &str, text: &str) -> std::result::Result<(), String> {
    let open = || {
        let proc = ProcfsHandle::new()?;
        proc.open(ProcfsBase::ProcThreadSelf, file, OpenFlags::O_WRONLY)
    };
    let mut opened = open().map_err(|e| format!("open {file}: {e}"))?;
    opened.write_all(text.as_bytes()).map_err(|e| {
        let why = e.raw_os_error().map(nix::errno::Errno::from_raw);
        let why = why.map_or_else(|| e.to_string(), words);
        format!("write {file}: {why}")
    })
}
