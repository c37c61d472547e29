//! Checkpoints of real containers with real CRIU, and containers restored from
//! them. The test binary is its own worker.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test with a harness of its own"
)]

mod crowds;
mod faults;
mod goes_on;
mod ground;
mod state;
#[path = "../support/mod.rs"]
mod support;

use crowds::{how_long_it_takes, large_programs, ten_at_once};
use faults::{
    criu_killed_while_dumping, criu_killed_while_restoring, criu_that_cannot_be_used,
    damaged_images, given_up_before_start, killed_before_start,
};
use goes_on::{
    a_paused_container_stays_paused, exit_ends_the_original, it_goes_on_in_another_pod,
    it_goes_on_without_standard_streams, it_keeps_a_cgroup_namespace,
    processes_of_an_exec_are_left_alone, restored_again,
};
use state::{
    a_terminal, a_user, binds_and_shared_memory, more_than_the_spec_allows,
    open_connections_are_kept_by_the_original, seccomp_comes_back,
};

support::tests![
    it_goes_on_in_another_pod,
    it_goes_on_without_standard_streams,
    it_keeps_a_cgroup_namespace,
    restored_again,
    a_paused_container_stays_paused,
    exit_ends_the_original,
    open_connections_are_kept_by_the_original,
    a_terminal,
    binds_and_shared_memory,
    processes_of_an_exec_are_left_alone,
    a_user,
    seccomp_comes_back,
    damaged_images,
    criu_that_cannot_be_used,
    criu_killed_while_restoring,
    criu_killed_while_dumping,
    given_up_before_start,
    killed_before_start,
    more_than_the_spec_allows,
    ten_at_once,
    large_programs,
    how_long_it_takes,
];
