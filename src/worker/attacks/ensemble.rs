//! Attacks that consist of several runs: restarts, targets, and the members of an ensemble.
//!
//! Each run attacks the images that withstood the previous runs. An image that no run breaks keeps the point with the
//! largest cross-entropy. Knows the order of runs, not the source of images.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Autoattack, Fab, Member, Square};
use tch::{Device, Tensor};

use super::attacked_model::{AttackedModel, cross_entropy, misclassified};
use super::{Adversary, Batch, adversary};
use crate::error::StageError;

/// One of the attacks that run in turn.
pub struct AttackRun {
    /// Its name in results.
    pub name: &'static str,
    /// The attack.
    pub attack: Attack,
    /// The number of its runs, at least 1.
    pub runs: u32,
}

impl Adversary for Autoattack {
    fn perturb(&self, model: &mut AttackedModel<'_>, batch: &Batch<'_>) -> Result<Tensor, StageError> {
        attack(model, batch, self)
    }

    fn parts(&self, classes: usize, name: &str) -> Result<Option<Vec<AttackRun>>, StageError> {
        let pgd = self.pgd.iter().map(|pgd| AttackRun { name: "pgd", attack: Attack::Pgd(pgd.clone()), runs: 1 });
        let mut parts: Vec<AttackRun> = pgd.collect();
        for &member in &self.attacks {
            parts.push(part(member, of_ensemble(self, member), classes, format!("{name}.attacks"))?);
        }
        Ok(Some(parts))
    }
}

/// Creates a part from an attack of this kind, alone or in an ensemble; `name` is the parameter that selects it.
pub(super) fn part(member: Member, attack: Attack, classes: usize, name: String) -> Result<AttackRun, StageError> {
    let needed = member.needs_classes();
    if classes < needed as usize {
        let member = member.name();
        let problem = format!("has `{member}`, which needs {needed} classes, and the model has {classes}");
        return Err(StageError::setting(name, problem));
    }
    let runs = adversary(&attack).runs(classes);
    Ok(AttackRun { name: member.name(), attack, runs })
}

fn of_ensemble(ensemble: &Autoattack, member: Member) -> Attack {
    let &Autoattack { norm, eps, steps, queries, targets, .. } = ensemble;
    let apgd = |loss| Attack::Apgd(Apgd { steps, targets, ..Apgd::standard(norm, eps, loss) });
    match member {
        Member::ApgdCe => apgd(ApgdLoss::Ce),
        Member::ApgdDlr => apgd(ApgdLoss::Dlr),
        Member::ApgdT => apgd(ApgdLoss::DlrTargeted),
        Member::FabT => Attack::Fab(Fab { norm, eps, steps, targets }),
        Member::Square => Attack::Square(Square { queries, ..Square::standard(norm, eps) }),
    }
}

/// Returns the number of runs with one run per target: at most the number of wrong classes.
pub(super) fn targeted(targets: u32, classes: usize) -> u32 {
    targets.min(u32::try_from(classes - 1).unwrap_or(u32::MAX))
}

/// Executes all runs on one batch.
pub(super) fn attack(
    model: &mut AttackedModel<'_>,
    batch: &Batch<'_>,
    whole: &dyn Adversary,
) -> Result<Tensor, StageError> {
    let logits = model.logits(batch.images)?;
    let parts = whole.parts(logits.size()[1] as usize, "attack")?.unwrap_or_default();
    let mut result = batch.images.f_detach_copy()?;
    let mut losses = cross_entropy(&logits, batch.labels)?;
    let mut wrong = misclassified(&logits, batch.labels)?;
    for (part, at) in parts.iter().flat_map(|part| (0..part.runs).map(move |run| (part, run))) {
        let right = wrong.f_logical_not()?.f_nonzero()?.f_view(-1)?.f_to_device(Device::Cpu)?;
        let right = Vec::<i64>::try_from(right)?;
        if right.is_empty() {
            break;
        }
        let left = batch.select(&right)?;
        let found = adversary(&part.attack).run(model, &left.batch(), at)?;
        let logits = model.logits(&found)?;
        let (loss, now_wrong) = (cross_entropy(&logits, &left.labels)?, misclassified(&logits, &left.labels)?);
        let before = losses.f_index_select(0, &left.positions)?;
        let better = loss.f_gt_tensor(&before)?.f_logical_or(&now_wrong)?;
        let kept = result.f_index_select(0, &left.positions)?;
        let points = found.f_where_self(&better.f_view([-1, 1, 1, 1])?, &kept)?;
        let _ = result.f_index_copy_(0, &left.positions, &points)?;
        let _ = losses.f_index_copy_(0, &left.positions, &loss.f_where_self(&better, &before)?)?;
        let _ = wrong.f_index_copy_(0, &left.positions, &now_wrong)?;
    }
    Ok(result)
}
