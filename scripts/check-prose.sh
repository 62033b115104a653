#!/usr/bin/env bash
# Fails if a guarded text contains a pattern that makes sentences hard to read, or a reference that does not resolve inside
# the repository. Comments and strings of Rust files and whole Markdown files are checked. Add a directory to `guarded`
# once its text is clean; a line with a false alarm is reworded.
set -euo pipefail
cd "$(dirname "$0")/.."
# Columns are characters, not bytes.
export LC_ALL=C.UTF-8

guarded=(
  metallb-core/src/address.rs metallb-core/src/config.rs metallb-core/src/config metallb-core/src/model.rs
  metallb-core/src/model metallb-core/src/reason.rs metallb-core/src/lib.rs metallb-core/examples metallb-core/README.md
  examples/embed/src
  metallb-l2 benches/examples/l2_answer_rate benches/benches/l2_responder.rs
  metallb-core/src/allocator metallb-core/src/plan metallb-core/src/plan.rs metallb-core/src/routes metallb-core/src/routes.rs
  metallb-core/src/announcement.rs metallb-core/src/announcement metallb-core/src/election.rs
  metallb-core/src/election metallb-core/src/assignment/outcome.rs metallb-core/src/assignment/waiting.rs
  metallb-core/src/assignment/wish.rs
  docs/design/0031-announcement-in-core.md
  docs/upstream-behaviour.md docs/performance/l2.md docs/design/README.md docs/design/template.md
  docs/design/0007-interfaces-by-netlink.md docs/design/0024-addresses-that-are-refused.md
  SECURITY.md README.md CHANGELOG.md CONTRIBUTING.md .github examples/first-look
  docs/ARCHITECTURE.md docs/migration.md docs/compatibility.md docs/operations
  docs/design/0012-quarantine-of-conflicts.md docs/design/0023-how-a-speaker-goes.md
  metallb-operator/src/api.rs metallb-operator/src/api/objects.rs metallb-operator/src/api/schema.rs
  metallb-operator/src/cli metallb-operator/src/cli.rs
  metallb-operator/src/client metallb-operator/src/client.rs metallb-operator/src/controller
  metallb-operator/src/controller.rs metallb-operator/src/exclusion.rs metallb-operator/src/index
  metallb-operator/src/index.rs metallb-operator/src/lib.rs metallb-operator/src/main.rs metallb-operator/src/metrics
  metallb-operator/src/metrics.rs metallb-operator/src/process metallb-operator/src/process.rs
  metallb-operator/src/sink metallb-operator/src/sink.rs metallb-operator/src/source.rs metallb-operator/src/source/watches
  metallb-operator/src/source/restore.rs metallb-operator/src/source/snapshot.rs metallb-operator/src/source/translate.rs
  metallb-operator/src/speaker metallb-operator/src/speaker.rs metallb-operator/src/standalone.rs
  metallb-operator/src/sys.rs metallb-operator/src/telemetry.rs
  metallb-operator/tests/cli_plan.rs
)

# A clause as subject, without a noun: "Who is silent is gone", "What comes in is counted".
patterns=(
  '(^|[.:;] |// |//[/!] |- )(Who|Whom|Whoever|Whatever) [a-z]'
  '(^|[.:;] |// |//[/!] |- )What (is|was|are|were|has|had|comes|goes|it|they|we|others|nobody|somebody) '
  '(, |of |to |for |from )(whom|whoever|whatever)\b'
  '\bno more\b(?! than)' '\bso many\b' '\bin vain\b' '\banew\b' '\bfor once\b' '\bbe it\b' '\bas ever\b'
  '\bit is looked\b' '\b(is|are|was|were) told\b' '\bmade up anew\b' '\bnobody (is|has|takes|waits|asks)\b'
  '\bspeaks? against\b' '\bfound out\b' '\bkeeps? to itself\b' '\bby the hundred\b'
  # References to documents outside of the repository.
  '\bcontract (speaker|control-plane|§)' '\b[Ff]acts? [0-9]' "customer's document" 'seed document' '\b[Qq]uirk S?[0-9]'
)

pattern=$(IFS='|'; echo "${patterns[*]}")
failed=0
while IFS= read -r -d '' file; do
  case $file in
    *.rs) text='(//|").*' ;;
    *.md | *.yml) text='.*' ;;
    *) continue ;;
  esac
  # In Rust files only what follows the first comment sign or quotation mark is text.
  if found=$(grep -nP "$text" "$file" | grep -P "$pattern"); then
    printf '%s\n' "$found" | sed "s|^|$file:|"
    failed=1
  fi
  if [ "${file##*.}" = rs ] && long=$(grep -nP '^.{121,}' "$file"); then
    printf '%s\n' "$long" | sed "s|^|longer than 120 columns: $file:|"
    failed=1
  fi
done < <(git ls-files -z --cached --others --exclude-standard -- "${guarded[@]}")
[ "$failed" = 0 ] && echo "prose: no forbidden pattern in the guarded texts"
exit "$failed"
