//! Attacks that consist of several runs, each on the images that the runs before it left: restarts, targets, and the
//! members of an ensemble. An image that no run breaks keeps the point of the largest cross-entropy. Knows the order of
//! runs, not where images come from.

use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Autoattack, Fab, Member, Square};
use tch::{Device, Tensor};

use super::victim::{AttackedModel, cross_entropy, misclassified};
use super::{Batch, apgd, fab, perturb_victim, square};
use crate::error::StageError;

/// One of the attacks that images are under in turn.
pub struct AttackRun {
    /// Its name, as results have it.
    pub name: &'static str,
    /// The attack.
    pub attack: Attack,
    /// How many runs it consists of, at least 1.
    pub runs: u32,
}

/// The attacks that an attack consists of, if images leave it as soon as they are misclassified; nothing for others.
///
/// # Errors
/// [`StageError::Setting`] if an attack needs more classes than there are; `name` is that of the whole attack.
pub fn turns(attack: &Attack, classes: usize, name: &str) -> Result<Option<Vec<AttackRun>>, StageError> {
    match attack {
        Attack::None(_) | Attack::Fgsm(_) | Attack::Pgd(_) | Attack::Spatial(_) => Ok(None),
        Attack::Apgd(apgd) => {
            let member = match apgd.loss {
                ApgdLoss::Ce => Member::ApgdCe,
                ApgdLoss::Dlr => Member::ApgdDlr,
                ApgdLoss::DlrTargeted => Member::ApgdT,
            };
            Ok(Some(vec![turn(member, attack.clone(), classes, format!("{name}.loss"))?]))
        }
        Attack::Fab(_) => Ok(Some(vec![turn(Member::FabT, attack.clone(), classes, name.to_owned())?])),
        Attack::Square(_) => Ok(Some(vec![turn(Member::Square, attack.clone(), classes, name.to_owned())?])),
        Attack::Autoattack(ensemble) => {
            let pgd =
                ensemble.pgd.iter().map(|pgd| AttackRun { name: "pgd", attack: Attack::Pgd(pgd.clone()), runs: 1 });
            let mut turns: Vec<AttackRun> = pgd.collect();
            for &member in &ensemble.attacks {
                turns.push(turn(member, of_ensemble(ensemble, member), classes, format!("{name}.attacks"))?);
            }
            Ok(Some(turns))
        }
    }
}

fn turn(member: Member, attack: Attack, classes: usize, name: String) -> Result<AttackRun, StageError> {
    let needed = member.needs_classes();
    if classes < needed as usize {
        let member = member.name();
        let problem = format!("has `{member}`, which needs {needed} classes, and the model has {classes}");
        return Err(StageError::setting(name, problem));
    }
    let wrong_classes = u32::try_from(classes - 1).unwrap_or(u32::MAX);
    let runs = match &attack {
        Attack::Apgd(apgd) if apgd.loss == ApgdLoss::DlrTargeted => {
            apgd.restarts.saturating_mul(apgd.targets.min(wrong_classes))
        }
        Attack::Fab(fab) => fab.targets.min(wrong_classes),
        Attack::Apgd(apgd) => apgd.restarts,
        Attack::Square(square) => square.restarts,
        _ => 1,
    };
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

/// One run of an attack, counted from 0; all of another attack.
///
/// # Errors
/// [`StageError::Torch`], or that the attack is to be given up.
pub fn run(victim: &mut AttackedModel<'_>, batch: &Batch<'_>, attack: &Attack, run: u32) -> Result<Tensor, StageError> {
    match attack {
        Attack::Apgd(apgd) => apgd::run(victim, batch, apgd, run),
        Attack::Fab(fab) => fab::run(victim, batch, fab, run),
        Attack::Square(square) => square::run(victim, batch, square, run),
        Attack::None(_) | Attack::Fgsm(_) | Attack::Pgd(_) | Attack::Spatial(_) | Attack::Autoattack(_) => {
            perturb_victim(attack, victim, batch)
        }
    }
}

/// All runs on one batch.
pub(super) fn attack(victim: &mut AttackedModel<'_>, batch: &Batch<'_>, attack: &Attack) -> Result<Tensor, StageError> {
    let logits = victim.logits(batch.images)?;
    let turns = turns(attack, logits.size()[1] as usize, "attack")?.unwrap_or_default();
    let mut result = batch.images.f_detach_copy()?;
    let mut losses = cross_entropy(&logits, batch.labels)?;
    let mut wrong = misclassified(&logits, batch.labels)?;
    for (turn, at) in turns.iter().flat_map(|turn| (0..turn.runs).map(move |run| (turn, run))) {
        let right = wrong.f_logical_not()?.f_nonzero()?.f_view(-1)?.f_to_device(Device::Cpu)?;
        let right = Vec::<i64>::try_from(right)?;
        if right.is_empty() {
            break;
        }
        let part = batch.select(&right)?;
        let found = run(victim, &part.batch(), &turn.attack, at)?;
        let logits = victim.logits(&found)?;
        let (loss, now_wrong) = (cross_entropy(&logits, &part.labels)?, misclassified(&logits, &part.labels)?);
        let before = losses.f_index_select(0, &part.positions)?;
        let better = loss.f_gt_tensor(&before)?.f_logical_or(&now_wrong)?;
        let kept = result.f_index_select(0, &part.positions)?;
        let points = found.f_where_self(&better.f_view([-1, 1, 1, 1])?, &kept)?;
        let _ = result.f_index_copy_(0, &part.positions, &points)?;
        let _ = losses.f_index_copy_(0, &part.positions, &loss.f_where_self(&better, &before)?)?;
        let _ = wrong.f_index_copy_(0, &part.positions, &now_wrong)?;
    }
    Ok(result)
}
