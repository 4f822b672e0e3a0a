package config

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// Schema returns the JSON Schema (2020-12) of routes.yaml, for editors. It
// comes from the types that the file is read into, and knows what one value
// says; what [Parse] finds by comparing two is not in it.
func Schema() []byte {
	return schemaOf(reflect.TypeFor[fileConfig](), "routes.yaml of Gatehouse", false)
}

// PolicySchema is [Schema] of a file of policies/.
func PolicySchema() []byte {
	return schemaOf(reflect.TypeFor[filePolicy](), "a policy of Gatehouse", true)
}

// schema is a JSON Schema.
type schema map[string]any

// schematic is a type that says itself how it is written: a [noder], or a
// [texter] with a pattern.
type schematic interface {
	schema(g *generator) schema
}

// generator turns types into schemas, structs into definitions.
type generator struct {
	literal bool // no value may hold a reference
	defs    map[string]schema
}

func schemaOf(t reflect.Type, title string, literal bool) []byte {
	g := &generator{literal, map[string]schema{}}
	root := g.object(t)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = title
	if !literal {
		g.defs["reference"] = schema{
			"type": "string", "pattern": `\$\{(env|file):`,
			"description": "a value from elsewhere: ${env:NAME}, ${env:NAME:-default} or ${file:path}",
		}
	}
	root["$defs"] = g.defs
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil { // not reached: maps of strings
		panic(err)
	}
	return append(text, '\n')
}

// of returns the schema of a value of type t in a field with that tag.
func (g *generator) of(t reflect.Type, tag reflect.StructTag) schema {
	if special, ok := reflect.New(t).Interface().(schematic); ok {
		return special.schema(g)
	}
	if t == reflect.TypeFor[time.Duration]() {
		return g.text(`^\+?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^0$`)
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.of(t.Elem(), tag)
	case reflect.Struct:
		name := strings.ToLower(strings.TrimPrefix(t.Name(), "file"))
		if g.defs[name] == nil {
			g.defs[name] = schema{} // a condition holds conditions
			g.defs[name] = g.object(t)
		}
		return schema{"$ref": "#/$defs/" + name}
	case reflect.Map:
		return schema{"type": "object", "additionalProperties": g.of(t.Elem(), tag)}
	case reflect.Slice:
		return schema{"type": "array", "minItems": 1, "items": g.of(t.Elem(), tag)}
	case reflect.Bool:
		return g.scalar(schema{"type": "boolean"})
	case reflect.Int:
		return g.scalar(schema{"type": "integer", "minimum": 1})
	case reflect.String:
		if list, ok := tag.Lookup("enum"); ok {
			return g.scalar(schema{"enum": strings.Split(list, ",")})
		}
		return schema{"type": "string", "minLength": 1}
	}
	panic("config: no schema of a " + t.String())
}

// object returns the schema of a map with the keys of the struct t.
func (g *generator) object(t reflect.Type) schema {
	properties, required := schema{}, []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" {
			continue
		}
		property := g.of(f.Type, f.Tag)
		property["description"] = f.Tag.Get("doc")
		properties[key] = property
		if f.Tag.Get("need") != "" {
			required = append(required, key)
		}
	}
	return schema{"type": "object", "properties": properties, "required": required, "additionalProperties": false}
}

// scalar lets a reference stand in place of the value.
func (g *generator) scalar(s schema) schema {
	if g.literal {
		return s
	}
	return anyOf(s, schema{"$ref": "#/$defs/reference"})
}

// text is a string with a pattern (ECMA 262).
func (g *generator) text(pattern string) schema {
	return g.scalar(schema{"type": "string", "pattern": pattern})
}

func anyOf(schemas ...schema) schema { return schema{"anyOf": schemas} }

func (*address) schema(g *generator) schema { return g.text(`:[0-9]+$`) }
func (*network) schema(g *generator) schema { return g.text(`^[0-9a-fA-F.:]+/[0-9]+$`) }
func (*webURL) schema(g *generator) schema  { return g.text(`^[hH][tT][tT][pP][sS]?://[^/]`) }
func (*targetURL) schema(g *generator) schema {
	return g.text(`^([hH][tT][tT][pP][sS]?|[hH]2[cC])://[^/]`)
}
func (*fileTarget) schema(g *generator) schema {
	return anyOf(g.text(`^(([hH][tT][tT][pP][sS]?|[hH]2[cC])://[^/]|unix:(//)?/.)`), g.object(reflect.TypeFor[fileTarget]()))
}

