package egress_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"

	"frontdesk.dev/frontdesk/internal/egress"
)

// FuzzTarget: where the gate lets a head through, net/http and net/url name the same host, and so does the Host beside it. What they
// read in two ways, or what names two hosts, never gets there: by CONNECT, in absolute form, and in a tunnel to an authority.
func FuzzTarget(f *testing.F) {
	for _, s := range [][2]string{{"up.test:443", "up.test:443"}, {"up.test:443", "up.test"}, {"UP.test.:443", "up.test:443"}, {"up.test:443@evil.test:443", "up.test:443"}, {"[::1]:443", "[::1]"}, {"up.test:0443", "up.test:443"},
		{"up.test:443", "evil.test"}, {"up.test,evil.test:443", "up.test"}, {"[::ffff:1.2.3.4]:443", "1.2.3.4:443"}, {"xn--a:443", "xn--a"}, {"up.test:443#x", "up.test"}, {"up.test:443/x", "up.test"}, {"\u212a.test:443", "k.test:443"}} {
		for _, form := range []byte{0, 1, 2} {
			f.Add(s[0], s[1], form)
		}
	}
	f.Fuzz(func(t *testing.T, target, host string, form byte) {
		if host = strings.Trim(host, " \t"); strings.ContainsAny(target+host, "\r\n") {
			return // another head
		}
		line := map[byte]string{0: "CONNECT " + target, 1: "GET https://" + target + "/x", 2: "GET http://" + target}[form%3]
		passed, err := io.ReadAll(egress.Gate(&reading{src: strings.NewReader(line + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n")}))
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(passed)))
		if err != nil || r.Method == "FRONTDESK-REFUSED" {
			return // net/http refuses more
		}
		scheme := "https"
		if form%3 == 2 {
			scheme = "http"
		}
		ours, err := egress.OriginOf(scheme, host)
		if err != nil || !httpguts.ValidHostHeader(host) {
			t.Fatalf("%q beside Host %q passed: %v", line, host, err)
		}
		named := r.URL
		if form%3 == 0 {
			if named, err = url.Parse("https://" + target); err != nil || named.Path+named.RawQuery+named.Fragment != "" {
				t.Fatalf("%q passed, and net/url reads %v, %v", line, named, err)
			}
		}
		theirs, err := egress.OriginOf(scheme, named.Host)
		if named.User != nil || named.Host == "" || err != nil || theirs != ours && !(form%3 == 0 && sameName(theirs, ours)) {
			t.Fatalf("%q beside Host %q passed: the target is %q for net/url, %s here, and Host %s", line, host, named.Host, theirs, ours)
		}
		if form%3 != 0 && r.Host != named.Host {
			t.Fatalf("%q beside Host %q is %q for net/http", line, host, r.Host)
		}
		if _, _, err := net.SplitHostPort(strings.TrimPrefix(theirs, scheme+"://")); err != nil {
			t.Fatal(err)
		}
	})
}

// sameName: beside CONNECT a Host may lack the port.
func sameName(target, host string) bool {
	return strings.HasSuffix(host, ":443") && target[:strings.LastIndexByte(target, ':')] == strings.TrimSuffix(host, ":443")
}
