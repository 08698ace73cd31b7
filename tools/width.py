"""Lists prose that is wider than 120 columns: comments of Rust, and Markdown outside of tables, code, HTML and link targets.

python3 tools/width.py FILE…; exits with 1 if there is any.
"""

import pathlib
import re
import sys

WIDTH = 120


def wide_comments(lines):
    for number, line in lines:
        # A line that is one word, such as an address, cannot be broken; a table is a row.
        words = line.strip().lstrip("/!").split()
        if len(line) > WIDTH and line.lstrip().startswith("//") and len(words) > 1 and words[0] != "|":
            yield number


def wide_prose(lines):
    is_code = False
    for number, line in lines:
        if re.match(r"\s*(```|~~~)", line):
            is_code = not is_code
        elif not is_code and len(line) > WIDTH and " " in line.strip() and not re.match(r"\s*(\||<|#|\[[^\]]+\]:)", line):
            # One span of code or one link that reaches over the edge stays in one piece.
            if len(re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)) > WIDTH - 40:
                yield number


def main(files):
    found = 0
    for name in files:
        lines = list(enumerate(pathlib.Path(name).read_text(encoding="utf-8").split("\n"), 1))
        for number in wide_comments(lines) if name.endswith(".rs") else wide_prose(lines):
            print(f"{name}:{number}: wider than {WIDTH} columns")
            found += 1
    return found


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
