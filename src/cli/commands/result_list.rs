//! Names the files of results on a few lines, for people: those that they look at first.

use std::path::Path;

/// So many groups of files are named.
const MOST_GROUPS: usize = 8;

/// Longest line, unless a single word is longer.
const WIDTH: usize = 80;

/// Endings of files that people look at.
const LOOKED_AT: [&str; 2] = ["md", "png"];

/// Files of a stage that begin with the same word.
struct Group<'a> {
    stage: &'a str,
    /// What their names have in common.
    stem: &'a str,
    has_more_stems: bool,
    endings: Vec<&'a str>,
    files: usize,
}

impl<'a> Group<'a> {
    fn add(&mut self, file: &'a str) {
        let (stem, ending) = split(file);
        self.has_more_stems |= stem != self.stem;
        let common = self.stem.char_indices().zip(stem.chars()).find(|((_, own), other)| own != other);
        let length = common.map_or(self.stem.len().min(stem.len()), |((at, _), _)| at);
        self.stem = &self.stem[..length];
        if !self.endings.contains(&ending) {
            self.endings.push(ending);
        }
        self.files += 1;
    }

    fn is_looked_at(&self) -> bool {
        self.endings.iter().any(|ending| LOOKED_AT.contains(ending))
    }

    /// Returns the names as a pattern of a shell.
    fn pattern(&self) -> String {
        let stem = format!("{}{}", self.stem, if self.has_more_stems { "*" } else { "" });
        let rank = |ending: &&str| LOOKED_AT.iter().position(|looked_at| looked_at == ending);
        let mut endings = self.endings.clone();
        endings.sort_by_key(|ending| rank(ending).unwrap_or(LOOKED_AT.len()));
        match endings[..] {
            [""] => stem,
            [ending] => format!("{stem}.{ending}"),
            _ => format!("{stem}.{{{}}}", endings.join(",")),
        }
    }
}

/// Splits the name of a file into stem and ending.
pub(super) fn split(file: &str) -> (&str, &str) {
    let path = Path::new(file);
    let part = |part: Option<&'_ std::ffi::OsStr>| part.and_then(std::ffi::OsStr::to_str).map_or(0, str::len);
    let (stem, ending) = (part(path.file_stem()), part(path.extension()));
    (&file[..stem], &file[file.len() - ending..])
}

/// Lists files, each with the stage that it is of, after a few words. The first words of a line that goes on stand
/// behind two spaces.
pub(super) fn list<'a>(words: &str, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (stage, file) in files {
        let (stem, _) = split(file);
        let is_same = |group: &Group<'_>| group.stage == stage && first_word(group.stem) == first_word(stem);
        let at = groups.iter().position(is_same).unwrap_or_else(|| {
            groups.push(Group { stage, stem, has_more_stems: false, endings: Vec::new(), files: 0 });
            groups.len() - 1
        });
        groups[at].add(file);
    }
    // Stable: the order of the pipeline within each half.
    groups.sort_by_key(|group| !group.is_looked_at());
    let more: usize = groups.iter().skip(MOST_GROUPS).map(|group| group.files).sum();
    let mut names: Vec<String> = groups.iter().take(MOST_GROUPS).map(Group::pattern).collect();
    if more > 0 {
        names.push(format!("and {more} more {}", if more == 1 { "file" } else { "files" }));
    }
    wrapped(words, &names)
}

fn first_word(stem: &str) -> &str {
    stem.split('-').next().unwrap_or_default()
}

fn wrapped(words: &str, names: &[String]) -> String {
    let (mut text, mut width) = (words.to_owned(), words.chars().count());
    for name in names {
        let own = name.chars().count();
        if width + 1 + own > WIDTH {
            text.push_str("\n ");
            width = 1;
        }
        text.push(' ');
        text.push_str(name);
        width += 1 + own;
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_files_stand_on_one_line_with_their_endings_together() {
        let files =
            [("robustness", "robustness.csv"), ("robustness", "robustness.json"), ("robustness", "robustness.md")];
        assert_eq!(list("results in results/a/:", files), "results in results/a/: robustness.{md,csv,json}\n");
        let files = [("maps", "maps-a-1_2.png"), ("plain", "plain"), ("dotted", "dotted.b.json")];
        assert_eq!(list("x:", files), "x: maps-a-1_2.png plain dotted.b.json\n");
        let files = [("mine", "yours-2.csv"), ("mine", "a plot.svg"), ("mine", "yours-8.csv"), ("mine", "yours.csv")];
        assert_eq!(list("x:", files), "x: yours*.csv a plot.svg\n");
    }

    #[test]
    fn of_many_files_those_that_people_look_at_are_named_and_the_others_counted() {
        let stages = ["standard", "fgsm", "pgd"];
        let mut files: Vec<(String, String)> = Vec::new();
        for stage in ["sheet", "masking", "samples", "robustness", "saturation", "curves"] {
            let endings: &[&str] = match stage {
                "sheet" => &["json", "csv"],
                "samples" | "curves" => &["json", "png"],
                _ => &["json", "md", "csv", "tex"],
            };
            let instances: &[&str] = if stage == "masking" { &stages } else { &[""] };
            for instance in instances {
                let stem = if instance.is_empty() { stage.to_owned() } else { format!("{stage}-{instance}") };
                files.extend(endings.iter().map(|ending| (stage.to_owned(), format!("{stem}.{ending}"))));
            }
        }
        files.extend((0..7).map(|number| (format!("extra{number}"), format!("extra{number}.png"))));
        let listed = list("results in results/a@smoke/:", files.iter().map(|(stage, file)| (&**stage, &**file)));
        insta::assert_snapshot!(listed, @r"
        results in results/a@smoke/: masking-*.{md,json,csv,tex} samples.{png,json}
          robustness.{md,json,csv,tex} saturation.{md,json,csv,tex} curves.{png,json}
          extra0.png extra1.png extra2.png and 6 more files
        ");
    }
}
