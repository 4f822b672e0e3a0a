package examples

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

// manifest is the documents of one file, by their types.
type manifest struct {
	configs     []core.ConfigMap
	deployments []apps.Deployment
	services    []core.Service
	scalers     []autoscaling.HorizontalPodAutoscaler
	budgets     []policy.PodDisruptionBudget
	policies    []networking.NetworkPolicy
}

// into decodes a document into one more item of the list: a key that the type does
// not have, or one that stands twice, is an error.
func into[T any](list *[]T) func([]byte) error {
	return func(text []byte) error {
		var item T
		if err := strict.UnmarshalStrict(text, &item); err != nil {
			return err
		}
		*list = append(*list, item)
		return nil
	}
}

func read(t *testing.T, name string) (m manifest) {
	t.Helper()
	text, err := os.ReadFile(examples + name)
	if err != nil {
		t.Fatal(err)
	}
	decode := map[meta.TypeMeta]func([]byte) error{
		{APIVersion: "v1", Kind: "ConfigMap"}:                           into(&m.configs),
		{APIVersion: "apps/v1", Kind: "Deployment"}:                     into(&m.deployments),
		{APIVersion: "v1", Kind: "Service"}:                             into(&m.services),
		{APIVersion: "autoscaling/v2", Kind: "HorizontalPodAutoscaler"}: into(&m.scalers),
		{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}:          into(&m.budgets),
		{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}:     into(&m.policies),
	}
	for r := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text))); ; {
		doc := make([]byte, len(text)+1)
		n, err := r.Read(doc)
		if errors.Is(err, io.EOF) {
			return m
		}
		if err != nil {
			t.Fatal(err)
		}
		var is meta.TypeMeta
		if err := strict.Unmarshal(doc[:n], &is); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		known, ok := decode[is]
		if !ok {
			t.Fatalf("%s: what is %v?", name, is)
		}
		if err := known(doc[:n]); err != nil {
			t.Errorf("%s: %s: %v", name, is.Kind, err)
		}
	}
}

func TestSidecar(t *testing.T) {
	m := read(t, "kubernetes/sidecar.yaml")
	if len(m.deployments) != 1 || len(m.configs) != 1 || len(m.services) != 1 {
		t.Fatalf("%d deployments, %d configurations, %d services", len(m.deployments), len(m.configs), len(m.services))
	}
	pod := m.deployments[0].Spec.Template.Spec
	if len(pod.InitContainers) != 1 || pod.InitContainers[0].RestartPolicy == nil || *pod.InitContainers[0].RestartPolicy != core.ContainerRestartPolicyAlways {
		t.Fatal("the gateway is no init container that goes on")
	}
	if routes := m.configs[0].Data["routes.yaml"]; strings.Count(routes, "upstream:") != strings.Count(routes, "upstream: http://127.0.0.1:") {
		t.Error("a sidecar forwards to its own pod")
	}
	// Kubernetes tells the gateway to end when all others have, and these at once.
	m.holds(t, pod.InitContainers[0], pod.Containers[0])
}

func TestEdge(t *testing.T) {
	m := read(t, "kubernetes/edge.yaml")
	if len(m.deployments) != 1 || len(m.services) != 1 || len(m.scalers) != 1 || len(m.budgets) != 1 || len(m.policies) != 2 {
		t.Fatalf("%+v", m)
	}
	d := m.deployments[0]
	if of := m.scalers[0].Spec.ScaleTargetRef; of.Kind != "Deployment" || of.APIVersion != "apps/v1" || of.Name != d.Name {
		t.Errorf("the autoscaler scales %+v", of)
	}
	if d.Spec.Replicas != nil {
		t.Error("the deployment names a number of replicas, which each kubectl apply would set back")
	}
	container := d.Spec.Template.Spec.Containers[0]
	if container.Resources.Requests.Cpu().IsZero() {
		t.Error("the autoscaler goes by a share of the CPU request, and there is none")
	}
	m.selects(t, "the disruption budget", m.budgets[0].Spec.Selector)
	for _, p := range m.policies {
		selector := &p.Spec.PodSelector
		if p.Name != d.Name { // it lets the gateway in
			selector = p.Spec.Ingress[0].From[0].PodSelector
		} else {
			for _, rule := range p.Spec.Ingress {
				port(t, container, *rule.Ports[0].Port)
			}
		}
		m.selects(t, "the network policy "+p.Name, selector)
	}
	m.holds(t, container, container)
}

