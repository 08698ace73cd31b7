//! Values as typed: what an option takes, and what is said of one that it does not take.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{CACHE, PATIENCE};

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as eps=4/255".to_owned()),
    }
}

/// An empty variable is as none.
pub(super) fn cache(name: OsString) -> PathBuf {
    if name.is_empty() { CACHE.into() } else { name.into() }
}

pub(super) fn patience(text: &str) -> Result<u16, String> {
    let seconds = if text.is_empty() { Ok(PATIENCE) } else { text.parse() };
    seconds.ok().filter(|seconds| *seconds > 0).ok_or_else(|| format!("expected seconds, 1 to {}", u16::MAX))
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    let share = number.filter(|number| *number > 0.0 && *number <= 100.0);
    share
        .map(|percent| percent / 100.0)
        .ok_or_else(|| "expected percent, above 0 and up to 100, such as 10%".to_owned())
}

pub(super) fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| "expected percentage points, 0 to 100, such as 0.5".to_owned())
}

pub(super) fn device(text: &str) -> Result<String, String> {
    let is_cuda = text.strip_prefix("cuda:").is_some_and(|index| index.parse::<u8>().is_ok());
    match text {
        "cuda" => Ok("cuda:0".to_owned()),
        _ if is_cuda || text == "auto" || text == "cpu" => Ok(text.to_owned()),
        _ => Err("expected auto, cpu or cuda:N".to_owned()),
    }
}
