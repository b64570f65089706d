//! A router over a scripted engine, for the tests of this module.
