#!/bin/sh
# Compares the benchmarks of every rung of a git ref with those of the work tree
# (make benchstat). Both take turns, so that a busy minute meets both.
set -eu
ref=$1 rounds=$2 time=${3:-200ms}
# What measures memory or delays, or takes millions of items, is not here.
skip='^Benchmark(CacheMemory|Load|Propagation|Memory|Flood)$|./(000000|1e\+06|M$)|.//(000000|M$)'

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tree" "$dir/old" "$dir/new"
git archive "$ref" | tar -x -C "$dir/tree"
go test -C "$dir/tree" -c -o "$dir/old/" ./gateway/... >"$dir/built"
go test -c -o "$dir/new/" ./gateway/... >"$dir/built"

run() { # side, root, package
	test -d "$2/$3" && test -x "$dir/$1/${3##*/}.test" || return 0
	(cd "$2/$3" && "$dir/$1/${3##*/}.test" -test.run '^$' -test.bench . -test.skip "$skip" -test.benchtime "$time" -test.benchmem) >>"$dir/$1.txt"
}
for round in $(seq "$rounds"); do
	echo "round $round of $rounds" >&2
	for package in $(go list -f '{{.ImportPath}}' ./gateway/... | sed 's|^[^/]*/||'); do
		run old "$dir/tree" "$package"
		run new "$PWD" "$package"
	done
done
go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "$ref=$dir/old.txt" "work tree=$dir/new.txt"
