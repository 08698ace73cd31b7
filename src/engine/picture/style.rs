//! Sizes and colours that the parts of a diagram share. Sizes are in units.

use super::drawing::Color;

/// Units per em of all text but a title.
pub(super) const TEXT: f32 = 13.0;
/// From one base line to the next.
pub(super) const LINE: f32 = 19.0;
/// The radius of a mark.
pub(super) const MARK: f32 = 4.0;
pub(super) const INK: Color = [0x1A, 0x1A, 0x1A];
pub(super) const FAINT: Color = [0x5A, 0x5A, 0x5A];
pub(super) const GRID: Color = [0xE3, 0xE3, 0xE3];
pub(super) const AXIS: Color = [0x80, 0x80, 0x80];
pub(super) const WHITE: Color = [0xFF, 0xFF, 0xFF];
