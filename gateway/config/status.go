package config

import (
	"os"
	"reflect"
)

// StatusAddress returns server.status of the file, as host:port, and "" where
// the file has none. It reads nothing else: a file with other faults, which a
// running gateway did not take, still says where that gateway answers. The error
// is a [Faults], or that of reading the file.
func StatusAddress(path string) (string, error) {
	data, err := readLimited(path)
	if err != nil {
		return "", err
	}
	root, fault := document(path, data, "server.status")
	if fault != nil {
		return "", Faults{*fault}
	}
	r := newReader(path, Options{Env: os.LookupEnv, Reads: func(string) {}})
	var f struct {
		Server struct {
			Status address `yaml:"status"`
		} `yaml:"server"`
	}
	r.value(root, "", reflect.ValueOf(&f).Elem(), "")
	if !r.has("server.status") {
		return "", nil
	}
	if r.bad["server.status"] {
		var own Faults
		for _, fault := range r.faults {
			if fault.Pos == r.pos["server.status"] {
				own = append(own, fault)
			}
		}
		return "", own.Err()
	}
	return f.Server.Status.String(), nil
}
