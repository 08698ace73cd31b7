"""The competency questions of the Workflow Run RO-Crate profiles, as SPARQL of our own.

https://www.researchobject.org/workflow-run-crate/requirements lists them. `python questions.py CRATE` prints the
number of answers to each as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import rdflib
from contexts import contexts

PREFIXES = """
PREFIX s: <http://schema.org/>
PREFIX bs: <https://bioschemas.org/>
PREFIX cw: <https://bioschemas.org/ComputationalWorkflow#>
PREFIX wr: <https://w3id.org/ro/terms/workflow-run#>
PREFIX cm: <https://codemeta.github.io/terms/>
PREFIX dct: <http://purl.org/dc/terms/>
"""

QUESTIONS = {
    "1 which container images did the run use": """
        SELECT ?image WHERE { ?action a s:CreateAction ; wr:containerImage ?image }""",
    "2 how much memory and time did a run of a tool use": """
        SELECT ?action ?what ?value ?unit WHERE {
            ?action a s:CreateAction ; wr:resourceUsage ?usage .
            ?usage a s:PropertyValue ; s:propertyID ?what ; s:value ?value ; s:unitCode ?unit }""",
    "3 which configuration did the execution of a step have": """
        SELECT ?step ?file WHERE {
            ?control a s:ControlAction ; s:instrument ?step ; s:object ?action .
            ?step a s:HowToStep . ?action s:subjectOf ?file . ?file a s:MediaObject }""",
    "4 in which environment did a step run": """
        SELECT ?step ?file ?format WHERE {
            ?workflow a bs:ComputationalWorkflow, s:HowTo ; s:step ?step .
            ?step cm:buildInstructions ?file . ?file a s:MediaObject ; s:encodingFormat ?format ; dct:conformsTo ?as }""",
    "5 how long did a component take": """
        SELECT ?tool ?start ?end WHERE {
            ?action a s:CreateAction ; s:instrument ?tool ; s:startTime ?start ; s:endTime ?end .
            ?tool a s:SoftwareApplication }""",
    "6 how long did the workflow take": """
        SELECT ?start ?end WHERE {
            ?action a s:CreateAction ; s:instrument ?workflow ; s:startTime ?start ; s:endTime ?end .
            ?workflow a bs:ComputationalWorkflow }""",
    "7 was the execution successful": """
        SELECT ?status WHERE {
            ?action a s:CreateAction ; s:instrument ?workflow ; s:actionStatus ?status .
            ?workflow a bs:ComputationalWorkflow }""",
    "8a what are the inputs of the workflow": """
        SELECT ?input WHERE {
            ?action a s:CreateAction ; s:instrument ?workflow ; s:object ?input .
            ?workflow a bs:ComputationalWorkflow . ?input s:exampleOfWork ?formal . ?workflow cw:input ?formal }""",
    "8b what are the outputs of the workflow": """
        SELECT ?output WHERE {
            ?action a s:CreateAction ; s:instrument ?workflow ; s:result ?output .
            ?workflow a bs:ComputationalWorkflow . ?output s:exampleOfWork ?formal . ?workflow cw:output ?formal }""",
    "9 which version did the component of a step have": """
        SELECT ?step ?name ?version WHERE {
            ?step a s:HowToStep ; s:workExample ?tool . ?tool s:name ?name ; s:version|s:softwareVersion ?version }""",
    "10 what wraps a component": """
        SELECT ?tool ?wrapped ?version WHERE {
            ?action a s:CreateAction ; s:instrument ?tool .
            ?tool s:mainEntity ?wrapped ; s:softwareRequirements ?wrapped . ?wrapped s:version ?version }""",
    "11 which runs of tools used a parameter of the workflow": """
        SELECT ?name ?value ?action WHERE {
            ?workflow a bs:ComputationalWorkflow ; cw:input ?outer ; s:step ?step .
            ?outer s:name ?name . ?step s:workExample ?tool ; wr:connection ?connection .
            ?connection wr:sourceParameter ?outer ; wr:targetParameter ?inner . ?tool cw:input ?inner .
            ?given s:exampleOfWork ?outer, ?inner ; s:value ?value .
            ?action a s:CreateAction ; s:instrument ?tool ; s:object ?given }""",
}


def answers(crate: Path) -> dict[str, int]:
    """The number of answers to each question."""
    document = json.loads((crate / "ro-crate-metadata.json").read_text())
    known = {address: json.loads(text)["@context"] for address, text in contexts().items()}
    document["@context"] = [known[part] if isinstance(part, str) else part for part in document["@context"]]
    graph = rdflib.Graph()
    graph.parse(data=json.dumps(document), format="json-ld", base="https://example.org/crate/")
    return {name: len(list(graph.query(PREFIXES + query))) for name, query in QUESTIONS.items()}


if __name__ == "__main__":
    print(json.dumps(answers(Path(sys.argv[1]))))
