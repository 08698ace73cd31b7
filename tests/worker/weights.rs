//! Which tensors of a file are meant for a network: in any dictionary, under any prefix, in every form of file.

use std::collections::BTreeMap;

use atflow::stage_kinds::Net;
use atflow_worker::networks::{self, Network};
use atflow_worker::rng::Rng;
use atflow_worker::weights::{self, File, Head};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

fn net(description: Value) -> Net {
    serde_json::from_value(description).unwrap()
}

#[test]
fn weights_that_do_not_fit_are_told_by_counts_and_firsts_and_change_nothing() {
    let source = small(1, 5);
    let target = small(2, 7);
    let before: Vec<Tensor> = target.state().entries().iter().map(|entry| entry.tensor.detach().copy()).collect();
    let error = |weights: BTreeMap<String, Tensor>| {
        weights::install(&*target, &File::of(weights), Head::Keep, None).unwrap_err().to_string()
    };
    let mut weights = named(&*source, "module.model.");
    assert!(weights.remove("module.model.layer1.0.bn1.bias").is_some());
    weights.insert("module.model.layer9.0.conv1.weight".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu)));
    weights.insert("module.model.bn1.num_batches_tracked".to_owned(), Tensor::from(3i64));
    let found = error(weights);
    let entries = source.state().entries().len();
    for text in [
        &*format!("{} of {entries} tensors of the network fit, under `module.model.`", entries - 3),
        "1 are missing, the first is `layer1.0.bn1.bias` (nearest in the file: `module.model.layer1.",
        "2 are otherwise: `fc.weight` is [5, 32] in the file and [7, 32] in the network",
        "1 of the file are not in the network, the first is `layer9.0.conv1.weight`",
    ] {
        assert!(found.contains(text), "{text}: {found}");
    }
    assert_eq!(found.lines().count(), 1, "{found}");
    let found = error(named(&*source, ""));
    assert!(found.ends_with("`pretrained: {head: replace}` takes all but the last layer"), "{found}");
    let others = [("net.features.0.weight", 1), ("net.features.1.weight", 2)];
    let others = others.map(|(name, side)| (name.to_owned(), Tensor::zeros([side], (Kind::Float, Device::Cpu))));
    let found = error(others.into());
    assert!(
        found.contains("the file's names start with `net.features.`, the network's with `conv1.weight`"),
        "{found}"
    );
    let now = target.state().entries().iter().map(|entry| &entry.tensor);
    assert!(now.zip(&before).all(|(now, before)| now == before), "nothing is half-filled");

    weights::install(&*target, &File::of(named(&*source, "")), Head::Replace("fc"), None).unwrap();
    for (entry, before) in target.state().entries().iter().zip(&before) {
        match entry.name.starts_with("fc.") {
            true => assert_eq!(entry.tensor, *before, "{}", entry.name),
            false => assert_eq!(entry.tensor, named(&*source, "")[&entry.name], "{}", entry.name),
        }
    }
}

fn small(seed: u64, classes: usize) -> Box<dyn Network> {
    let description = json!({"arch": "resnet18", "stem": "imagenet", "width": 4});
    networks::build(&net(description), 3, classes, Rng::new(seed), Device::Cpu).unwrap()
}

/// The tensors of a network by name, each with something before it.
fn named(network: &dyn Network, prefix: &str) -> BTreeMap<String, Tensor> {
    let entries = network.state().entries().iter();
    entries.map(|entry| (format!("{prefix}{}", entry.name), entry.tensor.detach().copy())).collect()
}

