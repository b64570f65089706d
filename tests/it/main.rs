//! All integration tests, in one binary.

#[cfg(test)]
mod support;
#[cfg(test)]
mod worker;