func (*fileBalance) schema(g *generator) schema {
	return anyOf(g.scalar(schema{"enum": balances}), g.object(reflect.TypeFor[fileBalance]()))
}
func (*retryOn) schema(g *generator) schema {
	return anyOf(g.scalar(schema{"enum": retryOns}), schema{"enum": []int{502, 503, 504}})
}

func (*fileUpstreams) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[string](), ""), g.of(reflect.TypeFor[[]fileDestination](), ""))
}
func (*hashKey) schema(g *generator) schema { return g.text(`^(claim|header|cookie):.+$`) }
func (*statusRange) schema(g *generator) schema {
	return anyOf(g.text(`^[2-5][0-9]{2}-[2-5][0-9]{2}$`), g.text(`^[2-5][0-9]{2}$`), g.scalar(schema{"type": "integer", "minimum": 200, "maximum": 599}))
}
func (*redisURL) schema(g *generator) schema {
	return g.text(`^(rediss?(\+(sentinel|cluster))?|unix)://`)
}
func (*size) schema(g *generator) schema { return g.text(`^\+?[0-9]+(B|KiB|MiB|GiB)?$`) }
func (*rate) schema(g *generator) schema { return g.text(`^\+?[0-9]+/.+$`) }
func (*limitKey) schema(g *generator) schema {
	return g.text(`^(ip|route|issuer|claim:.+|header:.+)$`)
}
func (*tierClaim) schema(g *generator) schema { return g.text(`^claim:.+$`) }

func (l *oneOrMany[T]) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[T](), ""), g.of(reflect.TypeFor[[]T](), ""))
}

func (*costs) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[int](), ""), schema{
		"type": "object", "minProperties": 1, "propertyNames": schema{"pattern": "^[^a-z]+$"},
		"additionalProperties": g.scalar(schema{"type": "integer", "minimum": 0}),
	})
}

func (*audiences) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[[]string](), ""), g.scalar(schema{"const": "any"}))
}

func (*fileSource) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[claim](), ""), g.object(reflect.TypeFor[fileSource]()))
}

func (*filePlace) schema(g *generator) schema {
	return anyOf(g.scalar(schema{"const": "header"}), g.object(reflect.TypeFor[filePlace]()))
}

func (*fileLogout) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[string](), ""), g.object(reflect.TypeFor[fileLogout]()))
}

func (*fileExpectation) schema(g *generator) schema {
	const answer = `^(forward|[0-9]{3}( [a-z_]+)?)$`
	whole := g.object(reflect.TypeFor[fileExpectation]())
	number := schema{"type": "integer", "minimum": 200, "maximum": 599}
	whole["properties"].(schema)["answer"] = anyOf(g.text(answer), number)
	return anyOf(g.text(answer), number, whole)
}

func (*requiredClaims) schema(g *generator) schema {
	values := g.of(reflect.TypeFor[map[string]oneOrMany[claimValue]](), "")
	values["minProperties"] = 1
	return anyOf(g.of(reflect.TypeFor[[]claim](), ""), values)
}

func (*claimValue) schema(*generator) schema {
	return schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}
}

func (*headerClaims) schema(g *generator) schema {
	return anyOf(g.scalar(schema{"const": "all"}), g.of(reflect.TypeFor[map[string]fileClaim](), ""))
}

func (*fileClaim) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[claim](), ""), g.object(reflect.TypeFor[fileClaim]()))
}

func (*privileges) schema(g *generator) schema {
	both := g.object(reflect.TypeFor[privileges]())
	both["minProperties"] = 1
	return anyOf(g.of(reflect.TypeFor[anyList](), ""), both)
}

func (*delegation) schema(g *generator) schema {
	return anyOf(g.scalar(schema{"enum": []string{"allow", "deny"}}), g.object(reflect.TypeFor[delegation]()))
}

func (*fileMatch) schema(g *generator) schema {
	return anyOf(g.text(`^\s*(\S+\s+)?[^\s/]*/\S*\s*$`), g.object(reflect.TypeFor[fileMatch]()))
}

func (*fileTest) schema(g *generator) schema {
	return anyOf(g.of(reflect.TypeFor[constant](), ""), g.object(reflect.TypeFor[fileTest]()))
}

func (*constant) schema(*generator) schema {
	return schema{"type": []string{"string", "number", "boolean"}, "minLength": 1}
}

func (*anyList) schema(g *generator) schema {
	return schema{"type": "array", "items": g.of(reflect.TypeFor[string](), "")}
}

func (*jsonObject) schema(*generator) schema { return schema{"type": "object"} }
