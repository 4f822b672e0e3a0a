package config

import (
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"gopkg.in/yaml.v3"
)

// reader reads YAML nodes into the types of file.go and writes down where each
// value stands and all that is wrong. The Go types drive it: a struct is a map
// whose keys are the fields' yaml tags, a map has keys of the file's own, a
// slice is a list, which must not be empty. Further tags of a field:
//
//	need:"why"    the key must be there
//	enum:"a,b"    the values that a string, or each item of a list, may have
//	min:"0"       a duration may be zero; else it is positive, as numbers are
type reader struct {
	source
	dir    string
	env    func(string) (string, bool)
	reads  func(path string)
	faults Faults
	bad    map[string]bool // paths at fault, of which nothing more should be said
	types  map[reflect.Type]map[string]int
	// policyFaults are those of the policies' files, which are told after the file's own.
	policyFaults Faults
	literal      bool // ${…} is a fault: a file whose tests must mean the same everywhere
	hints        int  // how many more spellings are compared, so that a file full of faults ends soon
}

// noder is a type that reads its own node: one with several ways of writing it.
type noder interface {
	readNode(r *reader, n *yaml.Node, path string)
}

// texter is a type that is written as one string. The error says what is
// wanted, and holds nothing of s.
type texter interface {
	readText(s string) error
}

// fault says what is wrong with the value of that path.
func (r *reader) fault(path, format string, args ...any) {
	r.lacks(path, format, args...)
	r.bad[path] = true
}

// lacks says what the map of that path, with which nothing else is wrong, should have.
func (r *reader) lacks(path, format string, args ...any) {
	r.faults = append(r.faults, Fault{r.At(path), fmt.Sprintf(format, args...)})
}

// faultAt is fault for what has no path: a key, say.
func (r *reader) faultAt(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, Fault{r.place(n), fmt.Sprintf(format, args...)})
}

// has says whether the file has a value of that path, be it a bad one.
func (r *reader) has(path string) bool {
	_, ok := r.pos[path]
	return ok
}

// ok says whether the file has a value of that path with which nothing is wrong so far.
func (r *reader) ok(path string) bool { return r.has(path) && !r.bad[path] }

func (r *reader) place(n *yaml.Node) Pos { return Pos{r.file, n.Line, n.Column} }

// value reads n into v, with the field's tag.
func (r *reader) value(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if !r.unmarked(n, path) {
		return
	}
	if isNull(n) {
		hint := "give one"
		if v.Kind() == reflect.Struct {
			hint = "give one, or {} if all of it has defaults,"
		}
		r.fault(path, "%s has no value; %s or leave the key out", name(path), hint)
		return
	}
	r.plain(n, path, v, tag)
}

// unmarked says whether n can be read: it is no alias and has no tag. An
// anchor is a fault, too, but hides nothing.
func (r *reader) unmarked(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		r.fault(path, "%s is an alias (*%s); aliases are refused, write the value itself", name(path), n.Value)
		return false
	case n.Anchor != "":
		r.faultAt(n, "%s has an anchor (&%s); anchors and aliases are refused, write each value where it belongs", name(path), n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		r.fault(path, "%s has a tag (%s); tags are refused, quote what should be a string", name(path), n.Tag)
		return false
	}
	return true
}

// read is for a [noder] that has seen in which way its node n is written: it
// reads n into what target, a pointer, points to.
func (r *reader) read(n *yaml.Node, path string, target any) {
	r.plain(n, path, reflect.ValueOf(target).Elem(), "")
}