// holds checks what every deployment of the gateway c must have; first is the
// container that is told first to end.
func (m manifest) holds(t *testing.T, c, first core.Container) {
	t.Helper()
	d := m.deployments[0]
	pod := d.Spec.Template.Spec
	m.selects(t, "the deployment", d.Spec.Selector)
	m.selects(t, "the service", meta.SetAsLabelSelector(m.services[0].Spec.Selector))
	for _, p := range m.services[0].Spec.Ports {
		port(t, c, p.TargetPort)
	}

	// What it may do.
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil || s.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's securityContext: %+v", s)
	}
	if s := c.SecurityContext; s == nil || s.RunAsUser == nil || *s.RunAsUser != 65532 || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Capabilities == nil ||
		!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("the container's securityContext: %+v", s)
	}
	if c.Resources.Limits.Memory().IsZero() || c.Resources.Requests.Memory().IsZero() {
		t.Errorf("resources: %+v", c.Resources)
	}

	// How it lives and ends.
	for name, want := range map[string]struct {
		probe *core.Probe
		path  string
	}{"startup": {c.StartupProbe, "/livez"}, "readiness": {c.ReadinessProbe, "/readyz"}, "liveness": {c.LivenessProbe, "/livez"}} {
		if want.probe == nil || want.probe.HTTPGet == nil || want.probe.HTTPGet.Path != want.path {
			t.Errorf("the %s probe: %+v", name, want.probe)
			continue
		}
		if p := port(t, c, want.probe.HTTPGet.Port); p != 9902 {
			t.Errorf("the %s probe asks port %d", name, p)
		}
	}
	understands(t, "the deployment", c.Args)
	var grace time.Duration
	for i, arg := range c.Args {
		if arg == "--grace" {
			grace, _ = time.ParseDuration(c.Args[i+1])
		}
	}
	if first.Lifecycle == nil || first.Lifecycle.PreStop == nil || first.Lifecycle.PreStop.Sleep == nil || first.Lifecycle.PreStop.Exec != nil {
		t.Fatalf("preStop of %s does not sleep; without a shell it can do nothing else", first.Name)
	}
	pause := time.Duration(first.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if whole := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace == 0 || whole < grace+pause+2*time.Second {
		t.Errorf("the pod has %v to end, preStop takes %v of it and the grace %v", whole, pause, grace)
	}

	// What is mounted is there; the configuration is what check accepts.
	var env []string
	for _, e := range c.Env {
		env = append(env, e.Name+"=redis://redis:6379")
	}
	mounted := map[string]string{}
	for _, v := range c.VolumeMounts {
		mounted[v.Name] = v.MountPath
		if v.SubPath != "" {
			t.Errorf("%s is mounted with subPath, which Kubernetes never updates", v.Name)
		}
	}
	for _, v := range pod.Volumes {
		at, ok := mounted[v.Name]
		if !ok {
			t.Errorf("the volume %s is not mounted", v.Name)
		}
		delete(mounted, v.Name)
		if v.ConfigMap == nil {
			continue
		}
		i := slices.IndexFunc(m.configs, func(c core.ConfigMap) bool { return c.Name == v.ConfigMap.Name })
		if i < 0 {
			t.Fatalf("no ConfigMap is named %s", v.ConfigMap.Name)
		}
		if !slices.Contains(c.Args, at+"/routes.yaml") {
			t.Errorf("the configuration is at %s, and the arguments are %v", at, c.Args)
		}
		routes := m.configs[i].Data["routes.yaml"]
		for _, p := range c.Ports {
			if key := map[string]string{"http": "listen", "status": "status"}[p.Name]; !strings.Contains(routes, fmt.Sprintf("%s: \":%d\"", key, p.ContainerPort)) {
				t.Errorf("the port %s is %d, and not so in routes.yaml", p.Name, p.ContainerPort)
			}
		}
		checks(t, m.configs[i].Name, routes, env...)
	}
	if len(mounted) > 0 {
		t.Errorf("mounted, but no volumes: %v", mounted)
	}
}

// selects checks that a selector finds the deployment's pods.
func (m manifest) selects(t *testing.T, what string, by *meta.LabelSelector) {
	t.Helper()
	selector, err := meta.LabelSelectorAsSelector(by)
	if err != nil || selector.Empty() || !selector.Matches(labels.Set(m.deployments[0].Spec.Template.Labels)) {
		t.Errorf("%s selects %v; %v", what, selector, err)
	}
}

// port is the number of the container's port that is meant.
func port(t *testing.T, c core.Container, meant intstr.IntOrString) int32 {
	t.Helper()
	for _, p := range c.Ports {
		if p.Name == meant.StrVal || p.ContainerPort == meant.IntVal {
			return p.ContainerPort
		}
	}
	t.Errorf("the container has no port %s", meant.String())
	return 0
}
