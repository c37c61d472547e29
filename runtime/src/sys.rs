//! All unsafe code, each piece in a small documented function.
