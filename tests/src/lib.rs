//! What the end-to-end tests, the lab and the benchmarks share.
