//! The command line of atflow.

fn main() {}
