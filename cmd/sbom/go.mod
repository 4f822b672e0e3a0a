// The bill of materials is written by a module of its own, so that its libraries add
// nothing to the gateway's own go.mod.
module gatehouse/cmd/sbom

go 1.26.8

require github.com/CycloneDX/cyclonedx-go v0.12.0
