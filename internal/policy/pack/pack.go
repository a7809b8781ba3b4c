// Package pack holds policies for the common cases, each a commented file to copy and adapt: `frontdesk init` writes
// them beside the config. None is active by itself.
package pack

import "embed"

// Files are the policies, NAME.cedar.
//
//go:embed *.cedar
var Files embed.FS
