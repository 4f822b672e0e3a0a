package examples

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestCompose reads the file as docker compose does, with Compose's own schema.
func TestCompose(t *testing.T) {
	env := types.Mapping{"ISSUER": "https://id.example.com", "AUDIENCE": "https://api.example.com"}
	text, err := os.ReadFile(examples + "compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir: examples, Environment: env,
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: text}},
	}, func(o *loader.Options) { o.SetProjectName("gatehouse", true) })
	if err != nil {
		t.Fatal(err)
	}
	g := project.Services["gateway"]
	if !g.ReadOnly || !slices.Equal(g.CapDrop, []string{"ALL"}) || !slices.Contains(g.SecurityOpt, "no-new-privileges:true") || g.MemLimit == 0 {
		t.Errorf("the gateway may do too much: %+v", g)
	}
	understands(t, "compose.yaml", g.Command)
	if b := project.Services["heroes"]; len(b.Ports) > 0 || b.Networks["edge"] != nil || len(b.Networks) != 1 {
		t.Error("the backend can be reached past the gateway")
	}
	if _, err := os.Stat(g.Build.Context + "/Dockerfile"); err != nil {
		t.Error(err)
	}
	routes, err := os.ReadFile(examples + "routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var given []string
	for name, value := range g.Environment {
		given = append(given, name+"="+*value)
	}
	checks(t, "compose.yaml", string(routes), given...)
	if !strings.Contains(string(routes), "http://heroes:9000") {
		t.Error("no route goes to the service heroes")
	}
}
