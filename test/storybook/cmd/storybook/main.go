// Command storybook serves every page of the portal in every state, for whoever works on them.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"frontdesk.dev/frontdesk/test/storybook"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "storybook:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "frontdesk-storybook-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory: what stays is the system's to clean
	h, err := storybook.Handler(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("every page in every state: http://%s/\nCtrl-C ends it.\n", l.Addr())
	return (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(l)
}
