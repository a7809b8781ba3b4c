package outbound

import (
	"encoding/binary"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// origin is a scheme and an authority. The set of named origins holds those of a default port with and without it, so
// that the usual spelling of a URL is found without being taken apart.
type origin struct{ scheme, authority string }

// authority is a host and port in the one spelling that this package accepts, lower-cased.
type authority struct {
	scheme, host, port string // host without brackets
	addr               netip.Addr
}

// Origin returns the origin of a URL in the config file as SetNamed wants it. Its errors are fault.Invalid.
func Origin(rawURL string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.User != nil || u.Opaque != "" {
		// url.Parse's error quotes the URL, which may hold a password.
		return "", fault.New(fault.Invalid, "this is no URL of the form https://host or https://host:port/path; user and password don't belong in it", nil)
	}
	a, err := parseAuthority(u.Scheme, u.Host)
	if err != nil {
		return "", err
	}
	return a.scheme + "://" + a.origin().authority, nil
}

func (d *Door) addOrigin(set map[origin]bool, s string) error {
	rest, prior := strings.CutPrefix(s, "h2c://")
	if prior {
		s = "http://" + rest
	}
	u, err := url.Parse(s)
	if err != nil || u.User != nil || u.Opaque != "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" {
		return fault.New(fault.Invalid, "a named origin is written scheme://host:port and nothing more", nil)
	}
	a, err := parseAuthority(u.Scheme, u.Host)
	if err != nil {
		return err
	}
	if why := a.neverNamed(); why != "" {
		return fault.New(fault.Invalid, "outbound: "+a.host+" can never be reached: "+why, nil)
	}
	if prior && d.proxied && !isLoopback(a.host) {
		return fault.New(fault.Invalid, "outbound: "+a.host+" cannot be reached: HTTP/2 without TLS does not go through outbound.proxy", nil)
	}
	o := a.origin()
	set[o] = set[o] || prior
	if a.port == defaultPort(a.scheme) {
		set[origin{o.scheme, strings.TrimSuffix(o.authority, ":"+a.port)}] = set[o]
	}
	return nil
}

func (a authority) origin() origin { return origin{a.scheme, net.JoinHostPort(a.host, a.port)} }

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// parseAuthority reads a URL's host. Whatever two parsers could read differently is refused rather than interpreted
// numbers other than four decimal ones, trailing dots, zones, anything beyond letters, digits, '-', '_'.
func parseAuthority(scheme, hostport string) (authority, error) {
	if scheme != "http" && scheme != "https" {
		return authority{}, fault.New(fault.Invalid, "outbound: only http and https URLs can be fetched", nil)
	}
	a := authority{scheme: scheme, port: defaultPort(scheme)}
	host, port, hasPort := cutPort(hostport)
	if hasPort {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' || port[0] == '+' {
			return authority{}, fault.New(fault.Invalid, "outbound: the port of a URL is no number from 1 to 65535", nil)
		}
		a.port = port
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return authority{}, fault.New(fault.Invalid, "outbound: the host of a URL is no IPv6 address; zones are not allowed", nil)
		}
		a.addr, a.host = addr, addr.String()
		return a, nil
	}
	a.host = strings.ToLower(host)
	if len(a.host) != len(host) || !isName(a.host) { // some letters of other scripts are small in ASCII
		return authority{}, fault.New(fault.Invalid, "outbound: the host of a URL is not written as a plain name (letters, digits, '-', no dot at its end; other scripts as xn--)", nil)
	}
	if isNumber(a.host[strings.LastIndexByte(a.host, '.')+1:]) {
		addr, err := netip.ParseAddr(a.host)
		if err != nil {
			return authority{}, fault.New(fault.Invalid, "outbound: the host of a URL is an address in another form than four decimal numbers", nil)
		}
		a.addr = addr
	}
	return a, nil
}

func cutPort(hostport string) (host, port string, ok bool) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || i < strings.LastIndexByte(hostport, ']') {
		return hostport, "", false
	}
	return hostport[:i], hostport[i+1:], true
}

