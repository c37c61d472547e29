//! What of a file is in memory.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use super::{Sys, check};

/// The same number on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// `struct cachestat` of `cachestat(2)`, in pages.
#[repr(C)]
#[derive(Default)]
struct CacheStat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// How many pages of a file are in the page cache.
///
/// # Errors
/// `ENOSYS` before Linux 6.5.
pub fn cached_pages(file: &File) -> Sys<u64> {
    // From the file's beginning to its end.
    let range = [0_u64; 2];
    let mut stat = CacheStat::default();
    // SAFETY: the kernel reads two words and writes five, which is what both have.
    let ret = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            std::ptr::from_mut(&mut stat),
            0,
        )
    };
    check(ret).map(|_zero| stat.cached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    #[test]
    fn what_was_just_read_is_in_the_page_cache() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 64 << 10]).unwrap();
        file.rewind().unwrap();
        file.read_to_end(&mut Vec::new()).unwrap();
        match cached_pages(&file) {
            Ok(pages) => assert!(pages >= 1),
            Err(error) => assert_eq!(error, nix::errno::Errno::ENOSYS),
        }
    }
}
