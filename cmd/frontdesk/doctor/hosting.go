package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
)

const ImagePrefix = "image "

// images are doctor's words on them.
func images(status map[string]string) (l []finding) {
	for _, key := range slices.Sorted(maps.Keys(status)) {
		ref, ok := strings.CutPrefix(key, ImagePrefix)
		state, _, _ := strings.Cut(status[key], " ")
		switch {
		case !ok:
		case state == string(image.Ready):
			l = append(l, finding{"ok", "image " + ref + ": " + status[key], ""})
		case state == string(image.Fetching):
			l = append(l, finding{"note", "image " + ref + ": " + status[key], "its servers answer when it is here"})
		default:
			l = append(l, finding{"bad", "image " + ref + ": " + status[key], "it is tried again every minute; `frontdesk servers pull NAME` does it now"})
		}
	}
	return l
}

const (
	WallPrefix = "sandbox."
	Stands     = "stands"
)

// walls are doctor's words on the sandbox: what stands, and what some server would not be started without.
func walls(c *config.Config, status map[string]string) (l []finding) {
	var up []string
	for _, m := range sandbox.Measures {
		why := status[WallPrefix+string(m)]
		if why == Stands {
			up = append(up, string(m))
			continue
		}
		if names := c.Requiring(string(m)); len(names) > 0 {
			l = append(l, finding{"bad", fmt.Sprintf("sandbox: %s does not stand here (%s), so %s will not be started", m, why, strings.Join(names, ", ")), "docs/hosting.md says what it needs; `sandbox: {require: [...]}` says which must stand"})
		} else {
			l = append(l, finding{"note", fmt.Sprintf("sandbox: %s does not stand here: %s", m, why), ""})
		}
	}
	if len(up) == 0 {
		return l
	}
	return append([]finding{{"ok", "sandbox of hosted servers: these walls stand here: " + strings.Join(up, ", "), ""}}, l...)
}
