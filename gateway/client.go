package gateway

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// proxies are the peers whose forwarding headers are believed.
type proxies []netip.Prefix

func (p proxies) contains(ip netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// client returns who is calling and whether the peer is a trusted proxy: then
// it is the last address of X-Forwarded-For (or Forwarded, RFC 7239, without
// one) that is no trusted proxy itself. Everything before that address is what
// the caller says of itself.
func (p proxies) client(r *http.Request) (ip netip.Addr, trusted bool) {
	ip = peerIP(r.RemoteAddr)
	if !p.contains(ip) {
		return ip, false
	}
	hops := hopsOf(r.Header)
	for i := len(hops) - 1; i >= 0 && p.contains(ip); i-- {
		hop, ok := hopIP(hops[i])
		if !ok { // "unknown", an obfuscated name, nonsense: the nearest address that is known stands
			break
		}
		ip = hop
	}
	return ip, true
}

func peerIP(remoteAddr string) netip.Addr {
	addr, err := netip.ParseAddrPort(remoteAddr)
	if err != nil {
		return netip.Addr{} // a handler mounted elsewhere: a Unix socket has no address
	}
	return addr.Addr().Unmap().WithZone("")
}

// hopsOf lists the addresses that proxies wrote down, the nearest last.
func hopsOf(h http.Header) []string {
	if lines := h["X-Forwarded-For"]; lines != nil {
		return strings.Split(strings.Join(lines, ","), ",")
	}
	var hops []string
	for element := range strings.SplitSeq(strings.Join(h["Forwarded"], ","), ",") {
		hop := ""
		for pair := range strings.SplitSeq(element, ";") {
			if name, value, _ := strings.Cut(strings.TrimSpace(pair), "="); strings.EqualFold(name, "for") {
				hop = strings.Trim(value, `"`)
			}
		}
		hops = append(hops, hop)
	}
	return hops
}

// hopIP reads an address with or without a port, IPv6 with or without brackets.
func hopIP(s string) (netip.Addr, bool) {
	s = strings.TrimSpace(s)
	if host, _, err := net.SplitHostPort(s); err == nil {
		s = host
	}
	ip, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return ip.Unmap().WithZone(""), err == nil
}