/// Pickles as `torch.save` writes them in its older stream, made by hand: nested dictionaries of tensors and numbers.
enum Saved<'a> {
    Tensors(&'a BTreeMap<String, Tensor>),
    Scalar(f32),
    Number(u8),
    List(Vec<Saved<'a>>),
    Dict(Vec<(&'a str, Saved<'a>)>),
}

#[derive(Default)]
struct Stream {
    pickle: Vec<u8>,
    storages: Vec<Vec<f32>>,
}

impl Stream {
    fn int(&mut self, value: i64) {
        self.pickle.push(b'J');
        self.pickle.extend((value as i32).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.pickle.push(b'X');
        self.pickle.extend((text.len() as u32).to_le_bytes());
        self.pickle.extend(text.as_bytes());
    }

    fn tensor(&mut self, values: Vec<f32>, shape: &[i64]) {
        self.pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n(((");
        self.pickle.pop();
        self.pickle.extend(b"U\x07storagectorch\nFloatStorage\n");
        self.text(&self.storages.len().to_string());
        self.pickle.extend(b"U\x03cpu");
        self.int(values.len() as i64);
        self.pickle.extend(b"tQK\x00(");
        shape.iter().for_each(|&side| self.int(side));
        self.pickle.extend(b"t(");
        for at in 0..shape.len() {
            self.int(shape[at + 1..].iter().product());
        }
        self.pickle.extend(b"ttR");
        self.storages.push(values);
    }

    fn put(&mut self, saved: &Saved<'_>) {
        match saved {
            Saved::Number(number) => self.pickle.extend([b'K', *number]),
            Saved::Scalar(value) => self.tensor(vec![*value], &[]),
            Saved::List(items) => {
                self.pickle.extend(b"](");
                items.iter().for_each(|item| self.put(item));
                self.pickle.push(b'e');
            }
            Saved::Tensors(tensors) => {
                self.pickle.extend(b"ccollections\nOrderedDict\n)R(");
                for (name, tensor) in *tensors {
                    self.text(name);
                    self.tensor(Vec::try_from(tensor.contiguous().view(-1)).unwrap(), &tensor.size());
                }
                self.pickle.push(b'u');
            }
            Saved::Dict(entries) => {
                self.pickle.extend(b"}(");
                for (name, value) in entries {
                    self.text(name);
                    self.put(value);
                }
                self.pickle.push(b'u');
            }
        }
    }

    fn of(saved: &Saved<'_>) -> Vec<u8> {
        let mut stream = Stream::default();
        stream.put(saved);
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02";
        let mut bytes = [&magic[..], &stream.pickle, b".\x80\x02]("].concat();
        let mut keys = Stream::default();
        (0..stream.storages.len()).for_each(|key| keys.text(&key.to_string()));
        bytes.extend(keys.pickle);
        bytes.extend(b"e.");
        for values in stream.storages {
            bytes.extend((values.len() as u64).to_le_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }
}

fn safetensors(tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let bytes = |tensor: &Tensor| {
        let values: Vec<f32> = Vec::try_from(tensor.contiguous().view(-1)).unwrap();
        values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()
    };
    let values: Vec<(&String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| (name, tensor.size().iter().map(|&side| side as usize).collect(), bytes(tensor)))
        .collect();
    let views = values.iter().map(|(name, shape, bytes)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn the_dictionary_and_the_prefix_that_are_meant_are_found_in_every_form_of_file() {
    use Saved::{Dict, List, Number, Scalar, Tensors};
    let source = small(1, 5);
    let wanted = named(&*source, "");
    let check = |what: &str, bytes: &[u8], prefix: &str| {
        let target = small(2, 5);
        let file = File::open(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        let installed = weights::install(&*target, &file, Head::Keep, None);
        let installed = installed.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((installed.taken, &*installed.prefix), (wanted.len(), prefix), "{what}");
        assert!(named(&*target, "") == wanted, "{what}");
    };
    for (entry, prefix) in [
        ("state_dict", ""),
        ("model_state_dict", "module."),
        ("net", "_orig_mod."),
        ("model", "module.model."),
        ("weights", "encoder."),
        ("params", "module.net.backbone."),
        ("whatever", "model."),
    ] {
        let inside = named(&*source, prefix);
        let moment = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        let moments = BTreeMap::from([("exp_avg".to_owned(), moment.copy()), ("exp_avg_sq".to_owned(), moment)]);
        let bytes = Stream::of(&Dict(vec![
            ("epoch", Number(3)),
            (entry, Tensors(&inside)),
            ("best_acc1", Scalar(0.5)),
            ("optimizer", Dict(vec![("state", Dict(vec![("0", Tensors(&moments))])), ("param_groups", List(vec![]))])),
        ]));
        let bare = prefix.replace("_orig_mod.", "");
        check(entry, &bytes, &format!("{entry}.{bare}"));
        check(prefix, &safetensors(&inside), &bare);
        let mut flat = named(&*source, &format!("{entry}.{prefix}"));
        flat.insert("optimizer.state.0.exp_avg".to_owned(), Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)));
        flat.insert("loss".to_owned(), Tensor::from(0.5f32));
        check("flat", &safetensors(&flat), &format!("{entry}.{bare}"));
    }
    let mut beside = named(&*source, "");
    beside.insert("best_acc1".to_owned(), Tensor::from(0.5f32));
    beside.insert("optimizer.state.0.exp_avg".to_owned(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
    check("beside", &safetensors(&beside), "");
    // The same tensors twice are no question.
    let twice = [named(&*source, "module.model."), named(&*source, "module.attacker.model.")];
    let twice: BTreeMap<String, Tensor> = twice.into_iter().flatten().collect();
    check("twice", &safetensors(&twice), "module.attacker.model.");
}

#[test]
fn two_sets_of_weights_in_a_file_are_told_and_one_can_be_chosen() {
    let (first, second) = (named(&*small(1, 5), "module."), named(&*small(3, 5), "module."));
    let bytes =
        Stream::of(&Saved::Dict(vec![("model", Saved::Tensors(&first)), ("model_ema", Saved::Tensors(&second))]));
    let file = File::open(&bytes).unwrap();
    let target = small(2, 5);
    let error = weights::install(&*target, &file, Head::Keep, None).unwrap_err().to_string();
    assert!(error.contains("under `model.module.` and under `model_ema.module.`"), "{error}");
    assert!(error.contains("`pretrained: {entry: model.module}`"), "{error}");
    for entry in ["model_ema", "model_ema.module"] {
        weights::install(&*target, &file, Head::Keep, Some(entry)).unwrap();
        assert!(named(&*target, "module.") == second);
    }
    let error = weights::install(&*target, &file, Head::Keep, Some("ema")).unwrap_err().to_string();
    assert!(error.contains("0 of"), "{error}");
}

#[test]
fn a_deeper_network_does_not_pass_for_a_shallow_one_and_values_must_be_finite() {
    let description = json!({"arch": "resnet34", "stem": "imagenet", "width": 4});
    let deeper = networks::build(&net(description), 3, 5, Rng::new(1), Device::Cpu).unwrap();
    let target = small(2, 5);
    let install = |weights| weights::install(&*target, &File::of(weights), Head::Keep, None);
    let error = install(named(&*deeper, "module.")).unwrap_err().to_string();
    assert!(error.contains("of the file are not in the network, the first is `layer1.2."), "{error}");
    for bad in [f64::NAN, f64::INFINITY] {
        let mut weights = named(&*small(1, 5), "module.");
        let _ = weights.get_mut("module.layer1.0.bn1.running_mean").unwrap().get(1).fill_(bad);
        let error = install(weights).unwrap_err().to_string();
        let text = "the tensor `module.layer1.0.bn1.running_mean` has 1 values that are no finite numbers";
        assert!(error.contains(text), "{error}");
    }
}
