package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
)

// maxReadiness bounds what is read of an answer of /readyz, in bytes.
const maxReadiness = 1 << 20

// ReadyURL returns where a gateway on this machine, whose server.status is the
// address, says whether it is ready. An address that stands for all of the
// machine's own is asked on loopback.
func ReadyURL(status string) string {
	host, port, _ := net.SplitHostPort(status)
	switch ip, err := netip.ParseAddr(host); {
	case host == "", err == nil && ip.IsUnspecified() && ip.Is4():
		host = "127.0.0.1"
	case err == nil && ip.IsUnspecified():
		host = "::1"
	}
	return "http://" + net.JoinHostPort(host, port) + "/readyz"
}

// AskReady asks a gateway's /readyz, or another URL that answers 200 when all is
// well, such as /livez. It uses no proxy, whatever the environment names: the
// question is for this machine. The error says what is wrong with the gateway,
// or why it could not be asked before ctx ended.
func AskReady(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err // names the URL
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusOK {
		return nil
	}
	var r readiness
	if json.NewDecoder(io.LimitReader(response.Body, maxReadiness)).Decode(&r) == nil && r.Status != "" {
		return fmt.Errorf("%s answers %d: %s", url, response.StatusCode, strconv.QuoteToGraphic(r.Status))
	}
	return fmt.Errorf("%s answers %d", url, response.StatusCode)
}
