//! Places boxes in layers from left to right, by their longest path from the start.
//!
//! Orders the boxes of a layer so that few arrows cross. An arrow over several layers gets a bend in each, which keeps
//! it between the boxes. Knows widths and heights, not the drawing.

/// Horizontal gap between layers, for arrows.
const GAP_X: f64 = 56.0;

/// Vertical gap between the boxes of a layer.
const GAP_Y: f64 = 14.0;

/// Height of a bend.
const BEND: f64 = 6.0;

/// Number of ordering sweeps. More sweeps change nothing in graphs of readable size.
const SWEEPS: usize = 12;

/// Rectangle: left, top, width, height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rectangle {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// Positions of boxes and arrows.
#[derive(Debug)]
pub(super) struct Layout {
    /// Boxes, in the order given.
    pub boxes: Vec<Rectangle>,
    /// Points of each edge, in the order given: from the right side of one box to the left side of another.
    pub arrows: Vec<Vec<(f64, f64)>>,
    /// Total width.
    pub width: f64,
    /// Total height.
    pub height: f64,
}

/// Lays out boxes of these widths and of one height. Edges lead from an earlier box to a later one.
pub(super) fn layout(widths: &[f64], height: f64, edges: &[(usize, usize)]) -> Layout {
    let mut layer: Vec<usize> = vec![0; widths.len()];
    // Sorted by their ends, edges come after all edges into their start: the layer of the start is final.
    let mut by_end: Vec<&(usize, usize)> = edges.iter().collect();
    by_end.sort_by_key(|(from, to)| (*to, *from));
    for (from, to) in by_end {
        layer[*to] = layer[*to].max(layer[*from] + 1);
    }
    let count = layer.iter().max().map_or(0, |last| last + 1);
    // Boxes first, then the bends.
    let mut heights: Vec<f64> = vec![height; widths.len()];
    let mut links: Vec<(usize, usize)> = Vec::new();
    let mut ways: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    for (from, to) in edges {
        let mut way = vec![*from];
        for between in layer[*from] + 1..layer[*to] {
            way.push(layer.len());
            layer.push(between);
            heights.push(BEND);
        }
        way.push(*to);
        links.extend(way.windows(2).map(|pair| (pair[0], pair[1])));
        ways.push(way);
    }
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (node, layer) in layer.iter().enumerate() {
        layers[*layer].push(node);
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); layer.len()];
    let mut after = before.clone();
    for (from, to) in links {
        before[to].push(from);
        after[from].push(to);
    }
    let mut y = stacked(&layers, &heights);
    for sweep in 0..SWEEPS {
        let forwards = sweep % 2 == 0;
        let neighbours = if forwards { &before } else { &after };
        let order: Vec<usize> = if forwards { (0..count).collect() } else { (0..count).rev().collect() };
        for index in order {
            let middle = |node: usize, y: &[f64]| y[node] + heights[node] / 2.0;
            let wish = |node: usize| match neighbours[node].as_slice() {
                [] => middle(node, &y),
                near => near.iter().map(|near| middle(*near, &y)).sum::<f64>() / near.len() as f64,
            };
            let mut wishes: Vec<(f64, usize)> = layers[index].iter().map(|node| (wish(*node), *node)).collect();
            wishes.sort_by(|a, b| a.0.total_cmp(&b.0));
            place(&wishes, &heights, &mut y);
            layers[index] = wishes.into_iter().map(|(_, node)| node).collect();
        }
    }
    let top = y.iter().copied().fold(f64::INFINITY, f64::min);
    let top = if top.is_finite() { top } else { 0.0 };
    let mut left = 0.0;
    let mut lefts = Vec::with_capacity(count);
    let mut rights = Vec::with_capacity(count);
    for nodes in &layers {
        let width = nodes.iter().filter_map(|node| widths.get(*node)).copied().fold(0.0, f64::max);
        lefts.push(left);
        rights.push(left + width);
        left += width + GAP_X;
    }
    let rectangle = |node: usize| {
        let width = widths[node];
        let room = rights[layer[node]] - lefts[layer[node]];
        Rectangle { x: lefts[layer[node]] + (room - width) / 2.0, y: y[node] - top, width, height }
    };
    let boxes: Vec<Rectangle> = (0..widths.len()).map(rectangle).collect();
    let arrow = |way: Vec<usize>| {
        let last = way.len() - 1;
        let mut points = Vec::new();
        for (position, node) in way.into_iter().enumerate() {
            let middle = y[node] - top + heights[node] / 2.0;
            match position {
                // Straight to the edge of the layer first: a narrow box has wider ones above and below it.
                0 => points.extend([(boxes[node].x + boxes[node].width, middle), (rights[layer[node]], middle)]),
                _ if position == last => points.extend([(lefts[layer[node]], middle), (boxes[node].x, middle)]),
                _ => points.extend([(lefts[layer[node]], middle), (rights[layer[node]], middle)]),
            }
        }
        points
    };
    let arrows = ways.into_iter().map(arrow).collect();
    let bottom = boxes.iter().map(|rectangle| rectangle.y + rectangle.height).fold(0.0, f64::max);
    Layout { boxes, arrows, width: (left - GAP_X).max(0.0), height: bottom }
}

