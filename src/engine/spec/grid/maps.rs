//! The saliency maps of a figure.

use super::super::instance::Need;
use super::super::names;
use super::super::problem::Problem;
use super::super::source::Place;
use super::cells::Grid;
use crate::stage_kinds::{MapsParams, MapsSpec, MapsTag, StageKind};

/// Takes the maps and the sets that they are of; returns the figure's parameters with all names spelled out.
pub(super) fn resolve(grid: &mut Grid, spec: &MapsSpec) -> Result<MapsParams, Vec<Problem>> {
    let maps: Vec<Need> = grid.table.needs.iter().filter(|need| need.slot == "maps").cloned().collect();
    let mut labels = Vec::new();
    for need in &maps {
        let made_by = grid.expander.instance(need.from);
        if made_by.kind != StageKind::Saliency || need.output != "maps" {
            let place = Place::value(&grid.table.file, grid.table.path.key("needs").key("maps"));
            let message = format!("`{}` does not make saliency maps", made_by.name);
            return Err(vec![Problem::at(place, message, "here").help("name a stage of kind `saliency`")]);
        }
        for input in &made_by.needs {
            labels.push(input.label.clone());
            if input.slot == "set" {
                grid.needs.push(input.clone());
            }
        }
    }
    let names = names::resolve(grid.expander, grid.table, &spec.names, &labels)?;
    grid.needs.extend(maps);
    let mockup = grid.expander.spec.is_mockup;
    let (title, scale, size) = (spec.title.clone(), spec.scale, spec.size);
    Ok(MapsParams { draw: MapsTag::Maps, title, names, scale, size, mockup })
}
