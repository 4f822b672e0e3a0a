package main

import (
	"runtime"
	"runtime/debug"
)

// version and revision are set when a release is built
// (-ldflags "-X main.version=… -X main.revision=…").
var version, revision string

// build says which build this is, in one line: the release, the revision of the
// source and the Go version. What was not set is what the Go tool knows.
func build() string {
	release, source := release()
	return release + ", revision " + source + ", " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH
}

// release is the version and the revision of the source.
func release() (release, source string) {
	release, source = version, revision
	if info, ok := debug.ReadBuildInfo(); ok {
		if release == "" {
			release = info.Main.Version
		}
		if source == "" {
			source = vcsRevision(info)
		}
	}
	if release == "" {
		release = "(devel)"
	}
	if source == "" {
		source = "unknown"
	}
	return release, source
}

// vcsRevision is what the Go tool saw of the repository it built from, "" if nothing.
func vcsRevision(info *debug.BuildInfo) (revision string) {
	modified := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			modified = s.Value == "true"
		}
	}
	if revision != "" && modified {
		revision += ", modified"
	}
	return revision
}