/// Returns initial positions: each layer stacked from the top.
fn stacked(layers: &[Vec<usize>], heights: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; heights.len()];
    for nodes in layers {
        let mut top = 0.0;
        for node in nodes {
            y[*node] = top;
            top += heights[*node] + GAP_Y;
        }
    }
    y
}

/// Places the nodes of a layer, in this order, as near as possible to the middles that they wish for.
///
/// Neighbours that would overlap form a block around the mean of their wishes.
fn place(wishes: &[(f64, usize)], heights: &[f64], y: &mut [f64]) {
    struct Block {
        nodes: Vec<usize>,
        /// Sum over the nodes of the block's top, if each node had its wish.
        sum: f64,
        height: f64,
    }
    impl Block {
        fn top(&self) -> f64 {
            self.sum / self.nodes.len() as f64
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    for (wish, node) in wishes {
        let height = heights[*node];
        let mut block = Block { nodes: vec![*node], sum: wish - height / 2.0, height };
        while let Some(above) = blocks.pop_if(|above| above.top() + above.height + GAP_Y > block.top()) {
            let offset = above.height + GAP_Y;
            block = Block {
                sum: above.sum + block.sum - offset * block.nodes.len() as f64,
                height: offset + block.height,
                nodes: [above.nodes, block.nodes].concat(),
            };
        }
        blocks.push(block);
    }
    for block in blocks {
        let mut top = block.top();
        for node in block.nodes {
            y[node] = top;
            top += heights[node] + GAP_Y;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn boxes_never_overlap_and_arrows_go_to_the_right(
            widths in proptest::collection::vec(10.0..200.0_f64, 1..25),
            picks in proptest::collection::vec((0..25_usize, 0..25_usize), 0..60),
        ) {
            let count = widths.len();
            let edges: Vec<(usize, usize)> =
                picks.into_iter().map(|(a, b)| (a % count, b % count)).filter(|(a, b)| a < b).collect();
            let layout = layout(&widths, 40.0, &edges);
            for (index, one) in layout.boxes.iter().enumerate() {
                prop_assert!(one.x >= 0.0 && one.x + one.width <= layout.width + 1e-6);
                prop_assert!(one.y >= -1e-6 && one.y + one.height <= layout.height + 1e-6);
                for other in &layout.boxes[..index] {
                    let apart = one.x + one.width <= other.x || other.x + other.width <= one.x
                        || one.y + one.height <= other.y + 1e-6 || other.y + other.height <= one.y + 1e-6;
                    prop_assert!(apart, "{one:?} {other:?}");
                }
            }
            for arrow in &layout.arrows {
                prop_assert!(arrow.windows(2).all(|pair| pair[0].0 <= pair[1].0 + 1e-6), "{arrow:?}");
            }
        }
    }

    #[test]
    fn a_chain_is_a_line_and_an_edge_past_a_box_bends_around_it() {
        let chain = layout(&[50.0, 80.0, 50.0], 40.0, &[(0, 1), (1, 2), (0, 2)]);
        let [a, b, c] = chain.boxes.as_slice() else { panic!("three boxes") };
        assert!(a.x + a.width < b.x && b.x + b.width < c.x);
        let past = &chain.arrows[2];
        let at_b = past[2].1;
        assert!(at_b < b.y || at_b > b.y + b.height, "{past:?} goes through {b:?}");
    }

    #[test]
    fn nothing_has_no_size() {
        assert_eq!((layout(&[], 40.0, &[]).width, layout(&[], 40.0, &[]).height), (0.0, 0.0));
    }
}
