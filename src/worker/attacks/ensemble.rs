//! Attacks that consist of several runs: restarts, targets, and the members of an ensemble.
//!
//! Each run attacks the images that withstood the previous runs. An image that no run breaks keeps the point with the
//! largest cross-entropy. Knows the order of runs, not the source of images.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Autoattack, Fab, Malt, Member, Square};
use tch::Tensor;

use super::attacked_model::AttackedModel;
use super::successive_runs::SuccessiveRuns;
use super::{Adversary, Batch, adversary};
use crate::error::StageError;

/// One of the attacks that run in turn.
pub struct SubAttack {
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

    fn sub_attacks(&self, classes: usize, name: &str) -> Result<Option<Vec<SubAttack>>, StageError> {
        let pgd = self.pgd.iter().map(|pgd| SubAttack { name: "pgd", attack: Attack::Pgd(pgd.clone()), runs: 1 });
        let mut sub_attacks: Vec<SubAttack> = pgd.collect();
        for &member in &self.attacks {
            sub_attacks.push(sub_attack(member, of_ensemble(self, member), classes, format!("{name}.attacks"))?);
        }
        Ok(Some(sub_attacks))
    }
}

/// Creates a sub-attack of this kind, alone or in an ensemble; `name` is the parameter that selects it.
pub(super) fn sub_attack(
    member: Member,
    attack: Attack,
    classes: usize,
    name: String,
) -> Result<SubAttack, StageError> {
    let needed = member.needs_classes();
    if classes < needed as usize {
        let member = member.name();
        let problem = format!("has `{member}`, which needs {needed} classes, and the model has {classes}");
        return Err(StageError::setting(name, problem));
    }
    let runs = adversary(&attack).runs(classes);
    Ok(SubAttack { name: member.name(), attack, runs })
}

fn of_ensemble(ensemble: &Autoattack, member: Member) -> Attack {
    let &Autoattack { norm, eps, steps, queries, targets, .. } = ensemble;
    let apgd = |loss| Attack::Apgd(Apgd { steps, targets, ..Apgd::standard(norm, eps, loss) });
    match member {
        Member::ApgdCe => apgd(ApgdLoss::Ce),
        Member::ApgdDlr => apgd(ApgdLoss::Dlr),
        Member::ApgdT => apgd(ApgdLoss::DlrTargeted),
        Member::ApgdMargin => apgd(ApgdLoss::Margin),
        Member::ApgdPm => apgd(ApgdLoss::ProbabilityMargin),
        Member::FabT => Attack::Fab(Fab { norm, eps, steps, targets }),
        Member::Malt => Attack::Malt(Malt::standard(norm, eps, steps, targets)),
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
    let logits = model.verdicts(batch.images)?;
    let sub_attacks = whole.sub_attacks(logits.size()[1] as usize, "attack")?.unwrap_or_default();
    let mut runs = SuccessiveRuns::new(batch, batch.images.f_detach_copy()?, &logits)?;
    for (sub_attack, run) in
        sub_attacks.iter().flat_map(|sub_attack| (0..sub_attack.runs).map(move |run| (sub_attack, run)))
    {
        if !runs.run(model, |model, batch, _| adversary(&sub_attack.attack).run(model, batch, run))? {
            break;
        }
    }
    Ok(runs.into_points())
}
