//! Runs that many processes on many machines share: agents, which start stages, and what they and the submitter of a
//! run write for one another.
//!
//! The truth about a run is in the cache: leases say who makes what, manifests say what is done. Nothing else is needed
//! to finish it. The folder of a run ([`folder`]) holds its plan and notes for people and for whoever submits agents.
//!
//! Knows no terminal, and no pipeline file once a plan is frozen.

pub mod agent;
pub mod board;
pub mod classes;
pub mod command;
pub mod controller;
pub mod echo;
mod fields;
pub mod fleet;
pub mod folder;
pub mod frozen_plan;
mod instruction_sets;
pub mod kept_sources;
mod news;
mod notes;
mod plan_parts;
#[cfg(test)]
mod scaling;
mod schema;
mod shared_notes;
pub mod site;
pub mod slurm;
pub mod thawed_plan;
pub mod verdict;

pub use schema::cluster_schema;
