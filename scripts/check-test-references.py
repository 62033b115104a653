#!/usr/bin/env python3
"""Checks that every test named in a page or table of test cases exists as a function.

Code spans such as `some_test_name` in the pages below, `test: name` in tables of cases, and names in NO_ROWS of the BFD
cases must be functions. Each row of a table must name a test or give a reason. Each known vulnerability in
docs/testing.md must name existing cases of metallb-bgp/tests/cases/bgp.txt.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ["metallb-bgp", "metallb-core", "metallb-l2", "metallb-operator", "fuzz/src"]
NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`")

errors = []
functions = set()
for source in SOURCES:
    for path in (ROOT / source).rglob("*.rs"):
        functions.update(re.findall(r"\bfn ([a-z0-9_]+)", path.read_text()))


def lines_of(page):
    return (ROOT / page).read_text().splitlines()


def known(name, where):
    if name not in functions:
        errors.append(f"{where}: there is no test {name}")


def columns(line):
    return [column.strip() for column in line.strip().strip("|").split(" | ")]


page = "docs/rfc-coverage.md"
for line in lines_of(page):
    for name in NAME.findall(line):
        known(name, page)
    if line.startswith("| ") and not columns(line)[-1]:
        errors.append(f"{page}: neither a test nor a reason: {line}")

page = "docs/testing.md"
cases = "metallb-bgp/tests/cases/bgp.txt"
ids = {line.split(" | ")[0] for line in lines_of(cases) if " | " in line and not line.startswith("#")}
for line in lines_of(page):
    if re.match(r"\| I\d+ \|", line):
        for name in NAME.findall(line):
            known(name, page)
    if line.startswith(("| CVE-", "| issue ")):
        for case in columns(line)[-1].split():
            if case not in ids:
                errors.append(f"{page}: there is no case {case} in {cases}")

for line in lines_of(cases):
    if " | - | " in line and not line.startswith("#"):
        reason = line.rsplit(" | ", 1)[-1]
        if reason.startswith("test: "):
            known(reason.removeprefix("test: "), cases)
        elif not reason.startswith("not ours: "):
            errors.append(f"{cases}: neither a test nor a reason: {line}")

cases = "metallb-bgp/src/bfd/tests/cases.rs"
for line in lines_of(cases):
    if match := re.search(r'", Why::\w+, "([a-z0-9_]+)"', line):
        known(match[1], cases)

page = "docs/compatibility.md"
for head in ["### BGPPeer", "### BFDProfile"]:
    part = (ROOT / page).read_text().split(head)[1].split("\n#")[0]
    for line in part.splitlines():
        if line.startswith("| `"):
            names = NAME.findall(columns(line)[-1])
            if not names:
                errors.append(f"{page}, {head}: no test: {line}")
            for name in names:
                known(name, page)

print("\n".join(errors) or f"{len(functions)} functions, all references exist")
sys.exit(bool(errors))
