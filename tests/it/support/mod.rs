//! What tests share.

pub(crate) mod target;
