//! Which blocks and rows of a table stand in which float of a paper, so that none is taller than a page. Knows heights,
//! no texts.

use std::ops::Range;

/// The height of a page's text in points: a little less than that of the lowest that is common (LaTeX's `article` on
/// letter paper, 550; CVPR has 641, ICML 650, IEEE 696).
const PAGE: f32 = 540.0;

/// How high the parts of a table are, in points.
#[derive(Debug, Clone, Default)]
pub(super) struct Heights {
    /// The caption, and all else that every float has.
    pub frame: f32,
    /// The blocks, top to bottom.
    pub blocks: Vec<Block>,
    /// The space above notes.
    pub above_notes: f32,
    /// The notes, a paragraph each.
    pub notes: Vec<f32>,
}

/// How high the parts of a block of columns are, in points.
#[derive(Debug, Clone)]
pub(super) struct Block {
    /// The headings of its columns, and the rules around them.
    pub heading: f32,
    /// Its rows, top to bottom.
    pub rows: Vec<f32>,
}

/// What stands in a float.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Float {
    /// The blocks, top to bottom, and the rows of each.
    pub parts: Vec<(usize, Range<usize>)>,
    /// The notes below them.
    pub notes: Range<usize>,
}

/// Divides a table among floats. A block that fits a page is not divided. A row or a note that is taller than a page
/// has a float of its own.
pub(super) fn floats(heights: &Heights) -> Vec<Float> {
    let mut pages = Pages { frame: heights.frame, used: heights.frame, current: Float::default(), full: Vec::new() };
    for (index, block) in heights.blocks.iter().enumerate() {
        pages.add_block(index, block);
    }
    for (index, height) in heights.notes.iter().enumerate() {
        pages.add_note(index, *height, heights.above_notes);
    }
    pages.full.push(pages.current);
    pages.full
}

struct Pages {
    frame: f32,
    /// The height of what the current float has.
    used: f32,
    current: Float,
    full: Vec<Float>,
}

impl Pages {
    fn add_block(&mut self, index: usize, block: &Block) {
        let whole = block.heading + block.rows.iter().sum::<f32>();
        let start = block.heading + block.rows.first().unwrap_or(&0.0);
        if !self.fits(start) || (!self.fits(whole) && self.frame + whole <= PAGE) {
            self.turn();
        }
        self.open(index, 0, block.heading);
        for (row, height) in block.rows.iter().enumerate() {
            if row > 0 && !self.fits(*height) {
                self.turn();
                self.open(index, row, block.heading);
            }
            self.take_row(*height);
        }
    }

    fn add_note(&mut self, index: usize, height: f32, above: f32) {
        let space = if self.current.notes.is_empty() { above } else { 0.0 };
        if !self.fits(space + height) {
            self.turn();
        }
        if self.current.notes.is_empty() {
            self.current.notes.start = index;
            self.used += above;
        }
        self.current.notes.end = index + 1;
        self.used += height;
    }

    fn fits(&self, height: f32) -> bool {
        self.used + height <= PAGE
    }

    /// Begins another float, unless nothing is in this one.
    fn turn(&mut self) {
        if self.current != Float::default() {
            self.full.push(std::mem::take(&mut self.current));
            self.used = self.frame;
        }
    }

    fn open(&mut self, block: usize, row: usize, heading: f32) {
        self.current.parts.push((block, row..row));
        self.used += heading;
    }

    fn take_row(&mut self, height: f32) {
        if let Some((_, rows)) = self.current.parts.last_mut() {
            rows.end += 1;
            self.used += height;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(blocks: &[(usize, f32)], notes: &[f32]) -> Vec<Float> {
        let block = |&(rows, height): &(usize, f32)| Block { heading: 20.0, rows: vec![height; rows] };
        floats(&Heights {
            frame: 40.0,
            blocks: blocks.iter().map(block).collect(),
            above_notes: 0.0,
            notes: notes.to_vec(),
        })
    }

    #[test]
    fn a_table_that_fits_is_one_float() {
        let whole = Float { parts: vec![(0, 0..10), (1, 0..10)], notes: 0..2 };
        assert_eq!(table(&[(10, 20.0), (10, 20.0)], &[30.0, 30.0]), [whole]);
        assert_eq!(table(&[], &[]), [Float::default()]);
    }

    #[test]
    fn blocks_and_notes_that_do_not_fit_are_in_the_next_float() {
        let found = table(&[(20, 20.0), (20, 20.0)], &[60.0, 60.0]);
        let parts: Vec<_> = found.iter().map(|float| (float.parts.clone(), float.notes.clone())).collect();
        assert_eq!(parts, [(vec![(0, 0..20)], 0..0), (vec![(1, 0..20)], 0..1), (vec![], 1..2)]);
    }

    #[test]
    fn a_block_taller_than_a_page_is_divided_between_rows() {
        let found = table(&[(50, 20.0)], &[]);
        let rows: Vec<_> = found.iter().flat_map(|float| float.parts.clone()).collect();
        assert_eq!(rows, [(0, 0..24), (0, 24..48), (0, 48..50)]);
        let found = table(&[(2, 700.0)], &[800.0]);
        let rows: Vec<_> = found.iter().map(|float| (float.parts.clone(), float.notes.clone())).collect();
        assert_eq!(rows, [(vec![(0, 0..1)], 0..0), (vec![(0, 1..2)], 0..0), (vec![], 0..1)]);
    }
}
