# Two commands do: `make quickstart` and `make test`. What follows a name below is what `make help` prints.

PYTHON ?= python3
DEVICE ?= cpu
PREFIX ?= $(HOME)/.local
ARGS ?=

# ~ is not expanded by every shell in `make install PREFIX=~/.local`.
prefix := $(patsubst ~/%,$(HOME)/%,$(PREFIX))
setup_libtorch := $(PYTHON) tools/setup_libtorch.py

.PHONY: help setup tools build quickstart paper test lint site install clean

help: ## this list
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 16
	@echo 'DEVICE=cuda takes a libtorch with CUDA (5 GB from the package index, or set LIBTORCH).'

setup: tools ## find or make libtorch (once, about 540 MB) and write .cargo/config.toml
	@$(setup_libtorch) --device $(DEVICE) --cargo-config .cargo/config.toml >/dev/null

# Said here, because what cargo and cc-rs say about a missing compiler comes after minutes and in other words.
tools:
	@ok=yes; \
	need() { ok=no; echo "error: $$1" >&2; }; \
	command -v cargo >/dev/null || need 'cargo is missing. Install Rust 1.95 or newer with rustup (your distribution may call it rustup, too).'; \
	command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || need 'a C++ compiler is missing. On Debian or Ubuntu: apt-get install g++'; \
	command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 9))' || need 'Python 3.9 or newer is missing ($(PYTHON)). On Debian or Ubuntu: apt-get install python3 python3-pip'; \
	test $$ok = yes || exit 2

build: setup ## compile everything; ./atflow is the result
	cargo build --release --workspace --locked
	@target=$$(cargo metadata --no-deps --format-version 1 --locked --offline | $(PYTHON) -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])') \
	    && ln -sfn "$$target/release/atflow" atflow

quickstart: build ## build, then run pipelines/quickstart.yaml (ARGS='…' are passed on)
	./atflow run pipelines/quickstart.yaml $(ARGS)

paper: build ## build, then run all of pipelines/paper.yaml in small (about a minute)
	./atflow run pipelines/paper.yaml --profile tiny $(ARGS)

# The set-up's own tests come first because they are short. Stories that need a worker find the one that `build` made.
# Test programs compile behind the suites in Python, which mostly wait. `cargo test` waits for them, and says what fails.
test: build ## all tests
	@nice -n 19 cargo test --release --workspace --locked --no-run >/dev/null 2>&1 & compiling=$$!; \
	trap 'kill $$compiling 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	for suite in setup browser notebook crate pytorch site slurm; do \
	    echo "$(PYTHON) -m unittest discover -s tests/$$suite"; \
	    $(PYTHON) -m unittest discover -s tests/$$suite || exit; \
	done; \
	wait $$compiling || true; trap - EXIT
	cargo test --release --workspace --locked

lint: setup ## formatting, width of prose, licences, clippy and rustdoc, warnings as errors
	cargo fmt --check --all
	@git ls-files '*.rs' '*.md' ':!fuzz' | grep -v '^docs/results/.*/[^R]' | xargs $(PYTHON) tools/width.py
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check licenses bans sources; \
	else echo 'cargo-deny is missing: licences were not checked (cargo install --locked cargo-deny)' >&2; fi
	cargo clippy --release --workspace --all-targets --locked -- -D warnings
	cargo clippy --release --package atflow --no-default-features --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --release --workspace --no-deps --locked

site: ## the documentation as a site, in site/
	$(PYTHON) tools/docs_site.py site

install: build ## copy atflow and its worker to PREFIX/bin (default ~/.local), and the man pages to PREFIX/share/man
	@mkdir -p "$(prefix)/bin"
	@target=$$(dirname "$$(readlink atflow)") && for program in atflow atflow-worker; do \
	    cp -f "$$target/$$program" "$(prefix)/bin/.$$program.new" && mv -f "$(prefix)/bin/.$$program.new" "$(prefix)/bin/$$program" \
	        && echo "$(prefix)/bin/$$program" || exit; \
	done
	@"$(prefix)/bin/atflow" man "$(prefix)/share/man/man1" >/dev/null

clean: ## remove what was built here; libtorch, cache/ and results/ stay
	cargo clean
	rm -f atflow
