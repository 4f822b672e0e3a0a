package upstream

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

const (
	maxInstances = 200_000 // of a whole registry
	// Of an answer: empty objects and open tags take a hundred times the memory of
	// their bytes, and hardly any bytes where they come compressed.
	maxObjects  = 1 << 20
	maxElements = 100 // within each other
)

// answeredApplications are what a Eureka server answers to GET /apps and
// /apps/delta, as far as it is of use here, in JSON and in XML
// (github.com/Netflix/eureka/wiki/Eureka-REST-operations).
type answeredApplications struct {
	HashCode     string                `json:"apps__hashcode" xml:"apps__hashcode"`
	Applications some[answeredAppName] `json:"application" xml:"application"`
}

type answeredAppName struct {
	Name      string                 `json:"name" xml:"name"`
	Instances some[answeredInstance] `json:"instance" xml:"instance"`
}

type answeredInstance struct {
	ID         string           `json:"instanceId" xml:"instanceId"`
	Host       string           `json:"hostName" xml:"hostName"`
	IP         string           `json:"ipAddr" xml:"ipAddr"`
	Status     string           `json:"status" xml:"status"`
	Action     string           `json:"actionType" xml:"actionType"` // ADDED, MODIFIED or DELETED, in a delta
	Port       answeredPort     `json:"port" xml:"port"`
	SecurePort answeredPort     `json:"securePort" xml:"securePort"`
	Metadata   answeredMetadata `json:"metadata" xml:"metadata"`
}

// some is a list; of one item, some servers write the item itself.
type some[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *some[T]) UnmarshalJSON(text []byte) error {
	if text = bytes.TrimSpace(text); len(text) > 0 && text[0] == '{' {
		*l = make([]T, 1)
		return json.Unmarshal(text, &(*l)[0])
	}
	return json.Unmarshal(text, (*[]T)(l))
}

// answeredPort is {"$": 8080, "@enabled": "true"}, or <port enabled="true">8080</port>.
type answeredPort struct {
	Number  word `json:"$" xml:",chardata"`
	Enabled word `json:"@enabled" xml:"enabled,attr"`
}

// word is a JSON string, number or boolean: servers differ.
type word string

// UnmarshalJSON implements json.Unmarshaler.
func (w *word) UnmarshalJSON(text []byte) error {
	if s := ""; json.Unmarshal(text, &s) == nil {
		*w = word(s)
	} else {
		*w = word(text)
	}
	return nil
}

// answeredMetadata is what an instance says of itself; only its weight counts.
type answeredMetadata struct {
	Weight word `json:"weight" xml:"weight"`
}

// UnmarshalJSON implements json.Unmarshaler. The rest of the metadata is an
// application's own and may look as it likes.
func (m *answeredMetadata) UnmarshalJSON(text []byte) error {
	var all map[string]json.RawMessage
	if json.Unmarshal(text, &all) == nil && all["weight"] != nil {
		return m.Weight.UnmarshalJSON(all["weight"])
	}
	return nil
}

// parseApplications reads an answer. What is not known in it is not looked at.
func parseApplications(body []byte, isXML bool) (*answeredApplications, error) {
	if isXML {
		var a struct {
			XMLName xml.Name
			answeredApplications
		}
		if err := xml.NewTokenDecoder(&shallow{raw: xml.NewDecoder(bytes.NewReader(body))}).Decode(&a); err != nil {
			return nil, err
		}
		if a.XMLName.Local != "applications" {
			return nil, fmt.Errorf("the answer is <%.40s>, not <applications>", a.XMLName.Local)
		}
		return &a.answeredApplications, nil
	}
	if bytes.Count(body, []byte("{")) > maxObjects {
		return nil, fmt.Errorf("the answer has more than %d objects", maxObjects)
	}
	var a struct {
		Applications *answeredApplications `json:"applications"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return nil, err
	}
	if a.Applications == nil {
		return nil, errors.New(`the answer has no "applications"`)
	}
	return a.Applications, nil
}

// shallow is an xml.TokenReader that refuses what nests too deep. What reads it
// checks that tags match.
type shallow struct {
	raw   *xml.Decoder
	depth int
}

func (s *shallow) Token() (xml.Token, error) {
	t, err := s.raw.RawToken()
	switch t.(type) {
	case xml.StartElement:
		if s.depth++; s.depth > maxElements {
			return nil, fmt.Errorf("the answer has more than %d elements within each other", maxElements)
		}
	case xml.EndElement:
		s.depth--
	}
	return t, err
}

// instance is a server of an application, as it registered.
type instance struct {
	host             string
	ip               netip.Addr
	up               bool
	status           string
	port, securePort uint16 // 0: not enabled
	weight           int
}

// registry is what a Eureka server knows: instances by application, in upper
// case, and by their ids.
type registry map[string]map[string]instance

// with returns the registry as an answer changes it: the whole one changes an
// empty registry, a delta the one before. g itself stays what it is.
func (g registry) with(a *answeredApplications) (registry, error) {
	next := make(registry, len(g))
	for name, app := range g {
		next[name] = maps.Clone(app)
	}
	return next, next.apply(a)
}

func (g registry) apply(a *answeredApplications) error {
	for _, app := range a.Applications {
		name := strings.ToUpper(app.Name)
		for _, i := range app.Instances {
			id := i.ID
			if id == "" { // a server of before Eureka 1.3
				id = i.Host + ":" + string(i.Port.Number)
			}
			if i.Action == "DELETED" {
				delete(g[name], id)
				if len(g[name]) == 0 {
					delete(g, name)
				}
				continue
			}
			if g[name] == nil {
				g[name] = map[string]instance{}
			}
			g[name][id] = i.instance()
		}
	}
	if n := g.size(); n > maxInstances {
		return fmt.Errorf("the registry has %d instances, more than the %d that are read", n, maxInstances)
	}
	return nil
}

func (g registry) size() (n int) {
	for _, app := range g {
		n += len(app)
	}
	return n
}

// hash is the registry in a word, as a server puts it into apps__hashcode:
// each status and how many have it (com.netflix.discovery.shared.Applications).
func (g registry) hash() string {
	counts := map[string]int{}
	for _, app := range g {
		for _, i := range app {
			counts[i.status]++
		}
	}
	var b strings.Builder
	for _, status := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&b, "%s_%d_", status, counts[status])
	}
	return b.String()
}

// instance drops what cannot be a host or a port: a registry takes whatever is
// registered.
func (a *answeredInstance) instance() instance {
	i := instance{status: a.Status, up: a.Status == "UP", port: a.Port.number(), securePort: a.SecurePort.number(), weight: 1}
	if isHost(a.Host) {
		i.host = a.Host
	}
	if ip, err := netip.ParseAddr(a.IP); err == nil && connectable(ip.Unmap()) {
		i.ip = ip.Unmap()
	}
	if w, err := strconv.ParseUint(strings.TrimSpace(string(a.Metadata.Weight)), 10, 16); err == nil && w > 0 {
		i.weight = int(w)
	}
	return i
}

func (p answeredPort) number() uint16 {
	if enabled, err := strconv.ParseBool(strings.TrimSpace(string(p.Enabled))); err != nil || !enabled {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(p.Number)), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// isHost says whether s is a host name or an address that a URL can hold.
func isHost(s string) bool {
	if ip, err := netip.ParseAddr(s); err == nil {
		return connectable(ip.Unmap())
	}
	return s != "" && len(s) <= 253 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == ""
}
