"""JUnit XML: a case for every gate and every failed input, as continuous integration reads it."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from attrsens.engine.gates import in_words
from attrsens.engine.report import Report
from attrsens.render.markdown import MARK
from attrsens.render.words import one_line, subject

HEAD = f'<?xml version="1.0" encoding="UTF-8"?>\n{MARK}\n'.encode()


def to_junit(report: Report) -> bytes:
    """One suite, valid against the schemas of Ant (Windy Road) and of Jenkins (junit-10).

    A gate that failed is a `failure`, an input that failed an `error`. A run with neither has one case, the run itself,
    because readers refuse a file without cases; an interrupted run has that case too, as an error.
    """
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite")
    properties = ET.SubElement(suite, "properties")
    for name, version in report.provenance.versions.items():
        ET.SubElement(properties, "property", name=one_line(name), value=one_line(version))
    place = f"attrsens.{report.command}"
    for gate in report.gates:
        case = _case(suite, f"{place}.gates", gate.expression)
        if not gate.passed:
            _outcome(case, "failure", "gate", f"{gate.expression}: {in_words(gate)}")
    for failure in report.failures:
        case = _case(suite, f"{place}.inputs", subject(failure))
        _outcome(case, "error", failure.stage, failure.message)
    interrupted = report.provenance.interrupted
    if interrupted or not (report.gates or report.failures):
        case = _case(suite, place, "run")
        if interrupted:
            _outcome(case, "error", "interrupted", f"interrupted; {len(report.records)} results were finished")
    failures = sum(not gate.passed for gate in report.gates)
    attributes = {
        "name": place,
        "package": "attrsens",
        "id": "0",
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(failures),
        "errors": str(len(report.failures) + interrupted),
        "skipped": "0",
        "time": f"{report.provenance.seconds:.3f}",
        "timestamp": report.provenance.started[:19],  # the schema has no time zone; it is UTC
        "hostname": "localhost",
    }
    for name, value in attributes.items():
        suite.set(name, value)
    ET.SubElement(suite, "system-out")
    ET.SubElement(suite, "system-err")
    ET.indent(root, " ")
    return HEAD + ET.tostring(root, encoding="unicode").encode() + b"\n"


def _case(suite: ET.Element, classname: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=classname, name=one_line(name) or "?", time="0")


def _outcome(case: ET.Element, kind: str, what: str, message: str) -> None:
    line = one_line(message, 2000)
    ET.SubElement(case, kind, type=one_line(what) or "?", message=line).text = line
