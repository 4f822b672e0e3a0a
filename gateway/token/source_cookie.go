package token

import (
	"net/http"
	"strings"
)

// Cookie is a [Source]: the cookie of that name. Browsers send cookies by
// themselves, so a gateway that reads one must ask for the same origin too.
type Cookie struct{ Name string }

// Find implements [Source].
func (c Cookie) Find(r *http.Request) (raw Raw, found bool, err error) {
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			value, ok := c.match(pair)
			switch {
			case !ok:
				continue
			case found:
				return Raw{}, false, Errorf(BadRequest, "the cookie %s is there twice", c.Name)
			case !isToken68(value):
				return Raw{}, false, Errorf(BadRequest, "the cookie %s holds no well-formed token", c.Name)
			}
			raw, found = NewRaw(value), true
		}
	}
	return raw, found, nil
}

func (c Cookie) match(pair string) (value string, ok bool) {
	name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
	if strings.TrimRight(name, " \t") != c.Name {
		return "", false
	}
	value = strings.TrimLeft(value, " \t")
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	return value, true
}

// Remove implements [Source].
func (c Cookie) Remove(r *http.Request) {
	var lines []string
	for _, line := range r.Header["Cookie"] {
		var kept []string
		found := false
		for pair := range strings.SplitSeq(line, ";") {
			if _, ok := c.match(pair); ok {
				found = true
			} else {
				kept = append(kept, pair)
			}
		}
		if found {
			line = strings.Trim(strings.Join(kept, ";"), " \t")
		}
		if line != "" || !found {
			lines = append(lines, line)
		}
	}
	if lines == nil {
		delete(r.Header, "Cookie")
		return
	}
	r.Header["Cookie"] = lines
}

// String implements [Source].
func (c Cookie) String() string { return "cookie " + c.Name }
