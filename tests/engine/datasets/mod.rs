//! Data sets in the true formats, good and broken. The good ones are the tiny archives that ship with the pipelines;
//! broken ones are made here.

mod archives;
mod broken;
mod good;
mod hub;
mod layouts;
mod pack;
