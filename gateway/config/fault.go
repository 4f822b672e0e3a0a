package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Pos is a place in a configuration file; lines and columns count from 1.
type Pos struct {
	File         string
	Line, Column int
}

func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

func (p Pos) compare(q Pos) int {
	return cmp.Or(cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Fault is one thing that is wrong, or at least suspicious, in a configuration.
type Fault struct {
	Pos
	Message string
}

func (f Fault) Error() string { return f.Pos.String() + ": " + f.Message }

// Faults are all the things that are wrong in a configuration, in the order of
// the file, and after those of the file itself those of its policies' files. An empty Faults is no error: return it through [Faults.Err].
type Faults []Fault

// Error returns one line for each fault.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Err returns the faults file by file in their order as an error, or nil if there are none.
func (fs Faults) Err() error {
	if len(fs) == 0 {
		return nil
	}
	files := map[string]int{} // in the order in which the first fault of each came
	for _, f := range fs {
		if _, ok := files[f.File]; !ok {
			files[f.File] = len(files)
		}
	}
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(files[a.File], files[b.File]), a.compare(b.Pos))
	})
	return fs
}

// source remembers where each value of a file stands, by its path
// ("routes[3].upstream").
type source struct {
	file    string
	pos     map[string]Pos
	written map[string]written // only values that hold something from the environment or another file
}

// written is a value as it stands in the file, and what came into it from
// elsewhere: a secret perhaps, so that no fault may show it.
type written struct {
	text  string
	parts []part
}

type part struct{ reference, value string }

// At returns where the value of that path stands ("routes[3].upstream",
// "issuers.main.keys[0]"), or where the nearest value around it does.
func (s *source) At(path string) Pos {
	if p, ok := around(s.pos, path); ok {
		return p
	}
	return Pos{File: s.file}
}

// around returns the entry of path or of the nearest path around it.
func around[T any](m map[string]T, path string) (T, bool) {
	for {
		if v, ok := m[path]; ok || path == "" {
			return v, ok
		}
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
}

// Faultf makes a fault about the value of that path. What came into that value
// from the environment or from another file is masked in the message.
func (s *source) Faultf(path, format string, args ...any) Fault {
	message := fmt.Sprintf(format, args...)
	for p, w := range s.written {
		if !strings.HasPrefix(p, path) && !strings.HasPrefix(path, p) {
			continue
		}
		for _, part := range w.parts {
			if part.value == "" {
				continue
			}
			quoted := strconv.Quote(part.value)
			message = strings.ReplaceAll(message, part.value, part.reference)
			message = strings.ReplaceAll(message, quoted[1:len(quoted)-1], part.reference)
		}
	}
	return Fault{s.At(path), message}
}

// quote returns value, which is of that path or of a part of it, in quotes; or,
// as it may be a secret, the text of the file where something was put into it.
func (s *source) quote(path, value string) string {
	if w, ok := around(s.written, path); ok {
		value = w.text
	}
	return strconv.Quote(credentials.ReplaceAllString(value, "//…@"))
}

// credentials are a user and a password in a URL.
var credentials = regexp.MustCompile(`//.*@`)

// inOrder returns the keys of m, the map of that path, in the order of the file.
func inOrder[T any](s *source, path string, m map[string]T) []string {
	return slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return s.At(join(path, a)).compare(s.At(join(path, b)))
	})
}
