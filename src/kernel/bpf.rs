//! BPF: whether programs guard an interface through TCX, which netlink does not show.
#![allow(unsafe_code)]

use nix::libc;

/// bpf(2) command, and the attach types of TCX (include/uapi/linux/bpf.h).
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// The part of `union bpf_attr` that BPF_PROG_QUERY reads and writes.
#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_count: u32,
    _padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Whether a TCX program is attached to the interface `index` of the thread's own namespace.
///
/// A kernel before 6.6 has no TCX, and one without bpf(2) or a caller without the right to ask
/// cannot tell: all of them count as none.
pub fn has_tcx(index: u32) -> bool {
    [BPF_TCX_INGRESS, BPF_TCX_EGRESS].into_iter().any(|attach_type| {
        let mut query = ProgQuery { target_ifindex: index, attach_type, ..ProgQuery::default() };
        // SAFETY: the kernel reads and writes at most the given size of `query`, which lives
        // through the call; prog_ids is null with a count of 0, so no program ID is written.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_QUERY,
                &raw mut query,
                size_of::<ProgQuery>() as libc::c_uint,
            )
        };
        let errno = nix::errno::Errno::last_raw();
        // With no room for IDs the kernel still says how many there are.
        (result == 0 || errno == libc::ENOSPC) && query.prog_count > 0
    })
}
