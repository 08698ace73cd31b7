//! A bar of bytes, for commands that read, fetch or copy many files. Without a terminal there is none.

use indicatif::{ProgressBar, ProgressStyle};

/// Creates the bar; `total` is 0 if it is not known yet.
pub(crate) fn bar_of_bytes(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    // The template is a constant; one that is wrong shows as the default bar.
    let style = ProgressStyle::with_template("{wide_bar:.cyan/dim} {bytes} of {total_bytes}  {binary_bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
