//go:build !linux

package sandbox

import "errors"

type kernel struct{}

// Build is only for Linux: other systems have no such walls.
func Build(Setup) (*Cell, error) { return nil, errors.New("servers are hosted on Linux alone") }

// Init is only for Linux.
func Init() {}

// Run is never reached: there is no Cell.
func (c *Cell) Run([]string, []string) error { return nil }

// Terminate is never reached.
func (c *Cell) Terminate() {}

// Kill is never reached.
func (c *Cell) Kill() {}

// Wait is never reached.
func (c *Cell) Wait() error { return nil }

// Done is never reached.
func (c *Cell) Done() <-chan struct{} { return nil }

// Path is never reached.
func (c *Cell) Path(name string) string { return name }

// Pid is never reached.
func (c *Cell) Pid() int { return 0 }
