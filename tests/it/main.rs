//! The one binary of tests that look at sendoff from outside.
//!
//! Every module below carries `#[cfg(test)]`: it changes nothing here, and tells the lints that
//! its free functions are test code too.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod bulk;
#[cfg(test)]
mod callers;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod dead_letter;
#[cfg(test)]
mod delivery;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod expiry;
#[cfg(test)]
mod failed_sync;
#[cfg(test)]
mod first_run;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod interleaving;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod model;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod order;
#[cfg(test)]
mod power;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod retry;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod source;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
#[cfg(test)]
mod surface;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod worker;
