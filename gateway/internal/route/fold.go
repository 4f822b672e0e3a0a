package route

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// cover has every pattern ignore case that lies under one which does: the
// backend makes no difference there, and another case of such a pattern's
// letters would fall past both, to whatever else is for any path.
func (t *Table) cover() {
	if !slices.ContainsFunc(t.patterns, func(p Pattern) bool { return p.IgnoreCase }) {
		return
	}
	ignoring := http.NewServeMux()
	for i, p := range t.patterns {
		for _, method := range p.everyMethod() {
			if p.IgnoreCase {
				_ = register(ignoring, method, p.Host+foldPattern(p.Path), i) // what is wrong with it New tells
			}
		}
	}
	for i, p := range t.patterns {
		example, err := p.example()
		if err != nil {
			continue
		}
		folded := at(example, foldPath(example.URL.EscapedPath()))
		for _, folded.Method = range p.everyMethod() {
			if covering, _ := ask(ignoring, folded); covering >= 0 {
				t.patterns[i].IgnoreCase = true
			}
		}
	}
}

// fold builds the second table if a pattern ignores the case of letters.
func (t *Table) fold(errs []error) {
	ignores := map[string]bool{} // by host and folded path: a pattern there ignores case
	for _, p := range t.patterns {
		if p.IgnoreCase {
			t.folded = http.NewServeMux()
			ignores[p.Host+foldPattern(p.Path)] = true
		}
	}
	if t.folded == nil {
		return
	}
	for i, p := range t.patterns {
		for _, method := range p.everyMethod() {
			pattern := p.Host + foldPattern(p.Path)
			if errs[i] == nil && register(t.folded, method, pattern, i) != nil && ignores[pattern] {
				errs[i] = errors.New("it differs from another route's in the case of letters alone, which ignore_case says to ignore")
			}
		}
	}
}

// foldPattern folds the literals of a pattern's path. Names of wildcards become
// one, so that patterns for the same paths are the same.
func foldPattern(path string) string {
	segments := strings.Split(path, "/")
	wildcards := 0
	for i, s := range segments {
		switch {
		case s == "{$}":
		case strings.HasPrefix(s, "{"):
			wildcards++
			name := "{" + strings.Repeat("x", wildcards)
			if strings.HasSuffix(s, "...}") {
				name += "..."
			}
			segments[i] = name + "}"
		default:
			segments[i] = foldSegment(s)
		}
	}
	return strings.Join(segments, "/")
}

// foldPath folds all segments of an escaped path.
func foldPath(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = foldSegment(s)
	}
	return strings.Join(segments, "/")
}

// foldSegment folds as every backend may: by upper and by lower case, so that
// the Kelvin sign is a k and a dotless i an i (java.lang.String.equalsIgnoreCase).
func foldSegment(s string) string {
	decoded, err := url.PathUnescape(s)
	if err != nil {
		return s
	}
	return url.PathEscape(strings.Map(func(c rune) rune { return unicode.ToLower(unicode.ToUpper(c)) }, decoded))
}

// respell returns an escaped path that the pattern matches but for the case of
// letters as the pattern spells it.
func (p Pattern) respell(path string) string {
	literals := strings.Split(p.Path, "/")
	segments := strings.Split(path, "/")
	for i, s := range literals {
		if i < len(segments) && s != "" && !strings.HasPrefix(s, "{") {
			segments[i] = s
		}
	}
	return strings.Join(segments, "/")
}
