//! Memory that this process no longer needs: the allocator's, and the program's own.

use std::ffi::{c_int, c_void};

/// Keeps all threads in one arena. A shim has few threads and most of them live
/// for one call: an arena for each holds memory that nobody uses again.
pub fn use_one_arena() {
    // SAFETY: sets a parameter of the allocator, which takes its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives memory that is free back to the kernel.
pub fn give_memory_back() {
    // SAFETY: takes the allocator's own lock, touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Takes the pages of the program and of its libraries out of this process, as far
/// as nobody can have written to them. They stay in the page cache, where other
/// processes have them too, and come back from there one by one when they are used.
pub fn unmap_program_pages() {
    // SAFETY: the callback is a function of this type; it uses no data.
    unsafe { libc::dl_iterate_phdr(Some(unmap_object), std::ptr::null_mut()) };
}

/// Does so for one object: the segments that are loaded and not writable. Data that
/// is read-only only after relocation lies in a writable segment.
extern "C" fn unmap_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a valid description that lives through the call.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the object's program headers are mapped as long as it is.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let begin = usize::try_from(info.dlpi_addr.wrapping_add(header.p_vaddr));
        let length = usize::try_from(header.p_memsz);
        let (Ok(begin), Ok(length)) = (begin, length) else {
            continue;
        };
        // A segment may begin and end within a page that it shares with no other.
        let offset = begin % PAGE_BYTES;
        let begin = std::ptr::without_provenance_mut(begin - offset);
        // SAFETY: the pages are a private mapping of a file that was never written
        // to, so the kernel reads the same content again. Where it is something
        // else (the vDSO) it refuses.
        unsafe { libc::madvise(begin, length + offset, libc::MADV_DONTNEED) };
    }
    0
}

/// The smallest page of any architecture that we run on; a segment is aligned to
/// at least that.
const PAGE_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    /// Some words that only the program's file holds.
    static WORDS: [&str; 3] = ["they", "are", "read again"];

    #[test]
    fn a_program_goes_on_without_its_pages() {
        super::use_one_arena();
        let kept = vec![7_u8; 1 << 20];
        super::unmap_program_pages();
        super::give_memory_back();
        assert_eq!(WORDS.concat(), "theyareread again");
        assert!(kept.iter().all(|byte| *byte == 7));
    }
}