func (r *reader) plain(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	if special, ok := v.Addr().Interface().(noder); ok {
		special.readNode(r, n, path)
		return
	}
	if special, ok := v.Addr().Interface().(texter); ok {
		if s, ok := r.scalar(n, path, "a string"); ok {
			if err := special.readText(s); err != nil {
				r.fault(path, "%s is %s: %v", path, r.quote(path, s), err)
				return
			}
			r.isString(n, path, s)
		}
		return
	}
	if v.Type() == reflect.TypeFor[time.Duration]() {
		r.duration(n, path, v, tag)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		r.value(n, path, v.Elem(), tag)
	case reflect.Struct:
		r.fields(n, path, v)
	case reflect.Map:
		r.entries(n, path, v)
	case reflect.Slice:
		if r.items(n, path, v, tag) && v.Len() == 0 {
			r.fault(path, "%s is an empty list; it needs at least one item", path)
		}
	case reflect.String:
		if list, ok := tag.Lookup("enum"); ok {
			v.SetString(r.enum(n, path, strings.Split(list, ",")))
		} else if s, ok := r.text(n, path); ok {
			v.SetString(s)
		}
	case reflect.Bool:
		if s, ok := r.scalar(n, path, "true or false"); ok {
			if s != "true" && s != "false" || !r.isType(n, path, "!!bool") {
				r.fault(path, "%s is %s; want true or false, without quotes", path, r.quote(path, s))
			}
			v.SetBool(s == "true")
		}
	case reflect.Int:
		if s, ok := r.scalar(n, path, "a whole number"); ok {
			i, err := strconv.Atoi(s)
			if err != nil || i <= 0 || !r.isType(n, path, "!!int") {
				r.fault(path, "%s is %s; want a whole number above 0, without quotes", path, r.quote(path, s))
			}
			v.SetInt(int64(i))
		}
	default:
		panic("config: cannot read a " + v.Type().String())
	}
}

// fields reads a map with known keys into the struct v.
func (r *reader) fields(n *yaml.Node, path string, v reflect.Value) {
	known := r.keys(v.Type())
	if !r.pairs(n, path, func(key, value *yaml.Node) {
		i, ok := known[key.Value]
		if !ok {
			r.unknownKey(key, path, known)
			return
		}
		r.value(value, join(path, key.Value), v.Field(i), v.Type().Field(i).Tag)
	}) {
		return
	}
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		if why := tag.Get("need"); why != "" && !r.has(join(path, tag.Get("yaml"))) {
			r.lacks(path, "%s needs the key %q: %s", name(path), tag.Get("yaml"), why)
		}
	}
}

// keys returns the keys of the struct type t and their fields.
func (r *reader) keys(t reflect.Type) map[string]int {
	if known, ok := r.types[t]; ok {
		return known
	}
	known := map[string]int{}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" {
			known[key] = i
		}
	}
	r.types[t] = known
	return known
}

func (r *reader) unknownKey(key *yaml.Node, path string, known map[string]int) {
	hint := "; known here: " + strings.Join(slices.SortedFunc(maps.Keys(known), func(a, b string) int { return known[a] - known[b] }), ", ")
	if near, ok := r.nearest(key.Value, maps.Keys(known)); ok {
		hint = fmt.Sprintf("; did you mean %q?", near)
		// The key that was meant is not missing.
		if near := join(path, near); !r.has(near) {
			r.pos[near] = r.place(key)
			r.bad[near] = true
		}
	}
	r.faultAt(key, "unknown key %q in %s%s", key.Value, name(path), hint)
}

// entries reads a map with keys of the file's own into the map v.
func (r *reader) entries(n *yaml.Node, path string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	r.pairs(n, path, func(key, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		if item.Kind() == reflect.Pointer { // a bad value is there all the same, for others to refer to
			item.Set(reflect.New(item.Type().Elem()))
			r.value(value, join(path, key.Value), item.Elem(), "")
		} else {
			r.value(value, join(path, key.Value), item, "")
		}
		v.SetMapIndex(reflect.ValueOf(key.Value), item)
	})
}

// pairs calls f for each key of the map n, once.
func (r *reader) pairs(n *yaml.Node, path string, f func(key, value *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		r.fault(path, "%s is %s; want a map of keys and values", name(path), describe(n))
		return false
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch first, twice := lines[key.Value]; {
		case key.Tag == "!!merge":
			r.faultAt(key, "%s has a merge key (<<); merge keys are refused, write each key out", name(path))
			continue
		case key.Kind != yaml.ScalarNode || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0 || key.Value == "":
			r.faultAt(key, "a key in %s is no plain word", name(path))
			continue
		case twice:
			r.faultAt(key, "the key %q stands twice in %s, first in line %d", key.Value, name(path), first)
			continue
		}
		lines[key.Value] = key.Line
		// What spans lines is best looked for at its key.
		place := value
		if isNull(value) && value.Value == "" || value.Kind != yaml.ScalarNode && value.Style&yaml.FlowStyle == 0 {
			place = key
		}
		r.pos[join(path, key.Value)] = r.place(place)
		f(key, value)
	}
	return true
}

