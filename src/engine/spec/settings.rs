//! Pipeline parameters, and the profiles and command-line options that change them.
//!
//! The parameters of all files of a pipeline share one namespace.

use std::collections::HashMap;

use serde_yaml::{Mapping, Value};

use super::describe::describe;
use super::diagnostics::Lost;
use super::mockup;
use super::poison::has_unknown;
use super::problem::Problem;
use super::reader::Reader;
use super::seeds::{self, Seeds};
use super::source::{Place, YamlPath};
use super::sweep::{self, SweptParam};
use super::watch::is_part;
use super::yaml;

/// Command-line changes to a pipeline, applied before expansion.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--set key=value`, in order. Where the parameter is a word or a number, `key=a,b` is a sweep over both values.
    pub set: Vec<(String, String)>,
}

/// The parameters of a pipeline while its files are read.
#[derive(Default)]
pub(super) struct Settings {
    pub params: Mapping,
    pub places: HashMap<String, Place>,
    /// Whether the selected profile is a mock-up.
    pub is_mockup: bool,
    /// The parameters with several values from the command line.
    pub sweeps: Vec<SweptParam>,
    /// The seeds that the files ask for; those of the last file count.
    seeds: Option<Seeds>,
    /// The profiles by name, in order.
    profiles: Vec<(String, Profile)>,
}

/// What a profile sets.
#[derive(Default)]
struct Profile {
    settings: Vec<Setting>,
    seeds: Option<Seeds>,
    is_mockup: bool,
}

struct Setting {
    key: String,
    value: Value,
    place: Place,
}

impl Settings {
    /// Adds the declarations of one file.
    pub(super) fn declare(&mut self, reader: &mut Reader, top: &Mapping, lost: &mut Lost) {
        let root = YamlPath::default();
        let path = root.key("params");
        self.seeds = reader.seeds(top, &root).or(self.seeds.take());
        let Some(params) = reader.mapping(top, "params", &root) else { return self.declare_profiles(reader, top) };
        for (key, value) in reader.words(params, &path) {
            let place = Place::key(reader.file, path.key(key));
            if !is_reference(key) {
                let message = format!("`{key}` cannot name a parameter: `${{{key}}}` would not find it");
                reader
                    .problems
                    .push(Problem::at(place, message, "not a name").help("use letters, digits, `-` and `_`"));
                lost.names.extend(key.split('.').next().map(str::to_owned));
                continue;
            }
            if key == mockup::KEY {
                let message =
                    format!("`{key}` cannot name a parameter: in a profile it says that the profile is a mock-up");
                reader.problems.push(Problem::at(place, message, "reserved").help("give it another name"));
                lost.names.insert(key.to_owned());
                continue;
            }
            if let Some(first) = self.places.get(key) {
                reader.problems.push(declared_twice("parameter", key, place, first));
                continue;
            }
            self.places.insert(key.to_owned(), place);
            self.params.insert(key.into(), value.clone());
        }
        self.declare_profiles(reader, top);
    }

