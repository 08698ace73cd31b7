//! JSON schema of `cluster.yaml`, for editors. [`super::classes`] reads the file and tells its mistakes.

use serde_json::{Value as Json, json};

use super::classes::MAX_AGENTS;
use crate::stage_kinds::StageKind;

/// Returns the schema of a description of a cluster, JSON Schema 2020-12.
pub fn cluster_schema() -> Json {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A cluster that atflow runs on",
        "type": "object",
        "additionalProperties": false,
        "required": ["classes"],
        "properties": {
            "executor": {"description": "What starts the agents.", "enum": ["slurm", "command"], "default": "slurm"},
            "submit": {
                "description": "For `executor: command`: starts one agent; the last word that it prints is the name of \
                    the job. `{agent}` stands for the agent's command, `{script}` for the same as one quoted word; \
                    `{class}`, `{cpus}`, `{memory_mb}`, `{seconds}`, `{time}` and `{logs}` are filled in, too.",
                "type": "string", "pattern": "\\{(agent|script)\\}"
            },
            "list": {
                "description": "For `executor: command`: prints a line for each job: its name, and perhaps its state.",
                "type": "string"
            },
            "cancel": {
                "description": "For `executor: command`: ends the job `{job}`.",
                "type": "string", "pattern": "\\{job\\}"
            },
            "classes": {
                "description": "Classes of machines by name. The first class that matches an instance is its class.",
                "type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[A-Za-z0-9_-]+$"},
                "additionalProperties": {"$ref": "#/$defs/class"}
            }
        },
        "if": {"properties": {"executor": {"const": "command"}}, "required": ["executor"]},
        "then": {"required": ["submit"]},
        "else": {"properties": {"submit": false, "list": false, "cancel": false}},
        "$defs": {
            "class": class_schema(),
            "text": {"type": ["string", "number"], "pattern": "^[^\\n]*[^\\s][^\\n]*$"},
            "texts": {
                "anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}]
            },
            "count": {"type": "integer", "minimum": 1, "maximum": 100_000},
            "size": {"type": "string", "pattern": "^\\s*0*[1-9][0-9]*\\s*[MGT](i?B)?\\s*$"},
            "time": {"type": "string", "pattern": "^\\s*[0-9.]+\\s*(s|min|h|d)\\s*$"}
        }
    })
}

/// A definition with a description.
fn of(definition: &str, description: &str) -> Json {
    json!({"description": description, "$ref": format!("#/$defs/{definition}")})
}

fn class_schema() -> Json {
    let kinds: Vec<&str> = StageKind::ALL.iter().map(|kind| kind.name()).collect();
    let kind = json!({"enum": kinds});
    let most = format!("Most agents at a time; default: {MAX_AGENTS}.");
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["match", "time"],
        "properties": {
            "match": {
                "description": "Which stages run on these machines: all that fit both. `{}` fits all.",
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": {
                    "kind": {
                        "description": "Kinds of stage.",
                        "anyOf": [kind.clone(), {"type": "array", "items": kind}]
                    },
                    "stage": of("texts", "Names or patterns of instances, as on the command line.")
                }
            },
            "partition": of("text", "Partition of Slurm."),
            "account": of("text", "Account that pays."),
            "qos": of("text", "Quality of service."),
            "gres": of("text", "Generic resources of Slurm, such as `gpu:1`."),
            "cpus": of("count", "CPU threads of one agent; default: 1."),
            "memory": of("size", "Memory of one agent: `512M`, `32G`."),
            "max_memory": of("size", "Memory up to which agents get more after it ran out; default: twice `memory`."),
            "time": of("time", "Time limit of one agent: `90 s`, `10 min`, `4h`, `1 d`."),
            "max_agents": of("count", &most),
            "exclude_nodes": of("texts", "Nodes that are not used."),
            "sbatch": of("texts", "Further options of `sbatch`."),
            "device": of("text", "Device for tensors; default: `auto` with `gres`, else `cpu`."),
            "setup": {
                "description": "Shell lines before the agent starts: `module load cuda`.",
                "type": "string"
            },
            "env": {
                "description": "Variables of the agent's environment. The file is copied into the cache: write no \
                    secrets.",
                "type": "object",
                "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                "additionalProperties": {"type": ["string", "number", "boolean"]}
            },
            "idle": of("time", "How long an agent waits for work before it ends; default: 5 minutes."),
            "hang": of("time", "Silence after which an agent is ended; default: 10 minutes.")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::classes::{CLASS, TOP};
    use super::*;

    #[test]
    fn it_has_the_keys_that_the_parser_knows() {
        let schema = cluster_schema();
        let keys = |schema: &Json| {
            let mut keys: Vec<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
            keys.sort_unstable();
            keys
        };
        let sorted = |keys: &[&str]| {
            let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
            keys.sort_unstable();
            keys
        };
        assert_eq!(keys(&schema), sorted(&TOP));
        assert_eq!(keys(&schema["$defs"]["class"]), sorted(&CLASS));
    }
}