// items reads a list into the slice v; ok says whether it is a list.
func (r *reader) items(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) (ok bool) {
	if n.Kind != yaml.SequenceNode {
		r.fault(path, "%s is %s; want a list", path, describe(n))
		return false
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := index(path, i)
		r.pos[at] = r.place(item)
		r.value(item, at, v.Index(i), tag)
	}
	return true
}

// text returns a string with its references replaced; it is never empty.
func (r *reader) text(n *yaml.Node, path string) (string, bool) {
	s, ok := r.scalar(n, path, "a string")
	return s, ok && r.isString(n, path, s)
}

// isString faults what is no string, or an empty one.
func (r *reader) isString(n *yaml.Node, path, s string) bool {
	switch {
	case !r.isType(n, path, "!!str"):
		r.fault(path, "%s is %s; want a string, which it would be in quotes", path, describe(n))
		return false
	case s == "":
		r.fault(path, "%s is an empty string; give a value or leave the key out", path)
		return false
	}
	return true
}

// isType says whether a scalar has that type in YAML. What was put into one has none.
func (r *reader) isType(n *yaml.Node, path, tag string) bool {
	_, put := r.written[path]
	return put || n.ShortTag() == tag
}

// scalar returns a scalar of any type with its references replaced.
func (r *reader) scalar(n *yaml.Node, path, want string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		r.fault(path, "%s is %s; want %s", name(path), describe(n), want)
		return "", false
	}
	if r.literal {
		if strings.Contains(n.Value, "${env:") || strings.Contains(n.Value, "${file:") {
			r.fault(path, "%s holds a reference; a policy has none, so that its tests mean the same everywhere", name(path))
			return "", false
		}
		return n.Value, true
	}
	s, parts, err := r.substitute(n.Value)
	if err != nil {
		r.fault(path, "%s: %v", path, err)
		return "", false
	}
	if parts != nil {
		r.written[path] = written{n.Value, parts}
	}
	return s, true
}

func (r *reader) duration(n *yaml.Node, path string, v reflect.Value, tag reflect.StructTag) {
	s, ok := r.scalar(n, path, "a duration")
	if !ok {
		return
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil || !r.isType(n, path, "!!str"): // 0 needs no unit for ParseDuration
		r.fault(path, "%s is %s; want a duration with its unit, such as 30s, 5m or 24h", path, r.quote(path, s))
	case d < 0:
		r.fault(path, "%s is %s; it must not be negative", path, r.quote(path, s))
	case d == 0 && tag.Get("min") == "":
		r.fault(path, "%s is %s; it must be above 0", path, r.quote(path, s))
	default:
		v.SetInt(int64(d))
	}
}

// enum returns one of the allowed values, or "" and a fault.
func (r *reader) enum(n *yaml.Node, path string, allowed []string) string {
	s, ok := r.scalar(n, path, "one of "+strings.Join(allowed, ", "))
	if !ok || slices.Contains(allowed, s) {
		return s
	}
	hint := "want one of " + strings.Join(allowed, ", ")
	if near, ok := r.nearest(s, slices.Values(allowed)); ok {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if len(allowed) == 1 {
		hint = fmt.Sprintf("%q is the only value", allowed[0])
	}
	r.fault(path, "%s is %s; %s", path, r.quote(path, s), hint)
	return ""
}

// nearest returns the name that was probably meant by s.
func (r *reader) nearest(s string, names iter.Seq[string]) (best string, ok bool) {
	lower := strings.ToLower(s)
	least := max(1, min(2, len(s)/2), len(s)/3) + 1
	for name := range names {
		if r.hints--; r.hints < 0 || len(s) > 100 {
			return "", false
		}
		other := strings.ToLower(name)
		d := levenshtein.ComputeDistance(lower, other)
		if d == 2 && slices.Equal(slices.Sorted(slices.Values([]byte(lower))), slices.Sorted(slices.Values([]byte(other)))) {
			d = 1 // two letters have changed places
		}
		if d < least || d == least && ok && name < best {
			best, least, ok = name, d, true
		}
	}
	return best, ok
}

// name is how messages call the map or value of that path.
func name(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	}
	return "a string"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// each calls f with every item of a list that is a value, and its path. Items
// at fault are empty.
func each(path string, list []string, f func(path, item string)) {
	for i, item := range list {
		if item != "" {
			f(index(path, i), item)
		}
	}
}
