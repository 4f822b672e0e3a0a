package token

import (
	"errors"
	"fmt"
	"strings"
)

// Path leads to a claim: a dotted path through objects (realm_access.roles) or
// a JSON Pointer (RFC 6901: /https:~1~1x.example~1roles) where a name itself
// holds a dot.
type Path struct {
	text  string
	steps []string
}

// ParsePath reads a dotted path, or a JSON Pointer if s starts with a slash.
func ParsePath(s string) (Path, error) {
	if s == "" {
		return Path{}, errors.New("a claim path must not be empty")
	}
	if rest, pointer := strings.CutPrefix(s, "/"); pointer {
		steps := strings.Split(rest, "/")
		for i, step := range steps {
			if strings.Contains(strings.NewReplacer("~0", "", "~1", "").Replace(step), "~") {
				return Path{}, fmt.Errorf("claim path %q: in a JSON Pointer a ~ is written ~0 and a slash in a name ~1 (RFC 6901)", s)
			}
			steps[i] = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		}
		return Path{s, steps}, nil
	}
	steps := strings.Split(s, ".")
	for _, step := range steps {
		if step == "" {
			return Path{}, fmt.Errorf("claim path %q has an empty name; where a name holds a dot, write a JSON Pointer: /%s", s, strings.ReplaceAll(s, "/", "~1"))
		}
	}
	return Path{s, steps}, nil
}

// MustPath is [ParsePath] for paths known to be good; it panics on others.
func MustPath(s string) Path {
	p, err := ParsePath(s)
	if err != nil {
		panic(err)
	}
	return p
}

// String returns the path as it was written.
func (p Path) String() string { return p.text }

// IsZero says whether the path is the zero Path, which leads nowhere.
func (p Path) IsZero() bool { return len(p.steps) == 0 }