func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// isNumber reports whether a host whose last label is this one is read as an IPv4 address by browsers and inet_aton.
func isNumber(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	for _, c := range []byte(digits) {
		if (c < '0' || c > '9') && (!hex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// metadataHosts are names under which clouds serve credentials. Most resolve to addresses that are refused anyway, but
// through a proxy the name is all there is to judge.
var metadataHosts = map[string]bool{
	"metadata": true, "metadata.google.internal": true, "metadata.goog": true,
	"instance-data": true, "instance-data.ec2.internal": true,
	"metadata.azure.internal": true, "metadata.azure.com": true, "metadata.tencentyun.com": true, "metadata.platformequinix.com": true,
}

// neverNamed says why not even the config may name this host; empty where it may.
func (a authority) neverNamed() string {
	if metadataHosts[a.host] {
		return "a cloud's metadata service"
	}
	if a.addr.IsValid() {
		return neverReached(a.addr)
	}
	return ""
}

// privateDomains never lead to a public host (RFC 6761, 6762, 8375; .internal is reserved by ICANN). A name without a
// dot is completed by the resolver's search list.
var privateDomains = []string{".localhost", ".local", ".internal", ".home.arpa"}

// notFindable says why a URL that is not named may not be fetched; empty where it may.
func (a authority) notFindable() string {
	switch {
	case a.scheme != "https":
		return "not in the config, and http is only for what is"
	case a.port != "443":
		return "not in the config, and other ports than 443 are only for what is"
	case a.neverNamed() != "":
		return a.neverNamed()
	case a.addr.IsValid():
		return notPublic(a.addr)
	case !strings.Contains(a.host, "."):
		return "not in the config, and a name without a dot is not public"
	}
	for _, d := range privateDomains {
		if strings.HasSuffix(a.host, d) {
			return "not in the config, and " + d + " is not public"
		}
	}
	return ""
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// metadata are services that hand credentials to whoever asks from inside, where no range of neverRanges has them.
var metadata = []netip.Addr{
	netip.MustParseAddr("100.100.100.200"), // Alibaba
	netip.MustParseAddr("192.0.0.192"),     // Oracle
	netip.MustParseAddr("168.63.129.16"),   // Azure's wire server, which looks public
	netip.MustParseAddr("fd00:ec2::254"),   // AWS: instances
	netip.MustParseAddr("fd00:ec2::23"),    // AWS: pods
	netip.MustParseAddr("fd20:ce::254"),    // Google
	netip.MustParseAddr("fd00:42::42"),     // Scaleway
}

// reserved are the ranges of the IANA special-purpose registry (RFC 6890) that are not globally reachable. IPv6 needs
// fewer: nothing outside of 2000::/3 is public.
var reserved = prefixes("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
	"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")

var (
	globalUnicast = netip.MustParsePrefix("2000::/3")
	thisNetwork   = netip.MustParsePrefix("0.0.0.0/8")
	wellKnownNAT  = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052
	localNAT      = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	compatible    = netip.MustParsePrefix("::/96")          // RFC 4291 s2.5.5.1
	translated    = netip.MustParsePrefix("::ffff:0:0:0/96")
	sixToFour     = netip.MustParsePrefix("2002::/16") // RFC 3056
	teredo        = netip.MustParsePrefix("2001::/32") // RFC 4380
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// neverReached says why an address is reached by neither guard; empty where one may.
func neverReached(addr netip.Addr) string {
	for _, a := range withEmbedded(addr) {
		switch {
		case !a.IsValid() || a.Zone() != "":
			return "no plain address"
		case a.IsUnspecified(), a.Is4() && thisNetwork.Contains(a), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return "the unspecified or broadcast address"
		case a.IsMulticast():
			return "multicast"
		case a.IsLinkLocalUnicast():
			return "link-local, where metadata services are"
		}
		for _, m := range metadata {
			if a == m {
				return "a cloud's metadata service"
			}
		}
	}
	return ""
}

// notPublic says why an address is not one of the public internet; empty where it is.
func notPublic(addr netip.Addr) string {
	if why := neverReached(addr); why != "" {
		return why
	}
	for i, a := range withEmbedded(addr) {
		if i == 0 && wellKnownNAT.Contains(a) {
			continue // how the IPv4 internet looks from an IPv6-only network: what is in it counts
		}
		if !isGlobal(a) {
			return "not in the config, and not public"
		}
	}
	return ""
}

func isGlobal(addr netip.Addr) bool {
	if addr.Is6() && !globalUnicast.Contains(addr) {
		return false
	}
	for _, p := range reserved {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// withEmbedded returns the address and the IPv4 addresses that a translator or tunnel on the way would take out of it.
func withEmbedded(addr netip.Addr) []netip.Addr {
	addr = addr.Unmap()
	all := []netip.Addr{addr}
	if !addr.Is6() || addr.IsUnspecified() || addr.IsLoopback() {
		return all
	}
	b := addr.As16()
	switch {
	case wellKnownNAT.Contains(addr), localNAT.Contains(addr), compatible.Contains(addr), translated.Contains(addr),
		binary.BigEndian.Uint32(b[8:])&^0x02000000 == 0x00005efe: // ISATAP, RFC 5214 s6.1
		all = append(all, lastFour(addr))
	case sixToFour.Contains(addr):
		all = append(all, netip.AddrFrom4([4]byte(b[2:6])))
	case teredo.Contains(addr):
		client := binary.BigEndian.Uint32(b[12:]) ^ 0xffffffff
		all = append(all, netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, client))))
	}
	return all
}

func lastFour(addr netip.Addr) netip.Addr {
	b := addr.As16()
	return netip.AddrFrom4([4]byte(b[12:]))
}

func (a authority) refuse(why string) error { return refuse(a.origin().authority, why) }