    fn declare_profiles(&mut self, reader: &mut Reader, top: &Mapping) {
        let root = YamlPath::default();
        let Some(profiles) = reader.mapping(top, "profiles", &root) else { return };
        let path = root.key("profiles");
        for (name, profile) in reader.words(profiles, &path) {
            let path = path.key(name);
            let empty = Mapping::new();
            let values = match profile {
                Value::Mapping(values) => values,
                Value::Null => &empty,
                other => {
                    let message =
                        format!("profile `{name}` must be a mapping of parameters; this is {}", describe(other));
                    reader.problem(Place::value(reader.file, path), message, "expected a mapping");
                    continue;
                }
            };
            let position = self.profiles.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
                self.profiles.push((name.to_owned(), Profile::default()));
                self.profiles.len() - 1
            });
            if !self.params.contains_key(seeds::KEY) {
                let seeds = reader.seeds(values, &path);
                let profile = &mut self.profiles[position].1;
                profile.seeds = seeds.or(profile.seeds.take());
            }
            for (key, value) in reader.words(values, &path) {
                let profile = &mut self.profiles[position].1;
                if key == mockup::KEY {
                    profile.is_mockup |= read_mockup(reader, value, &path);
                    continue;
                }
                if key == seeds::KEY && !self.params.contains_key(seeds::KEY) {
                    continue;
                }
                let place = Place::key(reader.file, path.key(key));
                let settings = &mut profile.settings;
                match settings.iter().find(|setting| setting.key == key) {
                    Some(first) => {
                        let problem =
                            declared_twice(&format!("in profile `{name}`, parameter"), key, place, &first.place);
                        reader.problems.push(problem);
                    }
                    None => settings.push(Setting { key: key.to_owned(), value: value.clone(), place }),
                }
            }
        }
    }

    /// Returns the names of the profiles, in the order of the files.
    pub(super) fn profile_names(&self) -> Vec<String> {
        self.profiles.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Makes the seeds that the files ask for a sweep. They are no change of the files, unlike those of a profile.
    pub(super) fn apply_seeds(&mut self, lost: &Lost, problems: &mut Vec<Problem>) {
        if let Some(seeds) = self.seeds.take() {
            let varied = self.vary(&seeds);
            problems.extend(varied.err().filter(|_| !lost.may_have(seeds::PARAM)));
        }
    }

    /// Gives the parameter `seed` several values, or the one if there is one.
    fn vary(&mut self, seeds: &Seeds) -> Result<(), Problem> {
        let Some(target) = self.params.get_mut(seeds::PARAM) else {
            let message = format!("`{}` varies the parameter `{1}`, and there is none", seeds::KEY, seeds::PARAM);
            let problem = match &seeds.place {
                Some(place) => Problem::at(place.clone(), message, "seeds of what"),
                None => Problem::anywhere(message),
            };
            return Err(problem
                .help("declare `seed: 0` under `params`, and write `seed: \"${seed}\"` at the stages that train"));
        };
        self.sweeps.retain(|swept| &*swept.name != seeds::PARAM);
        match seeds.values.as_slice() {
            [one] => *target = (*one).into(),
            several => {
                let values = several.iter().map(|&seed| seed.into()).collect();
                let swept = SweptParam::new(seeds::PARAM, values)?.averaged();
                *target = swept.written();
                self.sweeps.push(swept);
            }
        }
        Ok(())
    }

    /// Checks the profiles against all parameters, then applies the selected one and the command-line settings.
    pub(super) fn apply(&mut self, overrides: &Overrides, file: &str, lost: &Lost, problems: &mut Vec<Problem>) {
        let declared: Vec<String> = self.params.keys().filter_map(Value::as_str).map(str::to_owned).collect();
        for (name, profile) in &self.profiles {
            for setting in &profile.settings {
                if !self.places.contains_key(&setting.key) && !lost.may_have(&setting.key) {
                    let message = format!("profile `{name}` sets `{}`, which is no parameter", setting.key);
                    let problem = Problem::at(setting.place.clone(), message, "unknown parameter");
                    problems.push(problem.suggest(&setting.key, declared.iter().map(String::as_str)));
                }
            }
        }
        let mut of_profile = None;
        if let Some(wanted) = &overrides.profile {
            match self.profiles.iter().find(|(name, _)| name == wanted) {
                Some((_, profile)) => {
                    self.is_mockup = profile.is_mockup;
                    of_profile.clone_from(&profile.seeds);
                    for setting in &profile.settings {
                        self.params.insert(setting.key.as_str().into(), setting.value.clone());
                    }
                }
                None if lost.anything => {}
                None => {
                    let problem = Problem::anywhere(format!("{file} has no profile `{wanted}`"));
                    problems.push(problem.suggest(wanted, self.profiles.iter().map(|(name, _)| name.as_str())));
                }
            }
        }
        if let Some(seeds) = of_profile {
            problems.extend(self.vary(&seeds).err());
        }
        for (key, text) in &overrides.set {
            if let Err(problem) = self.set(key, text, &declared, file, lost) {
                problems.push(problem);
            }
        }
    }

    /// Gives a parameter the value of a `--set`, or its values if they are a sweep.
    fn set(&mut self, key: &str, text: &str, declared: &[String], file: &str, lost: &Lost) -> Result<(), Problem> {
        if key == seeds::KEY && !self.params.contains_key(seeds::KEY) {
            let value = match sweep::parts(text).as_slice() {
                [one] => read_value(key, one)?,
                several => several.iter().map(|part| read_value(key, part)).collect::<Result<_, _>>()?,
            };
            return self.vary(&seeds::from_command_line(&value)?);
        }
        let Some(target) = sweep::find(&mut self.params, key) else {
            let first = key.split('.').next().unwrap_or_default();
            let unknown = || Problem::anywhere(format!("--set {key}: {file} has no parameter `{key}`"));
            let names = declared.iter().map(String::as_str);
            return if lost.may_have(first) { Ok(()) } else { Err(unknown().suggest(first, names)) };
        };
        self.sweeps.retain(|swept| !is_part(&swept.name, key));
        let is_scalar = !matches!(target, Value::Mapping(_) | Value::Sequence(_));
        let parts = sweep::parts(text);
        if parts.len() == 1 || !is_scalar {
            *target = read_value(key, text)?;
            return Ok(());
        }
        let values = parts.into_iter().map(|part| read_value(key, part)).collect::<Result<_, _>>()?;
        let swept = SweptParam::new(key, values)?;
        *target = swept.written();
        self.sweeps.push(swept);
        Ok(())
    }
}

/// Reads the value of a `--set`: a YAML value like any other, `4`, `8/255`, `[1, 2]`.
fn read_value(key: &str, text: &str) -> Result<Value, Problem> {
    let value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) if yaml::is_too_large(&error) => {
            let problem = Problem::anywhere(format!("--set {key}: {}", yaml::too_large_words(text.trim())));
            return Err(problem.help("a text that looks like a number is written in quotes"));
        }
        Err(_) => Value::String(text.to_owned()),
    };
    if has_unknown(&value) {
        let problem = Problem::anywhere(format!("--set {key}: a tag means nothing here"));
        return Err(problem.help("remove what begins with `!`, or write it in quotes"));
    }
    Ok(value)
}

/// Returns whether a profile is a mock-up; `path` leads to the profile.
fn read_mockup(reader: &mut Reader, value: &Value, path: &YamlPath) -> bool {
    if let Value::Bool(is_mockup) = value {
        return *is_mockup;
    }
    let message = format!("`{}` must be true or false; this is {}", mockup::KEY, describe(value));
    let problem = Problem::at(Place::value(reader.file, path.key(mockup::KEY)), message, "expected true or false");
    let help = "a profile with `mockup: true` runs the pipeline on stand-in data: its tables and figures say so";
    reader.problems.push(problem.help(help));
    false
}

/// Returns the problem of a name declared at two places.
pub(super) fn declared_twice(what: &str, name: &str, second: Place, first: &Place) -> Problem {
    Problem::at(second, format!("{what} `{name}` is declared twice"), "declared again")
        .help(format!("it is declared at {first} already: remove one, or rename it"))
}

/// Returns whether `${name}` can refer to a parameter or an axis.
fn is_reference(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '.' || c == '}' || c.is_whitespace() || c.is_control())
}
